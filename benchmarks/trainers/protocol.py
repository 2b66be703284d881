"""Protocol of a trainer process; uses only the standard library.

    python -m benchmarks.trainers.NAME MODEL BATCH_SIZE VARIANT

MODEL is softmax or cnn. The process writes `ready` after a warm-up. Then it reads a number of seconds per line from
standard input, trains for about that time, and writes images per second. After an empty line it writes its peak memory
in GB, and ends.
"""

import os
import resource
import sys
import time
from collections.abc import Callable

# Long enough for each library's initialization; compilation happens before, in the first call.
_WARM_UP_SECONDS = 1.0

# Trains for about this number of seconds; returns the number of completed steps.
TrainFor = Callable[[float], int]


def serve(make: Callable[[str, int, str], TrainFor]) -> None:
    """Run a trainer's process.

    Args:
      make: maps model, batch size and variant to a training function.
    """
    _, model, batch_size, variant = sys.argv
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # lines that a library prints go to stderr
    train_for = make(model, int(batch_size), variant)
    train_for(_WARM_UP_SECONDS)
    print("ready", file=replies)
    for line in sys.stdin:
        if not line.strip():
            break
        started = time.perf_counter()
        steps = train_for(float(line))
        print(steps * int(batch_size) / (time.perf_counter() - started), file=replies)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, file=replies)


def repeat(run_steps: Callable[[], int]) -> TrainFor:
    """Return a function that calls `run_steps` (trains some steps, returns their number) until the time is over."""

    def train_for(seconds: float) -> int:
        steps, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            steps += run_steps()
        return steps

    return train_for
