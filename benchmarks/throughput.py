"""Images a second of training: ours against the tutorial's feed_dict loop, same model, same batch, same call.

    python -m benchmarks.throughput [--models=softmax,cnn] [--rounds=5] [--seconds=4] [--batch_size=100]

Each peer is a process of its own that waits while another is measured; a round measures each in turn, so that a
machine whose speed drifts slows them alike. Also says how much memory each process took at its highest.
"""

import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from absl import app, flags

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # so that the file itself can be run, too

from benchmarks import report
from mnist.quiet import silenced

_ROUNDS = flags.DEFINE_integer("rounds", 5, "how often each is measured", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 4.0, "how long each is measured a round", lower_bound=0.1)
_MODELS = flags.DEFINE_list("models", ["softmax", "cnn"], "which to measure")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 100, "images an update", lower_bound=1)

Peer = Callable[[str, int], Callable[[float], int]]


def ours(model: str, batch_size: int) -> Callable[[float], int]:
    """The trainer's own graph and loop, with the settings of its recipe."""
    import configs  # noqa: PLC0415 - each peer imports what it measures, in its own process
    from mnist import dataset, graph, models, schedules, training  # noqa: PLC0415
    from mnist.stopwatch import Stopwatch  # noqa: PLC0415

    settings = configs.load(model)
    train = dataset.load(None, settings.validation_size).train
    training_graph = graph.build(
        models.Softmax if model == "softmax" else lambda: models.Cnn(0, dropout_rate=0.5),
        train,
        batch_size=batch_size,
        seed=0,
        make_optimizer=lambda rate: graph.make_optimizer(settings.optimizer, rate, momentum=settings.momentum),
        learning_rate=lambda step: schedules.learning_rate(
            step, schedule=settings.learning_rate_schedule, peak=settings.learning_rate, train_steps=1 << 40
        ),
    )
    session = graph.open_session(training_graph, settings.threads)
    graph.start(session, training_graph, train)
    cut_at = (settings.log_every_steps, settings.evaluate_every_steps, settings.save_every_steps)
    updates = training.run_steps(session, training_graph, 0, train_steps=1 << 40, cut_at=cut_at, stopwatch=Stopwatch())
    step = 0

    def train_for(seconds: float) -> int:
        nonlocal step
        first, end = step, time.perf_counter() + seconds
        while time.perf_counter() < end:
            step = next(updates).step
        return step - first

    return train_for


def feed_dict(threads: int) -> Peer:
    """The tutorial's loop; with 0 threads TensorFlow chooses, as it did in the tutorial."""

    def peer(model: str, batch_size: int) -> Callable[[float], int]:
        from benchmarks.feed_dict import make_train_step  # noqa: PLC0415
        from mnist import dataset  # noqa: PLC0415

        train_step = make_train_step(model, dataset.load(None, 5000).train, batch_size, threads)

        def train_for(seconds: float) -> int:
            steps, end = 0, time.perf_counter() + seconds
            while time.perf_counter() < end:
                train_step()
                steps += 1
            return steps

        return train_for

    return peer


PEERS: dict[str, Peer] = {
    "ours": ours,
    "feed_dict": feed_dict(0),
    "feed_dict, one thread": feed_dict(1),
}


def serve(name: str, model: str, batch_size: int, pipe: Connection) -> None:
    """A peer's process: measures whenever it is asked for so many seconds, until it is asked for none.

    Sends images a second; after the last, the highest memory in GB.
    """
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with silenced():
        train_for = PEERS[name](model, batch_size)
    train_for(1.0)  # TensorFlow's preparations, and warm caches
    pipe.send("ready")
    while seconds := pipe.recv():
        started = time.perf_counter()
        steps = train_for(seconds)
        pipe.send(steps * batch_size / (time.perf_counter() - started))
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)


def measure(model: str) -> None:
    """Measures all peers on one model, and reports."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    for name in PEERS:
        pipes[name], theirs = context.Pipe()
        processes.append(context.Process(target=serve, args=(name, model, _BATCH_SIZE.value, theirs), daemon=True))
        processes[-1].start()
        pipes[name].recv()
    rounds: dict[str, list[float]] = {name: [] for name in PEERS}
    for _ in range(_ROUNDS.value):
        for name, pipe in pipes.items():
            pipe.send(_SECONDS.value)
            rounds[name].append(pipe.recv())
    memory = {}
    for (name, pipe), process in zip(pipes.items(), processes, strict=True):
        pipe.send(0)
        memory[name] = round(pipe.recv(), 2)
        process.join()
    notes = {"batch size": _BATCH_SIZE.value, "highest memory, GB": memory}
    report.write(f"throughput_{model}", "images/s", rounds, notes)


def main(_: list[str]) -> None:
    """Measures both models."""
    for model in _MODELS.value:
        measure(model)


if __name__ == "__main__":
    app.run(main)
