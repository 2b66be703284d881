"""Programs whose saves are recorded: one graph, saved by CheckpointManager or by a plain Saver.

    python -m tests.crash.saves ours|ours_sharded|plain ROOT MAX_TO_KEEP

ROOT is the directory of the checkpoints.
"""

import sys
from pathlib import Path

import tensorflow as tf

from checkpointing.protocol import resume
from checkpointing.protocol.manager import CheckpointManager
from checkpointing.protocol.retention import RetentionPolicy
from checkpointing.storage import layout
from checkpointing.storage.jsonl import Journal
from tests.crash import finding

STEPS = 3
SIZE = 3000  # floats: more than two pages, so that writes can be torn between pages


class Graph:
    """A step, and an array whose values equal the step."""

    def __init__(self) -> None:
        """Start at step 0."""
        with tf.Graph().as_default() as self.graph:
            self.step = tf.compat.v1.train.get_or_create_global_step()
            self.value = tf.compat.v1.get_variable("value", [SIZE], initializer=tf.compat.v1.zeros_initializer())
            self._count = [self.step.assign_add(1), self.value.assign_add(tf.ones([SIZE]))]
            initialize = tf.compat.v1.global_variables_initializer()
        self.session = tf.compat.v1.Session(graph=self.graph)
        self.session.run(initialize)

    def count(self) -> int:
        """Apply an update; return the step."""
        return int(self.session.run(self._count)[0])

    def state(self) -> tuple[int, list[float]]:
        """Return the step and the values."""
        step, value = self.session.run([self.step, self.value])
        return int(step), value.tolist()


def state_at(step: int) -> tuple[int, list[float]]:
    """Return the state of a step, as Graph.state does."""
    return step, [float(step)] * SIZE


def restored(root: Path, *, max_to_keep: int = 1, sharded: bool = False) -> tuple[Graph, CheckpointManager]:
    """Return a graph as a restarted run restores it, and its manager, which must be closed."""
    directory = finding.train_dir(root)
    start = resume.open_train_dir(directory, finding.SETTINGS)
    graph = Graph()
    manager = CheckpointManager(
        graph.graph,
        start,
        variables=[graph.step, graph.value],
        step=graph.step,
        retention=RetentionPolicy(max_to_keep, keep_checkpoint_every_n_hours=10_000),
        sharded=sharded,
        before_commit=Journal(directory / layout.METRICS).sync,
    )
    manager.restore(graph.session)
    return graph, manager


def save_ours(root: Path, max_to_keep: int, *, sharded: bool = False) -> None:
    """Save checkpoints as a run does: for each step its metrics, then its checkpoint."""
    graph, manager = restored(root, max_to_keep=max_to_keep, sharded=sharded)
    metrics = Journal(finding.train_dir(root) / layout.METRICS)
    with manager:
        for _ in range(STEPS):
            metrics.append({"step": graph.count()})
            manager.save(graph.session)


def save_ours_sharded(root: Path, max_to_keep: int) -> None:
    """Save checkpoints with several data files."""
    save_ours(root, max_to_keep, sharded=True)


def save_plain(root: Path, max_to_keep: int) -> None:
    """Save checkpoints with a plain Saver and its defaults."""
    graph = Graph()
    with graph.graph.as_default():
        saver = tf.compat.v1.train.Saver(max_to_keep=max_to_keep)
        for _ in range(STEPS):
            saver.save(graph.session, str(finding.train_dir(root) / "model.ckpt"), global_step=graph.count())


if __name__ == "__main__":
    {"ours": save_ours, "ours_sharded": save_ours_sharded, "plain": save_plain}[sys.argv[1]](
        Path(sys.argv[2]), int(sys.argv[3])
    )
