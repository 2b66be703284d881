import errno
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from checkpointing.errors import OddFileError, is_damage
from checkpointing.storage import durable

ROOT = Path(__file__).parents[3]
AWKWARD = ["plain", "run[1]", "with spaces", "größe-数字", "star*?"]


def make_tree(directory):
    """A directory with a file, and with another file one level deeper."""
    (directory / "variables").mkdir(parents=True)
    (directory / "saved_model.pb").write_bytes(b"graph")
    (directory / "variables" / "variables.index").write_bytes(b"index")
    return directory


def tree(directory):
    """All files below a directory, by name."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def refuse_to_sync(monkeypatch, path):
    """Has the disk fail where it is to make this one file or directory safe."""
    really_sync = os.fsync

    def fsync(descriptor):
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        really_sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@contextmanager
def files_of_at_most(size):
    """Has the disk refuse to make any file longer than this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("name", AWKWARD)
def test_a_file_holds_what_it_was_made_to_hold(tmp_path, name):
    """Whatever it is called, new or not, a file holds the last content, and nothing lies beside it."""
    path = tmp_path / name
    for content in (b"first, and rather long", b"second", b""):
        durable.atomic_write(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_replacing_without_waiting_does_not_wait(tmp_path, monkeypatch):
    """What is worth no wait asks nothing of the disk; whoever looks finds it whole all the same."""
    path = tmp_path / "attempt.json"
    path.write_bytes(b"old, and rather long")

    def waited(_):
        pytest.fail("it waited")

    monkeypatch.setattr(os, "fsync", waited)
    durable.atomic_write_nosync(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_what_was_to_be_replaced_without_waiting(tmp_path):
    """Also there the old content stays where the new one finds no room, and the next attempt is as good as any."""
    path = tmp_path / "attempt.json"
    path.write_bytes(b"old")
    with files_of_at_most(10), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        durable.atomic_write_nosync(path, b"n" * 100)
    assert path.read_bytes() == b"old"
    durable.atomic_write_nosync(path, b"new")
    assert tree(tmp_path) == {"attempt.json": b"new"}


def test_a_record_is_written_as_json(tmp_path):
    """What programs read is JSON, indented for people, whatever letters are in it."""
    record = {"train_dir": "größe/数字", "step": 7, "none": None}
    durable.atomic_write_json(tmp_path / "result.json", record)
    text = (tmp_path / "result.json").read_text(encoding="ascii")
    assert json.loads(text) == record
    assert text.endswith("}\n")
    assert '\n  "step": 7,\n' in text


def test_what_a_crash_left_is_used_up(tmp_path):
    """Half a file of an earlier attempt, longer than what follows, leaves no trace."""
    (tmp_path / "checkpoint.tmp").write_bytes(b"x" * 1000)
    durable.atomic_write(tmp_path / "checkpoint", b"new")
    assert (tmp_path / "checkpoint").read_bytes() == b"new"
    assert not (tmp_path / "checkpoint.tmp").exists()


def test_the_bytes_are_safe_before_the_name_is_theirs(tmp_path, monkeypatch):
    """Where the disk cannot make the new bytes safe, the old ones stay under the name."""
    path = tmp_path / "checkpoint"
    durable.atomic_write(path, b"old")
    refuse_to_sync(monkeypatch, tmp_path / "checkpoint.tmp")
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        durable.atomic_write(path, b"new")
    assert path.read_bytes() == b"old"


def test_the_name_is_made_safe_afterwards(tmp_path, monkeypatch):
    """Where the disk cannot make the renaming safe, nobody is told that it was."""
    path = tmp_path / "checkpoint"
    refuse_to_sync(monkeypatch, tmp_path)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        durable.atomic_write(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_full_disk_leaves_the_old_content(tmp_path):
    """Where there is no room for the new bytes, that is an error, and the old ones stay."""
    path = tmp_path / "checkpoint"
    path.write_bytes(b"old")
    with files_of_at_most(10), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        durable.atomic_write(path, b"n" * 100)
    assert path.read_bytes() == b"old"


def test_a_kill_leaves_the_old_or_the_new(tmp_path):
    """Killed at any moment, a process that replaces a file again and again leaves one whole content."""
    path = tmp_path / "checkpoint"
    code = (
        "import sys; from pathlib import Path; from checkpointing.storage import durable\n"
        "while True:\n"
        "    for letter in (b'a', b'b'): durable.replace(Path(sys.argv[1]), letter * 1_000_000)\n"
    )
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT)
        while not path.exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(0.05)
        process.kill()
        process.wait()
        assert path.read_bytes() in (b"a" * 1_000_000, b"b" * 1_000_000)
        path.unlink()


def test_writing_waits_for_the_disk(tmp_path, monkeypatch):
    """A file whose bytes the disk could not make safe is an error."""
    path = tmp_path / "model.ckpt-1.meta"
    durable.write(path, b"old")
    refuse_to_sync(monkeypatch, path)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        durable.write(path, b"new")


def test_writing_replaces_all_of_a_file(tmp_path):
    """Nothing of a longer content shows behind a shorter one."""
    path = tmp_path / "model.ckpt-1.meta"
    durable.write(path, b"a long content")
    durable.write(path, b"short")
    assert path.read_bytes() == b"short"


def test_what_is_appended_comes_last(tmp_path):
    """A file is made by the first bytes, and each that follow come after those that are there."""
    path = tmp_path / "metrics.jsonl"
    for content in (b"first\n", b"", b"second\n"):
        durable.append(path, content)
    assert path.read_bytes() == b"first\nsecond\n"


@pytest.mark.parametrize("room", [0, 1, 9])
def test_where_the_disk_refuses_nothing_is_appended(tmp_path, room):
    """However many of the bytes found room, the file is as it was; with room again, it goes on behind that."""
    path = tmp_path / "metrics.jsonl"
    durable.append(path, b"first\n")
    with files_of_at_most(6 + room), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        durable.append(path, b"a second line\n")
    assert path.read_bytes() == b"first\n"
    durable.append(path, b"third\n")
    assert path.read_bytes() == b"first\nthird\n"


def test_a_first_line_that_is_refused_leaves_an_empty_file(tmp_path):
    """A file that could not even begin holds nothing."""
    with files_of_at_most(3), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        durable.append(tmp_path / "metrics.jsonl", b"first\n")
    assert tree(tmp_path) == {"metrics.jsonl": b""}


def test_what_is_gone_cannot_be_made_safe(tmp_path):
    """Waiting for a file that is not there is an error, not a success."""
    with pytest.raises(FileNotFoundError):
        durable.fsync(tmp_path / "absent")


@pytest.mark.parametrize("name", AWKWARD)
def test_a_directory_is_made_with_its_parents(tmp_path, name):
    """However deep, and again where it is there already."""
    path = tmp_path / name / "run" / "saved_model"
    for _ in range(2):
        durable.make_directory(path)
        assert path.is_dir()


@pytest.mark.parametrize("made_in", [".", "runs", "runs/cnn"])
def test_each_new_name_is_made_safe(tmp_path, monkeypatch, made_in):
    """Each directory in which a new one was made is waited for, up to the first that was there before."""
    refuse_to_sync(monkeypatch, tmp_path / made_in)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        durable.make_directory(tmp_path / "runs" / "cnn" / "saved_model")


def test_a_relative_directory_is_made(tmp_path, monkeypatch):
    """A path without a beginning is one below the current directory."""
    monkeypatch.chdir(tmp_path)
    durable.make_directory(Path("runs/cnn"))
    assert (tmp_path / "runs" / "cnn").is_dir()


@pytest.mark.parametrize("below", [".", "cnn"])
def test_a_file_in_the_way_stays(tmp_path, below):
    """Where a file has the name of a directory to make, or of its parent, that is an error, and the file is kept."""
    (tmp_path / "runs").write_text("mine")
    with pytest.raises((FileExistsError, NotADirectoryError)):
        durable.make_directory(tmp_path / "runs" / below)
    assert (tmp_path / "runs").read_text() == "mine"


def test_the_space_left_is_what_this_process_may_use(tmp_path, monkeypatch):
    """Not what the disk keeps for its administrator."""
    disk = SimpleNamespace(f_bavail=3, f_bfree=100, f_frsize=512, f_bsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda directory: disk if directory == tmp_path else pytest.fail("elsewhere"))
    assert durable.free_bytes(tmp_path) == 3 * 512


def test_some_space_is_left(tmp_path):
    """On a disk on which tests run it is a number of bytes."""
    assert isinstance(durable.free_bytes(tmp_path), int)
    assert durable.free_bytes(tmp_path) > 0


@pytest.mark.parametrize("name", AWKWARD)
def test_files_are_moved_into_a_directory(tmp_path, name):
    """Files and directories keep their names and contents; the directory is made with its parents."""
    make_tree(tmp_path)
    (tmp_path / "kept").write_bytes(b"kept")
    durable.move([tmp_path / "saved_model.pb", tmp_path / "variables"], tmp_path / "quarantine" / name)
    assert tree(tmp_path) == {
        "kept": b"kept",
        f"quarantine/{name}/saved_model.pb": b"graph",
        f"quarantine/{name}/variables/variables.index": b"index",
    }


def test_files_are_moved_one_after_the_other(tmp_path):
    """Where one cannot be moved, those before it have been, in the order in which they were given, and no other."""
    for name in ("c", "a", "b"):
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError):
        durable.move([tmp_path / name for name in ("c", "a", "absent", "b")], tmp_path / "there")
    assert set(tree(tmp_path)) == {"there/c", "there/a", "b"}


@pytest.mark.parametrize("unsafe", [".", "there"])
def test_moving_is_made_safe_at_both_ends(tmp_path, monkeypatch, unsafe):
    """Where the disk cannot keep the old directory's names or the new one's, nobody is told that it was moved."""
    (tmp_path / "there").mkdir()
    (tmp_path / "a").write_bytes(b"a")
    refuse_to_sync(monkeypatch, tmp_path / unsafe)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        durable.move([tmp_path / "a"], tmp_path / "there")
    assert tree(tmp_path) in ({"there/a": b"a"}, {"a": b"a"})


def test_a_file_is_renamed_once_it_is_safe(tmp_path, monkeypatch):
    """Where the disk cannot make its bytes safe, the old file stays; the directory is made safe after the renaming."""
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "x.npz").write_bytes(b"old")
    with monkeypatch.context() as patched:
        refuse_to_sync(patched, tmp_path / "new")
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            durable.rename_file(tmp_path / "new", tmp_path / "x.npz")
    assert tree(tmp_path) == {"new": b"new", "x.npz": b"old"}
    refuse_to_sync(monkeypatch, tmp_path)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        durable.rename_file(tmp_path / "new", tmp_path / "x.npz")
    assert tree(tmp_path) == {"x.npz": b"new"}


