"""Open files that people name: regular files only, and never a wait for a FIFO, a device or a socket."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


class NotRegularError(OSError):
    """A FIFO, device or socket is where a regular file is expected."""


# Errors that say something about the file itself. All others (no descriptor or memory left, no permission, a network
# file system that does not answer) may be gone a moment later.
_ABOUT_THE_FILE = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG, errno.EIO, errno.EBADMSG}
)


def open_to_read(path: Path) -> BinaryIO:
    """Opens a regular file, or a symbolic link to one, without waiting for anything.

    Raises:
      NotRegularError: it is a FIFO, device or socket; it has not been opened.
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
    """The size of an open file, in bytes."""
    return os.fstat(file.fileno()).st_size


def kind(mode: int) -> str:
    """The kind of file that a `st_mode` stands for."""
    kinds = {
        stat.S_IFREG: "file",
        stat.S_IFDIR: "directory",
        stat.S_IFIFO: "FIFO",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "device",
        stat.S_IFBLK: "device",
    }
    return kinds.get(stat.S_IFMT(mode), "special file")


def problem(error: OSError, whole: str) -> str:
    """Why a file cannot be read, and what to do, for the end of a message.

    Args:
      error: the reason.
      whole: what to do where the file is missing, of another kind, or lost by the disk.
    """
    return (
        f"cannot be read ({error.strerror or error}); {whole if is_about_the_file(error) else _at_another_time(error)}"
    )


def is_about_the_file(error: OSError) -> bool:
    """Whether reading the file again cannot help: it is missing, no regular file, or the disk has lost its bytes."""
    return isinstance(error, NotRegularError) or error.errno in _ABOUT_THE_FILE


def _at_another_time(error: OSError) -> str:
    if error.errno in {errno.EACCES, errno.EPERM}:
        return "give yourself permission to read it"
    return "run the same command again when that is over"


def _check_is_regular(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise NotRegularError(errno.EINVAL, f"expected a regular file, got a {kind(mode)}", str(path))
