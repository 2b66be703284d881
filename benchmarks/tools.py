"""Time and memory of `python -m checkpointing`: list, verify and prune on many checkpoints, show on a large one.

    python -m benchmarks.tools [--checkpoints=1000] [--gigabytes=2] [--rounds=5]

many   a softmax run that saves after every step: `list`, `verify --all` and `prune --dry_run`, compared with hashing
       the same bytes with the same library.
large  a checkpoint of 40 MB tensors: peak memory of `show`, for one tensor and for all, compared with `--help` and
       with TensorFlow reading one tensor.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from absl import app, flags
from tabulate import tabulate

ROOT = Path(__file__).parent.parent
_CHECKPOINTS = flags.DEFINE_integer("checkpoints", 1000, "number of checkpoints", lower_bound=1)
_GIGABYTES = flags.DEFINE_float("gigabytes", 2.0, "size of the large checkpoint, GB")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "measurements of each", lower_bound=1)

_HASH = """
import hashlib, pathlib, sys
for path in pathlib.Path(sys.argv[1]).glob("model.ckpt-*"):
    if path.suffix != ".json":
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")
"""
_WRITE = """
import sys, tensorflow as tf
names = [f"layer{number}/weights" for number in range(int(sys.argv[2]))]
tensors = [tf.random.normal([10, 1000, 1000]) for _ in names]
tf.raw_ops.SaveV2(prefix=sys.argv[1], tensor_names=names, shape_and_slices=[""] * len(names), tensors=tensors)
"""
_READ = """
import sys, tensorflow as tf
tf.train.load_checkpoint(sys.argv[1]).get_tensor("layer1/weights").mean()
"""


class Measured(NamedTuple):
    """Time and peak memory of a command."""

    seconds: float
    peak_mb: float


def main(argv: list[str]) -> None:
    """Measure and print."""
    del argv
    with tempfile.TemporaryDirectory() as directory:
        _many(Path(directory) / "run")
        _large(Path(directory) / "large")


def _many(train_dir: Path) -> None:
    steps = _CHECKPOINTS.value
    flags_of_run = [f"--train_steps={steps}", "--save_every_steps=1", "--max_to_keep=0", "--evaluate_every_steps=0"]
    _run([str(ROOT / "train_softmax.py"), f"--train_dir={train_dir}", *flags_of_run])
    commands = {
        "hashing the bytes": ["-c", _HASH, str(train_dir)],
        "list": ["-m", "checkpointing", "list", str(train_dir)],
        "verify --all": ["-m", "checkpointing", "verify", str(train_dir), "--all"],
        "prune --dry_run": ["-m", "checkpointing", "prune", str(train_dir), "--max_to_keep=5", "--dry_run"],
    }
    print(f"{steps} checkpoints")
    _report(commands)


def _large(prefix: Path) -> None:
    tensors = round(_GIGABYTES.value * 25)
    _run(["-c", _WRITE, str(prefix), str(tensors)])
    commands = {
        "--help": ["-m", "checkpointing", "--help"],
        "show": ["-m", "checkpointing", "show", str(prefix)],
        "show --tensor": ["-m", "checkpointing", "show", str(prefix), "--tensor", "layer1/weights"],
        "show --stats, all tensors": ["-m", "checkpointing", "show", str(prefix), "--stats"],
        "verify": ["-m", "checkpointing", "verify", str(prefix)],
        "TensorFlow, one tensor": ["-c", _READ, str(prefix)],
    }
    print(f"\n{tensors} tensors of 40 MB")
    _report(commands)


def _report(commands: dict[str, list[str]]) -> None:
    """Run each command in turn, and print medians; the others are compared with the first."""
    rounds = [{name: _run(command) for name, command in commands.items()} for _ in range(_ROUNDS.value)]
    first = next(iter(commands))
    rows = [
        {
            "command": name,
            "seconds": statistics.median(each[name].seconds for each in rounds),
            f"more than {first}": statistics.median(each[name].seconds - each[first].seconds for each in rounds),
            "peak memory, MB": statistics.median(each[name].peak_mb for each in rounds),
        }
        for name in commands
    ]
    print(tabulate(rows, headers="keys", floatfmt=",.2f"))


def _run(arguments: list[str]) -> Measured:
    started = time.perf_counter()
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise RuntimeError(f"{' '.join(arguments)}: exit status {process.returncode}")
    return Measured(time.perf_counter() - started, usage.ru_maxrss / 1024)


if __name__ == "__main__":
    app.run(main)
