"""Lock a file with flock(2). The kernel releases the lock when its process ends, also after a kill."""

import errno
import fcntl
import logging
import os
from pathlib import Path

from checkpointing.storage import durable

_log = logging.getLogger(__name__)


def acquire(path: Path, *, create: bool) -> int:
    """Open a file and lock it exclusively, without waiting.

    Args:
      path: the file.
      create: the file is the caller's: it is made if it is missing and, on a file system without locks, returned
        unlocked with a warning.

    Returns:
      The descriptor; closing it releases the lock.

    Raises:
      BlockingIOError: the lock is held already.
      OddFileError: a symbolic link or special file is there; it is not opened.
      OSError: the file cannot be opened or, without `create`, not be locked.
    """
    # Opened for reading first, because a file open for writing prevents a read-only remount of its disk. NFS refuses to
    # lock such a file (EBADF), so it is opened for writing there.
    for writable in (False, True):
        descriptor = durable.open_to_lock(path, create=create, writable=writable)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno == errno.EBADF and not writable:
                os.close(descriptor)
                continue
            if isinstance(error, BlockingIOError) or not create:
                os.close(descriptor)
                raise
            hint = "make sure that no other process uses it"
            _log.warning("%s: cannot be locked (%s); %s", path.parent, error.strerror, hint)
        return descriptor
    raise AssertionError("the second attempt returns or raises")


def is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is the one at a path: a file deleted before it was locked locks nothing."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
