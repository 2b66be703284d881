"""Scaling with the number of images, the size of the model, and the number of checkpoints.

    python -m benchmarks.scaling [--images=10000,100000,1000000,10000000] [--checkpoints=1000]

images       the softmax on n images (MNIST's, repeated): seconds to build and fill the graph, images per second, and
             peak memory with and without twice the images' size. For comparison, the time of a NumPy copy of the
             images, because some machines allocate memory slowly.
models       each network: parameters, images per second, time and bytes of a save.
checkpoints  one softmax run that saves after each step: time of a save and memory, for each tenth of the saves.

Each size runs in a separate process, so that its peak memory is measured alone.
"""

import dataclasses
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

from absl import app, flags
from matplotlib.figure import Figure
from tabulate import tabulate

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # so that the file can also be run directly

from benchmarks import report

_IMAGES = flags.DEFINE_list("images", ["10000", "100000", "1000000", "10000000"], "numbers of images")
_CHECKPOINTS = flags.DEFINE_integer("checkpoints", 1000, "number of saves in the run", lower_bound=10)
_CASE = flags.DEFINE_list("case", None, "measure only this case and print it as JSON (used by the benchmark itself)")

_SECONDS = 5.0
_BATCH = 100
NETWORKS = ("softmax", "small", "deep", "one_epoch", "tutorial")

Record = dict[str, Any]


def images_case(count: int) -> Record:
    """Measure the softmax on a number of images."""
    from checkpointing.tf_import import tensorflow_import  # noqa: PLC0415 - the parent process does not need it

    data = _images(count)
    with tensorflow_import():
        from trainer import train  # noqa: F401, PLC0415 - import time is benchmarks.startup's
    began = time.perf_counter()
    with _Session("softmax", data) as session:
        filled = time.perf_counter() - began
        rate = session.images_per_second()
    images_gb = data.images.nbytes / 1e9
    return {
        "images": count,
        "images, GB": images_gb,
        "seconds to build and fill": filled,
        "images/s": rate,
        "peak memory, GB": _memory_gb(),
        "peak memory without twice the images, GB": _memory_gb() - 2 * images_gb,
    }


def copy_case(count: int) -> float:
    """Measure the seconds of a NumPy copy of a number of images."""
    images = _images(count).images
    began = time.perf_counter()
    images.copy()
    return time.perf_counter() - began


def _images(count: int) -> Any:  # noqa: ANN401 - a Split, from a module imported late
    """Return a Split with this number of images: MNIST's, repeated."""
    import numpy as np  # noqa: PLC0415 - as above

    from mnist.input import dataset  # noqa: PLC0415

    train = dataset.load(None, 0).train
    indices = np.arange(count) % len(train.labels)
    return dataset.Split(train.images[indices], train.labels[indices])


def model_case(name: str) -> Record:
    """Measure the training speed of a network, and the time and size of a save."""
    from mnist.input import dataset  # noqa: PLC0415 - as above

    with _Session(name, dataset.load(None, 5000).train) as session:
        rate = session.images_per_second()
        parameters = sum(variable.shape.num_elements() for variable in session.graph.trained)
        with tempfile.TemporaryDirectory() as directory:
            saves = session.seconds_a_save(Path(directory) / "run", 5)
            size = sum(path.stat().st_size for path in Path(directory).glob(f"run/model.ckpt-{session.step()}.data-*"))
    return {
        "network": name,
        "parameters": parameters,
        "images/s": rate,
        "save, ms": 1000 * statistics.median(saves),
        "data of a save, MB": size / 1e6,
        "peak memory, GB": _memory_gb(),
    }


