"""Seconds from process start to 97, 98, 99 and 99.5 % on the test set: our recipes, and others' examples as published.

    python -m benchmarks.time_to_accuracy [--rounds=3] [--limit=1800] [--peers_python=.venv-peers/bin/python]
        [--contender=NAME ...]

Each contender is a process that judges itself on the test set after each of its epochs, and prints what comes out; this
one holds the watch. It is ended once it has reached 99.5 %, by itself after its last epoch, or at the limit. Judging
counts, as does importing the library; reading the same MNIST files, too. All that use TensorFlow use the same kernels.
Nothing is chosen by these test accuracies. The courses go to runs/benchmarks/time_to_accuracy.json, a table a threshold
to files of its own.
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
sys.path.insert(0, str(ROOT))  # so that the file itself can be run, too

from benchmarks import report
from checkpointing.tf_import import choose_kernels

THRESHOLDS = (0.97, 0.98, 0.99, 0.995)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "how often each is measured", lower_bound=1)
_LIMIT = flags.DEFINE_float("limit", 1800.0, "seconds after which a contender is ended")
_PEERS_PYTHON = flags.DEFINE_string("peers_python", None, "Python of the environment with torch and jax")


class Contender(NamedTuple):
    """A program: its module with arguments. elsewhere: in the peers' environment."""

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
    "contender", list(CONTENDERS), list(CONTENDERS), "which to measure, once for each; ratios are taken to the first"
)


def course(contender: Contender) -> list[tuple[float, float]]:
    """Runs a contender; gives seconds since its start, and the test accuracy then."""
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
            with contextlib.suppress(ValueError):  # whatever a library prints is no accuracy
                points.append((time.perf_counter() - started, float(line)))
                if points[-1][1] >= THRESHOLDS[-1]:
                    process.kill()
        timer.cancel()
        assert process.wait() in {0, -signal.SIGKILL}, f"{command} failed"
    assert points, f"{command} never judged itself"
    return points


def reached(points: list[tuple[float, float]], threshold: float) -> float:
    """When it was first there; infinity for never."""
    return next((seconds for seconds, accuracy in points if accuracy >= threshold), float("inf"))


def _plot(courses: dict[str, list[list[tuple[float, float]]]]) -> Figure:
    """Errors by seconds, a line a round, a colour a contender."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for number, (name, rounds) in enumerate(courses.items()):
        for points in rounds:
            seconds, accuracies = zip(*points, strict=True)
            label = name if points is rounds[0] else None
            axes.plot(seconds, [100 * (1 - each) for each in accuracies], "o-", color=f"C{number}", label=label)
    axes.set(xlabel="seconds since the process's start", ylabel="errors on the test set, %", xscale="log", yscale="log")
    for axis, ticks in ((axes.xaxis, (10, 20, 50, 100, 200, 500, 1000)), (axes.yaxis, (0.5, 1, 2, 5, 10))):
        axis.set_ticks(ticks, [str(tick) for tick in ticks])
        axis.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def main(_: list[str]) -> None:
    """Measures in turn, and reports a table a threshold, of those that reach it in every round."""
    choose_kernels()  # the processes inherit it
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
        if finite:  # ratios are taken to the first that gets there
            notes = {"not reached in every round": ", ".join(never) or "by none", "highest accuracy": highest}
            report.write(f"time_to_{threshold * 100:g}_percent", "seconds", finite, notes)


if __name__ == "__main__":
    app.run(main)
