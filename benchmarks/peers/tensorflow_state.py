"""State and training step in TensorFlow's graph mode, for the peers that use TensorFlow."""

from pathlib import Path

import tensorflow as tf

from benchmarks.peers.protocol import VARIABLES, Peer


class TensorFlowState(Peer):
    """Variables and an update in a session; subclasses save and restore them."""

    libraries = ("tensorflow",)

    def __init__(self, size: int, directory: Path) -> None:
        """Build the graph; the values are random, because some peers compress."""
        super().__init__(size, directory)
        with tf.Graph().as_default() as graph:
            self.counter = tf.compat.v1.train.get_or_create_global_step()
            self.variables = [self._variable(f"variable_{number}") for number in range(VARIABLES)]
            gradient = self._variable("gradient")
            updates = [
                tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=1e-6, delta=gradient)
                for variable in self.variables
            ]
            self._update = tf.group(self.counter.assign_add(1), *updates)
            initialize = tf.compat.v1.global_variables_initializer()
        self.session = tf.compat.v1.Session(graph=graph)
        self.session.run(initialize)

    def _variable(self, name: str) -> tf.Variable:
        return tf.compat.v1.get_variable(name, [self.elements], initializer=tf.compat.v1.random_normal_initializer())

    def step(self) -> None:
        """Apply one update."""
        self.session.run(self._update)
