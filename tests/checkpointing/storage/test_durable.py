import errno
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from checkpointing.errors import OddFileError
from checkpointing.storage import durable, write_guard
from tests import odd_files

ROOT = Path(__file__).parents[3]
AWKWARD = ["plain", "run[1]", "with spaces", "größe-数字", "star*?"]


def make_tree(directory):
    """Make a directory with a file, and with another file one level deeper."""
    (directory / "variables").mkdir(parents=True)
    (directory / "saved_model.pb").write_bytes(b"graph")
    (directory / "variables" / "variables.index").write_bytes(b"index")
    return directory


def tree(directory):
    """Return the content of all files below a directory by name."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def refuse_to_sync(monkeypatch, path):
    """Make fsync of one file or directory fail."""
    really_sync = os.fsync

    def fsync(descriptor):
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        really_sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("name", AWKWARD)
def test_an_atomic_write_replaces_the_content(tmp_path, name):
    """New or not, under any name, the file has the last content, and no other file is left."""
    path = tmp_path / name
    for content in (b"first, and rather long", b"second", b""):
        durable.atomic_write(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_without_sync_does_not_wait(tmp_path, monkeypatch):
    """No fsync is called; the replacement is still atomic for other processes."""
    path = tmp_path / "attempt.json"
    path.write_bytes(b"old, and rather long")

    def waited(_):
        pytest.fail("it waited")

    monkeypatch.setattr(os, "fsync", waited)
    durable.atomic_write_nosync(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_content_without_sync(tmp_path):
    """Also without fsync the old content stays, and the next attempt succeeds."""
    path = tmp_path / "attempt.json"
    path.write_bytes(b"old")
    with odd_files.files_of_at_most(10), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        durable.atomic_write_nosync(path, b"n" * 100)
    assert path.read_bytes() == b"old"
    durable.atomic_write_nosync(path, b"new")
    assert tree(tmp_path) == {"attempt.json": b"new"}


def test_a_record_is_written_as_json(tmp_path):
    """Indented ASCII JSON, for values with any letters."""
    record = {"train_dir": "größe/数字", "step": 7, "none": None}
    durable.atomic_write_json(tmp_path / "result.json", record)
    text = (tmp_path / "result.json").read_text(encoding="ascii")
    assert json.loads(text) == record
    assert text.endswith("}\n")
    assert '\n  "step": 7,\n' in text


def test_a_temporary_file_left_by_a_crash_is_replaced(tmp_path):
    """Also one that is longer than the new content."""
    (tmp_path / "checkpoint.tmp").write_bytes(b"x" * 1000)
    durable.atomic_write(tmp_path / "checkpoint", b"new")
    assert (tmp_path / "checkpoint").read_bytes() == b"new"
    assert not (tmp_path / "checkpoint.tmp").exists()


def test_the_bytes_are_synced_before_the_rename(tmp_path, monkeypatch):
    """If the new bytes cannot be synced, the file keeps the old ones."""
    path = tmp_path / "checkpoint"
    durable.atomic_write(path, b"old")
    refuse_to_sync(monkeypatch, tmp_path / "checkpoint.tmp")
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        durable.atomic_write(path, b"new")
    assert path.read_bytes() == b"old"


def test_the_directory_is_synced_after_the_rename(tmp_path, monkeypatch):
    """If the directory cannot be synced, that is an error."""
    path = tmp_path / "checkpoint"
    refuse_to_sync(monkeypatch, tmp_path)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        durable.atomic_write(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_full_disk_leaves_the_old_content(tmp_path):
    """If the new bytes do not fit, that is an error, and the file keeps the old ones."""
    path = tmp_path / "checkpoint"
    path.write_bytes(b"old")
    with odd_files.files_of_at_most(10), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        durable.atomic_write(path, b"n" * 100)
    assert path.read_bytes() == b"old"


def test_a_kill_leaves_the_old_or_the_new(tmp_path):
    """A process that replaces a file again and again, killed at any moment, leaves one of the contents."""
    path = tmp_path / "checkpoint"
    code = (
        "import sys; from pathlib import Path; from checkpointing.storage import durable\n"
        "while True:\n"
        "    for letter in (b'a', b'b'): durable.atomic_write(Path(sys.argv[1]), letter * 1_000_000)\n"
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


def test_a_write_is_synced(tmp_path, monkeypatch):
    """If the bytes cannot be synced, that is an error."""
    path = tmp_path / "model.ckpt-1.meta"
    durable.write(path, b"old")
    refuse_to_sync(monkeypatch, path)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        durable.write(path, b"new")


def test_a_write_truncates_the_file(tmp_path):
    """Nothing of a longer content is left after a shorter one."""
    path = tmp_path / "model.ckpt-1.meta"
    durable.write(path, b"a long content")
    durable.write(path, b"short")
    assert path.read_bytes() == b"short"


def test_appended_bytes_come_last(tmp_path):
    """The first append makes the file; each later one adds to its end."""
    path = tmp_path / "metrics.jsonl"
    for content in (b"first\n", b"", b"second\n"):
        durable.append(path, content)
    assert path.read_bytes() == b"first\nsecond\n"


@pytest.mark.parametrize("room", [0, 1, 9])
def test_a_failed_append_changes_nothing(tmp_path, room):
    """However many bytes fitted, the file is as before, and a later append succeeds."""
    path = tmp_path / "metrics.jsonl"
    durable.append(path, b"first\n")
    with odd_files.files_of_at_most(6 + room), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        durable.append(path, b"a second line\n")
    assert path.read_bytes() == b"first\n"
    durable.append(path, b"third\n")
    assert path.read_bytes() == b"first\nthird\n"


def test_a_failed_first_append_leaves_an_empty_file(tmp_path):
    """No part of the line is in it."""
    with odd_files.files_of_at_most(3), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        durable.append(tmp_path / "metrics.jsonl", b"first\n")
    assert tree(tmp_path) == {"metrics.jsonl": b""}


def test_a_missing_file_cannot_be_synced(tmp_path):
    """That is an error."""
    with pytest.raises(FileNotFoundError):
        durable.fsync(tmp_path / "absent")


@pytest.mark.parametrize("name", AWKWARD)
def test_a_directory_is_made_with_its_parents(tmp_path, name):
    """At any depth, and again if it exists."""
    path = tmp_path / name / "run" / "saved_model"
    for _ in range(2):
        durable.make_directory(path)
        assert path.is_dir()


@pytest.mark.parametrize("made_in", [".", "runs", "runs/cnn"])
def test_each_new_directory_is_synced(tmp_path, monkeypatch, made_in):
    """Each parent of a new directory is synced, up to the first that existed before."""
    refuse_to_sync(monkeypatch, tmp_path / made_in)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        durable.make_directory(tmp_path / "runs" / "cnn" / "saved_model")


def test_a_relative_directory_is_made(tmp_path, monkeypatch):
    """Below the current directory."""
    monkeypatch.chdir(tmp_path)
    durable.make_directory(Path("runs/cnn"))
    assert (tmp_path / "runs" / "cnn").is_dir()


@pytest.mark.parametrize("below", [".", "cnn"])
def test_a_file_in_the_way_stays(tmp_path, below):
    """A file with the name of the directory, or of its parent, is an error, and is unchanged."""
    (tmp_path / "runs").write_text("mine")
    with pytest.raises((FileExistsError, NotADirectoryError)):
        durable.make_directory(tmp_path / "runs" / below)
    assert (tmp_path / "runs").read_text() == "mine"


def test_free_bytes_are_those_that_this_process_may_use(tmp_path, monkeypatch):
    """Without the blocks reserved for root."""
    disk = SimpleNamespace(f_bavail=3, f_bfree=100, f_frsize=512, f_bsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda directory: disk if directory == tmp_path else pytest.fail("elsewhere"))
    assert durable.free_bytes(tmp_path) == 3 * 512


def test_free_bytes_is_a_number(tmp_path):
    """Positive on a disk on which tests can run."""
    assert isinstance(durable.free_bytes(tmp_path), int)
    assert durable.free_bytes(tmp_path) > 0


@pytest.mark.parametrize("name", AWKWARD)
def test_files_are_moved_into_a_directory(tmp_path, name):
    """Names and contents stay the same; the directory is made with its parents."""
    make_tree(tmp_path)
    (tmp_path / "kept").write_bytes(b"kept")
    durable.move([tmp_path / "saved_model.pb", tmp_path / "variables"], tmp_path / "quarantine" / name)
    assert tree(tmp_path) == {
        "kept": b"kept",
        f"quarantine/{name}/saved_model.pb": b"graph",
        f"quarantine/{name}/variables/variables.index": b"index",
    }


def test_files_are_moved_one_after_the_other(tmp_path):
    """In the order of the arguments: if one cannot be moved, those before it have been, those after it have not."""
    for name in ("c", "a", "b"):
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError):
        durable.move([tmp_path / name for name in ("c", "a", "absent", "b")], tmp_path / "there")
    assert set(tree(tmp_path)) == {"there/c", "there/a", "b"}


@pytest.mark.parametrize("unsafe", [".", "there"])
def test_a_move_syncs_both_directories(tmp_path, monkeypatch, unsafe):
    """If the old or the new directory cannot be synced, that is an error."""
    (tmp_path / "there").mkdir()
    (tmp_path / "a").write_bytes(b"a")
    refuse_to_sync(monkeypatch, tmp_path / unsafe)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        durable.move([tmp_path / "a"], tmp_path / "there")
    assert tree(tmp_path) in ({"there/a": b"a"}, {"a": b"a"})


def test_a_file_is_synced_before_it_is_renamed(tmp_path, monkeypatch):
    """If its bytes cannot be synced, the old file stays; the directory is synced after the rename."""
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


def test_a_new_directory_must_not_exist(tmp_path):
    """An existing directory is an error, and is unchanged."""
    durable.make_new_directory(tmp_path / "new")
    (tmp_path / "new" / "file").touch()
    with pytest.raises(FileExistsError):
        durable.make_new_directory(tmp_path / "new")
    assert (tmp_path / "new" / "file").exists()


def test_only_an_empty_directory_is_deleted(tmp_path):
    """A directory with a file stays, and so does a file."""
    (tmp_path / "empty").mkdir()
    durable.delete_empty_directory(tmp_path / "empty")
    before = tree(make_tree(tmp_path / "tree"))
    for name in ("tree", "tree/saved_model.pb"):
        with pytest.raises(OSError, match=name):
            durable.delete_empty_directory(tmp_path / name)
    assert tree(tmp_path / "tree") == before
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize("name", AWKWARD)
def test_a_tree_is_renamed(tmp_path, name):
    """With all files; the old name is free."""
    source = make_tree(tmp_path / f"{name}.incomplete")
    content = tree(source)
    durable.rename_tree(source, tmp_path / name)
    assert tree(tmp_path / name) == content
    assert not source.exists()


@pytest.mark.parametrize("unsafe", [".", "saved_model.pb", "variables", "variables/variables.index"])
def test_a_tree_is_synced_before_it_is_renamed(tmp_path, monkeypatch, unsafe):
    """If a file or directory in it cannot be synced, it keeps its old name."""
    source, target = make_tree(tmp_path / "100.incomplete"), tmp_path / "100"
    refuse_to_sync(monkeypatch, source / unsafe)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        durable.rename_tree(source, target)
    assert source.exists()
    assert not target.exists()


def test_the_parent_is_synced_after_a_tree_is_renamed(tmp_path, monkeypatch):
    """If the directory cannot be synced, that is an error."""
    source, target = make_tree(tmp_path / "100.incomplete"), tmp_path / "100"
    refuse_to_sync(monkeypatch, tmp_path)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        durable.rename_tree(source, target)
    assert target.exists()


@pytest.mark.parametrize("put", [Path.touch, Path.mkdir, make_tree], ids=["file", "empty directory", "tree"])
def test_a_tree_replaces_nothing(tmp_path, put):
    """An existing target is an error, also if it is an empty directory; target and source are unchanged."""
    source, target = make_tree(tmp_path / "100.incomplete"), tmp_path / "100"
    put(target)
    before = tree(tmp_path)
    with pytest.raises(FileExistsError):
        durable.rename_tree(source, target)
    assert tree(tmp_path) == before
    assert target.exists()


def test_files_are_deleted(tmp_path):
    """Missing files are skipped, and other files stay."""
    (tmp_path / "file").touch()
    (tmp_path / "kept").touch()
    durable.delete([tmp_path / "file", tmp_path / "absent"])
    assert list(tmp_path.iterdir()) == [tmp_path / "kept"]


def test_a_directory_is_not_deleted_as_a_file(tmp_path):
    """It may hold a user's files."""
    before = tree(make_tree(tmp_path / "attempt.json"))
    with pytest.raises(IsADirectoryError):
        durable.delete([tmp_path / "attempt.json"])
    assert tree(tmp_path / "attempt.json") == before


