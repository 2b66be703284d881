import errno
import fcntl
import logging
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from checkpointing.storage import durable, layout, staging
from checkpointing.storage.staging import TargetError, TargetExistsError
from tests import checkpoints
from tests.checkpoints import AWKWARD, tree

ROOT = Path(__file__).parents[3]
# Prints its staging directory once it has begun to write, then waits until it is killed.
WRITE = """
import sys, time
from pathlib import Path
from checkpointing.storage import staging
with staging.staged(Path(sys.argv[1])) as unfinished:
    unfinished.mkdir()
    (unfinished / "saved_model.pb").write_bytes(b"half")
    print(unfinished.parent, flush=True)
    sys.stdin.read()
"""
# Makes and deletes many staging directories; each time it sweeps.
HAMMER = """
import sys
from pathlib import Path
from checkpointing.storage import staging
sys.stdin.readline()
for number in range(100):
    with staging.staged(Path(sys.argv[1])) as unfinished:
        unfinished.write_text(sys.argv[2])
        assert unfinished.read_text() == sys.argv[2]
"""


def start(code, *arguments):
    """Start a Python process."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, text=True, **pipes)


@contextmanager
def writer(target):
    """Start a process that writes an output for a target; yield it and its staging directory."""
    process = start(WRITE, target)
    try:
        yield process, Path(process.stdout.readline().rstrip("\n"))
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", AWKWARD)
def test_an_output_is_written_beside_its_target(tmp_path, name):
    """At an unused path with the same suffix on the same file system; nothing of it is left at the end."""
    target = tmp_path / "new" / f"{name}.npz"
    with staging.staged(target) as unfinished:
        assert unfinished.suffix == ".npz"
        assert unfinished.parent.parent == target.parent
        assert not unfinished.exists()
        unfinished.write_bytes(b"whole")
        durable.rename_file(unfinished, target)
    assert tree(tmp_path / "new") == {target.name: b"whole"}
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, OSError])
def test_an_output_that_fails_leaves_nothing(tmp_path, error):
    """Whichever exception is raised."""
    with suppress(error), staging.staged(tmp_path / "out") as unfinished:
        (unfinished / "variables").mkdir(parents=True)
        raise error
    assert not list(tmp_path.iterdir())


def test_the_directory_of_a_killed_process_is_deleted(tmp_path):
    """Its lock is free."""
    with writer(tmp_path / "out") as (process, left):
        process.kill()
        process.wait()
        assert (left / "output" / "saved_model.pb").exists()
        staging.sweep(tmp_path / "out")
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGCONT])
def test_the_directory_of_a_running_process_stays(tmp_path, number):
    """Also if the process is stopped."""
    with writer(tmp_path / "out") as (process, theirs):
        process.send_signal(number)
        before = tree(theirs)
        staging.check_target(tmp_path / "out")
        assert tree(theirs) == before
        assert [path.name for path in tmp_path.iterdir()] == [theirs.name]


def test_a_kill_at_any_moment_leaves_nothing_after_a_sweep(tmp_path):
    """The next sweep deletes what was left, also in the middle of a deletion."""

    def act(directory):
        with staging.staged(directory / "out") as unfinished:
            (unfinished / "variables").mkdir(parents=True)
            durable.write(unfinished / "saved_model.pb", b"graph")

    kills = 0
    for directory in checkpoints.every_kill(tmp_path, lambda _: None, act):
        kills += 1
        staging.sweep(directory / "out")
        assert not list(directory.iterdir())
    assert kills > 10


def test_many_processes_never_share_a_directory(tmp_path):
    """Each reads what it wrote, none fails because another one sweeps, and nothing is left."""
    processes = [start(HAMMER, tmp_path / "out", number) for number in range(4)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate()[1] for process in processes] == [""] * 4
    assert [process.returncode for process in processes] == [0] * 4
    assert not list(tmp_path.iterdir())


def make_user_files(directory):
    """Make files of a user's beside an export, with names like those of staging directories."""
    for name in ("out.incomplete", "out.incomplete-01234567", "out.incomplete-mine"):
        for part in ("variables", "variables-of-my-thesis", "assets", "assets.extra"):
            (directory / name / part).mkdir(parents=True)
            (directory / name / part / "thesis.tex").write_text("mine")
        (directory / name / "saved_model.pb").write_bytes(b"mine")
    (directory / "out.incomplete-aaaaaaaa").write_text("a file")
    (directory / "elsewhere").mkdir()
    layout.staging_lock_path(directory / "elsewhere").touch()
    (directory / "out.incomplete-bbbbbbbb").symlink_to("elsewhere")
    return tree(directory)


def test_user_files_beside_the_target_stay(tmp_path):
    """Only directories with this program's name and lock file are deleted."""
    before = make_user_files(tmp_path)
    staging.check_target(tmp_path / "out")
    with staging.staged(tmp_path / "out") as unfinished:
        unfinished.mkdir()
    assert tree(tmp_path) == before
    assert (tmp_path / "out.incomplete-bbbbbbbb").is_symlink()