def checkpoints_case(count: int) -> list[Record]:
    """Measure a run that saves after each step, in the foreground."""
    from mnist.input import dataset  # noqa: PLC0415 - as above

    rows = []
    with _Session("softmax", dataset.load(None, 5000).train) as session, tempfile.TemporaryDirectory() as directory:
        for tenth, saves in enumerate(session.tenths_of_saves(Path(directory) / "run", count), start=1):
            files = sum(1 for _ in Path(directory).glob("run/*"))
            rows.append(
                {
                    "saves": tenth * (count // 10),
                    "save, ms": 1000 * statistics.median(saves),
                    "files": files,
                    "peak memory, GB": _memory_gb(),
                }
            )
    return rows


class _Session:
    """A session with a training graph and its data."""

    def __init__(self, name: str, data: Any) -> None:  # noqa: ANN401 - a Split, from a module imported late
        from checkpointing.tf_import import tensorflow_import  # noqa: PLC0415 - as above

        with tensorflow_import():
            from mnist.model import training_graph  # noqa: PLC0415
            from trainer import train  # noqa: PLC0415
        import configs  # noqa: PLC0415
        import train_cnn  # noqa: PLC0415
        import train_softmax  # noqa: PLC0415
        from configs.settings import CnnSettings  # noqa: PLC0415

        program = train_softmax if name == "softmax" else train_cnn
        settings = configs.load("softmax" if name == "softmax" else "cnn")
        if isinstance(settings, CnnSettings):
            settings = dataclasses.replace(settings, architecture=name)
        settings = dataclasses.replace(settings, batch_size=_BATCH, train_steps=10**9)
        self.graph = train.build_graph(settings, partial(program.make_model, settings), data)
        self._session = training_graph.open_session(self.graph.graph, settings.threads)
        training_graph.initialize(self._session, self.graph, data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def step(self) -> int:
        """Return the number of updates applied."""
        return int(self._session.run(self.graph.step))

    def run(self, steps: int) -> None:
        """Apply a number of updates."""
        self._session.run(self.graph.run_steps, {self.graph.steps_per_execution: steps})

    def images_per_second(self) -> float:
        """Measure over some seconds, in calls of about 0.3 s, after a warm-up call."""
        self.run(1)
        began = time.perf_counter()
        self.run(3)
        steps = max(1, int(0.3 / (time.perf_counter() - began)))
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < _SECONDS:
            self.run(steps)
            done += steps
        return done * _BATCH / (time.perf_counter() - began)

    def seconds_a_save(self, directory: Path, count: int) -> list[float]:
        """Return the seconds of each save, made after a step each, retention included."""
        return [each for tenth in self.tenths_of_saves(directory, count, parts=1) for each in tenth]

    def tenths_of_saves(self, directory: Path, count: int, parts: int = 10) -> Any:  # noqa: ANN401 - an iterator of lists
        """Yield lists with the seconds of each save, one list per part of the run."""
        from checkpointing.protocol import resume  # noqa: PLC0415 - as above
        from checkpointing.protocol.manager import CheckpointManager  # noqa: PLC0415

        start = resume.open_train_dir(directory, {"model": "any"})
        with CheckpointManager(
            self.graph.graph, start, variables=self.graph.saved, step=self.graph.step, save_in_background=False
        ) as manager:
            for _part in range(parts):
                seconds = []
                for _save in range(count // parts):
                    self.run(1)
                    began = time.perf_counter()
                    manager.save(self._session)
                    seconds.append(time.perf_counter() - began)
                yield seconds


def _memory_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


CASES: dict[str, Callable[[str], Any]] = {
    "images": lambda text: images_case(int(text)),
    "copy": lambda text: copy_case(int(text)),
    "model": model_case,
    "checkpoints": lambda text: checkpoints_case(int(text)),
}


def in_a_process(case: str, argument: object) -> Any:  # noqa: ANN401 - what the case gives
    """Measure a case in a separate process."""
    command = [sys.executable, "-m", "benchmarks.scaling", f"--case={case},{argument}"]
    ended = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return json.loads(ended.stdout.splitlines()[-1])


def main(_: list[str]) -> None:
    """Measure all cases, and report."""
    if _CASE.value:
        case, argument = _CASE.value
        print(json.dumps(CASES[case](argument)))
        return
    tables = {
        "images": [
            {**in_a_process("images", count), "seconds to copy the images": in_a_process("copy", count)}
            for count in _IMAGES.value
        ],
        "models": [in_a_process("model", name) for name in NETWORKS],
        "checkpoints": in_a_process("checkpoints", _CHECKPOINTS.value),
    }
    for name, rows in tables.items():
        print(f"\n{name}\n{tabulate(rows, headers='keys', floatfmt=',.4g')}")
    report.write_tables("scaling", tables, _plot(tables))


def _plot(tables: dict[str, list[Record]]) -> Figure:
    """Plot memory by size of the images, and time of a save by number of saves."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    images = [row["images, GB"] for row in tables["images"]]
    left.plot(images, [row["peak memory, GB"] for row in tables["images"]], "o-")
    left.set(xlabel="images, GB", ylabel="peak memory, GB", xlim=(0, None), ylim=(0, None))
    right.plot(
        [row["saves"] for row in tables["checkpoints"]], [row["save, ms"] for row in tables["checkpoints"]], "o-"
    )
    right.set(xlabel="saves made", ylabel="save, ms", xlim=(0, None), ylim=(0, None))
    return figure


if __name__ == "__main__":
    app.run(main)
