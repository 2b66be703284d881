"""Write an output in a private directory, then rename it to its target.

    with staging.staged(target) as unfinished:
        ...write a file or a directory at `unfinished`...
        durable.rename_tree(unfinished, target)

A staging directory is next to its target and is called `<target's name>.incomplete-<8 hexadecimal digits>`. It holds
the output and `export.lock`, which its process keeps locked (flock) until it has deleted the directory. Processes do
not share one, so two exports to one target cannot mix. If the lock is free, the process has ended, and `sweep` deletes
the directory. A directory without that name or without the lock file is never deleted.
"""

import errno
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from checkpointing.errors import CheckpointError, reason
from checkpointing.storage import durable, file_lock, layout

_OUTPUT = "output"
_SAVED_MODEL_NAMES = {"saved_model.pb", "saved_model.pbtxt", "variables", "assets", "assets.extra"}
_OTHER_TARGET = "use another directory"

_log = logging.getLogger(__name__)


class TargetError(CheckpointError):
    """Nothing can be exported to a target."""


class TargetExistsError(TargetError):
    """The target of an export exists. Exports overwrite nothing."""


def check_target(target: Path) -> None:
    """Check that a target can be exported to; cheap enough to be done before training.

    Makes the target's missing parents, and deletes what killed exports to this target left.

    Raises:
      TargetExistsError: `target` exists.
      TargetError: it cannot be made.
    """
    if layout.step_of(layout.index_path(target).name) is not None:
        raise TargetError(f"{target}: expected a directory's name, got a checkpoint's", hint=_OTHER_TARGET)
    if target.name in layout.RESERVED and (target.parent / layout.LOCK).exists():
        raise TargetError(f"{target}: the train_dir keeps its own file or directory there", hint=_OTHER_TARGET)
    try:
        check_is_free(target)
        with staged(target):
            pass
    except OSError as error:
        raise TargetError(f"{target}: cannot be made ({reason(error)})", hint=_OTHER_TARGET) from error


def check_is_free(target: Path) -> None:
    """Check that nothing is at a target, not even a dangling symbolic link.

    Raises:
      TargetExistsError: something is there.
      OSError: it cannot be checked.
    """
    if is_there(target):
        raise TargetExistsError(f"{target}: exists already; exported models are not overwritten", hint=_OTHER_TARGET)


def check_is_new_file(path: Path) -> None:
    """Check that nothing is at the path of a file to be written; raise CheckpointError if something is."""
    if is_there(path):
        raise CheckpointError(f"{path}: exists already; files are not overwritten", hint="use another name")


def is_there(target: Path) -> bool:
    """Whether a path exists; a dangling symbolic link does."""
    return target.is_symlink() or target.exists()


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Make a staging directory, and delete it at the end of the block.

    Args:
      target: where the output will be; its missing parents are made.

    Yields:
      The path to write the output to: nothing is there yet; it has the target's suffix, on the target's file system.

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
    """Replace a file by one that a library writes: `write_to` gets a temporary path with the same suffix."""
    with staged(path) as unfinished:
        write_to(unfinished)
        durable.rename_file(unfinished, path)


def sweep(target: Path) -> None:
    """Delete the staging directories of a target whose processes have ended."""
    if not target.parent.is_dir():
        return
    for staging in layout.staging_paths(target):
        if staging.is_dir() and not staging.is_symlink():
            _sweep(staging)


def sweep_old(target: Path) -> None:
    """Delete the staging directory of an export by release 0.6.4 or older, which had no lock.

    Only for a target in a train_dir whose lock the caller holds, so that no other process can be writing there.
    """
    staging = layout.old_staging_path(target)
    is_directory = staging.is_dir() and not staging.is_symlink()
    if is_directory and {path.name for path in staging.iterdir()} <= _SAVED_MODEL_NAMES:
        durable.delete_tree(staging)


def _make(target: Path) -> tuple[Path, int]:
    """Make a staging directory; return it and the descriptor that holds its lock."""
    while True:
        staging = layout.staging_path(target, os.urandom(4).hex())
        with suppress(FileExistsError):
            durable.make_new_directory(staging)
            # Until the lock is held, another process's `sweep` may delete the directory; then another one is made.
            with suppress(FileNotFoundError):
                lock = _lock(staging, create=True)
                if lock is not None:
                    return staging, lock


def _lock(staging: Path, *, create: bool) -> int | None:
    """Lock a staging directory; None if another process holds the lock, or has just deleted it."""
    path = layout.staging_lock_path(staging)
    try:
        descriptor = file_lock.acquire(path, create=create)
    except BlockingIOError:
        return None
    if file_lock.is_at(path, descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _sweep(staging: Path) -> None:
    try:
        names = {path.name for path in staging.iterdir()}
        if not names:  # killed before it made the lock file, or after it deleted it
            durable.delete_empty_directory(staging)
        elif layout.staging_lock_path(staging).name in names:
            lock = _lock(staging, create=False)
            if lock is not None:
                _log.info("%s: left by a killed export; deleted", staging)
                try:
                    _delete(staging)
                finally:
                    os.close(lock)
    except OSError as error:
        # Another process has just deleted it, or made its lock file.
        if error.errno not in {errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST}:
            hint = "delete it if no export is running"
            _log.warning("%s: could not be checked for a running export (%s); %s", staging, reason(error), hint)


def _delete(staging: Path) -> None:
    """Delete the output, then the lock file, which marks the directory as this program's, then the directory."""
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
    except FileNotFoundError:  # an empty directory without the lock file may be deleted by any process
        pass
    except OSError as error:
        _log.warning("%s: could not be deleted (%s); the next export deletes it", staging, reason(error))
