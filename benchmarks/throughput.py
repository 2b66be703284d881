"""Images a second of training: ours against what people use instead, same model, same batch, same call.

    python -m benchmarks.throughput [--models=softmax,cnn] [--batch_sizes=100] [--rounds=5] [--seconds=4]
        [--peers_python=.venv-peers/bin/python]

Each trainer is a process of its own that waits while another is measured; a round measures each in turn, so that a
machine whose speed drifts slows them alike. PyTorch and JAX live in an environment of their own; without --peers_python
they are left out. Also says how much memory each process took at its highest, and how much of the machine's matrix
products the CNN makes use of.
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
sys.path.insert(0, str(ROOT))  # so that the file itself can be run, too

from benchmarks import report
from checkpointing.tf_import import choose_kernels

_ROUNDS = flags.DEFINE_integer("rounds", 5, "how often each is measured", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 4.0, "how long each is measured a round", lower_bound=0.1)
_MODELS = flags.DEFINE_list("models", ["softmax", "cnn"], "which to measure")
_BATCH_SIZES = flags.DEFINE_list("batch_sizes", ["100"], "images an update, for each a table")
_PEERS_PYTHON = flags.DEFINE_string("peers_python", None, "Python of the environment with torch and jax")

# Multiplications and additions an image, forward and backward, counted directly: products and convolutions alone. The
# gradients by a layer's weights and by its inputs take as many each as the layer; the first needs none by its inputs.
_CNN_FLOP = 2 * (3 * (28 * 28 * 25 * 32 + 14 * 14 * 25 * 32 * 64 + 3136 * 1024 + 1024 * 10) - 28 * 28 * 25 * 32)
_PEAK_SIDE = 2048


class Peer(NamedTuple):
    """A trainer: its module, and the variant to ask it for. elsewhere: in the peers' environment."""

    module: str
    variant: str = "-"
    elsewhere: bool = False


PEERS = {
    "ours": Peer("ours"),
    "feed_dict": Peer("feed_dict", "0"),
    "feed_dict, one thread": Peer("feed_dict", "1"),
    "Keras fit": Peer("keras_fit"),
    "PyTorch, eager": Peer("torch_loop", "eager", elsewhere=True),
    "PyTorch, compiled": Peer("torch_loop", "compiled", elsewhere=True),
    "JAX, jit": Peer("jax_loop", "jit", elsewhere=True),
    "JAX, scan": Peer("jax_loop", "scan", elsewhere=True),
}


class Trainer:
    """A trainer's process, ready to be measured."""

    def __init__(self, peer: Peer, model: str, batch_size: int) -> None:
        """Starts it and waits until it is ready."""
        python = (_PEERS_PYTHON.value if peer.elsewhere else None) or sys.executable
        command = [python, "-m", f"benchmarks.trainers.{peer.module}", model, str(batch_size), peer.variant]
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=environment, text=True, bufsize=1
        )
        self._answer("ready")

    def _answer(self, wanted: str = "") -> str:
        assert self._process.stdout is not None
        line = str(self._process.stdout.readline()).strip()
        assert line, f"{self._process.args!r} ended without an answer"
        assert not wanted or line == wanted
        return line

    def _ask(self, line: str) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        return float(self._answer())

    def images_per_second(self) -> float:
        """Measures it once."""
        return self._ask(str(_SECONDS.value))

    def end(self) -> float:
        """Ends it; gives the most memory that it took, in GB."""
        memory = self._ask("")
        self._process.wait()
        return round(memory, 2)


def peak() -> float:
    """Floating point operations a second of one large float32 product on all cores."""
    matrix = np.random.default_rng(0).normal(size=(_PEAK_SIDE, _PEAK_SIDE)).astype(np.float32)
    started = time.perf_counter()
    matrix @ matrix
    return 2 * float(_PEAK_SIDE) ** 3 / (time.perf_counter() - started)


def measure(model: str, batch_size: int) -> None:
    """Measures all peers on one model, and reports."""
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
        "highest memory, GB": {name: trainer.end() for name, trainer in trainers.items()},
        "matrix product, GFLOP/s": [round(each / 1e9, 1) for each in peaks],
    }
    if model == "cnn":
        shares = [rate * _CNN_FLOP / each for rate, each in zip(rounds["ours"], peaks, strict=True)]
        notes["ours, share of the matrix product's speed"] = [round(share, 3) for share in shares]
    report.write(f"throughput_{model}_{batch_size}", "images/s", rounds, notes)


def main(_: list[str]) -> None:
    """Measures the models at each batch size."""
    choose_kernels()  # the processes inherit it: all that use TensorFlow use the same
    for model in _MODELS.value:
        for batch_size in map(int, _BATCH_SIZES.value):
            measure(model, batch_size)


if __name__ == "__main__":
    app.run(main)
