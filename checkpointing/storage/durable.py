"""Change files and directories so that a power cut leaves the old state or the new one, never a mixture.

The only module that writes, renames or deletes; TensorFlow's Saver and Builder write for themselves. The recipe, in
`atomic_write_chunks`: write a temporary file, fsync it, rename it, fsync the directory. It follows POSIX and
"All File Systems Are Not Created Equal" (Pillai et al., OSDI 2014).

Nothing is written through a symbolic link, and no call waits for a FIFO.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from checkpointing.storage import regular_file, write_guard

_TEMPORARY = ".tmp"
_NEW_FILE_MODE = 0o666  # less the umask
_WRITE_BYTES = 2**20  # small chunks are joined to so many bytes a system call


# Replace a file.


def atomic_write_chunks(path: Path, chunks: Iterable[bytes]) -> None:
    """Replace a file's content: a reader finds the old bytes or the new ones, also after a crash.

    A crash can leave `temporary_path(path)` behind; the next call replaces it.

    Args:
      path: the file; it need not exist.
      chunks: the content; need not fit in memory, and may be read from the old file.

    Raises:
      OSError: the disk refuses; if that was before the rename, the old file is unchanged.
    """
    temporary = temporary_path(path)
    with _new_file(temporary) as descriptor:
        # 1. Write beside the old file, which stays valid until step 3.
        _write_chunks(descriptor, chunks)
        # 2. fsync the file: a file system may write the rename before the bytes, and a power cut would leave zeros.
        os.fsync(descriptor)
    # 3. Rename, which is atomic: from here on the file is the new one.
    write_guard.check(path)
    temporary.rename(path)
    # 4. fsync the directory: a power cut could still undo the rename, after the caller has relied on it.
    fsync(path.parent)


def atomic_write(path: Path, content: bytes) -> None:
    """Replace a file's content, as `atomic_write_chunks`."""
    atomic_write_chunks(path, [content])


def atomic_write_json(path: Path, record: dict[str, Any]) -> None:
    """Replace a file's content by indented JSON."""
    atomic_write(path, (json.dumps(record, indent=2) + "\n").encode())


def atomic_write_nosync(path: Path, content: bytes) -> None:
    """Replace a file's content without waiting for the disk.

    Steps 1 and 3 alone: safe if the process is killed, but after a power cut the file may hold anything.
    """
    temporary = temporary_path(path)
    with _new_file(temporary) as descriptor:
        _write_all(descriptor, content)
    write_guard.check(path)
    temporary.rename(path)


def temporary_path(path: Path) -> Path:
    """Return where the atomic writes put the new content before they rename it to `path`."""
    return path.with_name(path.name + _TEMPORARY)


@contextmanager
def _new_file(path: Path) -> Iterator[int]:
    """Create a file and yield its descriptor. What a killed process left there is deleted, also if it is a link."""
    write_guard.check(path)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _NEW_FILE_MODE)
    try:
        write_guard.check(path)
        yield descriptor
    finally:
        os.close(descriptor)


def _write_chunks(descriptor: int, chunks: Iterable[bytes]) -> None:
    joined = bytearray()
    for chunk in chunks:
        joined += chunk
        if len(joined) >= _WRITE_BYTES:
            _write_all(descriptor, bytes(joined))
            joined.clear()
    _write_all(descriptor, bytes(joined))


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


# Write in place.


def write(path: Path, content: bytes) -> None:
    """Write a file in place and fsync it. Its name is safe only after `fsync(path.parent)`.

    Raises:
      OddFileError: a symbolic link or special file is there; nothing is written.
      OSError: the disk refuses.
    """
    with _existing_file(path) as descriptor:
        os.ftruncate(descriptor, 0)
        _write_all(descriptor, content)
        os.fsync(descriptor)


