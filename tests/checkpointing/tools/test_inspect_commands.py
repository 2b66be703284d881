import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from checkpointing.runs.history import History
from checkpointing.storage import layout
from checkpointing.tools import output
from tests import programs
from tests.checkpoints import (
    CONFUSED,
    confuse,
    flip_a_bit,
    make_checkpoint,
    make_files,
    mark,
    saving_run,
    tree,
)
from tests.writers import make_foreign, ours, plain_saver

RETENTION = {"max_to_keep": 2, "keep_checkpoint_every_n_hours": 10_000.0, "keep_best": 0}

RUNNING = """
import sys, time
from pathlib import Path
from checkpointing.runs.history import History
from checkpointing.storage.lock import Lock
lock, history = Lock(Path(sys.argv[1])), History(Path(sys.argv[1]))
history.begin_attempt(step=0, resumed_from=None)
history.progress(150, {"train": 3.0, "total": 4.0})
print("runs", flush=True)
time.sleep(60)  # it ends even if a test fails
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A train_dir with three checkpoints; tests only read it."""
    directory = tmp_path_factory.mktemp("run") / "run"
    ours(directory, (10, 20, 30))
    return directory


@pytest.fixture
def train_dir(tmp_path):
    """A train_dir whose run was killed, resumed and done."""
    for step, resumed_from, to_step in ((0, None, 150), (100, "model.ckpt-100", 400)):
        history = History(tmp_path)
        history.begin_attempt(step=step, resumed_from=resumed_from)
        history.progress(to_step, {"train": 3.0, "total": 4.0})
    history.end_attempt("done")
    return tmp_path


