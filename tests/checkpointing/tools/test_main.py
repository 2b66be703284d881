import json
import re
import subprocess
import sys

import pytest

from checkpointing import __main__
from checkpointing.storage import layout
from tests import programs
from tests.checkpoints import flip_a_bit, make_checkpoint

COMMANDS = ["list", "show", "verify", "diff", "history", "watch", "repair", "prune", "pin", "unpin"]
COMMANDS += ["export", "freeze", "convert", "average", "rename"]


def run(*arguments):
    """Run a command in a new process."""
    command = [sys.executable, "-m", "checkpointing", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=programs.ROOT)


def usage(capsys, *arguments):
    """The standard error of wrong usage, which has status 2."""
    with pytest.raises(SystemExit) as ended:
        __main__.main(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_help_lists_the_commands():
    """It imports neither TensorFlow nor NumPy."""
    command = [sys.executable, "-X", "importtime", "-m", "checkpointing", "--help"]
    ended = subprocess.run(command, cwd=programs.ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    for name in COMMANDS:
        assert re.search(rf"^    {name} +\S", ended.stdout, re.MULTILINE), name
    assert not re.search(r"\| +(tensorflow|numpy)\b", ended.stderr)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(capsys, monkeypatch, command):
    """It lists --json, and every argument has a help line."""
    monkeypatch.setenv("COLUMNS", "300")  # a line for each argument
    with pytest.raises(SystemExit) as ended:
        __main__.main([command, "--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "--json" in printed
    arguments = printed.partition("arguments:")[2].replace("options:", "")
    lines = re.sub(r"\n {20,}", "   ", arguments).splitlines()  # help on the line after a long flag
    assert all(re.match(r"  .*\S  +\w", line) for line in lines if line)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["no_such_command"], "no_such_command"),
        (["list"], "DIR"),
        (["list", "a", "b"], "b"),
        (["prune", "a", "--max_to_keep=many"], "--max_to_keep"),
        (["prune", "a", "--dry"], "--dry"),
        (["rename", "a", "b", "--output=c"], "expected OLD=NEW or NAME=TENSOR, got 'b'"),
    ],
)
def test_wrong_usage_has_status_two(capsys, arguments, message):
    """The error names the argument. Flags cannot be abbreviated."""
    assert message in usage(capsys, *arguments)


def test_a_directory_is_verified_repaired_and_listed(tmp_path):
    """In processes as a user runs them; exit statuses say what was found."""
    for step in (10, 20):
        make_checkpoint(tmp_path, step)
    assert run("verify", tmp_path, "--all").returncode == 0
    flip_a_bit(layout.index_path(layout.prefix(tmp_path, 10)))
    damaged = run("verify", tmp_path, "--all")
    assert (damaged.returncode, damaged.stderr) == (1, "")
    assert "model.ckpt-10.index" in damaged.stdout
    assert run("repair", tmp_path).returncode == 0
    listed = run("list", tmp_path, "--json")
    assert [each["step"] for each in json.loads(listed.stdout)] == [20]
    refused = run("show", layout.prefix(tmp_path, 10))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"error: {tmp_path}/model.ckpt-10: no checkpoint found; in {tmp_path} there are ")


def test_a_disk_error_is_printed_without_a_traceback(tmp_path, capsys):
    """The error begins with the file."""
    name = "long" * 100
    assert __main__.main(["list", str(tmp_path / name)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / name}")


def test_a_closed_pipe_is_not_an_error(tmp_path):
    """As of `| head`."""
    for step in range(300):
        make_checkpoint(tmp_path, step)
    command = [sys.executable, "-m", "checkpointing", "list", str(tmp_path)]
    with subprocess.Popen(command, cwd=programs.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
