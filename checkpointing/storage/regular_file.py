"""Open and read regular files. A FIFO is never waited for, and a device is never opened.

Readers follow symbolic links, because data files may lie on another disk; `open_descriptor`, for writers, does not.
"""

import errno
import os
import stat
from contextlib import suppress
from io import BufferedReader
from pathlib import Path

from checkpointing.errors import OddFileError

_NEW_FILE_MODE = 0o666  # less the umask


def open_to_read(path: Path) -> BufferedReader:
    """Open a regular file, or a symbolic link to one, for reading.

    Raises:
      OddFileError: it is a FIFO, socket or device; it is not opened.
      OSError: it cannot be opened.
    """
    _check_is_regular(path, path.stat().st_mode)
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115 - returned open; Path.open has no opener
    try:
        _check_is_regular(path, os.fstat(file.fileno()).st_mode)  # it may have been replaced since `stat`
    except OSError:
        file.close()
        raise
    return file


def read(path: Path, max_bytes: int) -> bytes:
    """Read a whole regular file.

    Raises:
      OddFileError: it is not a regular file, or larger than `max_bytes`.
      OSError: it cannot be read.
    """
    with open_to_read(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(min(size, max_bytes) + 1)  # one byte more: the file may grow while it is read
    if max(size, len(content)) > max_bytes:
        raise OddFileError(path, f"expected at most {max_bytes:,} bytes, got {max(size, len(content)):,}")
    return content


def open_descriptor(path: Path, flags: int) -> int:
    """Open a regular file and return its descriptor. Symbolic links are not followed.

    Raises:
      OddFileError: it is a symbolic link, FIFO, socket or device.
      OSError: it cannot be opened.
    """
    with suppress(FileNotFoundError):
        _check_is_regular(path, path.lstat().st_mode)  # before it is opened: opening a device can act on it
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, _NEW_FILE_MODE)
    except OSError as error:
        if error.errno == errno.ELOOP:  # the link was made since `lstat`
            raise OddFileError(path, "expected a regular file, got a symbolic link") from error
        raise
    try:
        _check_is_regular(path, os.fstat(descriptor).st_mode)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


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
