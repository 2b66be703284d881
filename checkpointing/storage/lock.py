"""Lock a train_dir: two runs in one would overwrite and delete each other's checkpoints.

    lock = Lock(directory)   # raises LockedError with the owner's host and pid
    lock.release()

The lock is a flock on `train_dir/lock`. The host and pid in that file are for messages only.
"""

import json
import logging
import os
import socket
import threading
from pathlib import Path

from checkpointing.errors import LockedError, ReplacedError
from checkpointing.storage import durable, file_lock, layout, regular_file, write_guard

_log = logging.getLogger(__name__)

_identity_lock = threading.Lock()
_MAX_BYTES = 4096  # a host and a pid need far fewer


class Lock:
    """The lock of a directory, held until `release` or the end of the process.

    It belongs to the directory (its inode), not to the path. If another directory is put in its place, `durable`
    raises ReplacedError instead of changing anything there.
    """

    def __init__(self, directory: Path) -> None:
        """Acquire the lock.

        Raises:
          LockedError: another process holds it; the message has its host and pid.
          OddFileError: the lock file is a symbolic link or special file; it is not opened.
          OSError: the lock file cannot be made.
        """
        self._directory = directory
        self._path = directory / layout.LOCK
        self._descriptor = -1
        self._acquire()

    def _acquire(self) -> None:
        identity = self._directory.stat()
        self._descriptor = _acquire(self._path)
        self._identity = identity
        self._remove_guard = write_guard.add(self._directory, self.check)

    def check(self) -> None:
        """Check that the directory at the path is still the locked one.

        No error if it is missing, or was deleted and made again and is empty.

        Raises:
          ReplacedError: another directory is in its place.
        """
        try:
            found = self._directory.stat()
        except FileNotFoundError:
            return
        if os.path.samestat(found, self._identity):
            return
        with _identity_lock:  # the training and the writer thread both check, and one may fill an empty directory
            if os.path.samestat(found, self._identity):
                return
            deleted = self._descriptor < 0 or not os.fstat(self._descriptor).st_nlink
            if deleted and not any(self._directory.iterdir()):
                self._identity = found
                return
        raise ReplacedError(
            f"{self._directory}: another directory is in its place{_moved_to(self._descriptor)}; "
            "nothing more is written here",
            hint="put the run's own directory back, and run the same command again",
        )

    def renew(self) -> None:
        """Acquire the lock again if its file was deleted; make the directory again if that was deleted.

        Raises:
          ReplacedError: another directory is in its place.
          LockedError: another process holds the lock now.
        """
        if not self._directory.exists():
            durable.make_directory(self._directory.parent)
            durable.make_new_directory(self._directory)  # raises if another directory was put there just now
            self._identity = self._directory.stat()
            _log.warning("%s was deleted during the run; made again, without its former content", self._directory)
        self.check()
        if self._descriptor < 0 or not file_lock.is_at(self._path, self._descriptor):
            previous = self._descriptor
            self._acquire()
            if previous >= 0:
                os.close(previous)

    def release(self) -> None:
        """Release the lock. The file stays: if it were deleted, a process that had opened it would lock another one."""
        if self._descriptor >= 0:
            self._remove_guard()
            os.close(self._descriptor)
            self._descriptor = -1


def _moved_to(descriptor: int) -> str:
    """Return where the locked directory is now, as a part of a sentence; "" if unknown."""
    try:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
    except OSError:  # not on Linux
        return ""
    return f" (the run's own is now {path.parent})" if path.exists() else ""


def _acquire(path: Path) -> int:
    """Lock the file at a path and write this process into it; return the descriptor."""
    try:
        while not file_lock.is_at(path, descriptor := file_lock.acquire(path, create=True)):
            os.close(descriptor)  # deleted between opening and locking
    except BlockingIOError:
        raise LockedError(
            f"{path.parent}: in use by {_owner_text(path)}",
            hint="wait until it ends, stop it (SIGTERM saves first), or use another directory",
        ) from None
    write_guard.remove_all(path.parent)  # an earlier owner in this process may not have been released
    try:
        durable.write(path, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def owner_lives(directory: Path) -> bool:
    """Whether the process that last took the lock is running. Does not touch the lock.

    True if it was on another host, where this cannot be found out.
    """
    try:
        host, pid = _read_owner(directory / layout.LOCK)
        if host == socket.gethostname():
            os.kill(pid, 0)
    except PermissionError:  # the process of another user
        return True
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return False
    return True


def _owner_text(path: Path) -> str:
    try:
        host, pid = _read_owner(path)
    except (OSError, ValueError, KeyError, TypeError):  # not yet written
        return "another process"
    return f"process {pid} on {host}"


def _read_owner(path: Path) -> tuple[str, int]:
    owner = json.loads(regular_file.read(path, _MAX_BYTES))
    return owner["host"], owner["pid"]
