"""SIGTERM and SIGINT ask a run to stop; it does so at the next point where its state is whole.

    with listen_for_stop() as stop:
        ...
        stop.check()          # raises Interrupted once a signal has come
        with stop.interruptible():  # raises it wherever the block is, for nothing in it is worth saving
            ...

A second signal ends the process at once. What a signal does before, starting.py says.
"""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from checkpointing.runs import starting

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

STOPPED = starting.STOPPED

_log = logging.getLogger(__name__)


class StopRequested(SystemExit):
    """The run was asked to stop; where nobody has anything to save, the process ends with status 75."""

    def __init__(self, signal_name: str) -> None:
        """The text is the signal's name."""
        super().__init__(STOPPED)
        self.signal_name = signal_name

    def __str__(self) -> str:
        """The signal's name."""
        return self.signal_name


class StopSignal:
    """Whether a signal has come."""

    def __init__(self) -> None:
        """None has."""
        self.signal: signal.Signals | None = None
        self._at_once = False

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside the block a signal raises Interrupted in the middle of whatever goes on."""
        before, self._at_once = self._at_once, True
        try:
            self.check()  # after that: a signal between the two would be heard at the end only
            yield
        except StopRequested as interrupted:
            _log.info("stopped by %s: %s", interrupted, starting.NOTHING_LOST)
            raise
        finally:
            self._at_once = before
        self.check()

    def check(self) -> None:
        """Raises Interrupted where a signal has come."""
        if self.signal is not None:
            raise StopRequested(self.signal.name)

    def hear(self, number: int, _frame: FrameType | None) -> None:
        """Takes a signal; a second one ends the process at once, as it would have without us."""
        if self.signal is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.signal = signal.Signals(number)
        if self._at_once:
            self.check()


@contextmanager
def listen_for_stop() -> Iterator[StopSignal]:
    """Hears SIGTERM and SIGINT inside the block; afterwards they do again what they did before."""
    request = StopSignal()
    before = {number: signal.signal(number, request.hear) for number in _SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
