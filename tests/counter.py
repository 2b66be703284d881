"""A small graph that counts, and its CheckpointManager. Its state shows which step it is of."""

import tensorflow as tf

from checkpointing.protocol import resume
from checkpointing.protocol.manager import CheckpointManager

SETTINGS = {"model": "counter"}
OPEN = {}  # Counters by train_dir


class Clock:
    """A clock that a test sets."""

    now = 1_000_000.0

    def __call__(self):
        """Return the seconds."""
        return self.now


class Counter:
    """A graph with a step and a value, and a manager that saves both."""

    def __init__(self, directory, *, restore_from=None, size=3, **options):
        """Open a train_dir as a run does. A Counter that has it open already is closed first."""
        if directory in OPEN:
            OPEN.pop(directory).manager.close()
        self.directory = directory
        start = resume.open_train_dir(directory, SETTINGS, restore_from=restore_from)
        with tf.Graph().as_default() as graph:
            step = tf.compat.v1.train.get_or_create_global_step()
            value = tf.compat.v1.get_variable("value", [size], initializer=tf.compat.v1.zeros_initializer())
            self._count = [step.assign_add(1), value.assign_add(tf.fill([size], 0.1))]
            self.again = value.assign_add(tf.fill([size], 1000.0))
            self.undo = value.assign_sub(tf.fill([size], 1000.0))
            self._assign_nan = value.assign(tf.fill([size], float("nan")))
            self._value, self._step = value, step
            initialize = tf.compat.v1.global_variables_initializer()
        self.session = tf.compat.v1.Session(graph=graph)
        self.session.run(initialize)
        self.manager = CheckpointManager(graph, start, variables=[step, value], step=step, **options)
        OPEN[directory] = self
        self.manager.restore(self.session)

    def count(self, steps, *, save=False):
        """Apply some updates; if `save`, save a checkpoint after each. Return self."""
        for _ in range(steps):
            self.session.run(self._count)
            if save:
                self.manager.save(self.session)
        return self

    def make_non_finite(self):
        """Set the value to NaN."""
        self.session.run(self._assign_nan)

    def state(self):
        """Return the step and the value."""
        step, value = self.session.run([self._step, self._value])
        return int(step), value.tolist()
