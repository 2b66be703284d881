"""What follows a commit: rewrite TensorFlow's state file, delete the checkpoints that are not kept."""

import logging
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from checkpointing.errors import CheckpointError, DamagedError, reason
from checkpointing.protocol import checkpoint_state, manifest, quarantine, retention
from checkpointing.protocol.manifest import Manifest
from checkpointing.protocol.retention import Candidate, RetentionPolicy, Rotation
from checkpointing.storage import durable, layout

_log = logging.getLogger(__name__)


class Cleanup:
    """Apply a retention policy to the checkpoints of one run.

    The manifests are read once; after that `add` reports each new checkpoint, so that the cost of a save does not
    depend on how many checkpoints are kept. Checkpoints of other runs (other settings or source) are not counted or
    deleted.
    """

    def __init__(
        self,
        directory: Path,
        policy: RetentionPolicy,
        *,
        relative_paths: bool,
        is_of_run: Callable[[Manifest], bool] = lambda _: True,
    ) -> None:
        """Nothing is read before `apply_retention` is called.

        Args:
          directory: train_dir.
          policy: which checkpoints to keep.
          relative_paths: whether the state file holds names or absolute paths.
          is_of_run: returns whether the run saved the checkpoint of a manifest.
        """
        self._directory = directory
        self._policy = policy
        self._relative_paths = relative_paths
        self._is_of_run = is_of_run
        self._rotation: Rotation | None = None
        self._saved_at: dict[int, float] = {}
        self._trusted_step = -1

    def protect(self, step: int) -> None:
        """Do not delete the newest checkpoint up to a step; each call replaces the last."""
        self._trusted_step = step

    def add(self, saved: Manifest) -> None:
        """Add a checkpoint that the run has just committed."""
        if self._rotation is not None:
            self._add_to(self._rotation, saved)

    def forget(self) -> None:
        """Discard the list of checkpoints; the next `apply_retention` reads the manifests again."""
        self._rotation = None

    def apply_retention(self) -> None:
        """Write the state file, then delete the checkpoints that are not kept.

        The newest checkpoint must be known to be complete.

        Raises:
          OSError: the disk reports an error; the rest is done next time.
        """
        if self._rotation is None:
            self._rotation = self._read()
        rotation = self._rotation
        self._drop(rotation, [step for step in rotation.steps if not self._exists(step)])  # deleted by hand
        protected = max((step for step in rotation.steps if step <= self._trusted_step), default=None)
        to_delete = [step for step in rotation.to_delete() if step != protected and not self._pin(step).exists()]
        kept = [step for step in rotation.steps if step not in to_delete]
        if kept:
            # The state file first, so that it never names a deleted checkpoint.
            listed = [(layout.prefix(self._directory, step), self._saved_at[step]) for step in kept]
            checkpoint_state.write(self._directory, listed, relative_paths=self._relative_paths)
        for step in to_delete:
            self._delete(rotation, step)

    def _exists(self, step: int) -> bool:
        return layout.manifest_path(layout.prefix(self._directory, step)).exists()

    def _pin(self, step: int) -> Path:
        return layout.pinned_path(layout.prefix(self._directory, step))

    def _read(self) -> Rotation:
        readable, damaged = manifest.read_all(self._directory)
        newest = max((each.step for each in readable), default=-1)
        for step, error in damaged.items():
            if step > newest:
                continue  # nothing newer is readable: the next start decides
            try:
                quarantine.set_aside(layout.prefix(self._directory, step), f"{error}; a newer one is complete")
            except OSError as refused:
                _log.warning("%s; it stays where it is (%s)", error, reason(refused))
        rotation = Rotation(self._policy)
        self._saved_at = {}
        for each in filter(self._is_of_run, readable):
            self._add_to(rotation, each)
        return rotation

    def _add_to(self, rotation: Rotation, saved: Manifest) -> None:
        if not self._policy.max_to_keep:  # all are kept, and only the newest is listed, as by Saver
            rotation.drop(rotation.steps)
            self._saved_at = {}
        rotation.add(Candidate(saved.step, saved.training_seconds, saved.score))
        self._saved_at[saved.step] = saved.saved_at

    def _delete(self, rotation: Rotation, step: int) -> None:
        prefix = layout.prefix(self._directory, step)
        try:
            found = Manifest.read(layout.manifest_path(prefix))
        except DamagedError as error:
            quarantine.set_aside(prefix, f"{error}; a newer one is complete")
        except CheckpointError as error:
            _log.warning("%s: not deleted for now (%s)", prefix, error)
            return
        else:
            # A damaged manifest may name any file; only those with the checkpoint's prefix are deleted.
            names = [name for name in found.files if layout.prefix_of(self._directory / name) == prefix]
            if self._is_of_run(found) and not delete_unless_pinned(prefix, names):
                return  # it has just been pinned
        self._drop(rotation, [step])

    def _drop(self, rotation: Rotation, steps: Sequence[int]) -> None:
        rotation.drop(steps)
        for step in steps:
            del self._saved_at[step]


