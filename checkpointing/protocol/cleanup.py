"""What follows a commit: TensorFlow's state file is rewritten, checkpoints that are not to be kept are deleted."""

import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from checkpointing.errors import CheckpointError, DamagedError, reason
from checkpointing.protocol import checkpoint_state, manifest, quarantine, retention, run_identity
from checkpointing.protocol.manifest import Manifest
from checkpointing.protocol.retention import Candidate, RetentionPolicy, Rotation
from checkpointing.storage import durable, layout

_log = logging.getLogger(__name__)


class Cleanup:
    """Keeps the state file and the number of checkpoints of one run up to date.

    The manifests are read once. From then on the run says what it has saved, so that a save costs the same however many
    checkpoints are kept. Checkpoints of another run (other settings, another origin) are neither counted nor deleted.
    """

    def __init__(
        self,
        directory: Path,
        retention: RetentionPolicy,
        *,
        relative_paths: bool,
        is_of_run: Callable[[Manifest], bool] = lambda _: True,
    ) -> None:
        """Nothing is read before `apply_retention` is called.

        Args:
          directory: the train_dir.
          retention: what to keep.
          relative_paths: whether the state file holds names or absolute paths.
          is_of_run: whether the run made the checkpoint of a manifest.
        """
        self._directory = directory
        self._retention = retention
        self._relative_paths = relative_paths
        self._is_of_run = is_of_run
        self._rotation: Rotation | None = None
        self._saved_at: dict[int, float] = {}

    def add(self, saved: Manifest) -> None:
        """Takes note of a checkpoint that the run has just committed."""
        if self._rotation is not None:
            self._note(self._rotation, saved)

    def forget(self) -> None:
        """Has the manifests read again, because checkpoints have been moved."""
        self._rotation = None

    def apply_retention(self) -> None:
        """Writes the state file, then deletes the checkpoints that are not to be kept.

        The newest checkpoint must be known to be complete.

        Raises:
          OSError: the disk refuses; the rest is done the next time.
        """
        if self._rotation is None:
            self._rotation = self._read()
        rotation = self._rotation
        self._drop(rotation, [step for step in rotation.steps if not self._exists(step)])  # deleted by hand
        going = [step for step in rotation.going() if not self._pin(step).exists()]
        kept = [step for step in rotation.steps if step not in going]
        if kept:
            # First the state file, so that it never names a checkpoint that is gone.
            listed = [(layout.prefix(self._directory, step), self._saved_at[step]) for step in kept]
            checkpoint_state.write(self._directory, listed, relative_paths=self._relative_paths)
        for step in going:
            self._retire(rotation, step)

    def _exists(self, step: int) -> bool:
        return layout.manifest_path(layout.prefix(self._directory, step)).exists()

    def _pin(self, step: int) -> Path:
        return layout.pinned_path(layout.prefix(self._directory, step))

    def _read(self) -> Rotation:
        readable, damaged = manifest.read_all(self._directory)
        newest = max((each.step for each in readable), default=-1)
        for step, error in damaged.items():
            if step > newest:
                continue  # the next start decides where nothing newer is complete
            try:
                quarantine.set_aside(layout.prefix(self._directory, step), f"{error}: a newer one is complete")
            except OSError as refused:
                _log.warning("%s; it stays where it is (%s)", error, reason(refused))
        rotation = Rotation(self._retention)
        self._saved_at = {}
        for each in filter(self._is_of_run, readable):
            self._note(rotation, each)
        return rotation

    def _note(self, rotation: Rotation, saved: Manifest) -> None:
        if not self._retention.max_to_keep:  # all stay, and the last one alone is listed
            rotation.drop(rotation.steps)
            self._saved_at = {}
        rotation.add(Candidate(saved.step, saved.training_seconds, saved.score))
        self._saved_at[saved.step] = saved.saved_at

    def _retire(self, rotation: Rotation, step: int) -> None:
        prefix = layout.prefix(self._directory, step)
        try:
            found = Manifest.read(layout.manifest_path(prefix))
        except DamagedError as error:
            quarantine.set_aside(prefix, f"{error}: a newer one is complete")
        except CheckpointError as error:
            _log.warning("%s: stays for now, though it need not be kept (%s)", prefix, error)
            return
        else:
            # A manifest may name any file; those of other names are not the checkpoint's.
            names = [name for name in found.files if layout.prefix_of(self._directory / name) == prefix]
            if self._is_of_run(found) and not retire(prefix, names):
                return  # pinned a moment ago
        self._drop(rotation, [step])

    def _drop(self, rotation: Rotation, steps: Sequence[int]) -> None:
        rotation.drop(steps)
        for step in steps:
            del self._saved_at[step]