def test_a_tree_is_deleted(tmp_path):
    """With everything below it; a missing one is skipped."""
    for _ in range(2):
        durable.delete_tree(make_tree(tmp_path / "100.incomplete"))
        assert not list(tmp_path.iterdir())
    durable.delete_tree(tmp_path / "100.incomplete")


def test_a_link_to_a_tree_is_not_deleted(tmp_path):
    """Neither the link nor its target."""
    before = tree(make_tree(tmp_path / "directory"))
    (tmp_path / "100.incomplete").symlink_to("directory")
    with pytest.raises(OSError, match="symbolic link"):
        durable.delete_tree(tmp_path / "100.incomplete")
    assert tree(tmp_path / "directory") == before


WRITERS = [durable.write, durable.append, durable.atomic_write, durable.atomic_write_nosync]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("name", ["file", "file.tmp"])
def test_nothing_is_written_through_a_link(tmp_path, write, name):
    """Neither at the file's name nor at its temporary name; the link's target is unchanged."""
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / name).symlink_to("precious")
    with suppress(OddFileError):
        write(tmp_path / "file", b"new")
    assert (tmp_path / "precious").read_bytes() == b"precious"


@pytest.mark.parametrize("write", [durable.write, durable.append])
@pytest.mark.parametrize("kind", ["FIFO", "socket", "directory"])
def test_only_regular_files_are_written(tmp_path, monkeypatch, kind, write):
    """Anything else is an error at once: no write waits for a FIFO's reader."""
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    odd_files.make(kind, Path("odd"))
    with pytest.raises(OSError, match=kind):
        write(Path("odd"), b"new")


