"""PyTorch: torch.save of a module's state_dict, and torch.load; training waits."""

from pathlib import Path

import torch

from benchmarks.peers import protocol
from benchmarks.peers.protocol import VARIABLES, Peer, Seconds, numbered, seconds_of


class TorchSave(Peer):
    """A state in a module's parameters."""

    libraries = ("torch",)

    def __init__(self, size: int, directory: Path) -> None:
        """Initialize the parameters."""
        super().__init__(size, directory)
        made = [torch.nn.Parameter(torch.randn(self.elements), requires_grad=False) for _ in range(VARIABLES)]
        self._module = torch.nn.ParameterList(made)
        self._gradient = torch.randn(self.elements)
        self._paths = numbered(directory, "state.pt")
        self._path = directory

    def step(self) -> None:
        """Apply gradient descent in place."""
        for parameter in self._module:
            parameter.add_(self._gradient, alpha=-1e-6)

    def begin_save(self) -> None:
        """Save as in PyTorch's tutorial."""
        self._path = next(self._paths)
        torch.save(self._module.state_dict(), self._path)

    def restore(self) -> Seconds:
        """Read the file, and copy its tensors into the module."""
        seconds = seconds_of(lambda: self._module.load_state_dict(torch.load(self._path, weights_only=True)))
        return {"read": seconds, "whole": seconds}

    def forget(self) -> None:
        """Delete the file."""
        self._path.unlink()


if __name__ == "__main__":
    protocol.serve(TorchSave)
