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
time.sleep(60)  # nobody has to end it if a test fails
"""


@contextmanager
def held_by_another(directory):
    """A process that holds the lock; it is killed in the end."""
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


def complaint(directory):
    """The sentence with which a second owner is refused."""
    with pytest.raises(CheckpointError) as refused:
        Lock(directory)
    sentence = str(refused.value)
    assert sentence.startswith(f"{directory}: in use by ")
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def test_another_process_is_told_who_has_it(directory):
    """By process and host, and what can be done."""
    with held_by_another(directory) as process:
        sentence = complaint(directory)
        assert f"process {process.pid} on {socket.gethostname()}:" in sentence
        assert "another --train_dir" in sentence


@pytest.mark.usefixtures("lock")
def test_a_second_owner_in_the_same_process_is_refused(directory):
    """It is one owner's, not one process's."""
    for _ in range(2):
        assert f"process {os.getpid()} on " in complaint(directory)


def test_the_lock_of_a_killed_process_is_free(directory):
    """Whatever its owner died of, nobody has to clear anything away."""
    with held_by_another(directory) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        Lock(directory).release()


def test_a_released_lock_is_free(directory, lock):
    """It can be had again and again; the file that it is held by stays, for others may have opened it."""
    lock.release()
    file = (directory / layout.LOCK).stat().st_ino
    for _ in range(3):
        Lock(directory).release()
    assert (directory / layout.LOCK).stat().st_ino == file


def test_releasing_twice_takes_it_from_nobody(directory, lock):
    """The other owner still has it."""
    lock.release()
    other = Lock(directory)
    lock.release()
    complaint(directory)
    other.release()


def test_the_file_tells_the_owner(directory):
    """Process and host of the one who has it now, in JSON, not of one before."""
    with held_by_another(directory):
        pass
    lock = Lock(directory)
    assert json.loads((directory / layout.LOCK).read_bytes()) == {"host": socket.gethostname(), "pid": os.getpid()}
    lock.release()


@pytest.mark.parametrize("content", [b"", b"\0" * 40, b"{}", b"[]", b"7", b"{", b"\xff"])
@pytest.mark.usefixtures("lock")
def test_what_the_file_says_decides_nothing(directory, content):
    """With garbage in it, the lock is held all the same."""
    (directory / layout.LOCK).write_bytes(content)
    assert "in use by another process:" in complaint(directory)


@pytest.mark.parametrize("content", [b"", b"\0" * 40, b'{"host": "elsewhere", "pid": 1}'])
def test_what_a_dead_owner_left_in_the_file_does_not_keep_anybody_out(directory, content):
    """The kernel knows who lives."""
    (directory / layout.LOCK).write_bytes(content)
    Lock(directory).release()


def test_two_directories_have_two_locks(directory, tmp_path):
    """One run does not keep another from its own train_dir."""
    lock, other = Lock(directory), Lock(tmp_path)
    lock.release()
    other.release()


def test_a_child_of_the_owner_does_not_hold_it(directory, lock):
    """What the owner started may live on, and keeps nobody out."""
    with subprocess.Popen(["sleep", "60"], close_fds=False) as child:
        try:
            lock.release()
            Lock(directory).release()
        finally:
            child.kill()


def test_renewing_what_is_held_changes_nothing(directory, lock):
    """Nobody else gets in between."""
    file = (directory / layout.LOCK).stat().st_ino
    for _ in range(2):
        lock.renew()
        complaint(directory)
    assert (directory / layout.LOCK).stat().st_ino == file


@pytest.mark.parametrize("deleted", ["the file", "the directory"])
def test_a_deleted_lock_is_renewed(directory, lock, deleted):
    """Where somebody deleted it under the run, the run takes it anew, and lets go of it in the end."""
    if deleted == "the file":
        (directory / layout.LOCK).unlink()
    else:
        shutil.rmtree(directory)
        directory.mkdir()
    lock.renew()
    assert f"process {os.getpid()} on " in complaint(directory)
    lock.release()
    Lock(directory).release()


def test_a_deleted_lock_that_another_was_faster_to_take_is_lost(directory, lock):
    """The run that lost it is told who has it, and does not take it from them in the end."""
    (directory / layout.LOCK).unlink()
    with held_by_another(directory) as process:
        with pytest.raises(CheckpointError, match=f"in use by process {process.pid} on "):
            lock.renew()
        lock.release()
        complaint(directory)


def test_a_renewal_that_the_disk_refused_is_made_later(directory, lock, monkeypatch):
    """The run goes on where a save failed; it must not go on without the lock."""
    shutil.rmtree(directory)
    directory.mkdir()

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            lock.renew()
    lock.renew()
    complaint(directory)


def another_run(tmp_path):
    """The train_dir of another run, with a checkpoint."""
    other = tmp_path / "other"
    checkpoints.make_checkpoint(other, 7)
    return other


@pytest.mark.parametrize("method", ["check", "renew"])
def test_another_runs_directory_in_its_place_is_found_out(directory, lock, tmp_path, method):
    """The sentence says where the run's own directory is now; nothing is written to the other one."""
    other = another_run(tmp_path)
    before = checkpoints.tree(other)
    directory.rename(tmp_path / "moved")
    other.rename(directory)
    with pytest.raises(ReplacedError, match=f"is another directory .* which is now {tmp_path / 'moved'}: nothing more"):
        getattr(lock, method)()
    assert checkpoints.tree(directory) == before
    assert not (directory / layout.LOCK).exists()


