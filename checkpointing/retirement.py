"""What follows a commit: TensorFlow's state file is rewritten, checkpoints that are not to be kept are deleted."""

import logging
from collections.abc import Iterable
from pathlib import Path

from checkpointing import durable, layout, manifest, quarantine, rotation, state_file
from checkpointing.manifest import Manifest
from checkpointing.rotation import Candidate, Retention

_log = logging.getLogger(__name__)


def tidy_up(directory: Path, retention: Retention, *, relative_paths: bool) -> None:
    """Computes from the disk which checkpoints stay, and makes it so.

    Args:
      directory: the train_dir; its newest checkpoint is known to be complete.
      retention: what to keep.
      relative_paths: whether the state file holds names or absolute paths.
    """
    readable, damaged = manifest.read_all(directory)
    manifests = {each.step: each for each in readable}
    for step, error in damaged.items():
        quarantine.set_aside(layout.prefix(directory, step), f"{error}: a newer one is complete")
    keep = kept(directory, readable, retention)
    if keep:
        # First the state file, so that it never names a checkpoint that is gone.
        listed = [(layout.prefix(directory, step), manifests[step].saved_at) for step in keep]
        state_file.write(directory, listed, relative_paths=relative_paths)
    for step in sorted(manifests.keys() - keep.keys()):
        retire(layout.prefix(directory, step))


def kept(directory: Path, manifests: list[Manifest], retention: Retention) -> dict[int, str]:
    """The steps of the checkpoints to keep, in order, each with the reason why."""
    pinned = set(layout.steps_with(directory, "pinned"))
    candidates = [
        Candidate(each.step, each.training_seconds, each.score, pinned=each.step in pinned) for each in manifests
    ]
    return rotation.survivors(candidates, retention)


def retire(prefix: Path) -> None:
    """Deletes a checkpoint, its manifest first: from then on it does not exist."""
    mark = layout.incomplete_path(prefix)
    durable.write(mark, b"")
    if layout.pinned_path(prefix).exists():  # meanwhile; whoever pins looks for the mark in turn
        durable.delete([mark])
        return
    durable.sync(prefix.parent)
    delete(prefix)


def delete(prefix: Path) -> None:
    """Deletes what carries the mark, and the mark last."""
    mark = layout.incomplete_path(prefix)
    durable.delete([layout.manifest_path(prefix)])
    durable.sync(prefix.parent)
    delete_files(prefix, (path for path in layout.files_of(prefix) if path != mark))
    durable.sync(prefix.parent)  # or the mark could be gone after a power cut, and the files not
    durable.delete([mark])


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
