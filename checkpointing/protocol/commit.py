"""Write a snapshot as a checkpoint and commit it. The README of this package lists the steps.

Runs in the writer's thread, or in the calling one if saves are made in the foreground.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tensorflow as tf

from checkpointing.errors import NonFiniteError, NotSavedError, is_shortage, listed, reason
from checkpointing.protocol import cleanup, manifest, quarantine
from checkpointing.protocol.cleanup import Cleanup
from checkpointing.protocol.manifest import Manifest
from checkpointing.protocol.resume import ResumePoint
from checkpointing.protocol.save_policy import SaveOptions
from checkpointing.protocol.snapshot import Snapshot
from checkpointing.storage import durable, layout

_log = logging.getLogger(__name__)


class Committer:
    """Writes the files of checkpoints and commits them.

    meta_graph: content of the `.meta` files.
    newest_step: step of the newest checkpoint that was committed or restored; None if there is none.
    seconds: total duration of all saves. last_seconds: duration of the last one; 0 if there was none.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        cleanup: Cleanup,
        options: SaveOptions,
        *,
        meta_graph: bytes,
        state_bytes: int,
        before_commit: Callable[[], None],
    ) -> None:
        """Nothing is written yet.

        Args:
          snapshot: holds the state during a save.
          cleanup: applies the retention policy after each commit.
          options: how to save.
          meta_graph: content of the `.meta` files.
          state_bytes: size of the variables.
          before_commit: syncs everything that a checkpoint must not be ahead of.
        """
        self.meta_graph = meta_graph
        self.newest_step: int | None = None
        self.seconds = self.last_seconds = 0.0
        self._snapshot = snapshot
        self._cleanup = cleanup
        self._options = options
        self._state_bytes = state_bytes
        self._before_commit = before_commit

    def write_and_commit(
        self,
        session: tf.compat.v1.Session,
        start: ResumePoint,
        step: int,
        score: float | None,
        training_seconds: float,
    ) -> None:
        """Write the snapshot as the checkpoint of a step: steps 2 to 8 of a save.

        Args:
          session: holds the snapshot.
          start: describes the run in the manifest.
          step: number of updates applied.
          score: quality of the state, higher is better; None if unknown.
          training_seconds: duration of the run so far, over all attempts.

        Raises:
          NotSavedError: the disk reports an error, or memory or threads are used up.
          NonFiniteError: a variable holds NaN or infinity.
        """
        began = time.perf_counter()
        prefix = layout.prefix(start.directory, step)
        mark = layout.incomplete_path(prefix)
        paths = self._paths(prefix)
        try:
            with _not_saved_errors(prefix):
                # 2. Check the state and the free space.
                digest = self._check_finite(session, step)
                start.lock.renew()  # creates the train_dir again if it was deleted: better a short history than none
                _check_space(start.directory, self._state_bytes + len(self.meta_graph))
                # 3. Mark the files to come as incomplete.
                if any(map(os.path.lexists, paths)) and not mark.exists():
                    quarantine.set_aside(prefix, f"{prefix.name}: another program's files have the name of a new one")
                durable.write(mark, b"")
                durable.fsync(start.directory)
                # 4. Write the tensors and the graph, and sync them.
                self._snapshot.write(session, prefix, side_by_side=not self._options.save_in_background)
                durable.write(layout.meta_path(prefix), self.meta_graph)
                files = self._sync_and_describe(paths)
                durable.fsync(start.directory)
                # 5. Sync the records of the steps.
                self._before_commit()
                # 6. Commit: with the rename in atomic_write the checkpoint exists.
                saved = Manifest(
                    step=step,
                    files=files,
                    state_digest=digest,
                    score=score,
                    settings=start.settings,
                    code=start.code,
                    environment=start.environment,
                    started_from=start.started_from,
                    saved_at=time.time(),
                    training_seconds=training_seconds,
                    versions=manifest.versions(),
                    retention=self._options.retention._asdict(),
                )
                durable.atomic_write(layout.manifest_path(prefix), saved.to_json())
                # 7. Delete the mark.
                self._cleanup.add(saved)
                durable.delete([mark])
        finally:
            self._snapshot.release(session)
            self.seconds += time.perf_counter() - began
        self.last_seconds = time.perf_counter() - began
        self.newest_step = step
        _log.info("saved %s", prefix)
        # 8. Rewrite the state file and delete the checkpoints that are not kept.
        self.apply_retention(start.directory)

    def apply_retention(self, directory: Path) -> None:
        """Rewrite the state file and delete checkpoints that are not kept; if the disk refuses, do it next time."""
        try:
            self._cleanup.apply_retention()
        except OSError as error:
            _log.warning("%s: old checkpoints are not deleted for now (%s)", directory, reason(error))

    def _check_finite(self, session: tf.compat.v1.Session, step: int) -> str:
        """Return the digest of the snapshot; raise NonFiniteError if a value is NaN or infinity."""
        digest, non_finite = self._snapshot.examine(session)
        if non_finite:
            raise NonFiniteError(f"step {step}: NaN or infinity in {listed(non_finite)}; not saved")
        return digest

    def _paths(self, prefix: Path) -> list[Path]:
        """Return the files that a save writes. They are not searched for: a directory may hold thousands of files."""
        shards = self._snapshot.shards
        data = [layout.data_path(prefix, shard, shards) for shard in range(shards)]
        return [*data, layout.index_path(prefix), layout.meta_path(prefix)]

    def _sync_and_describe(self, paths: list[Path]) -> dict[str, dict[str, Any]]:
        """Sync files and return their sizes and hashes; in the foreground, do both at the same time."""
        if self._options.save_in_background:
            for path in paths:
                durable.fsync(path)
            return manifest.describe_files(paths)
        with ThreadPoolExecutor(len(paths)) as pool:
            synced = pool.map(durable.fsync, paths)
            files = manifest.describe_files(paths, manifest.HASHING_THREADS)
            list(synced)
        return files


@contextmanager
def _not_saved_errors(prefix: Path) -> Iterator[None]:
    """Delete the files of a failed save, and raise NotSavedError if the disk or a shortage is the reason."""
    try:
        yield
    except (OSError, tf.errors.OpError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not is_shortage(error):
            raise
        _delete_written(prefix)
        raise NotSavedError(f"{prefix}: could not be saved ({reason(error)})") from error


def _check_space(directory: Path, needed: int) -> None:
    free = durable.free_bytes(directory)
    if free < needed:
        raise OSError(f"expected {needed / 1e6:,.1f} MB free on the disk, got {free / 1e6:,.1f} MB")


def _delete_written(prefix: Path) -> None:
    """Delete the files of a failed save, to free the disk; what cannot be deleted now, the next start deletes."""
    with suppress(OSError):
        if layout.incomplete_path(prefix).exists():  # without the mark, the files are not this save's
            cleanup.delete(prefix)
