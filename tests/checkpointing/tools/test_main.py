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
    """Runs the command as a user does."""
    command = [sys.executable, "-m", "checkpointing", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=programs.ROOT)


def usage(capsys, *arguments):
    """What is said to wrong usage, which has status 2."""
    with pytest.raises(SystemExit) as ended:
        __main__.main(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_help_lists_the_commands_and_waits_for_nobody():
    """Neither TensorFlow nor NumPy is imported for it."""
    command = [sys.executable, "-X", "importtime", "-m", "checkpointing", "--help"]
    ended = subprocess.run(command, cwd=programs.ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    for name in COMMANDS:
        assert re.search(rf"^    {name} +\S", ended.stdout, re.MULTILINE), name
    assert not re.search(r"\| +(tensorflow|numpy)\b", ended.stderr)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(capsys, command):
    """With what it takes, `--json` among it."""
    with pytest.raises(SystemExit) as ended:
        __main__.main([command, "--help"])
    assert ended.value.code == 0
    assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["no_such_command"], "no_such_command"),
        (["list"], "DIR"),
        (["list", "a", "b"], "b"),
        (["prune", "a", "--max_to_keep=many"], "--max_to_keep"),
        (["prune", "a", "--dry"], "--dry"),
        (["rename", "a", "b", "--output=c"], "two names with = between them wanted"),
    ],
)
def test_wrong_usage_has_a_status_of_its_own(capsys, arguments, said):
    """What is wrong is named; a flag that is cut short is none, lest it be another one some day."""
    assert said in usage(capsys, *arguments)


def test_a_directory_goes_through_its_life(tmp_path):
    """As a user meets it: whole, damaged, put in order; the exit status is the answer."""
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


def test_an_error_of_the_disk_is_a_sentence(tmp_path, capsys):
    """That begins with the file."""
    name = "long" * 100
    assert __main__.main(["list", str(tmp_path / name)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / name}")


def test_a_pipe_that_is_closed_is_no_error(tmp_path):
    """`| head` has seen enough."""
    for step in range(300):
        make_checkpoint(tmp_path, step)
    command = [sys.executable, "-m", "checkpointing", "list", str(tmp_path)]
    with subprocess.Popen(command, cwd=programs.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
