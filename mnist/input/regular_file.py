"""Open input files without blocking: regular files only, no FIFOs, devices or sockets.

`checkpointing.storage.regular_file` has such a function, too, but `mnist` does not import it (ARCHITECTURE.md).
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from checkpointing.errors import LATER, UserError

# Errors that reading the file again would repeat. All others (no descriptor or memory left, no permission, a network
# file system that does not respond) may be gone a moment later.
_PERMANENT = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG, errno.EIO, errno.EBADMSG}
)


class NotRegularError(OSError):
    """A FIFO, device or socket is where a regular file is expected."""


def open_to_read(path: Path) -> BinaryIO:
    """Open a regular file, or a symbolic link to one, for reading bytes.

    Raises:
      NotRegularError: it is a FIFO, device or socket; it is not opened.
      OSError: it is a directory, or cannot be opened.
    """
    _check_is_regular(path, path.stat().st_mode)
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115 - returned open; Path.open has no opener
    try:
        _check_is_regular(path, os.fstat(file.fileno()).st_mode)  # the path may have been replaced in the meantime
    except OSError:
        file.close()
        raise
    return file


def size(file: BinaryIO) -> int:
    """Return the size of an open file in bytes."""
    return os.fstat(file.fileno()).st_size


def kind(mode: int) -> str:
    """Name the kind of file of a `st_mode`: file, directory, FIFO, socket, device or special file."""
    kinds = {
        stat.S_IFREG: "file",
        stat.S_IFDIR: "directory",
        stat.S_IFIFO: "FIFO",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "device",
        stat.S_IFBLK: "device",
    }
    return kinds.get(stat.S_IFMT(mode), "special file")


def unreadable(error_class: type[UserError], path: object, error: OSError, hint: str) -> UserError:
    """Return the error to raise for a file that cannot be read: "PATH: cannot be read (REASON)".

    Args:
      error_class: class of the error returned.
      path: the file.
      error: the reason.
      hint: what to do if the file is missing, of another kind, or damaged. Other errors get hints of their own.
    """
    hint = hint if is_about_the_file(error) else _hint_to_retry(error)
    return error_class(f"{path}: cannot be read ({error.strerror or error})", hint=hint)


def is_about_the_file(error: OSError) -> bool:
    """Return whether the error is permanent: the file is missing, not a regular file, or unreadable on the disk."""
    return isinstance(error, NotRegularError) or error.errno in _PERMANENT


def _hint_to_retry(error: OSError) -> str:
    if error.errno in {errno.EACCES, errno.EPERM}:
        return "grant yourself permission to read it"
    return LATER


def _check_is_regular(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise NotRegularError(errno.EINVAL, f"expected a regular file, got a {kind(mode)}", str(path))
