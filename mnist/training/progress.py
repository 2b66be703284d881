"""Progress of training: a bar on a terminal; otherwise a log line every few seconds."""

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

_SECONDS_BETWEEN_LINES = 5.0

# Fits into 80 columns.
_BAR = "{percentage:3.0f}%|{bar}| {n_fmt} {remaining} left{postfix}"

_log = logging.getLogger(__name__)


class Progress:
    """Context manager that shows the progress of training."""

    def __init__(self, train_steps: int, step: int, clock: Callable[[], float] = time.perf_counter) -> None:
        """Start at `step` of `train_steps`; `clock` returns seconds, tests pass their own."""
        self._train_steps = train_steps
        self._first_step = step
        self._clock = clock
        self._started = clock()
        self._logged_at = -math.inf
        self._figures = dict.fromkeys(("loss", "validation", "saved", "speed"), "")
        self._context = ExitStack()
        self._bar: Any = None

    def __enter__(self) -> Self:
        """Open the bar if standard error is a terminal and level INFO is logged (not with --quiet)."""
        if sys.stderr.isatty() and _log.isEnabledFor(logging.INFO):
            self._context.enter_context(logging_redirect_tqdm())
            self._bar = self._context.enter_context(
                tqdm(total=self._train_steps, initial=self._first_step, bar_format=_BAR, dynamic_ncols=True)
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the bar."""
        self._context.close()

    def advance(self, step: int) -> None:
        """Move the bar to `step`."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def saved(self, step: int | None) -> None:
        """Show on the bar the step of the newest checkpoint. Without a bar, the save itself is logged elsewhere."""
        if self._bar is not None and step is not None:
            self._show_on_bar(saved=f"saved {step:,}")

    def show(self, record: dict[str, Any]) -> None:
        """Show the record of a logged step on the bar.

        Without a bar, log it as a line if the previous line is seconds old, or if the record is the first, the last or
        one with a validation accuracy.
        """
        figures = {"loss": f"loss {record['loss']:.4f}"}
        if "validation_accuracy" in record:
            figures["validation"] = f"validation {record['validation_accuracy']:.4f}"
        rate = f"{record['images_per_second']:,.0f}"
        if self._bar is not None:
            self._show_on_bar(**figures, speed=f"{rate}/s")
            return
        step, now = record["step"], self._clock()
        important = "validation" in figures or step == self._train_steps
        if important or now - self._logged_at >= _SECONDS_BETWEEN_LINES:
            self._logged_at = now
            line = "  ".join([*figures.values(), f"{rate} images/s"])
            _log.info("step %d/%d  %s  %s left", step, self._train_steps, line, self._time_left(step))

    def _show_on_bar(self, **figures: str) -> None:
        """Replace these figures and keep the others; drawn when the bar next moves."""
        self._figures |= figures
        self._bar.set_postfix_str("  ".join(filter(None, self._figures.values())), refresh=False)

    def _time_left(self, step: int) -> str:
        """Estimate the time left from the mean time per step, evaluations and saves included."""
        seconds_per_step = (self._clock() - self._started) / (step - self._first_step)
        return str(tqdm.format_interval(seconds_per_step * (self._train_steps - step)))