def test_a_new_directory_is_not_one_that_was_there(tmp_path):
    """A name that is taken is an error, by a directory, too; nothing in it changes."""
    durable.make_new_directory(tmp_path / "new")
    (tmp_path / "new" / "file").touch()
    with pytest.raises(FileExistsError):
        durable.make_new_directory(tmp_path / "new")
    assert (tmp_path / "new" / "file").exists()


def test_only_an_empty_directory_is_deleted_as_such(tmp_path):
    """One with a file stays, and so does a file."""
    (tmp_path / "empty").mkdir()
    durable.delete_empty_directory(tmp_path / "empty")
    before = tree(make_tree(tmp_path / "tree"))
    for name in ("tree", "tree/saved_model.pb"):
        with pytest.raises(OSError, match=name):
            durable.delete_empty_directory(tmp_path / name)
    assert tree(tmp_path / "tree") == before
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize("name", AWKWARD)
def test_a_tree_is_renamed_whole(tmp_path, name):
    """All files come along, and the old name is free again."""
    source = make_tree(tmp_path / f"{name}.incomplete")
    content = tree(source)
    durable.rename_tree(source, tmp_path / name)
    assert tree(tmp_path / name) == content
    assert not source.exists()


@pytest.mark.parametrize("unsafe", [".", "saved_model.pb", "variables", "variables/variables.index"])
def test_a_tree_is_safe_before_it_has_its_name(tmp_path, monkeypatch, unsafe):
    """Where a file or a directory of the tree cannot be made safe, the tree keeps its old name."""
    source, target = make_tree(tmp_path / "100.incomplete"), tmp_path / "100"
    refuse_to_sync(monkeypatch, source / unsafe)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        durable.rename_tree(source, target)
    assert source.exists()
    assert not target.exists()