def test_leftovers_of_old_releases_are_deleted(tmp_path):
    """Of release 0.6.4 and older; a directory with any other file in it stays."""
    for name in ("ours", "users"):
        (tmp_path / f"{name}.incomplete" / "variables").mkdir(parents=True)
        (tmp_path / f"{name}.incomplete" / "saved_model.pb").write_bytes(b"half")
    (tmp_path / "users.incomplete" / "variables-of-mine").touch()
    (tmp_path / "linked.incomplete").symlink_to("users.incomplete")
    for name in ("ours", "users", "linked", "absent"):
        staging.sweep_old(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["linked.incomplete", "users.incomplete"]
    assert (tmp_path / "users.incomplete" / "saved_model.pb").exists()


def test_without_locks_outputs_are_written_and_nothing_is_deleted(tmp_path, monkeypatch, caplog):
    """Without locks an ended process cannot be recognised, so a warning names the possible leftovers."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    left = layout.staging_path(tmp_path / "out", "01234567")
    left.mkdir()
    layout.staging_lock_path(left).touch()
    with caplog.at_level(logging.WARNING):
        staging.replace_by(tmp_path / "out", lambda path: path.write_bytes(b"new"))
    assert tree(tmp_path) == {"out": b"new", f"{left.name}/export.lock": b""}
    assert f"{left}: could not be checked for a running export (No locks available)" in caplog.text


def test_a_free_target_passes_the_check(tmp_path):
    """Only its parents are made."""
    staging.check_target(tmp_path / "new" / "out")
    assert not list((tmp_path / "new").iterdir())


def test_an_existing_target_is_an_error(tmp_path):
    """A directory, a file or a dangling link."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("directory", "file", "link"):
        with pytest.raises(TargetExistsError, match=f"{name}: exists already") as caught:
            staging.check_target(tmp_path / name)
        assert caught.value.hint == "use another directory"


def test_a_target_that_cannot_be_made_is_an_error_before_training(tmp_path):
    """A directory cannot be made below a file, and a name can be too long."""
    (tmp_path / "file").touch()
    for target in (tmp_path / "file" / "1", tmp_path / ("x" * 250)):
        with pytest.raises(TargetError, match="cannot be made"):
            staging.check_target(target)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_target_below_a_read_only_directory_cannot_be_made(tmp_path):
    """The error comes before training."""
    (tmp_path / "ro").mkdir(mode=0o555)
    with pytest.raises(TargetError, match=re.escape("cannot be made (Permission denied)")) as caught:
        staging.check_target(tmp_path / "ro" / "out")
    assert caught.value.hint == "use another directory"


def test_an_export_must_not_have_a_checkpoints_name(tmp_path):
    """In a train_dir it would be listed as one."""
    with pytest.raises(TargetError, match="expected a directory's name, got a checkpoint's"):
        staging.check_target(tmp_path / "model.ckpt-7")


def test_a_file_written_by_a_library_replaces_another(tmp_path):
    """The library writes to a path with the same suffix; nothing is left beside the file."""
    path, suffixes = tmp_path / "größe.1.npz", []
    for content in (b"first, and rather long", b"second", b""):

        def write(unfinished, content=content):
            suffixes.append(unfinished.suffix)
            unfinished.write_bytes(content)

        staging.replace_by(path, write)
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]
    assert set(suffixes) == {".npz"}


@pytest.mark.parametrize("begun", [True, False])
def test_if_a_library_fails_the_old_file_stays(tmp_path, begun):
    """Whether it had begun to write or not; no unfinished file is left."""
    path = tmp_path / "x.npz"
    path.write_bytes(b"old")

    def fail(unfinished):
        if begun:
            unfinished.write_bytes(b"half")
        raise KeyError("no such dtype")

    with pytest.raises(KeyError):
        staging.replace_by(path, fail)
    assert tree(tmp_path) == {"x.npz": b"old"}


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    """One that begins and ends during the other's write does not change the other's output."""
    path = tmp_path / "x.onnx"

    def write(unfinished):
        with unfinished.open("wb") as file:
            file.write(b"one ")
            file.flush()
            staging.replace_by(path, lambda theirs: theirs.write_bytes(b"other"))
            assert path.read_bytes() == b"other"
            file.write(b"one")

    staging.replace_by(path, write)
    assert tree(tmp_path) == {"x.onnx": b"one one"}


@pytest.mark.parametrize("name", ["result.json", "events", "checkpoint", "quarantine", "metrics.jsonl"])
def test_a_runs_own_files_are_no_targets(tmp_path, name):
    """Outside a train_dir these names are allowed."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / layout.LOCK).touch()
    with pytest.raises(TargetError, match="the train_dir keeps its own file or directory there"):
        staging.check_target(tmp_path / "run" / name)
    staging.check_target(tmp_path / name)
