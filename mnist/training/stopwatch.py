"""Where the time goes: seconds added up under a name.

    stopwatch = Stopwatch()
    with stopwatch("train"):
        ...
    stopwatch.seconds["train"], stopwatch.total()

The clock can be another one, so that tests never wait.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up seconds of wall-clock time by name; entering one name inside another counts for both."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Starts the total; tests pass a clock of their own."""
        self._clock = clock
        self._started = clock()
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Adds the time that the block takes, also when it raises."""
        started = self._clock()
        try:
            yield
        finally:
            self.seconds[name] += self._clock() - started

    def total(self) -> float:
        """Seconds since this stopwatch was made."""
        return self._clock() - self._started
