"""Exceptions, and what an operating system's error means for a checkpoint.

`UserError` is the base of all errors that a person can act on; `cli` prints them as `error:` and `hint:` lines. Hints
of this package name no flags of the trainer, which replaces them, by class (trainer/hints.py).
"""

import errno
import os
import re
from collections.abc import Iterable

# TensorFlow's messages begin with the place in the graph and end with the place in the code.
_BEFORE_THE_REASON = re.compile(r"Graph execution error:.*?^Node: '[^\n]*'\n", re.DOTALL | re.MULTILINE)

_MOST_LISTED = 10  # names in a message

# The hint for an error that says nothing about the checkpoint: no descriptor, memory, permission, network.
LATER = "fix the cause and run the same command again"


class UserError(Exception):
    """An error that a person can act on. Its message names the file or flag first: "x.npy: expected ..., got ...".

    hint: what to do about it, printed on a second line; None if the message is enough.
    exit_status: exit status of a program that ends with this error.
    """

    exit_status = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        """Create an error; message and hint are one line each, without a full stop at the end."""
        super().__init__(message)
        self.hint = hint
        if hint is not None:
            self.add_note(f"hint: {hint}")  # for tracebacks; command lines print `hint`


class UsageError(UserError):
    """The command line is not valid."""

    exit_status = 2


class CheckpointError(UserError):
    """A checkpoint cannot be saved, found or used."""


class DamagedError(CheckpointError):
    """The files of a checkpoint differ from its manifest, or from TensorFlow's checksums."""


class OnlyDamagedError(CheckpointError):
    """A directory holds checkpoints, but none that is complete. Nothing has been moved."""


class OtherVersionError(CheckpointError):
    """A manifest has the format of another version of this package. The checkpoint is left alone."""


class SettingsDifferError(CheckpointError):
    """The checkpoints of a train_dir were saved with other settings: it belongs to another run."""


class SourceError(CheckpointError):
    """The checkpoint that the first weights come from has changed, is missing, or cannot be restored."""


class OtherSourceError(CheckpointError):
    """A train_dir holds a run that did not start from the checkpoint to start from."""


class LockedError(CheckpointError):
    """Another process holds the lock of a train_dir."""


class UnwritableError(CheckpointError):
    """A train_dir cannot be created or written to."""


class OccupiedNameError(CheckpointError):
    """A directory, link or special file has the name of a file that a run writes."""


class ReplacedError(CheckpointError):
    """Another directory is at the path of the train_dir. Nothing has been written to it."""


class NotSavedError(CheckpointError):
    """A save failed, because of the disk or a shortage. All complete checkpoints are unchanged."""


class NonFiniteError(CheckpointError):
    """The state holds NaN or infinity, and was not saved."""


class OddFileError(OSError):
    """A FIFO, device, socket or link where a regular file is expected, or a file that is too large."""

    def __init__(self, path: os.PathLike[str], problem: str) -> None:
        """Create an error; the problem is of the form "expected ..., got ..."."""
        super().__init__(errno.EINVAL, problem, os.fspath(path))


# Errors about the file itself: it is missing, is not a file, or the disk has lost its bytes. All others (no descriptor,
# memory, thread or permission; network errors) say nothing about the bytes.
_ABOUT_BYTES = frozenset(
    {
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO),
        *(errno.EIO, errno.EBADMSG, errno.EILSEQ, getattr(errno, "EUCLEAN", errno.EIO)),
    }
)


def is_damage(error: OSError) -> bool:
    """Return whether an error of reading a file proves that the file is damaged.

    Shortages (EMFILE, ENOMEM, EAGAIN), permissions and network errors (ESTALE, ETIMEDOUT) do not: the same file may be
    readable a moment later.
    """
    return isinstance(error, OddFileError) or error.errno in _ABOUT_BYTES


def is_shortage(error: BaseException) -> bool:
    """Return whether an exception means that memory is used up or no thread can be started."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "start new thread" in str(error))


def reason(error: BaseException) -> str:
    """Return the first line of an exception's message, without TensorFlow's description of the node."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, MemoryError):
        return str(error) or "not enough memory"
    if isinstance(error, UnicodeEncodeError):  # raised for a path
        return "TensorFlow accepts only paths in UTF-8"
    lines = _BEFORE_THE_REASON.sub("", str(error)).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def listed(names: Iterable[object], separator: str = ", ") -> str:
    """Return names for a message: the first ten, and how many more there are; "none" if there are none."""
    texts = list(map(str, names))
    more = len(texts) - _MOST_LISTED
    shown = separator.join(texts[:_MOST_LISTED])
    return f"{shown} and {more:,} more" if more > 0 else shown or "none"