@pytest.mark.parametrize("name", ["directory", "file", "nowhere"])
def test_a_link_is_deleted_not_its_target(tmp_path, name):
    """Whether the target is a directory, a file, or missing."""
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
    "atomic_write": lambda directory: durable.atomic_write(directory / "file", b"new"),
    "atomic_write_nosync": lambda directory: durable.atomic_write_nosync(directory / "file", b"new"),
    "make_directory": lambda directory: durable.make_directory(directory / "new"),
    "move": lambda directory: durable.move([directory / "file"], directory.with_name("elsewhere")),
    "rename_tree": lambda directory: durable.rename_tree(make_tree(directory.with_name("tree")), directory / "tree"),
    "delete": lambda directory: durable.delete([directory / "file"]),
    "delete_tree": lambda directory: durable.delete_tree(directory / "below"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_guard_is_called_before_anything_is_changed(tmp_path, change):
    """If it raises, nothing below the directory changes; after it is removed, the change is made."""
    directory = tmp_path / "run"
    make_tree(directory / "below")
    (directory / "file").write_bytes(b"old")

    def refuse():
        raise KeyError("another directory")

    before, remove_guard = tree(directory), write_guard.add(directory, refuse)
    with pytest.raises(KeyError, match="another directory"):
        CHANGES[change](directory)
    assert tree(directory) == before
    assert not (directory / "new").exists()
    durable.atomic_write(tmp_path / "file", b"beside")  # not below the directory
    remove_guard()
    shutil.rmtree(tmp_path / "tree", ignore_errors=True)
    CHANGES[change](directory)
    assert tree(directory) != before or (directory / "new").exists()