@pytest.fixture
def running(tmp_path):
    """A process that holds the lock and has recorded an attempt."""
    command = [sys.executable, "-c", RUNNING, str(tmp_path)]
    with subprocess.Popen(command, cwd=programs.ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "runs\n"
        yield process
        process.kill()


def words(line):
    """The cells of a line of a table."""
    return re.split(r"\s{2,}", line.strip())


def test_a_list_is_a_table(tmp_path, run_command):
    """One line for each checkpoint, the newest last; problems follow it, and set the exit status."""
    for step, score in ((10, 0.5), (20, None), (30, None)):
        make_checkpoint(tmp_path, step, retention=RETENTION, score=score, saved_at=time.time() - 7300)
    make_foreign(tmp_path, "model-5")
    status, text = run_command("list", tmp_path)
    lines = text.splitlines()
    assert status == 0
    assert words(lines[0]) == ["checkpoint", "step", "saved", "size", "complete", "score", "why kept"]
    assert words(lines[2])[0] == "model-5"
    assert words(lines[2])[4] == "not verified"
    assert words(lines[3]) == ["model.ckpt-10", "10", "2 h ago", "94 B", "yes", "0.5000"]
    assert words(lines[5]) == ["model.ckpt-30", "30", "2 h ago", "94 B", "yes", "newest"]
    flip_a_bit(layout.index_path(layout.prefix(tmp_path, 20)))
    status, text = run_command("list", tmp_path)
    assert status == 1
    assert words(text.splitlines()[4])[4] == "no"
    assert text.splitlines()[-1].startswith("model.ckpt-20.index: some of its bytes have changed")


def test_a_list_as_json(tmp_path, run_command):
    """The same values, unrounded."""
    make_checkpoint(tmp_path, 10, retention=RETENTION, score=0.5)
    status, record = run_command("list", tmp_path, "--json")
    assert (status, record) == (
        0,
        [
            {
                "prefix": "model.ckpt-10",
                "step": 10,
                "saved_at": 1_700_000_000.25,
                "bytes": 94,
                "complete": True,
                "problem": None,
                "score": 0.5,
                "why_kept": "newest",
            }
        ],
    )


def test_an_unfinished_save_is_not_damage(tmp_path, run_command):
    """An unfinished checkpoint is listed, and changes no exit status; verify skips it."""
    make_checkpoint(tmp_path, 50)
    mark(make_files(tmp_path, 100))
    status, text = run_command("list", tmp_path)
    assert status == 0
    assert "it is being made or deleted" in text
    status, record = run_command("verify", tmp_path, "--all", "--json")
    assert (status, [each["name"] for each in record]) == (0, ["model.ckpt-50"])


def test_a_plain_savers_checkpoint_by_our_name_is_verified(tmp_path, run_command):
    """It has no manifest, like an unfinished one of ours, but no mark either."""
    plain_saver(tmp_path)
    for path in tmp_path.glob("model-20.*"):
        path.rename(path.with_name(path.name.replace("model-", "model.ckpt-")))
    assert run_command("verify", tmp_path, "--all")[0] == 0
    flip_a_bit(tmp_path / "model.ckpt-20.data-00000-of-00001")
    status, text = run_command("verify", tmp_path, "--all")
    assert status == 1
    assert "model.ckpt-20.data-00000-of-00001: tensor" in text


@pytest.mark.parametrize("command", ["list", "verify", "show"])
def test_a_directory_without_checkpoints_is_an_error(tmp_path, run_command, command):
    """For every command, with status 1."""
    status, text = run_command(command, tmp_path)
    assert status == 1
    assert text.startswith(f"error: {tmp_path}: no checkpoint found")
    (tmp_path / "model.weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    assert "Keras' own format" in run_command(command, tmp_path)[1]


@pytest.mark.parametrize("command", [["list"], ["verify"], ["verify", "--all"], ["show"], ["show", "--stats"]])
def test_commands_accept_checkpoints_of_every_writer(written, run_command, command):
    """A directory with checkpoints, or a SavedModel; its files do not change."""
    before = tree(written)
    status, text = run_command(*command, written)
    assert (status, bool(text.strip())) == (0, True), text
    assert run_command(*command, written, "--json")[0] == 0
    assert tree(written) == before


def test_verify_accepts_complete_checkpoints(run, run_command):
    """The newest of a directory, or with --all each."""
    assert words(run_command("verify", run)[1].splitlines()[-1]) == ["model.ckpt-30", "complete: sha256 of 3 files"]
    _, record = run_command("verify", run, "--all", "--json")
    assert [(each["name"], each["problem"]) for each in record] == [
        (f"model.ckpt-{step}", None) for step in (10, 20, 30)
    ]


def test_verify_names_damaged_files_with_status_1(tmp_path, run_command):
    """One damaged checkpoint does not stop the verification of the others."""
    for step in (10, 20, 30, 40):
        make_checkpoint(tmp_path, step)
    flip_a_bit(layout.meta_path(layout.prefix(tmp_path, 10)))
    layout.manifest_path(layout.prefix(tmp_path, 20)).write_bytes(b"{")
    other = layout.manifest_path(layout.prefix(tmp_path, 30))
    record = json.loads(other.read_text()) | {"format": 1}
    del record["sha256"]
    other.write_text(json.dumps(record))
    assert run_command("verify", tmp_path)[0] == 0
    status, text = run_command("verify", tmp_path, "--all")
    assert status == 1
    lines = [words(line) for line in text.splitlines()[2:]]
    assert lines[0][1].startswith("model.ckpt-10.meta: some of its bytes have changed")
    assert lines[1][1].startswith("model.ckpt-20.manifest.json: ")
    assert "expected format 4, got 1" in lines[2][1]
    assert lines[3] == ["model.ckpt-40", "complete: sha256 of 3 files"]
    assert run_command("verify", layout.prefix(tmp_path, 10))[0] == 1


def test_verify_all_needs_a_directory(run, run_command):
    """A prefix is one checkpoint."""
    status, text = run_command("verify", "--all", run / "model.ckpt-10")
    assert (status, text) == (1, f"error: {run}/model.ckpt-10: expected a directory with --all, got a prefix\n")


def test_the_missing_file_is_named(tmp_path, run_command):
    """For show and for verify."""
    prefix = make_foreign(tmp_path, "model-7")
    (tmp_path / "model-7.data-00000-of-00001").unlink()
    for command in ("show", "verify"):
        status, text = run_command(command, prefix)
        assert status == 1
        assert "model-7.data-00000-of-00001 is missing" in text


def test_history_is_a_table_with_a_total(train_dir, run_command):
    """One line for each attempt; 50 of the first one's 150 steps were lost."""
    status, text = run_command("history", train_dir)
    lines = text.splitlines()
    assert status == 0
    assert "model.ckpt-100" in lines[3]
    assert lines[2].endswith("killed")
    assert lines[3].endswith("done")
    assert lines[4] == "2 attempts, 50 steps redone: 62.5% of 8.0 s was useful work"


def test_history_as_json(train_dir, run_command):
    """One object with attempts and totals."""
    _, record = run_command("history", train_dir, "--json")
    assert [attempt["ended"] for attempt in record["attempts"]] == ["killed", "done"]
    assert (record["steps"], record["steps_redone"], record["useful_share"]) == (400, 50, 0.625)


def test_a_directory_without_a_history_is_an_error(tmp_path, run_command):
    """With status 1, and a hint."""
    expected = f"error: {tmp_path}: no history.jsonl found\nhint: use the train_dir of a run\n"
    assert run_command("history", tmp_path) == (1, expected)


def test_a_running_run_is_distinguished_from_a_killed_one(running, tmp_path, run_command):
    """By watch and history: their files are the same, but only one holds the lock."""
    make_checkpoint(tmp_path, 100, retention=RETENTION)
    mark(make_files(tmp_path, 150))
    for state, recorded in (("running", "under way"), ("killed", "killed")):
        status, text = run_command("watch", tmp_path)
        lines = text.splitlines()
        assert (status, lines[0]) == (0, f"{tmp_path}: {state}")
        assert re.match(r"step 150, seen \d+ s ago, attempt 1", lines[1])
        assert words(lines[-2])[0] == "model.ckpt-100"
        assert run_command("watch", tmp_path, "--json")[1]["state"] == recorded
        assert run_command("history", tmp_path)[1].splitlines()[2].endswith(state)
        assert run_command("history", tmp_path)[1].splitlines()[3].startswith("1 attempt, 0 steps redone")
        running.kill()
        running.wait()


@pytest.mark.parametrize("pid", ["1e400", str(2**70), '"1"', "null", "[]", "}"])
def test_a_lock_of_any_content_is_no_error(train_dir, run_command, pid):
    """A power cut may leave any bytes."""
    (train_dir / "lock").write_text(f'{{"host": "{socket.gethostname()}", "pid": {pid}}}')
    attempt = json.loads((train_dir / "history.jsonl").read_text().splitlines()[0])
    (train_dir / "attempt.json").write_text(json.dumps(attempt | {"started_at": 1.5, "ended": None}))
    assert run_command("watch", train_dir)[0] == 0


def test_watch_shows_the_newest_record(train_dir, run_command):
    """Of a finished run also how it ended; an empty directory has no attempt."""
    (train_dir / "metrics.jsonl").write_text('{"step": 300, "loss": 0.5}\n{"step": 400, "loss": NaN}\n{"ste')
    status, text = run_command("watch", train_dir)
    assert (status, text.splitlines()[0]) == (0, f"{train_dir}: done")
    assert text.splitlines()[2] == "step 400  loss nan"
    assert run_command("watch", train_dir, "--json")[1]["newest_record"] == {"step": 400, "loss": None}
    (train_dir / "empty").mkdir()
    assert "no attempt recorded yet" in run_command("watch", train_dir / "empty")[1]
    assert run_command("watch", train_dir / "absent")[0] == 1


def seen(descriptor, text, seconds=20):
    """Read a terminal until this text appears."""
    read, until = "", time.monotonic() + seconds
    while text not in read and time.monotonic() < until:
        if select.select([descriptor], [], [], 0.1)[0]:
            read += os.read(descriptor, 4096).decode()
    return read


@pytest.mark.parametrize("seconds", ["0.1", "-1", "1e9"])
def test_watch_updates_until_ctrl_c(tmp_path, seconds):
    """On a terminal it is drawn again; Ctrl-C ends it with status 0 and no traceback."""
    make_checkpoint(tmp_path, 100)
    ours_side, theirs = pty.openpty()
    command = [sys.executable, "-m", "checkpointing", "watch", str(tmp_path), f"--seconds={seconds}"]
    with subprocess.Popen(
        command, cwd=programs.ROOT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        assert "model.ckpt-100" in seen(ours_side, "model.ckpt-100")
        if seconds != "1e9":
            make_checkpoint(tmp_path, 200)
            again = seen(ours_side, "model.ckpt-200")
            assert "model.ckpt-200" in again
            assert "\x1b[H\x1b[J" in again
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()
        assert "Traceback" not in seen(ours_side, "Traceback", 0.3)
    os.close(theirs)
    os.close(ours_side)


@pytest.mark.parametrize("command", ["list", "verify", "diff", "history", "watch", "repair", "prune", "show"])
def test_these_commands_do_not_import_tensorflow(run, tmp_path, command):
    """Nor do the modules that they import."""
    directory = shutil.copytree(run, tmp_path / "run")
    (directory / "history.jsonl").write_text("")
    History(directory).begin_attempt(step=0, resumed_from=None)
    more = {"diff": [str(directory)], "verify": ["--all"], "show": ["--stats"], "prune": ["--max_to_keep=1"]}
    arguments = [command, str(directory), *more.get(command, [])]
    code = (
        "import sys; from checkpointing.__main__ import main; main(sys.argv[1:]); sys.exit('tensorflow' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=programs.ROOT, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout


def test_commands_work_while_a_run_saves(tmp_path, run_command):
    """Checkpoints that are made or deleted meanwhile are inspected again, and never reported as damaged."""
    with saving_run(tmp_path) as directory:
        for command in (["list"], ["verify", "--all"], ["verify"], ["watch"]):
            for _ in range(40):
                status, text = run_command(*command, directory)
                assert status == 0, text
                assert "no checkpoint" not in text


@pytest.mark.parametrize("fields", CONFUSED, ids=str)
def test_one_invalid_manifest_does_not_stop_the_commands(tmp_path, run_command, fields):
    """It is listed as damaged, with the reason; the others are complete."""
    for step in (10, 20):
        make_checkpoint(tmp_path, step, retention=RETENTION)
    confuse(layout.prefix(tmp_path, 10), **fields)
    for command in (["list"], ["verify", "--all"]):
        status, record = run_command(*command, tmp_path, "--json")
        assert status == 1
        assert [bool(each["problem"]) for each in record] == [True, False]
        assert record[0]["problem"].startswith("model.ckpt-10.manifest.json: ")
    for command in ("verify", "watch"):
        assert run_command(command, tmp_path)[0] == 0


def test_another_versions_checkpoint_is_listed(tmp_path, run_command):
    """It is not reported as damaged."""
    make_checkpoint(tmp_path, 20, retention=RETENTION)
    confuse(make_checkpoint(tmp_path, 10), format=99, added="later")
    status, record = run_command("list", tmp_path, "--json")
    assert status == 0
    assert [(each["step"], each["complete"], each["why_kept"]) for each in record] == [
        (10, None, "another version's"),
        (20, True, "newest"),
    ]


@pytest.mark.parametrize("name", ["history.jsonl", "metrics.jsonl"])
@pytest.mark.parametrize("command", ["watch", "history"])
def test_a_fifo_instead_of_a_file_is_an_error(train_dir, run_command, name, command):
    """The command names it and does not wait for a writer."""
    (train_dir / name).unlink(missing_ok=True)
    os.mkfifo(train_dir / name)
    status, text = run_command(command, train_dir)
    if (name, command) != ("metrics.jsonl", "history"):
        assert status == 1
        assert text.startswith(f"error: {train_dir / name}: expected a regular file, got a FIFO\nhint: ")


def test_a_time_outside_the_calendar_is_shown(tmp_path, run_command):
    """As seconds."""
    prefix = make_checkpoint(tmp_path, 10, saved_at=9e18)
    assert run_command("list", tmp_path)[0] == 0
    assert output.moment(9e18) == "9000000000000000000 s after 1970"
    assert prefix.name in run_command("list", tmp_path)[1]
