"""Where damaged checkpoints go: out of the way, not away. Nothing in it is ever read or deleted by this package."""

import logging
import os
from collections.abc import Collection
from pathlib import Path

from checkpointing.errors import OddFileError
from checkpointing.storage import durable, layout

_log = logging.getLogger(__name__)


def set_aside(prefix: Path, why: str, names: Collection[str] | None = None) -> None:
    """Moves a checkpoint's files to quarantine, with the reason beside them.

    Args:
      prefix: the checkpoint.
      why: the reason.
      names: those of its files, where they are known; else the directory is searched.

    Raises:
      OSError: the disk refuses, or something else is called `quarantine`; what has not been moved is where it was.
    """
    place = place_for(prefix.parent, prefix.name)
    durable.make_directory(place)
    durable.atomic_write(place / layout.REASON, os.fsencode(f"{why}\n"))
    # The manifest goes last, and an index after the data: moved in part, it is still one that is known to be damaged.
    last = [layout.index_path(prefix), layout.manifest_path(prefix)]
    paths = layout.files_of(prefix) if names is None else filter(os.path.lexists, map(prefix.with_name, names))
    durable.move(sorted(paths, key=lambda path: last.index(path) if path in last else -1), place)
    _log.warning("%s; moved to %s", why, place)


def set_tree_aside(tree: Path, place: Path, why: str) -> Path:
    """Moves a directory into a new one, with the reason beside it.

    Args:
      tree: the directory, or a symbolic link, which is moved itself.
      place: the new directory; a number is added to its name where something has it.
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
    """A directory that is not there yet, for what was called so.

    Raises:
      OddFileError: a file or a symbolic link has the name of the quarantine.
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