def append(path: Path, content: bytes) -> None:
    """Append to a file. The bytes survive a kill of the process at once, a power cut only after `fsync(path)`.

    Raises:
      OddFileError: a symbolic link or special file is there; nothing is written.
      OSError: the disk refuses; the file is as it was before.
    """
    with _existing_file(path, os.O_APPEND) as descriptor:
        size = os.fstat(descriptor).st_size
        try:
            _write_all(descriptor, content)
        except OSError:
            os.ftruncate(descriptor, size)
            raise


@contextmanager
def _existing_file(path: Path, flags: int = 0) -> Iterator[int]:
    """Open a file to write in place, and yield its descriptor; make it if it is missing."""
    write_guard.check(path)
    descriptor = regular_file.open_descriptor(path, os.O_WRONLY | os.O_CREAT | flags)
    try:
        write_guard.check(path)  # the directory may have been replaced before the file was opened
        yield descriptor
    finally:
        os.close(descriptor)


def open_to_lock(path: Path, *, create: bool, writable: bool) -> int:
    """Return the descriptor of a file to lock; with `create`, an empty file is made if there is none.

    Raises:
      OddFileError: a symbolic link or special file is there; it is not opened.
      OSError: it cannot be opened.
    """
    flags = (os.O_RDWR if writable else os.O_RDONLY) | (os.O_CREAT if create else 0)
    return regular_file.open_descriptor(path, flags)


def fsync(path: Path) -> None:
    """Wait until a file's bytes, or a directory's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(directory: Path) -> int:
    """Return how many bytes this process may still write to the directory's file system."""
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize


# Make directories, rename, delete.


def make_directory(path: Path) -> None:
    """Make a directory and its missing parents, and fsync each name."""
    write_guard.check(path)
    missing = [parent for parent in (path, *path.parents) if not parent.exists()]
    path.mkdir(parents=True, exist_ok=True)
    # The directory's own name also if it existed: the process that made it may have been killed before its fsync.
    for made in [*reversed(missing), path]:
        _fsync_parent(made)


def make_new_directory(path: Path) -> None:
    """Make a directory in an existing one.

    Raises:
      FileExistsError: the name is in use.
    """
    write_guard.check(path)
    path.mkdir()
    _fsync_parent(path)


def _fsync_parent(path: Path) -> None:
    with suppress(PermissionError):  # a parent may be searchable, but not readable
        fsync(path.parent)


def move(paths: Iterable[Path], directory: Path) -> None:
    """Rename files into a directory, one after the other; the directory is made if it is missing."""
    make_directory(directory)
    for path in paths:
        write_guard.check(path)
        path.rename(directory / path.name)
        fsync(path.parent)
    fsync(directory)


def rename_file(source: Path, target: Path) -> None:
    """Rename a file after its bytes are on the disk; a file at `target` is replaced."""
    fsync(source)
    write_guard.check(target)
    source.rename(target)
    fsync(target.parent)


def rename_tree(source: Path, target: Path) -> None:
    """Rename a directory after everything below it is on the disk.

    Raises:
      FileExistsError: `target` exists; `source` is not renamed.
    """
    if target.exists():
        raise FileExistsError(target)
    for directory, _, names in os.walk(source):
        for name in names:
            fsync(Path(directory) / name)
        fsync(Path(directory))
    write_guard.check(target)
    source.rename(target)
    fsync(target.parent)


def delete(paths: Iterable[Path]) -> None:
    """Delete files and symbolic links (not their targets); missing ones are skipped.

    Raises:
      IsADirectoryError: one is a directory; it is not deleted.
    """
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        write_guard.check(path)
        path.unlink(missing_ok=True)


def delete_empty_directory(path: Path) -> None:
    """Delete an empty directory.

    Raises:
      OSError: it is not empty, or not a directory; nothing is deleted.
    """
    write_guard.check(path)
    path.rmdir()


def delete_tree(directory: Path) -> None:
    """Delete a directory and everything below it; a missing one is skipped.

    The caller must know that this program made the directory.

    Raises:
      OSError: it is a symbolic link or not a directory; nothing is deleted.
    """
    write_guard.check(directory)
    if directory.is_symlink() or directory.exists():
        shutil.rmtree(directory)
