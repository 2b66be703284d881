"""What is written here is still there after a power cut, or was never seen.

The one room that changes the disk, besides TensorFlow's Saver and Builder. The recipe (write, fsync, rename, fsync the
directory) is that of the POSIX manual pages and of "All File Systems Are Not Created Equal" (Pillai et al., OSDI 2014).
"""

import errno
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from checkpointing.errors import OddFileError

_TEMPORARY = ".tmp"

# Never through a symbolic link, and never waiting for the other end of a FIFO.
_OPENED = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TO_WRITE = _OPENED | os.O_WRONLY | os.O_CREAT
_READABLE = 0o666  # less the umask
_WORTH_A_CALL = 2**20


def open_to_read(path: Path) -> BufferedReader:
    """Opens a regular file, or a symbolic link to one, without waiting for anything.

    Raises:
      OddFileError: it is anything else; nothing has been opened, so no FIFO waits and no device acts.
      OSError: it cannot be opened.
    """
    _check_is_regular(path, path.stat().st_mode)
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115 - returned open; Path.open has no opener
    try:
        _check_is_regular(path, os.fstat(file.fileno()).st_mode)  # what lies there may have been replaced
    except OddFileError:
        file.close()
        raise
    return file


def read(path: Path, most_bytes: int) -> bytes:
    """Reads a regular file of at most so many bytes.

    Raises:
      OddFileError: it is no regular file, or larger.
      OSError: it cannot be read.
    """
    with open_to_read(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(min(size, most_bytes) + 1)  # a file may grow while it is read
    if max(size, len(content)) > most_bytes:
        raise OddFileError(path, f"expected at most {most_bytes:,} bytes, got {max(size, len(content)):,}")
    return content


def _check_is_regular(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OddFileError(path, f"expected a regular file, got a {_kind(mode)}")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "symbolic link",
        stat.S_IFIFO: "FIFO",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "device",
        stat.S_IFBLK: "device",
    }
    return kinds.get(stat.S_IFMT(mode), "special file")


def open_to_lock(path: Path, *, writable: bool) -> int:
    """The descriptor of a regular file, made empty where it is missing; opened for reading where that will do.

    Raises:
      OddFileError: a symbolic link, FIFO, device or socket is there; it is not opened.
      OSError: it cannot be opened.
    """
    return _open(path, _OPENED | os.O_CREAT | (os.O_RDWR if writable else os.O_RDONLY))


def _open(path: Path, flags: int) -> int:
    """The descriptor of a regular file.

    Raises:
      OddFileError: a symbolic link, FIFO, device or socket is there; it is not followed, changed or waited for.
    """
    with suppress(FileNotFoundError):
        _check_is_regular(path, path.lstat().st_mode)  # before it is opened, for to open a device can act on it
    try:
        descriptor = os.open(path, flags, _READABLE)
    except OSError as error:
        if error.errno == errno.ELOOP:  # put there a moment ago
            raise OddFileError(path, "expected a regular file, got a symbolic link") from error
        raise
    try:
        _check_is_regular(path, os.fstat(descriptor).st_mode)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


def _gathered(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces that are worth a system call each."""
    gathered = bytearray()
    for piece in pieces:
        gathered += piece
        if len(gathered) >= _WORTH_A_CALL:
            yield bytes(gathered)
            gathered.clear()
    yield bytes(gathered)


def _make_temporary(temporary: Path, pieces: Iterable[bytes], *, wait: bool) -> None:
    """Writes a file that is not there before; what a killed attempt left under its name goes, a link included."""
    check_guards(temporary)
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, _TO_WRITE | os.O_EXCL, _READABLE)
    try:
        for content in _gathered(pieces):
            _write_all(descriptor, content)
        if wait:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


_guards: list[tuple[Path, Callable[[], None]]] = []


def guard(directory: Path, check: Callable[[], None]) -> Callable[[], None]:
    """Has `check` called before anything below a directory is written, moved or deleted; what it raises ends that.

    Returns:
      What ends the guard.
    """
    entry = (directory, check)
    _guards.append(entry)

    def end() -> None:
        if entry in _guards:
            _guards.remove(entry)

    return end


def end_guards(directory: Path) -> None:
    """Ends all guards of a directory."""
    _guards[:] = [entry for entry in _guards if entry[0] != directory]


def check_guards(path: Path) -> None:
    """Calls the checks of the directories that a path lies below, for what TensorFlow writes there itself."""
    for directory, check in tuple(_guards):
        if path.is_relative_to(directory):
            check()


def temporary_path(path: Path) -> Path:
    """Where `replace` writes what `path` will hold."""
    return path.with_name(path.name + _TEMPORARY)


def atomic_write(path: Path, content: bytes) -> None:
    """Makes `path` hold `content`: whoever looks, also after a crash, finds the old bytes or the new, never a mixture.

    Writes `path` with `.tmp` appended, and renames it. A crash can leave that file behind; the next call uses it up.
    """
    atomic_write_pieces(path, [content])


def atomic_write_pieces(path: Path, pieces: Iterable[bytes]) -> None:
    """As `replace`, for content that need not fit in memory; the pieces may be read from the old file."""
    temporary = temporary_path(path)
    _make_temporary(temporary, pieces, wait=True)
    check_guards(path)
    temporary.rename(path)
    fsync(path.parent)


def atomic_write_nosync(path: Path, content: bytes) -> None:
    """The same but for a power cut, after which the file may hold anything; it never waits for the disk."""
    temporary = temporary_path(path)
    _make_temporary(temporary, [content], wait=False)
    check_guards(path)
    temporary.rename(path)


def atomic_write_json(path: Path, record: dict[str, Any]) -> None:
    """Makes `path` hold the record as JSON, indented for people."""
    atomic_write(path, (json.dumps(record, indent=2) + "\n").encode())


def write(path: Path, content: bytes) -> None:
    """Writes a file in place and waits until its bytes are on the disk. Its name is not safe before `sync(parent)`.

    Raises:
      OddFileError: a symbolic link or a special file is there; nothing is written.
      OSError: the disk refuses.
    """
    check_guards(path)
    descriptor = _open(path, _TO_WRITE)
    try:
        os.ftruncate(descriptor, 0)
        _write_all(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append(path: Path, content: bytes) -> None:
    """Adds to a file; killing the process cannot undo it once this returns (a power cut can, until `sync`).

    Raises:
      OddFileError: a symbolic link or a special file is there; nothing is written.
      OSError: the disk refuses; the file is as it was before.
    """
    check_guards(path)
    descriptor = _open(path, _TO_WRITE | os.O_APPEND)
    try:
        size = os.fstat(descriptor).st_size
        try:
            _write_all(descriptor, content)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def fsync(path: Path) -> None:
    """Waits until a file's bytes, or a directory's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Makes a directory and its parents where they are missing."""
    check_guards(path)
    missing = [parent for parent in (path, *path.parents) if not parent.exists()]
    path.mkdir(parents=True, exist_ok=True)
    # Its own name also where it was there: whoever made it may have been killed before this.
    for made in [*reversed(missing), path]:
        with suppress(PermissionError):  # a parent that may be passed through, but not be read
            fsync(made.parent)


def make_new_directory(path: Path) -> None:
    """Makes a directory below one that exists.

    Raises:
      FileExistsError: something is there.
    """
    check_guards(path)
    path.mkdir()
    with suppress(PermissionError):  # a parent that may be passed through, but not be read
        fsync(path.parent)


def free_bytes(directory: Path) -> int:
    """How much may still be written there."""
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize


def move(paths: Iterable[Path], directory: Path) -> None:
    """Renames files into a directory, which is made where it is missing."""
    make_directory(directory)
    for path in paths:
        check_guards(path)
        path.rename(directory / path.name)
        fsync(path.parent)
    fsync(directory)


def rename_file(source: Path, target: Path) -> None:
    """Renames a file once its bytes are on the disk; a file at `target` is replaced."""
    fsync(source)
    check_guards(target)
    source.rename(target)
    fsync(target.parent)


def rename_tree(source: Path, target: Path) -> None:
    """Renames a directory once everything below it is on the disk; `target` must not exist.

    Raises:
      FileExistsError: something is at `target`; `source` stays where it is.
    """
    if target.exists():
        raise FileExistsError(target)
    for directory, _, names in os.walk(source):
        for name in names:
            fsync(Path(directory) / name)
        fsync(Path(directory))
    check_guards(target)
    source.rename(target)
    fsync(target.parent)


def delete(paths: Iterable[Path]) -> None:
    """Deletes files, and links but not what they lead to; those that are gone already are fine.

    Raises:
      IsADirectoryError: a directory is there; whatever is in it stays.
    """
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        check_guards(path)
        path.unlink(missing_ok=True)


def delete_empty_directory(path: Path) -> None:
    """Deletes a directory that nothing is in.

    Raises:
      OSError: something is in it, or it is no directory; nothing is deleted.
    """
    check_guards(path)
    path.rmdir()


def delete_tree(directory: Path) -> None:
    """Deletes a directory with all below it, which the caller knows to be this program's; one that is gone is fine.

    Raises:
      OSError: it is a symbolic link or no directory; nothing is deleted.
    """
    check_guards(directory)
    if directory.is_symlink() or directory.exists():
        shutil.rmtree(directory)
