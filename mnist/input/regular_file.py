"""Input files: what kind they are, how large, and the error to raise if one cannot be read.

`open_to_read` is the library's: it opens regular files only, no FIFOs, devices or sockets.
"""

import errno
import os
import stat
from typing import BinaryIO

from checkpointing.errors import LATER, OddFileError, UserError
from checkpointing.storage.regular_file import open_to_read

__all__ = ["is_about_the_file", "kind", "open_to_read", "size", "unreadable"]

# Errors that reading the file again would repeat. All others (no descriptor or memory left, no permission, a network
# file system that does not respond) may be gone a moment later.
_PERMANENT = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG, errno.EIO, errno.EBADMSG}
)


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
    return isinstance(error, OddFileError) or error.errno in _PERMANENT


def _hint_to_retry(error: OSError) -> str:
    if error.errno in {errno.EACCES, errno.EPERM}:
        return "grant yourself permission to read it"
    return LATER