def test_the_name_of_a_tree_is_made_safe_afterwards(tmp_path, monkeypatch):
    """Where the disk cannot make the renaming safe, nobody is told that it was."""
    source, target = make_tree(tmp_path / "100.incomplete"), tmp_path / "100"
    refuse_to_sync(monkeypatch, tmp_path)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        durable.rename_tree(source, target)
    assert target.exists()


@pytest.mark.parametrize("put", [Path.touch, Path.mkdir, make_tree], ids=["file", "empty directory", "tree"])
def test_a_tree_replaces_nothing(tmp_path, put):
    """What has the target's name already stays, be it an empty directory; so does the source."""
    source, target = make_tree(tmp_path / "100.incomplete"), tmp_path / "100"
    put(target)
    before = tree(tmp_path)
    with pytest.raises(FileExistsError):
        durable.rename_tree(source, target)
    assert tree(tmp_path) == before
    assert target.exists()


def test_files_are_deleted(tmp_path):
    """A file that is there is deleted, one that is gone is fine, and the rest stays."""
    (tmp_path / "file").touch()
    (tmp_path / "kept").touch()
    durable.delete([tmp_path / "file", tmp_path / "absent"])
    assert list(tmp_path.iterdir()) == [tmp_path / "kept"]


def test_a_directory_in_the_place_of_a_file_is_not_deleted(tmp_path):
    """What a user keeps in a directory of a file's name stays there."""
    before = tree(make_tree(tmp_path / "attempt.json"))
    with pytest.raises(IsADirectoryError):
        durable.delete([tmp_path / "attempt.json"])
    assert tree(tmp_path / "attempt.json") == before


