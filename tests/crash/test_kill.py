"""Killed anywhere, run again: the weights are those of the undisturbed run, bit for bit."""

import collections
import contextlib
import itertools
import json
import random
import signal
import time
from pathlib import Path

import pytest
import tensorflow as tf

from checkpointing.runs import history
from tests import programs

# So long that kills fall into every part of a run, startup included, and so short that they can be many.
RUNS = {
    "softmax": ["--train_steps=20000", "--save_every_steps=500", "--evaluate_every_steps=5000"],
    "cnn": ["--train_steps=120", "--batch_size=32", "--save_every_steps=10", "--evaluate_every_steps=50"],
}
# Steps at which something is recorded but that are not always at a checkpoint.
LOGGED = ["--log_every_steps=30"]


def kill_and_resume(program: str, train_dir: Path, flags: list[str], kills: int, seed: int) -> int:
    """Kills a run so often, each time after a random while, then lets it end; gives how many kills hit it running."""
    chance = random.Random(seed)  # noqa: S311 - moments to kill, no secrets
    hits = 0
    for _ in range(kills):
        process = programs.start(program, f"--train_dir={train_dir}", *flags, anew=True)
        time.sleep(chance.uniform(1.5, 5.0))
        hits += process.poll() is None
        process.kill()
        process.communicate()
    programs.train(program, train_dir, *flags, anew=True)
    return hits


def values(train_dir: Path) -> list[dict[str, float]]:
    """The metrics without the speed, which no two runs share; none before the first step is logged."""
    if not (train_dir / "metrics.jsonl").exists():
        return []
    return [
        {key: record[key] for key in record if key != "images_per_second"} for record in programs.metrics(train_dir)
    ]


def check(program: str, tmp_path: Path, kills: int, seed: int) -> None:
    """Compares an undisturbed run with one that was killed again and again."""
    flags = RUNS[program] + LOGGED
    undisturbed = programs.train(program, tmp_path / "undisturbed", *flags, anew=True)
    hits = kill_and_resume(program, tmp_path / "killed", flags, kills, seed)
    killed = programs.result(tmp_path / "killed")

    assert hits > 0
    assert killed["weights_sha256"] == undisturbed["weights_sha256"]
    assert killed["test_accuracy"] == undisturbed["test_accuracy"]
    assert values(tmp_path / "killed") == values(tmp_path / "undisturbed")
    assert not list((tmp_path / "killed").glob("*incomplete*"))
    state = tf.train.get_checkpoint_state(str(tmp_path / "killed"))
    assert [Path(path).name for path in state.all_model_checkpoint_paths] == sorted(
        {path.stem for path in (tmp_path / "killed").glob("*.index")}, key=lambda name: int(name.rpartition("-")[2])
    )


@pytest.mark.parametrize("program", [pytest.param("softmax", marks=pytest.mark.slow), "cnn"])
def test_three_kills_change_no_bit(program, tmp_path):
    """A run killed three times ends with the weights and the metrics of one left alone."""
    check(program, tmp_path, kills=3, seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("program", RUNS)
def test_twenty_kills_change_no_bit(program, tmp_path):
    """So does a run killed twenty times."""
    check(program, tmp_path, kills=20, seed=20)


def wait_for_attempt(process: programs.Process, train_dir: Path) -> None:
    """Waits until a run has restored its state, and trains."""
    while process.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            if json.loads((train_dir / "attempt.json").read_bytes())["pid"] == process.pid:
                return
        time.sleep(0.01)


def disturb(train_dir: Path, flags: list[str], times: int, seed: int) -> list[int]:
    """Kills a run, or asks it to stop, so often, each time at a random moment; gives each attempt's exit status."""
    chance = random.Random(seed)  # noqa: S311 - moments to kill, no secrets
    statuses = []
    for _ in range(times):
        while_starting = chance.random() >= 0.8
        process = programs.start("softmax", f"--train_dir={train_dir}", *flags, anew=while_starting)
        if not while_starting:
            wait_for_attempt(process, train_dir)
        time.sleep(chance.uniform(0.0, 1.0))
        process.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM]))
        process.communicate()
        statuses.append(process.returncode)
    return statuses


def check_accounts(tmp_path: Path, small_data: Path, times: int, steps: int) -> str:
    """Compares a run that was disturbed so often, saving every 5 steps, with one left alone; tells what was done."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", f"--train_steps={steps}", "--log_every_steps=100"]
    flags += ["--evaluate_every_steps=20000"]
    undisturbed = programs.train("softmax", tmp_path / "undisturbed", *flags, "--save_every_steps=50000")
    statuses = disturb(tmp_path / "disturbed", [*flags, "--save_every_steps=5"], times, seed=times)
    assert set(statuses) <= {75, -signal.SIGKILL, -signal.SIGTERM}, statuses
    assert values(tmp_path / "disturbed") == values(tmp_path / "undisturbed")[: len(values(tmp_path / "disturbed"))]
    # The rest in fewer saves, which change no bit.
    result = programs.train("softmax", tmp_path / "disturbed", *flags, "--save_every_steps=50000")
    assert result["weights_sha256"] == undisturbed["weights_sha256"]
    assert values(tmp_path / "disturbed") == values(tmp_path / "undisturbed")

    attempts = history.read(tmp_path / "disturbed")
    told = history.summary(attempts)
    assert sum(each["steps_done"] for each in attempts) - told["steps_redone"] == told["steps"] == steps
    for before, after in itertools.pairwise(attempts):
        assert after["from_step"] == before["to_step"] - after["steps_redone"]
    ended = collections.Counter(each["ended"] for each in attempts)
    assert ended["done"] == 1
    assert ended["killed"] <= statuses.count(-signal.SIGKILL)
    assert ended["stopped by SIGTERM"] <= statuses.count(75)
    assert sum(ended.values()) == len(attempts) == result["restarts"] + 1
    assert result["steps_redone"] == told["steps_redone"]
    return f"{len(statuses)} signals, attempts {dict(ended)}, {told['steps_redone']} steps made twice"


def test_disturbed_four_times_the_accounts_add_up(tmp_path, small_data):
    """By SIGKILL and SIGTERM at random, saving every five steps: the same bits, and each step accounted for."""
    check_accounts(tmp_path, small_data, times=4, steps=15_000)


@pytest.mark.slow
def test_disturbed_two_hundred_times_the_accounts_add_up(tmp_path, small_data, capsys):
    """So with two hundred."""
    told = check_accounts(tmp_path, small_data, times=200, steps=100_000)
    with capsys.disabled():
        print(f"\n{told}")  # noqa: T201 - the count is to be seen
