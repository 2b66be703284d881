"""Orbax: AsyncCheckpointer, which copies the state, returns, and writes in a thread."""

import shutil
import threading
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from benchmarks.peers import protocol
from benchmarks.peers.protocol import VARIABLES, Peer, Seconds, numbered, seconds_of


class OrbaxAsync(Peer):
    """A state in a dictionary of JAX arrays."""

    libraries = ("orbax-checkpoint", "jax")

    def __init__(self, size: int, directory: Path) -> None:
        """Initialize the arrays, and compile the update, which donates the old arrays."""
        super().__init__(size, directory)
        keys = jax.random.split(jax.random.key(0), VARIABLES)
        self._state = {f"variable_{number}": jax.random.normal(key, [self.elements]) for number, key in enumerate(keys)}
        self._gradient = jax.random.normal(keys[0], [self.elements])
        self._update = jax.jit(
            lambda state, gradient: {name: value - 1e-6 * gradient for name, value in state.items()}, donate_argnums=0
        )
        self._checkpointer = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
        self._paths = numbered(directory, "state")
        self._path = directory
        self._waiting: threading.Thread | None = None

    def step(self) -> None:
        """Apply gradient descent in place."""
        self._state = jax.block_until_ready(self._update(self._state, self._gradient))

    def begin_save(self) -> None:
        """Start a save; return once Orbax has copied the state."""
        self._path = next(self._paths)
        self._checkpointer.save(self._path, args=ocp.args.StandardSave(self._state))

    def saving(self) -> bool:
        """Return whether the save is running; a thread waits for it, because Orbax has no poll."""
        if self._waiting is None:
            self._waiting = threading.Thread(target=self._checkpointer.wait_until_finished)
            self._waiting.start()
        if self._waiting.is_alive():
            return True
        self._waiting = None
        return False

    def save(self) -> Seconds:
        """Save, and wait until the files are written."""

        def save_and_wait() -> None:
            self.begin_save()
            self._checkpointer.wait_until_finished()

        whole = seconds_of(save_and_wait)
        return {"whole": whole}

    def restore(self) -> Seconds:
        """Restore into new arrays."""
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, self._state)

        def read() -> None:
            restored = self._checkpointer.restore(self._path, args=ocp.args.StandardRestore(target))
            self._state = jax.block_until_ready(restored)

        seconds = seconds_of(read)
        return {"read": seconds, "whole": seconds}

    def forget(self) -> None:
        """Delete the checkpoint's directory."""
        shutil.rmtree(self._path)


if __name__ == "__main__":
    protocol.serve(OrbaxAsync)
