"""TensorFlow's Saver: no fsync, no hash, no rotation; training waits."""

from pathlib import Path

import tensorflow as tf

from benchmarks.peers import protocol
from benchmarks.peers.protocol import Seconds, seconds_of
from benchmarks.peers.tensorflow_state import TensorFlowState


class PlainSaver(TensorFlowState):
    """Saves with Saver.save, restores with Saver.restore."""

    def __init__(self, size: int, directory: Path) -> None:
        """Create a Saver; max_to_keep=0, because it would delete old files within the measured call."""
        super().__init__(size, directory)
        with self.session.graph.as_default():
            self._saver = tf.compat.v1.train.Saver([self.counter, *self.variables], max_to_keep=0)
        self._prefix = ""

    def begin_save(self) -> None:
        """Save with the default options."""
        with self.session.graph.as_default():  # for the .meta file
            self._prefix = self._saver.save(self.session, str(self.directory / "model.ckpt"), global_step=self.counter)

    def restore(self) -> Seconds:
        """Restore the last save."""
        with self.session.graph.as_default():
            seconds = seconds_of(lambda: self._saver.restore(self.session, self._prefix))
        return {"read": seconds, "whole": seconds}

    def forget(self) -> None:
        """Delete all files."""
        for path in self.directory.iterdir():
            path.unlink()


if __name__ == "__main__":
    protocol.serve(PlainSaver)
