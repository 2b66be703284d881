"""One owner a train_dir: two runs in one would overwrite and delete each other's checkpoints.

    lock = Lock(directory)   # or one sentence says who holds it
    lock.release()

The kernel holds the lock (flock) as long as the owner's process lives, so a dead owner's needs no clearing away. What
the file says of host and process is for the message alone.
"""

import errno
import fcntl
import json
import logging
import os
import socket
import threading
from pathlib import Path

from checkpointing.errors import CheckpointError, ReplacedError
from checkpointing.storage import durable, layout

_log = logging.getLogger(__name__)

_switching = threading.Lock()
_MOST_BYTES = 4096  # a host and a pid are far fewer


class Lock:
    """Held from its making until `release`, or the end of the process.

    It is of a directory, not of a path: where another run's directory is put in its place, whatever is to be written,
    moved or deleted there by `durable` raises ReplacedError instead.
    """

    def __init__(self, directory: Path) -> None:
        """Takes the lock.

        Raises:
          CheckpointError: another process holds it; the message says which.
          OddFileError: a link, a FIFO or a device is in the lock file's place; it is not opened or changed.
          OSError: the lock file cannot be made.
        """
        self._directory = directory
        self._path = directory / layout.LOCK
        self._descriptor = -1
        self._hold()

    def _hold(self) -> None:
        identity = self._directory.stat()
        self._descriptor = _take(self._path)
        self._identity = identity
        self._end_guard = durable.guard(self._directory, self.check)

    def check(self) -> None:
        """Makes sure that what is written to the directory next does not go to another run's.

        A directory that is gone, or was deleted and made again, with nothing in it, is no error.

        Raises:
          ReplacedError: another directory is in its place.
        """
        try:
            there = self._directory.stat()
        except FileNotFoundError:
            return
        if os.path.samestat(there, self._identity):
            return
        with _switching:  # what one thread finds empty, the other may have written to
            if os.path.samestat(there, self._identity):
                return
            deleted = self._descriptor < 0 or not os.fstat(self._descriptor).st_nlink
            if deleted and not any(self._directory.iterdir()):
                self._identity = there
                return
        raise ReplacedError(
            f"{self._directory}: is another directory than when the run began{_moved_to(self._descriptor)}: "
            f"nothing more is written to it; put this run's own directory back, and run the same command again."
        )

    def renew(self) -> None:
        """Takes it again where the file is gone: the directory was deleted under the run, and made again.

        Raises:
          ReplacedError: as `check`.
          CheckpointError: another process was faster.
        """
        if not self._directory.exists():
            durable.make_directory(self._directory.parent)
            durable.make_new_directory(self._directory)  # or another directory has been put there just now
            self._identity = self._directory.stat()
            _log.warning("%s was deleted while the run went on: made anew, without what was in it", self._directory)
        self.check()
        if self._descriptor < 0 or not _is_at(self._path, self._descriptor):
            before = self._descriptor
            self._hold()
            if before >= 0:
                os.close(before)

    def release(self) -> None:
        """Lets others have it; the file stays, for a process that opened it meanwhile would lock another one."""
        if self._descriptor >= 0:
            self._end_guard()
            os.close(self._descriptor)
            self._descriptor = -1


def _moved_to(descriptor: int) -> str:
    """Where the locked file is now, as far as the system says."""
    try:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
    except OSError:  # not on Linux
        return ""
    return f", which is now {path.parent}" if path.exists() else ""


def _take(path: Path) -> int:
    while True:
        descriptor = _open_locked(path)
        if _is_at(path, descriptor):
            break
        os.close(descriptor)  # deleted between opening and locking
    durable.end_guards(path.parent)  # of an owner of before, who has lost the directory or was never released
    try:
        durable.write(path, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _open_locked(path: Path) -> int:
    """Opens the file and locks it, if that is possible at all."""
    for writable in (False, True):
        descriptor = durable.open_to_lock(path, writable=writable)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            message = (
                f"{path.parent}: in use by {_owner(path)}: wait until it has ended, stop it (SIGTERM saves first), "
                f"or give another --train_dir."
            )
            raise CheckpointError(message) from None
        except OSError as error:
            # NFS wants the file open for writing, which would keep a disk from being made read-only.
            if error.errno == errno.EBADF and not writable:
                os.close(descriptor)
                continue
            _log.warning("%s: cannot be locked (%s): make sure that no second run uses it", path.parent, error.strerror)
        return descriptor
    raise AssertionError("the second round returns or raises")


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def owner_lives(directory: Path) -> bool:
    """Whether the process that took the lock last is still there; asks the lock itself nothing, and disturbs nobody.

    Of a process on another host nobody knows; it is taken to live.
    """
    try:
        owner = json.loads(durable.read(directory / layout.LOCK, _MOST_BYTES))
        if owner["host"] == socket.gethostname():
            os.kill(owner["pid"], 0)
    except PermissionError:  # somebody else's
        return True
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return False
    return True


def _owner(path: Path) -> str:
    try:
        owner = json.loads(durable.read(path, _MOST_BYTES))
        return f"process {owner['pid']} on {owner['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # about to be written
        return "another process"