def test_a_tree_is_deleted(tmp_path):
    """With all below it; one that is gone is fine."""
    for _ in range(2):
        durable.delete_tree(make_tree(tmp_path / "100.incomplete"))
        assert not list(tmp_path.iterdir())
    durable.delete_tree(tmp_path / "100.incomplete")


def test_a_link_to_a_tree_is_not_deleted(tmp_path):
    """Neither the link nor the directory it leads to."""
    before = tree(make_tree(tmp_path / "directory"))
    (tmp_path / "100.incomplete").symlink_to("directory")
    with pytest.raises(OSError, match="symbolic link"):
        durable.delete_tree(tmp_path / "100.incomplete")
    assert tree(tmp_path / "directory") == before


WRITERS = [durable.write, durable.append, durable.atomic_write, durable.atomic_write_nosync]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("name", ["file", "file.tmp"])
def test_nothing_is_written_through_a_link(tmp_path, write, name):
    """Neither where the file goes nor at its temporary name: what the link leads to is as it was."""
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / name).symlink_to("precious")
    with suppress(OddFileError):
        write(tmp_path / "file", b"new")
    assert (tmp_path / "precious").read_bytes() == b"precious"


def make_socket(path):
    """A socket's name; it stays when the socket is closed."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


ODD = {
    "FIFO": os.mkfifo,
    "socket": make_socket,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "directory": os.mkdir,
}


@pytest.mark.parametrize("kind", ODD)
def test_reading_what_is_no_file_is_an_error_at_once(tmp_path, monkeypatch, kind):
    """No FIFO is waited for, and no endless device is read."""
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    ODD[kind](Path("odd"))
    with pytest.raises(OSError, match=re.escape(kind) if kind != "directory" else "directory") as caught:
        durable.read(Path("odd"), 100)
    assert is_damage(caught.value)


@pytest.mark.parametrize("write", [durable.write, durable.append])
@pytest.mark.parametrize("kind", ["FIFO", "socket", "directory"])
def test_writing_to_what_is_no_file_is_an_error_at_once(tmp_path, monkeypatch, kind, write):
    """Nor does a write wait for a FIFO's reader."""
    monkeypatch.chdir(tmp_path)
    ODD[kind](Path("odd"))
    with pytest.raises(OSError, match=r"FIFO|socket|directory"):
        write(Path("odd"), b"new")


def test_a_file_is_read_up_to_a_size(tmp_path):
    """One that is larger is an error, and no memory is taken for it."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert durable.read(path, 100) == b"x" * 100
    with pytest.raises(OddFileError, match="at most 99 bytes, got 100"):
        durable.read(path, 99)


def test_a_file_behind_a_link_is_read(tmp_path):
    """A data file may lie elsewhere: only writing does not follow links."""
    (tmp_path / "there").write_bytes(b"content")
    (tmp_path / "here").symlink_to("there")
    assert durable.read(tmp_path / "here", 100) == b"content"


@pytest.mark.parametrize("name", ["directory", "file", "nowhere"])
def test_a_link_is_deleted_not_what_it_leads_to(tmp_path, name):
    """Deleting never leaves the directory that was meant."""
    make_tree(tmp_path / "directory")
    (tmp_path / "file").touch()
    before = tree(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / name)
    durable.delete([tmp_path / "link"])
    assert not (tmp_path / "link").is_symlink()
    assert tree(tmp_path) == before


CHANGES = {
    "write": lambda directory: durable.write(directory / "file", b"new"),
    "append": lambda directory: durable.append(directory / "file", b"new"),
    "replace": lambda directory: durable.atomic_write(directory / "file", b"new"),
    "replace_without_waiting": lambda directory: durable.atomic_write_nosync(directory / "file", b"new"),
    "make_directory": lambda directory: durable.make_directory(directory / "new"),
    "move": lambda directory: durable.move([directory / "file"], directory.with_name("elsewhere")),
    "rename_tree": lambda directory: durable.rename_tree(make_tree(directory.with_name("tree")), directory / "tree"),
    "delete": lambda directory: durable.delete([directory / "file"]),
    "delete_tree": lambda directory: durable.delete_tree(directory / "below"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_guard_is_called_before_anything_is_changed(tmp_path, change):
    """What it raises leaves all below the directory as it was; once it has ended, the change is made."""
    directory = tmp_path / "run"
    make_tree(directory / "below")
    (directory / "file").write_bytes(b"old")

    def refuse():
        raise KeyError("another directory")

    before, end = tree(directory), durable.guard(directory, refuse)
    with pytest.raises(KeyError, match="another directory"):
        CHANGES[change](directory)
    assert tree(directory) == before
    assert not (directory / "new").exists()
    durable.atomic_write(tmp_path / "file", b"beside")  # not below
    end()
    shutil.rmtree(tmp_path / "tree", ignore_errors=True)
    CHANGES[change](directory)
    assert tree(directory) != before or (directory / "new").exists()
