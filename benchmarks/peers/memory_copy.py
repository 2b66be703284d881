"""No peer but the yardstick: the state copied once, into fresh memory."""

from pathlib import Path

import numpy as np

from benchmarks.peers import protocol
from benchmarks.peers.protocol import VARIABLES, Peer, Seconds


class MemoryCopy(Peer):
    """A save is a copy that is let go of."""

    libraries = ("numpy",)

    def __init__(self, size: int, directory: Path) -> None:
        """Makes the state."""
        super().__init__(size, directory)
        random = np.random.default_rng(0)
        self._variables = [random.standard_normal(self.elements, np.float32) for _ in range(VARIABLES)]

    def step(self) -> None:
        """Changes the variables."""
        for variable in self._variables:
            np.add(variable, 1e-6, out=variable)

    def begin_save(self) -> None:
        """Copies; all of it is held until the end, so that no memory is used twice."""
        self._copies = [variable.copy() for variable in self._variables]

    def forget(self) -> None:
        """Gives the copies' memory back."""
        del self._copies

    def restore(self) -> Seconds:
        """Nothing can be read back."""
        raise NotImplementedError


if __name__ == "__main__":
    protocol.serve(MemoryCopy)
