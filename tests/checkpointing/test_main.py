import json
import subprocess
import sys

import pytest

from checkpointing import __main__, layout
from checkpointing.history import History
from tests import programs


def run(*arguments):
    """Runs the command as a user does."""
    command = [sys.executable, "-m", "checkpointing", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=programs.ROOT)


def checkpoint(directory, step):
    """Something with a manifest."""
    directory.mkdir(exist_ok=True)
    prefix = layout.prefix(directory, step)
    layout.manifest_path(prefix).write_text("{}")
    return prefix


@pytest.fixture
def train_dir(tmp_path):
    """A run that was killed, went on, and is done."""
    for step, resumed_from, to_step in ((0, None, 150), (100, "model.ckpt-100", 400)):
        history = History(tmp_path)
        history.begin_attempt(step=step, resumed_from=resumed_from)
        history.progress(to_step, {"train": 3.0, "total": 4.0})
    history.end_attempt("done")
    return tmp_path


def test_history_is_a_table_and_a_sum(train_dir):
    """Each attempt on a line; of the first, a third was lost."""
    ended = run("history", train_dir)
    assert ended.returncode == 0
    lines = ended.stdout.splitlines()
    assert "model.ckpt-100" in lines[3]
    assert lines[2].endswith("killed")
    assert lines[3].endswith("done")
    assert lines[4] == "2 attempts, 50 steps made twice: 62.5% of 8.0 s was useful work"


def test_history_for_programs(train_dir):
    """One object, with the same."""
    told = json.loads(run("history", train_dir, "--json").stdout)
    assert [attempt["ended"] for attempt in told["attempts"]] == ["killed", "done"]
    assert (told["steps"], told["steps_redone"], told["useful_share"]) == (400, 50, 0.625)


def test_a_directory_without_a_history_is_told(tmp_path):
    """In one sentence, with status 1; wrong usage has status 2."""
    ended = run("history", tmp_path)
    assert (ended.returncode, ended.stderr) == (
        1,
        f"error: {tmp_path}: no history.jsonl found; give the train_dir of a run.\n",
    )
    assert run("no_such_command").returncode == 2


def test_pins_come_and_go(tmp_path):
    """As a mark beside the checkpoint."""
    prefixes = [checkpoint(tmp_path, step) for step in (50, 100)]
    assert __main__.main(["pin", *map(str, prefixes)]) == 0
    assert layout.steps_with(tmp_path, "pinned") == [50, 100]
    assert __main__.main(["unpin", str(prefixes[0])]) == 0
    assert layout.steps_with(tmp_path, "pinned") == [100]


@pytest.mark.parametrize("name", ["model.ckpt-7", "other", "model.ckpt-50.index"])
def test_what_is_no_checkpoint_cannot_be_pinned(tmp_path, capsys, name):
    """The sentence lists those that are there."""
    checkpoint(tmp_path, 50)
    assert __main__.main(["pin", str(tmp_path / name)]) == 1
    assert capsys.readouterr().err.endswith("there are model.ckpt-50.\n")
    assert layout.steps_with(tmp_path, "pinned") == []
