import errno
import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from checkpointing.errors import CheckpointError, ReplacedError
from checkpointing.storage import durable, layout
from checkpointing.storage.lock import Lock
from tests import checkpoints

ROOT = Path(__file__).parents[3]

HOLDING = """
import sys, time
from pathlib import Path
from checkpointing.storage.lock import Lock
lock = Lock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)  # ends even if the test fails
"""


@contextmanager
def held_by_another(directory):
    """Start a process that holds the lock; kill it at the end of the block."""
    command = [sys.executable, "-c", HOLDING, str(directory)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def directory(tmp_path):
    """A train_dir."""
    made = tmp_path / "run"
    made.mkdir()
    return made


@pytest.fixture
def lock(directory):
    """The lock of the train_dir, held."""
    held = Lock(directory)
    yield held
    held.release()


def owner_of_locked(directory):
    """Return the owner that the error of a second lock names."""
    with pytest.raises(CheckpointError) as caught:
        Lock(directory)
    message = str(caught.value)
    assert message.startswith(f"{directory}: in use by ")
    assert "\n" not in message
    assert caught.value.hint == "wait until it ends, stop it (SIGTERM saves first), or use another directory"
    return message.removeprefix(f"{directory}: in use by ")


THIS_PROCESS = f"process {os.getpid()} on {socket.gethostname()}"


def test_the_error_names_the_owner(directory):
    """The process and the host."""
    with held_by_another(directory) as process:
        assert owner_of_locked(directory) == f"process {process.pid} on {socket.gethostname()}"


@pytest.mark.usefixtures("lock")
def test_a_second_owner_in_the_same_process_is_refused(directory):
    """A lock belongs to one Lock object, not to one process."""
    for _ in range(2):
        assert owner_of_locked(directory) == THIS_PROCESS


def test_the_lock_of_a_killed_process_is_free(directory):
    """The kernel releases it; nothing has to be deleted."""
    with held_by_another(directory) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        Lock(directory).release()


def test_a_released_lock_is_free(directory, lock):
    """It can be taken again and again; the lock file stays, because other processes may have opened it."""
    lock.release()
    file = (directory / layout.LOCK).stat().st_ino
    for _ in range(3):
        Lock(directory).release()
    assert (directory / layout.LOCK).stat().st_ino == file


def test_a_second_release_does_nothing(directory, lock):
    """A later owner keeps the lock."""
    lock.release()
    other = Lock(directory)
    lock.release()
    owner_of_locked(directory)
    other.release()


def test_the_file_names_the_owner(directory):
    """Host and pid of the present owner, not of an earlier one, as JSON."""
    with held_by_another(directory):
        pass
    lock = Lock(directory)
    assert json.loads((directory / layout.LOCK).read_bytes()) == {"host": socket.gethostname(), "pid": os.getpid()}
    lock.release()


@pytest.mark.parametrize("content", [b"", b"\0" * 40, b"{}", b"[]", b"7", b"{", b"\xff"])
@pytest.mark.usefixtures("lock")
def test_the_files_content_does_not_matter(directory, content):
    """With garbage in its file, the lock is still held."""
    (directory / layout.LOCK).write_bytes(content)
    assert owner_of_locked(directory) == "another process"


@pytest.mark.parametrize("content", [b"", b"\0" * 40, b'{"host": "elsewhere", "pid": 1}'])
def test_a_file_left_by_a_dead_owner_does_not_block(directory, content):
    """Whether the owner runs is decided by the kernel's lock, not by the file's content."""
    (directory / layout.LOCK).write_bytes(content)
    Lock(directory).release()


def test_two_directories_have_two_locks(directory, tmp_path):
    """Runs in different train_dirs do not block each other."""
    lock, other = Lock(directory), Lock(tmp_path)
    lock.release()
    other.release()


def test_a_child_process_does_not_hold_the_lock(directory, lock):
    """A child that outlives the owner does not block the next owner."""
    with subprocess.Popen(["sleep", "60"], close_fds=False) as child:
        try:
            lock.release()
            Lock(directory).release()
        finally:
            child.kill()


def test_renewing_a_held_lock_changes_nothing(directory, lock):
    """No other process can take it meanwhile, and the file is the same."""
    file = (directory / layout.LOCK).stat().st_ino
    for _ in range(2):
        lock.renew()
        owner_of_locked(directory)
    assert (directory / layout.LOCK).stat().st_ino == file


@pytest.mark.parametrize("deleted", ["the file", "the directory"])
def test_a_deleted_lock_is_renewed(directory, lock, deleted):
    """If the file or the directory was deleted, `renew` takes the lock again, and `release` releases it."""
    if deleted == "the file":
        (directory / layout.LOCK).unlink()
    else:
        shutil.rmtree(directory)
        directory.mkdir()
    lock.renew()
    assert owner_of_locked(directory) == THIS_PROCESS
    lock.release()
    Lock(directory).release()


def test_a_deleted_lock_that_another_process_took_is_lost(directory, lock):
    """The error names the new owner, which keeps the lock after the old one's `release`."""
    (directory / layout.LOCK).unlink()
    with held_by_another(directory) as process:
        with pytest.raises(CheckpointError, match=f"in use by process {process.pid} on "):
            lock.renew()
        lock.release()
        owner_of_locked(directory)


def test_a_failed_renewal_can_be_repeated(directory, lock, monkeypatch):
    """A run continues after a failed save; it must not continue without the lock."""
    shutil.rmtree(directory)
    directory.mkdir()

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            lock.renew()
    lock.renew()
    owner_of_locked(directory)


def another_run(tmp_path):
    """Make the train_dir of another run, with a checkpoint."""
    other = tmp_path / "other"
    checkpoints.make_checkpoint(other, 7)
    return other


@pytest.mark.parametrize("method", ["check", "renew"])
def test_another_runs_directory_in_its_place_is_an_error(directory, lock, tmp_path, method):
    """The message says where the run's own directory is now; nothing is written to the other one."""
    other = another_run(tmp_path)
    before = checkpoints.tree(other)
    directory.rename(tmp_path / "moved")
    other.rename(directory)
    problem = rf"another directory is in its place \(the run's own is now {tmp_path / 'moved'}\); nothing more"
    with pytest.raises(ReplacedError, match=problem) as caught:
        getattr(lock, method)()
    assert caught.value.hint == "put the run's own directory back, and run the same command again"
    assert checkpoints.tree(directory) == before
    assert not (directory / layout.LOCK).exists()


def test_a_link_changed_to_another_run_is_an_error(directory, tmp_path):
    """A train_dir may be a symbolic link; if its target changes during the run, the lock is not the new target's."""
    link = tmp_path / "link"
    link.symlink_to(directory)
    lock = Lock(link)
    lock.check()
    link.unlink()
    link.symlink_to(another_run(tmp_path))
    with pytest.raises(ReplacedError, match=f"{link}: another directory is in its place"):
        lock.check()
    lock.release()


def test_another_runs_new_directory_in_its_place_is_an_error(directory, lock, tmp_path):
    """It holds no checkpoint yet, only its lock."""
    directory.rename(tmp_path / "moved")
    directory.mkdir()
    with held_by_another(directory), pytest.raises(ReplacedError):
        lock.check()


@pytest.mark.usefixtures("lock")
@pytest.mark.parametrize("change", [durable.write, durable.append])
def test_a_directory_that_changes_while_a_file_is_opened_is_an_error(directory, tmp_path, monkeypatch, change):
    """Between the check and the opening another run's directory is put in its place: its file is not changed."""
    other = another_run(tmp_path)
    (other / "file").write_bytes(b"the other run's")
    (directory / "file").write_bytes(b"ours")
    really_open = os.open

    def swap_and_open(path, *arguments, **options):
        if Path(path) == directory / "file" and not (tmp_path / "moved").exists():
            directory.rename(tmp_path / "moved")
            other.rename(directory)
        return really_open(path, *arguments, **options)

    monkeypatch.setattr(os, "open", swap_and_open)
    with pytest.raises(ReplacedError):
        change(directory / "file", b"new")
    assert (directory / "file").read_bytes() == b"the other run's"
    assert (tmp_path / "moved" / "file").read_bytes() == b"ours"


@pytest.mark.parametrize("name", [None, "metrics.jsonl", "notes.txt"])
def test_any_other_directory_in_its_place_is_an_error(directory, lock, tmp_path, name):
    """Also an empty one, as long as the run's own directory exists elsewhere."""
    directory.rename(tmp_path / "moved")
    directory.mkdir()
    if name:
        (directory / name).write_text("mine")
    with pytest.raises(ReplacedError, match=f"the run's own is now {tmp_path / 'moved'}"):
        lock.check()


@pytest.mark.usefixtures("lock")
def test_a_deleted_directory_that_was_filled_is_an_error(directory):
    """The new content is not the run's."""
    shutil.rmtree(directory)
    directory.mkdir()
    (directory / "notes.txt").write_text("mine")
    with pytest.raises(ReplacedError):
        durable.write(directory / "file", b"")
    assert [path.name for path in directory.iterdir()] == ["notes.txt"]


def test_a_deleted_directory_is_made_again(directory, lock):
    """With the lock in it. Writes before `renew` go to an empty directory that a user made."""
    shutil.rmtree(directory)
    directory.mkdir()
    durable.append(directory / "metrics.jsonl", b"{}")
    lock.renew()
    shutil.rmtree(directory)
    lock.renew()
    assert owner_of_locked(directory) == THIS_PROCESS


def test_a_directory_moved_and_put_back_is_the_same(directory, lock, tmp_path):
    """Also if a symbolic link leads to it now."""
    directory.rename(tmp_path / "moved")
    lock.check()  # a missing directory is not a replaced one
    directory.symlink_to(tmp_path / "moved")
    lock.check()
    lock.renew()


PUT = {
    "a symbolic link": lambda path: path.symlink_to(path.with_name("precious")),
    "a FIFO": os.mkfifo,
    "a directory": os.mkdir,
}


def test_a_lock_that_was_never_released_does_not_block(directory):
    """Its directory was deleted; another lock in the same process, as in a notebook, works as usual."""
    forgotten = Lock(directory)
    shutil.rmtree(directory)
    directory.mkdir()
    lock = Lock(directory)
    durable.atomic_write(directory / "file", b"content")
    lock.release()
    forgotten.release()


@pytest.mark.parametrize("kind", PUT)
def test_a_lock_file_must_be_a_regular_file(directory, kind):
    """A link's target does not change, and a FIFO is not waited for."""
    (directory / "precious").write_bytes(b"precious")
    PUT[kind](directory / layout.LOCK)
    with pytest.raises(OSError, match=kind.split()[-1]):
        Lock(directory)
    assert (directory / "precious").read_bytes() == b"precious"


def test_a_lock_whose_file_cannot_be_written_is_released(directory):
    """After a failed attempt nothing is locked, and a second attempt succeeds."""
    with checkpoints.full_disk(), pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        Lock(directory)
    Lock(directory).release()


def test_a_file_deleted_before_it_was_locked_is_not_the_lock(directory, monkeypatch):
    """The lock is taken again, on the file that other processes find."""
    really_lock = fcntl.flock
    in_between = [directory / layout.LOCK]

    def flock(descriptor, operation):
        if in_between:
            in_between.pop().unlink()
        really_lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = Lock(directory)
    owner_of_locked(directory)
    lock.release()


def test_a_file_system_without_locks_is_a_warning(directory, monkeypatch, caplog):
    """The run continues without a lock."""

    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = Lock(directory)
    lock.renew()
    lock.release()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"{directory}: cannot be locked ({os.strerror(errno.ENOLCK)})")


def test_a_missing_directory_is_an_error(directory):
    """Lock does not make it."""
    with pytest.raises(FileNotFoundError):
        Lock(directory / "absent")


def test_the_owner_is_written_durably(directory, monkeypatch):
    """Through `durable.write`, as every file is."""
    written = []
    really_write = durable.write
    monkeypatch.setattr(durable, "write", lambda path, content: written.append(path) or really_write(path, content))
    Lock(directory).release()
    assert written == [directory / layout.LOCK]