def kept(manifests: Iterable[Manifest], policy: RetentionPolicy, pinned: Collection[int]) -> dict[int, str]:
    """Return the steps of the checkpoints to keep, in order, each with the reason. `pinned` are steps."""
    candidates = [
        Candidate(each.step, each.training_seconds, each.score, pinned=each.step in pinned) for each in manifests
    ]
    return retention.checkpoints_to_keep(candidates, policy)


def delete_unless_pinned(prefix: Path, names: Collection[str] | None = None) -> bool:
    """Delete a checkpoint, its manifest first: without it the checkpoint does not exist.

    Args:
      prefix: the checkpoint.
      names: names of its files, if known; otherwise the directory is searched.

    Returns:
      Whether it was deleted; False if another process has pinned it.
    """
    mark = layout.incomplete_path(prefix)
    durable.write(mark, b"")
    if layout.pinned_path(prefix).exists():  # checked after the mark is written; who pins checks for the mark
        durable.delete([mark])
        return False
    durable.fsync(prefix.parent)
    delete(prefix, names)
    return True


def delete(prefix: Path, names: Collection[str] | None = None) -> None:
    """Delete a checkpoint that is marked incomplete, the mark last; arguments as for `delete_unless_pinned`."""
    mark = layout.incomplete_path(prefix)
    durable.delete([layout.manifest_path(prefix)])
    durable.fsync(prefix.parent)
    paths = layout.files_of(prefix) if names is None else _named(prefix, names)
    delete_files(prefix, (path for path in paths if path != mark))
    durable.fsync(prefix.parent)  # otherwise a power cut could delete the mark but not the files
    durable.delete([mark])


def _named(prefix: Path, names: Collection[str]) -> list[Path]:
    """Return the existing files with these names, and those that every checkpoint may have."""
    others = {layout.index_path(prefix), layout.meta_path(prefix), layout.pinned_path(prefix)}
    paths = {*map(prefix.with_name, names), *others, layout.shards_directory(prefix)}
    return sorted(path for path in paths if os.path.lexists(path))


def delete_files(prefix: Path, paths: Iterable[Path]) -> None:
    """Delete files of a checkpoint and its directory of shards. Any other directory is moved to quarantine."""
    for path in paths:
        if not path.is_dir() or path.is_symlink():
            durable.delete([path])
        elif path == layout.shards_directory(prefix) and layout.holds_shards(path):
            durable.delete_tree(path)
        else:
            place = quarantine.place_for(prefix.parent, prefix.name)
            durable.move([path], place)
            _log.warning("%s: expected a file, got a directory; moved to %s", path, place)


def remove_incomplete(directory: Path) -> None:
    """Delete the files of interrupted saves and deletions: those with an `.incomplete` mark and no manifest."""
    complete = set(layout.steps_with(directory, "manifest.json"))
    for step in layout.steps_with(directory, "incomplete"):
        prefix = layout.prefix(directory, step)
        if step in complete:
            durable.delete([layout.incomplete_path(prefix)])
        else:
            _log.info("%s: deleting the files of an interrupted save or deletion", prefix)
            delete(prefix)