def test_a_link_that_leads_to_another_run_is_found_out(directory, tmp_path):
    """A train_dir may be a link of the user's; where it is changed under the run, the lock is not of that directory."""
    link = tmp_path / "link"
    link.symlink_to(directory)
    lock = Lock(link)
    lock.check()
    link.unlink()
    link.symlink_to(another_run(tmp_path))
    with pytest.raises(ReplacedError, match=f"{link}: is another directory"):
        lock.check()
    lock.release()


def test_another_owners_directory_is_in_use_before_its_first_checkpoint(directory, lock, tmp_path):
    """Its lock shows it."""
    directory.rename(tmp_path / "moved")
    directory.mkdir()
    with held_by_another(directory), pytest.raises(ReplacedError):
        lock.check()


@pytest.mark.parametrize("name", [None, "metrics.jsonl", "notes.txt"])
def test_any_other_directory_in_its_place_is_found_out(directory, lock, tmp_path, name):
    """Also one without a checkpoint: while the run's own directory is somewhere, nothing else is taken for it."""
    directory.rename(tmp_path / "moved")
    directory.mkdir()
    if name:
        (directory / name).write_text("mine")
    with pytest.raises(ReplacedError, match=f"which is now {tmp_path / 'moved'}"):
        lock.check()


@pytest.mark.usefixtures("lock")
def test_a_directory_that_was_deleted_and_filled_is_not_taken(directory):
    """What is in it now is not the run's."""
    shutil.rmtree(directory)
    directory.mkdir()
    (directory / "notes.txt").write_text("mine")
    with pytest.raises(ReplacedError):
        durable.write(directory / "file", b"")
    assert [path.name for path in directory.iterdir()] == ["notes.txt"]


def test_a_directory_that_was_deleted_is_made_again(directory, lock):
    """With the lock in it; what is written before that goes to the empty one that a user has made."""
    shutil.rmtree(directory)
    directory.mkdir()
    durable.append(directory / "metrics.jsonl", b"{}")
    lock.renew()
    shutil.rmtree(directory)
    lock.renew()
    assert f"process {os.getpid()} on " in complaint(directory)


def test_a_directory_that_was_moved_and_brought_back_is_the_same(directory, lock, tmp_path):
    """Also where a link leads to it now."""
    directory.rename(tmp_path / "moved")
    lock.check()  # gone is not replaced
    directory.symlink_to(tmp_path / "moved")
    lock.check()
    lock.renew()


PUT = {
    "a symbolic link": lambda path: path.symlink_to(path.with_name("precious")),
    "a FIFO": os.mkfifo,
    "a directory": os.mkdir,
}


def test_an_owner_that_was_never_released_is_in_nobodys_way(directory):
    """Its directory was deleted: the next owner in the same process, as in a notebook, has it like any other."""
    forgotten = Lock(directory)
    shutil.rmtree(directory)
    directory.mkdir()
    lock = Lock(directory)
    durable.atomic_write(directory / "file", b"content")
    lock.release()
    forgotten.release()


@pytest.mark.parametrize("kind", PUT)
def test_a_lock_is_not_opened_through_what_is_no_file(directory, kind):
    """A link's target is as it was, and no FIFO is waited for."""
    (directory / "precious").write_bytes(b"precious")
    PUT[kind](directory / layout.LOCK)
    with pytest.raises(OSError, match=kind.split()[-1]):
        Lock(directory)
    assert (directory / "precious").read_bytes() == b"precious"


def test_a_lock_that_cannot_be_written_is_not_kept(directory):
    """Who was told that it failed holds nothing, so that a second try is as good as the first."""
    with checkpoints.full_disk(), pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        Lock(directory)
    Lock(directory).release()


def test_a_file_deleted_before_it_was_locked_locks_nobody_out(directory, monkeypatch):
    """What is held in the end is the file that everybody finds."""
    really_lock = fcntl.flock
    in_between = [directory / layout.LOCK]

    def flock(descriptor, operation):
        if in_between:
            in_between.pop().unlink()
        really_lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = Lock(directory)
    complaint(directory)
    lock.release()


def test_a_file_system_without_locks_is_warned_of(directory, monkeypatch, caplog):
    """The run goes on there, and says what nobody can make sure of."""

    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = Lock(directory)
    lock.renew()
    lock.release()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"{directory}: cannot be locked ({os.strerror(errno.ENOLCK)})")


def test_without_its_directory_there_is_no_lock(directory):
    """It is not made here."""
    with pytest.raises(FileNotFoundError):
        Lock(directory / "absent")


def test_the_owner_is_on_the_disk_when_the_lock_is_held(directory, monkeypatch):
    """What the file says is written as everything is."""
    written = []
    really_write = durable.write
    monkeypatch.setattr(durable, "write", lambda path, content: written.append(path) or really_write(path, content))
    Lock(directory).release()
    assert written == [directory / layout.LOCK]
