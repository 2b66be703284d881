"""SIGTERM and SIGINT ask a run to stop; it does so at the next point where its state is whole.

    with listen_for_stop() as stop:
        ...
        stop.check()   # raises Interrupted once a signal has come

A second signal ends the process at once.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(Exception):  # noqa: N818 - no error: somebody asked the run to stop
    """The run was asked to stop; the message is the signal's name."""


class StopRequest:
    """Whether a signal has come."""

    def __init__(self) -> None:
        """None has."""
        self.signal: signal.Signals | None = None

    def check(self) -> None:
        """Raises Interrupted where a signal has come."""
        if self.signal is not None:
            raise Interrupted(self.signal.name)

    def hear(self, number: int, _frame: FrameType | None) -> None:
        """Takes a signal; a second one ends the process at once, as it would have without us."""
        if self.signal is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.signal = signal.Signals(number)


@contextmanager
def listen_for_stop() -> Iterator[StopRequest]:
    """Hears SIGTERM and SIGINT inside the block; afterwards they do again what they did before."""
    request = StopRequest()
    before = {number: signal.signal(number, request.hear) for number in _SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
