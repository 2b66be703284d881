"""Seconds from process start to the first training step, against a bare `import tensorflow`; and to the help.

python -m benchmarks.startup [--rounds=7]
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial

from absl import app, flags

from benchmarks import report

_ROUNDS = flags.DEFINE_integer("rounds", 7, "how often each is measured", lower_bound=1)


def seconds_to_end(*command: str) -> float:
    """Runs a command to its end."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return time.perf_counter() - started


def seconds_to_first_step() -> float:
    """Starts a fresh softmax run and waits for the line that tells of its first step."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "train_softmax.py", f"--train_dir={directory}/run", "--log_every_steps=1"]
        started = time.perf_counter()
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
            assert process.stderr is not None
            while "step 1/" not in (line := process.stderr.readline()):
                assert line, "the run ended before its first step"
            seconds = time.perf_counter() - started
            process.kill()
    return seconds


def main(_: list[str]) -> None:
    """Measures in turn, so that a machine whose speed drifts slows all alike."""
    measured: dict[str, Callable[[], float]] = {
        "first training step": seconds_to_first_step,
        "import tensorflow": partial(seconds_to_end, "-c", "import tensorflow"),
        "--help": partial(seconds_to_end, "train_softmax.py", "--help"),
    }
    rounds: dict[str, list[float]] = {name: [] for name in measured}
    for _round in range(_ROUNDS.value):
        for name, measure in measured.items():
            rounds[name].append(measure())
    report.write("startup", "seconds", rounds, {})


if __name__ == "__main__":
    app.run(main)
