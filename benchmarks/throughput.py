"""Training throughput: images per second of ours and of other frameworks, with the same model and batch, in one call.

    python -m benchmarks.throughput [--models=softmax,cnn] [--batch_sizes=100] [--rounds=5] [--seconds=4]
        [--peers_python=.venv-peers/bin/python]

Each trainer is a separate process that waits while another is measured. A round measures every trainer once, so that
drift in the machine's speed affects all of them. PyTorch and JAX need a separate environment; without --peers_python
they are left out. Also reports the peak memory of each process, and the CNN's share of the speed of a matrix product.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import app, flags

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # so that the file can also be run directly

from benchmarks import report
from checkpointing.kernel_environment import choose_kernels

_ROUNDS = flags.DEFINE_integer("rounds", 5, "measurements of each", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 4.0, "seconds of each measurement", lower_bound=0.1)
_MODELS = flags.DEFINE_list("models", ["softmax", "cnn"], "models to measure")
_BATCH_SIZES = flags.DEFINE_list("batch_sizes", ["100"], "batch sizes; each gets a table")
_PEERS_PYTHON = flags.DEFINE_string("peers_python", None, "Python interpreter with torch and jax")

# Multiplications and additions an image, forward and backward, counted directly: products and convolutions alone. The
# gradients by a layer's weights and by its inputs take as many each as the layer; the first needs none by its inputs.
_CNN_FLOP = 2 * (3 * (28 * 28 * 25 * 32 + 14 * 14 * 25 * 32 * 64 + 3136 * 1024 + 1024 * 10) - 28 * 28 * 25 * 32)
_PEAK_SIDE = 2048


class Peer(NamedTuple):
    """A trainer: its module, its variant, and whether it runs in the peers' environment (elsewhere)."""

    module: str
    variant: str = "-"
    elsewhere: bool = False


PEERS = {
    "ours": Peer("ours", "native"),
    "ours, avx2": Peer("ours", "avx2"),
    "feed_dict": Peer("feed_dict", "0"),
    "feed_dict, one thread": Peer("feed_dict", "1"),
    "Keras fit": Peer("keras_fit"),
    "PyTorch, eager": Peer("torch_loop", "eager", elsewhere=True),
    "PyTorch, compiled": Peer("torch_loop", "compiled", elsewhere=True),
    "JAX, jit": Peer("jax_loop", "jit", elsewhere=True),
    "JAX, scan": Peer("jax_loop", "scan", elsewhere=True),
}


class Trainer:
    """The process of a trainer, ready to be measured."""

    def __init__(self, peer: Peer, model: str, batch_size: int) -> None:
        """Start the process and wait until it is ready."""
        python = (_PEERS_PYTHON.value if peer.elsewhere else None) or sys.executable
        command = [python, "-m", f"benchmarks.trainers.{peer.module}", model, str(batch_size), peer.variant]
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=environment, text=True, bufsize=1
        )
        self._read_reply("ready")

    def _read_reply(self, expected: str = "") -> str:
        assert self._process.stdout is not None
        line = str(self._process.stdout.readline()).strip()
        assert line, f"{self._process.args!r} ended without a reply"
        assert not expected or line == expected
        return line

    def _request(self, line: str) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        return float(self._read_reply())

    def images_per_second(self) -> float:
        """Measure once."""
        return self._request(str(_SECONDS.value))

    def end(self) -> float:
        """End the process; return its peak memory in GB."""
        memory = self._request("")
        self._process.wait()
        return round(memory, 2)


def peak() -> float:
    """Measure the floating point operations per second of one large float32 product on all cores."""
    matrix = np.random.default_rng(0).normal(size=(_PEAK_SIDE, _PEAK_SIDE)).astype(np.float32)
    started = time.perf_counter()
    matrix @ matrix
    return 2 * float(_PEAK_SIDE) ** 3 / (time.perf_counter() - started)


def measure(model: str, batch_size: int) -> None:
    """Measure all peers on one model, and report."""
    peers = {name: peer for name, peer in PEERS.items() if _PEERS_PYTHON.value or not peer.elsewhere}
    trainers = {name: Trainer(peer, model, batch_size) for name, peer in peers.items()}
    rounds: dict[str, list[float]] = {name: [] for name in trainers}
    peaks = []
    for _ in range(_ROUNDS.value):
        peaks.append(max(peak() for _ in range(3)))
        for name, trainer in trainers.items():
            rounds[name].append(trainer.images_per_second())
    notes: dict[str, object] = {
        "batch size": batch_size,
        "peak memory, GB": {name: trainer.end() for name, trainer in trainers.items()},
        "matrix product, GFLOP/s": [round(each / 1e9, 1) for each in peaks],
    }
    if model == "cnn":
        shares = [rate * _CNN_FLOP / each for rate, each in zip(rounds["ours"], peaks, strict=True)]
        notes["ours, share of the matrix product's speed"] = [round(share, 3) for share in shares]
    report.write(f"throughput_{model}_{batch_size}", "images/s", rounds, notes)


def main(_: list[str]) -> None:
    """Measure the models at each batch size."""
    choose_kernels()  # inherited by the processes: all users of TensorFlow get the same kernels
    for model in _MODELS.value:
        for batch_size in map(int, _BATCH_SIZES.value):
            measure(model, batch_size)


if __name__ == "__main__":
    app.run(main)
