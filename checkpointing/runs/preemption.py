"""Preemption: SIGTERM and SIGINT stop a run at the next step boundary, where its state can be saved.

    with listen_for_stop() as stop:
        ...
        stop.check()                # raises StopRequested after a signal
        with stop.interruptible():  # a signal raises StopRequested anywhere in the block: nothing in it needs saving
            ...

A second signal ends the process at once. `starting` handles signals before `listen_for_stop`.
"""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from checkpointing.runs import starting

SIGNALS = (signal.SIGTERM, signal.SIGINT)
STOPPED = starting.STOPPED

_log = logging.getLogger(__name__)


class StopRequested(SystemExit):
    """A signal has requested that the run stop. If nothing catches it, the process exits with status 75."""

    def __init__(self, signal_name: str) -> None:
        """Take the signal's name, which is also the exception's text."""
        super().__init__(STOPPED)
        self.signal_name = signal_name

    def __str__(self) -> str:
        """Return the signal's name."""
        return self.signal_name


class StopSignal:
    """The signal that has requested a stop, if any.

    signal: None until one arrives.
    """

    def __init__(self) -> None:
        """Start without a signal."""
        self.signal: signal.Signals | None = None
        self._is_interruptible = False

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal raise StopRequested anywhere in the block."""
        before, self._is_interruptible = self._is_interruptible, True
        try:
            self.check()  # after the assignment: a signal between the two would be noticed only at the end
            yield
        finally:
            self._is_interruptible = before
        self.check()

    def check(self) -> None:
        """Raise StopRequested if a signal has arrived."""
        if self.signal is not None:
            raise StopRequested(self.signal.name)

    def handle_signal(self, number: int, _frame: FrameType | None) -> None:
        """Record a signal; the second one gets its default action, which ends the process."""
        if self.signal is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.signal = signal.Signals(number)
        if self._is_interruptible:
            self.check()


@contextmanager
def listen_for_stop() -> Iterator[StopSignal]:
    """Handle SIGTERM and SIGINT as stop requests inside the block. One that leaves it is logged: nothing was saved."""
    stop = StopSignal()
    with handle_signals(stop.handle_signal):
        try:
            yield stop
        except StopRequested as request:
            _log.info("stopped by %s: %s", request, starting.NOTHING_TO_SAVE)
            raise


@contextmanager
def handle_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Install a handler for SIGTERM and SIGINT; restore the previous handlers after the block."""
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
