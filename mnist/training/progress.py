"""Training as a person sees it: a bar on a terminal; elsewhere a log line every few seconds."""

import logging
import math
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

# A log that somebody reads later; a bar moves all the time.
_SECONDS_BETWEEN_LINES = 5.0

# What 80 columns have room for.
_BAR = "{percentage:3.0f}%|{bar}| {n_fmt} {remaining} left{postfix}"

_log = logging.getLogger(__name__)


class Progress:
    """A context in which training reports how far it is."""

    def __init__(self, train_steps: int, step: int, clock: Callable[[], float] = time.perf_counter) -> None:
        """Starts at `step` of `train_steps`."""
        self._train_steps = train_steps
        self._first_step = step
        self._clock = clock
        self._started = clock()
        self._told_at = -math.inf
        self._figures = dict.fromkeys(("loss", "validation", "saved", "speed"), "")
        self._context = ExitStack()
        self._bar: Any = None

    def __enter__(self) -> Self:
        """Opens the bar where standard error is a terminal, and somebody wants to be told."""
        if sys.stderr.isatty() and _log.isEnabledFor(logging.INFO):
            self._context.enter_context(logging_redirect_tqdm())
            self._bar = self._context.enter_context(
                tqdm(total=self._train_steps, initial=self._first_step, bar_format=_BAR, dynamic_ncols=True)
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the bar."""
        self._context.close()

    def advance(self, step: int) -> None:
        """Moves the bar."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def saved(self, step: int | None) -> None:
        """Shows on the bar from which step a run would go on now; a log has a line of the save itself."""
        if self._bar is not None and step is not None:
            self._show_on_bar(saved=f"saved {step:,}")

    def show(self, record: dict[str, Any]) -> None:
        """Shows the record of a logged step beside the bar.

        Without a bar it is a line of its own, if the last one was seconds ago, or if the record is one of few: the
        first, the last, one with a validation accuracy.
        """
        figures = {"loss": f"loss {record['loss']:.4f}"}
        if "validation_accuracy" in record:
            figures["validation"] = f"validation {record['validation_accuracy']:.4f}"
        rate = f"{record['images_per_second']:,.0f}"
        if self._bar is not None:
            self._show_on_bar(**figures, speed=f"{rate}/s")
            return
        step, now = record["step"], self._clock()
        rare = "validation" in figures or step == self._train_steps
        if rare or now - self._told_at >= _SECONDS_BETWEEN_LINES:
            self._told_at = now
            told = "  ".join([*figures.values(), f"{rate} images/s"])
            _log.info("step %d/%d  %s  %s left", step, self._train_steps, told, self._time_left(step))

    def _show_on_bar(self, **figures: str) -> None:
        """What is not new stays: a validation is true until the next one. Drawn when the bar next moves."""
        self._figures |= figures
        self._bar.set_postfix_str("  ".join(filter(None, self._figures.values())), refresh=False)

    def _time_left(self, step: int) -> str:
        """As the run has gone so far, evaluations and saves included."""
        seconds_a_step = (self._clock() - self._started) / (step - self._first_step)
        return str(tqdm.format_interval(seconds_a_step * (self._train_steps - step)))
