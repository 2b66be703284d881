"""How a trainer is asked, and how it answers; needs nothing but Python.

    python -m benchmarks.trainers.NAME MODEL BATCH_SIZE VARIANT

MODEL is softmax or cnn. The process says `ready` once it has trained for a while; then it reads a number of seconds a
line from standard input, trains about so long, and answers with images a second. An empty line ends it; its last answer
is the most memory that it took, in GB.
"""

import os
import resource
import sys
import time
from collections.abc import Callable

# Long enough for each library's preparations: compilation comes before, in the first call.
_WARM_UP_SECONDS = 1.0

# Trains for about so many seconds; gives the number of steps, all of which have ended.
TrainFor = Callable[[float], int]


def serve(make: Callable[[str, int, str], TrainFor]) -> None:
    """A trainer's process.

    Args:
      make: from model, batch size and variant to what trains.
    """
    _, model, batch_size, variant = sys.argv
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    train_for = make(model, int(batch_size), variant)
    train_for(_WARM_UP_SECONDS)
    print("ready", file=answers)
    for line in sys.stdin:
        if not line.strip():
            break
        started = time.perf_counter()
        steps = train_for(float(line))
        print(steps * int(batch_size) / (time.perf_counter() - started), file=answers)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, file=answers)


def repeat(run_steps: Callable[[], int]) -> TrainFor:
    """Calls what trains a few steps, and gives their number, until the time is over."""

    def train_for(seconds: float) -> int:
        steps, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            steps += run_steps()
        return steps

    return train_for
