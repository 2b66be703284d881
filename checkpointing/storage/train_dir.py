"""Create and lock a train_dir, and check that a run can write all its files there."""

import errno
import os
from pathlib import Path

from checkpointing.errors import OccupiedNameError, OddFileError, UnwritableError, reason
from checkpointing.storage import durable, layout
from checkpointing.storage.lock import Lock

# Errors that prove the directory unsuitable. All others may be over a moment later.
_UNSUITABLE = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
        *(errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG),
    }
)

# Files that a run writes; a link in their place could lead to another directory.
_FILES = (layout.METRICS, layout.HISTORY, layout.ATTEMPT, layout.RESULT, layout.ORIGIN)

_USE_ANOTHER = "use another directory"
_MOVE_AWAY = "move it away, or use another directory"


def acquire(directory: Path) -> Lock:
    """Create a train_dir if it is missing, and lock it.

    Raises:
      UnwritableError: it cannot be created or written to.
      OccupiedNameError: a link or a special file is in place of the lock file; it is not opened.
      LockedError: another process holds the lock.
      OSError: anything else, which may be over a moment later.
    """
    try:
        durable.make_directory(directory)
        if not os.access(directory, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(directory))
    except OSError as error:
        if error.errno not in _UNSUITABLE:
            raise
        message = f"{directory}: expected a directory to write to, got an error ({reason(error)})"
        raise UnwritableError(message, hint=_USE_ANOTHER) from error
    path = directory / layout.LOCK
    try:
        return Lock(directory)
    except OddFileError as error:
        raise OccupiedNameError(f"{path}: {reason(error)}", hint=_MOVE_AWAY) from error
    except OSError as error:
        if error.errno not in _UNSUITABLE:
            raise
        owner = _other_owner(path)
        belongs = f"; it belongs to user {owner}" if owner else ""
        message = f"{path}: cannot be written ({reason(error)}){belongs}"
        raise UnwritableError(message, hint=f"run as {owner}, or {_USE_ANOTHER}" if owner else _USE_ANOTHER) from error


def _other_owner(path: Path) -> str | None:
    """Return the user that a file belongs to; None if it is this process's user, or has no name."""
    try:
        return path.owner() if path.stat().st_uid != os.geteuid() else None
    except (OSError, KeyError):
        return None


def check_file_names(directory: Path) -> None:
    """Check that nothing but regular files has the names of files that a run writes later.

    Raises:
      OccupiedNameError: something else has; the message has its path.
    """
    for name in _FILES:
        path = directory / name
        if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
            raise OccupiedNameError(f"{path}: expected a regular file, got {_kind(path)}", hint=_MOVE_AWAY)
        temporary = durable.temporary_path(path)
        if temporary.is_dir() and not temporary.is_symlink():
            raise OccupiedNameError(f"{temporary}: a directory has the name of a temporary file", hint=_MOVE_AWAY)


def _kind(path: Path) -> str:
    if path.is_symlink():
        return "a symbolic link"
    return "a directory" if path.is_dir() else "a special file"
