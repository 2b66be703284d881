"""Seconds from process start to 97, 98, 99 and 99.5 % test accuracy: our recipes, and published examples of others.

    python -m benchmarks.time_to_accuracy [--rounds=3] [--limit=1800] [--peers_python=.venv-peers/bin/python]
        [--contender=NAME ...]

Each contender is a process that evaluates on the test set after each of its epochs and prints the accuracy; this one
measures the time. A contender ends at 99.5 %, after its last epoch, or at the limit. The time includes imports, reading
the same MNIST files, and evaluations. All users of TensorFlow get the same kernels. No setting is chosen by these test
accuracies. Curves go to runs/benchmarks/time_to_accuracy.json, the table of each threshold to a file of that name.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from absl import app, flags
from matplotlib.figure import Figure

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # so that the file can also be run directly

from benchmarks import report
from checkpointing.kernel_environment import choose_kernels

THRESHOLDS = (0.97, 0.98, 0.99, 0.995)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "measurements of each", lower_bound=1)
_LIMIT = flags.DEFINE_float("limit", 1800.0, "seconds after which a contender is ended")
_PEERS_PYTHON = flags.DEFINE_string("peers_python", None, "Python interpreter with torch and jax")


class Contender(NamedTuple):
    """A program: its module with arguments, and whether it runs in the peers' environment (elsewhere)."""

    command: tuple[str, ...]
    elsewhere: bool = False


CONTENDERS = {
    "ours, cnn_fast": Contender(("ours", "cnn_fast")),
    "ours, cnn_small": Contender(("ours", "cnn_small")),
    "Keras, convnet example": Contender(("keras_convnet",)),
    "PyTorch, basic example": Contender(("torch_main",), elsewhere=True),
    "JAX, classifier example": Contender(("jax_classifier",), elsewhere=True),
}
_WHICH = flags.DEFINE_multi_enum(
    "contender",
    list(CONTENDERS),
    list(CONTENDERS),
    "contender to measure (repeatable); ratios are relative to the first",
)


def course(contender: Contender) -> list[tuple[float, float]]:
    """Run a contender; return (seconds since its start, test accuracy) after each epoch."""
    python = (_PEERS_PYTHON.value if contender.elsewhere else None) or sys.executable
    module, *arguments = contender.command
    command = [python, "-m", f"benchmarks.examples.{module}", *arguments]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    points: list[tuple[float, float]] = []
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        timer = threading.Timer(_LIMIT.value, process.kill)
        timer.start()
        assert process.stdout is not None
        for line in process.stdout:
            with contextlib.suppress(ValueError):  # lines that a library prints
                points.append((time.perf_counter() - started, float(line)))
                if points[-1][1] >= THRESHOLDS[-1]:
                    process.kill()
        timer.cancel()
        assert process.wait() in {0, -signal.SIGKILL}, f"{command} failed"
    assert points, f"{command} printed no accuracy"
    return points


def reached(points: list[tuple[float, float]], threshold: float) -> float:
    """Return the seconds until the accuracy first reached the threshold; infinity if never."""
    return next((seconds for seconds, accuracy in points if accuracy >= threshold), float("inf"))


def _plot(courses: dict[str, list[list[tuple[float, float]]]]) -> Figure:
    """Plot errors by seconds: one line per round, one colour per contender."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for number, (name, rounds) in enumerate(courses.items()):
        for points in rounds:
            seconds, accuracies = zip(*points, strict=True)
            label = name if points is rounds[0] else None
            axes.plot(seconds, [100 * (1 - each) for each in accuracies], "o-", color=f"C{number}", label=label)
    axes.set(xlabel="seconds since process start", ylabel="errors on the test set, %", xscale="log", yscale="log")
    for axis, ticks in ((axes.xaxis, (10, 20, 50, 100, 200, 500, 1000)), (axes.yaxis, (0.5, 1, 2, 5, 10))):
        axis.set_ticks(ticks, [str(tick) for tick in ticks])
        axis.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def main(_: list[str]) -> None:
    """Measure in turn; report one table per threshold, with the contenders that reach it in every round."""
    choose_kernels()  # inherited by the processes
    contenders = {name: CONTENDERS[name] for name in _WHICH.value}
    if not _PEERS_PYTHON.value:
        contenders = {name: each for name, each in contenders.items() if not each.elsewhere}
    courses: dict[str, list[list[tuple[float, float]]]] = {name: [] for name in contenders}
    for _round in range(_ROUNDS.value):
        for name, contender in contenders.items():
            courses[name].append(course(contender))
            print(name, [(round(seconds, 1), accuracy) for seconds, accuracy in courses[name][-1]][-3:], flush=True)
    highest = {name: max(accuracy for points in each for _, accuracy in points) for name, each in courses.items()}
    report.write_tables("time_to_accuracy", courses, _plot(courses))
    for threshold in THRESHOLDS:
        rounds = {name: [reached(points, threshold) for points in each] for name, each in courses.items()}
        finite = {name: figures for name, figures in rounds.items() if max(figures) < float("inf")}
        never = [name for name in rounds if name not in finite]
        if finite:  # ratios are relative to the first that reaches it
            notes = {"not reached in every round": ", ".join(never) or "none", "highest accuracy": highest}
            report.write(f"time_to_{threshold * 100:g}_percent", "seconds", finite, notes)


if __name__ == "__main__":
    app.run(main)
