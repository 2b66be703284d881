"""Add up wall-clock seconds by name.

    stopwatch = Stopwatch()
    with stopwatch("train"):
        ...
    stopwatch.seconds["train"], stopwatch.total()

Blocks may be nested: their seconds count for each name.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up seconds by name; time inside nested blocks counts for all their names."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Start the total; `clock` returns seconds, tests pass their own."""
        self._clock = clock
        self._started = clock()
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the duration of the block, also if it raises."""
        started = self._clock()
        try:
            yield
        finally:
            self.seconds[name] += self._clock() - started

    def total(self) -> float:
        """Return the seconds since this stopwatch was created."""
        return self._clock() - self._started
