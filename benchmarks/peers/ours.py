"""CheckpointManager with background saves, the default; ours_foreground.py saves in the foreground."""

import os
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.peers import protocol
from benchmarks.peers.protocol import Seconds, seconds_of
from benchmarks.peers.tensorflow_state import TensorFlowState
from checkpointing.protocol import cleanup, manifest, resume
from checkpointing.protocol.manager import CheckpointManager
from checkpointing.protocol.retention import RetentionPolicy
from checkpointing.protocol.snapshot import Snapshot
from checkpointing.storage import layout

_SETTINGS = {"model": "benchmark"}
_KEEP_ALL = RetentionPolicy(max_to_keep=0, keep_checkpoint_every_n_hours=10_000)


class Parts:
    """Timers for functions: replaces a function by a timed one, and adds up its seconds by label."""

    def __init__(self) -> None:
        """Start without timed functions."""
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def time(self, label: str, owner: Any, name: str) -> None:  # noqa: ANN401 - a module or a class
        """Time `owner.name` from now on; the seconds of parallel calls add up."""
        function: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - any function
            started = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                self.seconds[label] += time.perf_counter() - started

        setattr(owner, name, timed)


class Ours(TensorFlowState):
    """CheckpointManager's save_if_due, save and restore."""

    in_background = True

    def __init__(self, size: int, directory: Path) -> None:
        """Open a manager that saves after every step."""
        super().__init__(size, directory)
        self._parts = Parts()
        self._parts.time("write", Snapshot, "write")
        self._parts.time("examine", Snapshot, "examine")
        self._parts.time("digest", Snapshot, "digest_of_variables")
        self._parts.time("hash", manifest, "describe_files")
        self._manager = CheckpointManager(
            self.session.graph,
            resume.open_train_dir(directory, _SETTINGS),
            variables=[self.counter, *self.variables],
            step=self.counter,
            retention=_KEEP_ALL,
            save_every_steps=1,
            save_in_background=self.in_background,
        )

    def begin_save(self) -> None:
        """Save as training does."""
        self._manager.save_if_due(self.session)

    def saving(self) -> bool:
        """Return whether the background save is running, retention included."""
        return self._manager._writer.has_job and not self._manager._writer.done()  # noqa: SLF001 - not part of the interface

    def save(self) -> Seconds:
        """Save in the foreground, once without fsync and once with it; return the seconds of the parts."""
        self._parts.seconds.clear()
        with mock.patch.object(os, "fsync"):
            unsafe = seconds_of(lambda: self._manager.save(self.session))
        parts = {name: self._parts.seconds[name] for name in ("write", "examine", "hash")}
        self.forget()
        self.step()
        whole = seconds_of(lambda: self._manager.save(self.session))
        return {**parts, "without fsync": unsafe, "fsync": whole - unsafe, "whole": whole}

    def restore(self) -> Seconds:
        """Find the newest checkpoint, which verifies the files' sha256, and restore it, which verifies the digest."""
        self._manager.start.close()
        self._parts.seconds.clear()
        find = seconds_of(self._find_start)
        restore = seconds_of(lambda: self._manager.restore(self.session))
        digest = self._parts.seconds["digest"]
        return {"check": find, "read": restore - digest, "digest": digest, "whole": find + restore}

    def _find_start(self) -> None:
        self._manager.start = resume.open_train_dir(self.directory, _SETTINGS)

    def forget(self) -> None:
        """Delete all checkpoints."""
        for step in layout.steps_with(self.directory, "manifest.json"):
            cleanup.delete_unless_pinned(layout.prefix(self.directory, step))


if __name__ == "__main__":
    protocol.serve(Ours)
