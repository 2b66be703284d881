"""What is written here is still there after a power cut, or was never seen.

The one room that changes the disk, besides TensorFlow's Saver and Builder. The recipe (write, fsync, rename, fsync the
directory) is that of the POSIX manual pages and of "All File Systems Are Not Created Equal" (Pillai et al., OSDI 2014).
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

_TEMPORARY = ".tmp"


def replace(path: Path, content: bytes) -> None:
    """Makes `path` hold `content`: whoever looks, also after a crash, finds the old bytes or the new, never a mixture.

    Writes `path` with `.tmp` appended, and renames it. A crash can leave that file behind; the next call uses it up.
    """
    temporary = path.with_name(path.name + _TEMPORARY)
    write(temporary, content)
    temporary.rename(path)
    sync(path.parent)


def replace_by(path: Path, write_to: Callable[[Path], object]) -> None:
    """As `replace`, for content that a library writes: `write_to` is given a temporary path with the same ending."""
    temporary = path.with_name(f"{path.stem}{_TEMPORARY}{path.suffix}")
    try:
        write_to(temporary)
        sync(temporary)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def replace_without_waiting(path: Path, content: bytes) -> None:
    """The same but for a power cut, after which the file may hold anything; it never waits for the disk."""
    temporary = path.with_name(path.name + _TEMPORARY)
    temporary.write_bytes(content)
    temporary.rename(path)


def replace_json(path: Path, record: dict[str, Any]) -> None:
    """Makes `path` hold the record as JSON, indented for people."""
    replace(path, (json.dumps(record, indent=2) + "\n").encode())


def write(path: Path, content: bytes) -> None:
    """Writes a file in place and waits until its bytes are on the disk. Its name is not safe before `sync(parent)`."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def append(path: Path, content: bytes) -> None:
    """Adds to a file; killing the process cannot undo it once this returns (a power cut can, until `sync`).

    Raises:
      OSError: the disk refuses; the file is as it was before.
    """
    with path.open("ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        try:
            while content:
                content = content[file.write(content) :]
        except OSError:
            file.truncate(size)
            raise


def sync(path: Path) -> None:
    """Waits until a file's bytes, or a directory's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Makes a directory and its parents where they are missing."""
    missing = [parent for parent in (path, *path.parents) if not parent.exists()]
    path.mkdir(parents=True, exist_ok=True)
    # Its own name also where it was there: whoever made it may have been killed before this.
    for made in [*reversed(missing), path]:
        with suppress(PermissionError):  # a parent that may be passed through, but not be read
            sync(made.parent)


def free_bytes(directory: Path) -> int:
    """How much may still be written there."""
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize


def move(paths: Iterable[Path], directory: Path) -> None:
    """Renames files into a directory, which is made where it is missing."""
    make_directory(directory)
    for path in paths:
        path.rename(directory / path.name)
        sync(path.parent)
    sync(directory)


def rename_tree(source: Path, target: Path) -> None:
    """Renames a directory once everything below it is on the disk; `target` must not exist.

    Raises:
      FileExistsError: something is at `target`; `source` stays where it is.
    """
    if target.exists():
        raise FileExistsError(target)
    for directory, _, names in os.walk(source):
        for name in names:
            sync(Path(directory) / name)
        sync(Path(directory))
    source.rename(target)
    sync(target.parent)


def delete(paths: Iterable[Path]) -> None:
    """Deletes files, and directories with all below them; those that are gone already are fine."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
