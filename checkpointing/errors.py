"""The exceptions of this package, and what an operating system's error means for a checkpoint.

`UserError` is the base of all errors that a person can act on; `cli` prints them as `error:` and `hint:` lines.
"""

import errno
import os
import re

# TensorFlow tells where in the graph an error came up before it tells what came up, and where in the code afterwards.
_BEFORE_THE_REASON = re.compile(r"Graph execution error:.*?^Node: '[^\n]*'\n", re.DOTALL | re.MULTILINE)


# What to do about an error of the moment, from which nothing has been concluded.
LATER = "see to it, and run the same command again"


class UserError(Exception):
    """An error that a person can act on. Its message names the file or flag first: "x.npy: expected ..., got ...".

    hint: what to do about it, printed on a line of its own; None if the message says it all.
    exit_status: of a program that ends with this error.
    """

    exit_status = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        """Messages and hints are one sentence each."""
        super().__init__(message)
        self.hint = hint


class UsageError(UserError):
    """The command line is not valid."""

    exit_status = 2


class CheckpointError(UserError):
    """A checkpoint cannot be made, found or used."""


class DamagedError(CheckpointError):
    """A checkpoint's files are not what its manifest says."""


class OtherVersionError(CheckpointError):
    """Another version of this package made the checkpoint; it may be whole, and is left alone."""


class ReplacedError(CheckpointError):
    """Another run's directory is in the place of this run's train_dir; nothing has been written to it."""


class OnlyDamagedError(CheckpointError):
    """All checkpoints of a directory are damaged; nothing has been moved."""


class NotSavedError(CheckpointError):
    """A checkpoint could not be made for now: the disk refused. All complete ones are as they were."""


class NonFiniteError(CheckpointError):
    """The state holds values that are no finite numbers, and was not saved."""


class OddFileError(OSError):
    """A FIFO, device, socket or link where a regular file is expected, or a file too large to be the expected one."""

    def __init__(self, path: os.PathLike[str], problem: str) -> None:
        """The problem is of the form "expected ..., got ..."."""
        super().__init__(errno.EINVAL, problem, os.fspath(path))


# What the system says of the file itself: it is not there, it is something else, or the disk has lost its bytes. Any
# other error (no descriptor, memory, thread or permission; the network) says nothing about them.
_ABOUT_BYTES = frozenset(
    {
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO),
        *(errno.EIO, errno.EBADMSG, errno.EILSEQ, getattr(errno, "EUCLEAN", errno.EIO)),
    }
)


def is_damage(error: OSError) -> bool:
    """Whether an error of reading a file proves that its bytes are not what they should be.

    Shortages (EMFILE, ENOMEM, EAGAIN), permissions and network errors (ESTALE, ETIMEDOUT) do not: the same file may be
    whole a moment later.
    """
    return isinstance(error, OddFileError) or error.errno in _ABOUT_BYTES


def is_shortage(error: BaseException) -> bool:
    """Whether an exception says that there is no memory or no thread to be had just now."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "start new thread" in str(error))


def reason(error: BaseException) -> str:
    """What an exception says in its first line, without TensorFlow's account of where in the graph it happened."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, MemoryError):
        return str(error) or "not enough memory"
    lines = _BEFORE_THE_REASON.sub("", str(error)).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
