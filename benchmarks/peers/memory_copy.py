"""Baseline: one copy of the state into new memory."""

from pathlib import Path

import numpy as np

from benchmarks.peers import protocol
from benchmarks.peers.protocol import VARIABLES, Peer, Seconds


class MemoryCopy(Peer):
    """A state in NumPy arrays; a save is a copy in memory."""

    libraries = ("numpy",)

    def __init__(self, size: int, directory: Path) -> None:
        """Initialize the state."""
        super().__init__(size, directory)
        random = np.random.default_rng(0)
        self._variables = [random.standard_normal(self.elements, np.float32) for _ in range(VARIABLES)]

    def step(self) -> None:
        """Change the variables in place."""
        for variable in self._variables:
            np.add(variable, 1e-6, out=variable)

    def begin_save(self) -> None:
        """Copy all variables, and keep all copies, so that no memory is reused."""
        self._copies = [variable.copy() for variable in self._variables]

    def forget(self) -> None:
        """Free the copies."""
        del self._copies

    def restore(self) -> Seconds:
        """Raise: a copy in memory is not restored."""
        raise NotImplementedError


if __name__ == "__main__":
    protocol.serve(MemoryCopy)
