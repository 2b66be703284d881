"""Private directories in which an output is written before it is renamed to its target.

    with staging.beside(target) as unfinished:
        ...write a file or a directory at `unfinished`...
        durable.rename_tree(unfinished, target)

A staging directory lies beside its target and is called `<target's name>.incomplete-<8 hexadecimal digits>`. It holds
`export.lock`, on which its process holds a lock (flock) until it has deleted the directory, and the output. No two
processes share one, so two exports to one target cannot mix. Where the lock is free, the process is gone, and `sweep`
deletes the directory; whatever lacks the name or the lock file is never deleted.
"""

import errno
import fcntl
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from checkpointing.errors import CheckpointError, reason
from checkpointing.storage import durable, layout

_OUTPUT = "output"
_OF_SAVED_MODEL = {"saved_model.pb", "saved_model.pbtxt", "variables", "assets", "assets.extra"}
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_log = logging.getLogger(__name__)


class TargetExistsError(CheckpointError):
    """Something is at the target of an export, and it is not overwritten."""


def check_target(target: Path, flag: str = "--export_dir") -> None:
    """Raises an error where nothing could be exported to a target; cheap, so that it can be done before training.

    Makes the target's parents where they are missing, and deletes what killed exports to this target have left.

    Raises:
      TargetExistsError: something is at `target`.
      CheckpointError: it cannot be made.
    """
    if layout.step_of(layout.index_path(target).name) is not None:
        raise CheckpointError(f"{target}: expected a directory's name, got a checkpoint's; give another {flag}.")
    if target.name in layout.RESERVED and (target.parent / layout.LOCK).exists():
        raise CheckpointError(f"{target}: the train_dir has a file or directory of its own there; give another {flag}.")
    try:
        check_is_free(target, flag)
        with beside(target):
            pass
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be made ({reason(error)}); give another {flag}.") from error


def check_is_free(target: Path, flag: str = "--export_dir") -> None:
    """Raises an error where something is at a target, be it a symbolic link that leads nowhere.

    Raises:
      TargetExistsError: something is there.
      OSError: it cannot be found out.
    """
    if is_there(target):
        message = f"{target}: exists already, and no exported model is overwritten: give another {flag}."
        raise TargetExistsError(message)


def is_there(target: Path) -> bool:
    """Whether a name is taken, be it by a symbolic link that leads nowhere."""
    return target.is_symlink() or target.exists()


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Makes a staging directory, and gives the path in it to write to; deletes it at the end of the block.

    Args:
      target: where the output is to go; its parents are made where they are missing.

    Yields:
      A path at which nothing is, on the target's file system and with the target's suffix.

    Raises:
      OSError: the directory cannot be made.
    """
    durable.make_directory(target.parent)
    sweep(target)
    staging, lock = _make(target)
    try:
        durable.fsync(staging)  # the lock file's name before all others
        yield staging / f"{_OUTPUT}{target.suffix}"
    finally:
        try:
            _delete(staging)
        finally:
            os.close(lock)


def replace_by(path: Path, write_to: Callable[[Path], object]) -> None:
    """As `durable.replace`, for content that a library writes: `write_to` is given a path with the same suffix."""
    with beside(path) as unfinished:
        write_to(unfinished)
        durable.rename_file(unfinished, path)


def sweep(target: Path) -> None:
    """Deletes the staging directories of a target whose processes are gone."""
    if not target.parent.is_dir():
        return
    for staging in layout.staging_paths(target):
        if staging.is_dir() and not staging.is_symlink():
            _sweep(staging)


def sweep_old(target: Path) -> None:
    """Deletes what an export by release 0.6.4 or older left beside a target: a directory without a lock.

    Only for a target inside a train_dir of which the caller holds the lock: there no other process can be writing it.
    """
    staging = layout.old_staging_path(target)
    if staging.is_dir() and not staging.is_symlink() and {path.name for path in staging.iterdir()} <= _OF_SAVED_MODEL:
        durable.delete_tree(staging)


def _make(target: Path) -> tuple[Path, int]:
    """A new staging directory, and the descriptor that holds its lock."""
    while True:
        staging = layout.staging_path(target, secrets.token_hex(4))
        with suppress(FileExistsError):
            durable.make_new_directory(staging)
            # Before the lock is held, `sweep` in another process may take the directory for a killed process' one.
            with suppress(FileNotFoundError):
                lock = _lock(staging, os.O_CREAT)
                if lock is not None:
                    return staging, lock


def _lock(staging: Path, flags: int = 0) -> int | None:
    """Takes the lock of a staging directory; None where another process holds it, or has deleted it meanwhile."""
    path = layout.staging_lock_path(staging)
    descriptor = os.open(path, _OPEN | flags, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(path.stat(), os.fstat(descriptor)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError as error:
        # The owner goes on: where there are no locks, no process can take its directory for a killed process' one.
        if flags & os.O_CREAT and not isinstance(error, FileNotFoundError):
            _log.warning("%s: cannot be locked (%s)", staging, reason(error))
            return descriptor
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _sweep(staging: Path) -> None:
    try:
        names = {path.name for path in staging.iterdir()}
        if not names:  # killed before it made the lock file, or after it deleted it
            durable.delete_empty_directory(staging)
        elif layout.staging_lock_path(staging).name in names:
            lock = _lock(staging)
            if lock is not None:
                _log.info("%s: deleting what a killed export left", staging)
                try:
                    _delete(staging)
                finally:
                    os.close(lock)
    except OSError as error:
        # Another process has just deleted it, or made its lock file.
        if error.errno not in {errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST}:
            advice = "delete it if no export is running"
            _log.warning("%s: could not be checked for a running export (%s); %s", staging, reason(error), advice)


def _delete(staging: Path) -> None:
    """Deletes the output first, then the lock file, which marks the directory as this program's."""
    lock = layout.staging_lock_path(staging)
    try:
        for path in staging.iterdir():
            if path.is_dir() and not path.is_symlink():
                durable.delete_tree(path)
            elif path != lock:
                durable.delete([path])
        durable.delete([lock])
        durable.delete_empty_directory(staging)
        durable.fsync(staging.parent)
    except FileNotFoundError:  # without the lock file and empty, it may be deleted by any process
        pass
    except OSError as error:
        _log.warning("%s: could not be deleted (%s); the next export deletes it", staging, reason(error))
