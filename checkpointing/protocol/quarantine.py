"""Move damaged checkpoints and exports to `quarantine/`. Nothing in it is restored or deleted."""

import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from checkpointing.errors import DamagedError, OddFileError
from checkpointing.storage import durable, layout

_log = logging.getLogger(__name__)


def set_aside(prefix: Path, why: str, names: Collection[str] | None = None) -> None:
    """Move the files of a checkpoint to quarantine, with a `reason.txt`.

    Args:
      prefix: the checkpoint.
      why: the reason.
      names: names of its files, if known; otherwise the directory is searched.

    Raises:
      OSError: the disk reports an error, or a file is called `quarantine`; what has not been moved is unchanged.
    """
    place = place_for(prefix.parent, prefix.name)
    durable.make_directory(place)
    durable.atomic_write(place / layout.REASON, os.fsencode(f"{why}\n"))
    # The index after the data and the manifest last, so that a checkpoint moved in part is still known to be damaged.
    last = [layout.index_path(prefix), layout.manifest_path(prefix)]
    paths = layout.files_of(prefix) if names is None else filter(os.path.lexists, map(prefix.with_name, names))
    durable.move(sorted(paths, key=lambda path: last.index(path) if path in last else -1), place)
    _log.warning("%s; moved to %s", why, place)


def set_damaged_aside(directory: Path, damaged: Mapping[int, DamagedError], *, resumed_at: int) -> None:
    """Move damaged checkpoints to quarantine, each with its damage and the number of steps to train again.

    Args:
      directory: train_dir.
      damaged: damage by step.
      resumed_at: step of the complete checkpoint that the run resumes from.
    """
    for step, damage in sorted(damaged.items()):
        count = step - resumed_at
        steps = "1 step is" if count == 1 else f"{count} steps are"
        why = f"{damage}; {steps} to be trained again, from step {resumed_at}"
        set_aside(layout.prefix(directory, step), why)


def holds_checkpoints(directory: Path) -> bool:
    """Return whether a run's checkpoints are in the quarantine of a train_dir; exports and other files do not count."""
    place = layout.quarantine_path(directory)
    inside = (path for each in place.iterdir() if each.is_dir() for path in each.iterdir()) if place.is_dir() else ()
    return any(layout.step_of(path.name) is not None for path in inside)


def set_tree_aside(tree: Path, place: Path, why: str) -> Path:
    """Move a directory into a new one, with a `reason.txt`.

    Args:
      tree: the directory, or a symbolic link, which is moved itself.
      place: the new directory; if it exists, a number is added to its name.
      why: the reason.

    Returns:
      The new directory.

    Raises:
      OSError: it cannot be moved, and stays where it is.
    """
    place = _unused(place)
    durable.make_directory(place)
    durable.atomic_write(place / layout.REASON, os.fsencode(f"{why}\n"))
    try:
        durable.move([tree], place)
    except OSError:
        if tree.exists():
            durable.delete([place / layout.REASON])
            durable.delete_empty_directory(place)
        raise
    _log.warning("%s: %s; moved to %s", tree, why, place)
    return place


def place_for(directory: Path, name: str) -> Path:
    """Return the path of a new directory in quarantine for a checkpoint or file of this name.

    Raises:
      OddFileError: a file or a symbolic link is called `quarantine`.
    """
    return _unused(layout.quarantine_path(directory) / name)


def _unused(place: Path) -> Path:
    quarantine, name, number = place.parent, place.name, 2
    is_odd = quarantine.is_symlink() or (quarantine.exists() and not quarantine.is_dir())
    if is_odd and quarantine == layout.quarantine_path(quarantine.parent):
        raise OddFileError(quarantine, "expected a directory, got a file or a symbolic link")
    while os.path.lexists(place):
        place, number = place.with_name(f"{name}.{number}"), number + 1
    return place