def is_of_run(
    saved: Manifest,
    *,
    settings: Mapping[str, Any],
    started_from: str | None,
    may_grow: Collection[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> bool:
    """Return whether a checkpoint was saved by the run with these settings and this origin.

    Args:
      saved: manifest of the checkpoint.
      settings: settings of the run.
      started_from: as in the manifests of the run.
      may_grow: names of settings that may have been smaller when the checkpoint was saved.
      defaults: values of settings that either side lacks.
    """
    return saved.started_from == started_from and not run_identity.diff(
        saved.settings, settings, defaults=defaults, may_grow=may_grow
    )


def kept(manifests: Iterable[Manifest], policy: RetentionPolicy, pinned: Collection[int]) -> dict[int, str]:
    """The steps of the checkpoints to keep, in order, each with the reason why; `pinned` are steps."""
    candidates = [
        Candidate(each.step, each.training_seconds, each.score, pinned=each.step in pinned) for each in manifests
    ]
    return retention.checkpoints_to_keep(candidates, policy)


def retire(prefix: Path, names: Collection[str] | None = None) -> bool:
    """Deletes a checkpoint, its manifest first: from then on it does not exist.

    Args:
      prefix: the checkpoint.
      names: those of its files, where they are known; else the directory is searched.

    Returns:
      Whether it is gone: not where it has been pinned meanwhile.
    """
    mark = layout.incomplete_path(prefix)
    durable.write(mark, b"")
    if layout.pinned_path(prefix).exists():  # meanwhile; a process that pins looks for the mark in turn
        durable.delete([mark])
        return False
    durable.fsync(prefix.parent)
    delete(prefix, names)
    return True


def delete(prefix: Path, names: Collection[str] | None = None) -> None:
    """Deletes what carries the mark, and the mark last; the arguments are those of `retire`."""
    mark = layout.incomplete_path(prefix)
    durable.delete([layout.manifest_path(prefix)])
    durable.fsync(prefix.parent)
    paths = layout.files_of(prefix) if names is None else _named(prefix, names)
    delete_files(prefix, (path for path in paths if path != mark))
    durable.fsync(prefix.parent)  # or the mark could be gone after a power cut, and the files not
    durable.delete([mark])


def _named(prefix: Path, names: Collection[str]) -> list[Path]:
    """The files of these names, and what may lie beside them."""
    others = {layout.index_path(prefix), layout.meta_path(prefix), layout.pinned_path(prefix)}
    paths = {*map(prefix.with_name, names), *others, layout.shards_directory(prefix)}
    return sorted(path for path in paths if os.path.lexists(path))


def delete_files(prefix: Path, paths: Iterable[Path]) -> None:
    """Deletes files of a checkpoint and its directory of shards; any other directory is not ours, and is moved."""
    for path in paths:
        if not path.is_dir() or path.is_symlink():
            durable.delete([path])
        elif path == layout.shards_directory(prefix) and layout.holds_shards(path):
            durable.delete_tree(path)
        else:
            place = quarantine.place_for(prefix.parent, prefix.name)
            durable.move([path], place)
            _log.warning("%s: expected a file, got a directory; moved to %s", path, place)
