"""Runs killed at random moments and run again end with the weights of the undisturbed run, bit for bit."""

import collections
import contextlib
import itertools
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import tensorflow as tf

from checkpointing.runs import history
from checkpointing.storage import layout
from tests import programs

# Long enough that kills fall into every part of a run, start-up included.
RUNS = {
    "softmax": ["--train_steps=20000", "--save_every_steps=500", "--evaluate_every_steps=5000"],
    "cnn": ["--train_steps=120", "--batch_size=32", "--save_every_steps=10", "--evaluate_every_steps=50"],
}
# Records at steps that are not all checkpoints.
LOGGED = ["--log_every_steps=30"]


def kill_and_resume(program: str, train_dir: Path, flags: list[str], kills: int, seed: int) -> int:
    """Kill a run so often after random seconds, then let it end; return how many kills found it running."""
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    hits = 0
    for _ in range(kills):
        process = programs.start(program, f"--train_dir={train_dir}", *flags, fork=False)
        time.sleep(chance.uniform(1.5, 5.0))
        hits += process.poll() is None
        process.kill()
        process.communicate()
    programs.train(program, train_dir, *flags, fork=False)
    return hits


def values(train_dir: Path) -> list[dict[str, float]]:
    """Return the metrics without the speed, which varies; none before the first step is logged."""
    if not (train_dir / "metrics.jsonl").exists():
        return []
    return [
        {key: record[key] for key in record if key != "images_per_second"} for record in programs.metrics(train_dir)
    ]


def check(program: str, tmp_path: Path, kills: int, seed: int) -> None:
    """Compare an undisturbed run with one that is killed repeatedly."""
    flags = RUNS[program] + LOGGED
    undisturbed = programs.train(program, tmp_path / "undisturbed", *flags, fork=False)
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


@pytest.mark.slow
@pytest.mark.parametrize("program", RUNS)
def test_three_kills_change_no_bit(program, tmp_path):
    """A run killed three times ends with the weights and metrics of the undisturbed run."""
    check(program, tmp_path, kills=3, seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("program", RUNS)
def test_twenty_kills_change_no_bit(program, tmp_path):
    """So does a run killed twenty times."""
    check(program, tmp_path, kills=20, seed=20)


# What a user may have set, some of which changes the bits of other programs.
VARIABLES = {
    "OMP_NUM_THREADS": ["1", "2", "3", "16"],
    "MALLOC_ARENA_MAX": ["1", "4"],
    "MALLOC_PERTURB_": ["0", "165"],
    "TF_ENABLE_ONEDNN_OPTS": ["0", "1"],
    "TF_NUM_INTRAOP_THREADS": ["1", "3", "16"],
    "ONEDNN_MAX_CPU_ISA": ["SSE41", "AVX", "AVX512_CORE", "DEFAULT"],
    "DNNL_MAX_CPU_ISA": ["SSE41", "AVX512_CORE"],
}


def check_environments(tmp_path: Path, small_data: Path, kills: int, seed: int) -> None:
    """Compare an undisturbed run with one that is killed, and resumed with other variables, threads and niceness."""
    flags = ["--instruction_set=avx2", f"--data_dir={small_data}", "--validation_size=200", *RUNS["cnn"]]
    flags += [f"--train_steps={50 * (kills + 1)}"]
    undisturbed = programs.train("cnn", tmp_path / "undisturbed", *flags, fork=False)
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    for _ in range(kills):
        saved = set(layout.prefixes_in(tmp_path / "killed")) if (tmp_path / "killed").exists() else set()
        chosen = chance.sample(sorted(VARIABLES), chance.randint(1, len(VARIABLES)))
        environment = {name: chance.choice(VARIABLES[name]) for name in chosen}
        threads = f"--threads={chance.randint(1, 16)}"
        process = programs.start(
            "cnn", f"--train_dir={tmp_path / 'killed'}", *flags, threads, fork=False, environment=environment
        )
        os.setpriority(os.PRIO_PROCESS, process.pid, chance.randint(0, 19))
        wait_for_attempt(process, tmp_path / "killed")
        while process.poll() is None and saved.issuperset(layout.prefixes_in(tmp_path / "killed")):
            time.sleep(0.01)
        time.sleep(chance.uniform(0.0, 0.2))
        process.kill()
        assert "last bits may differ" not in process.communicate()[1]
    killed = programs.train("cnn", tmp_path / "killed", *flags, fork=False)
    assert killed["weights_sha256"] == undisturbed["weights_sha256"]
    assert values(tmp_path / "killed") == values(tmp_path / "undisturbed")
    assert [each["ended"] for each in history.read(tmp_path / "killed")] == ["killed"] * kills + ["done"]


def test_two_kills_in_other_environments_change_no_bit(tmp_path, small_data):
    """With --instruction_set=avx2 the weights do not depend on variables, threads or niceness either."""
    check_environments(tmp_path, small_data, kills=2, seed=2)


@pytest.mark.slow
def test_twenty_kills_in_other_environments_change_no_bit(tmp_path, small_data):
    """Neither do they after twenty kills."""
    check_environments(tmp_path, small_data, kills=20, seed=20)


def wait_for_attempt(process: programs.Process, train_dir: Path) -> None:
    """Wait until a run has restored its state."""
    while process.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            if json.loads((train_dir / "attempt.json").read_bytes())["pid"] == process.pid:
                return
        time.sleep(0.01)


def disturb(train_dir: Path, flags: list[str], times: int, seed: int) -> list[int]:
    """Send a run SIGKILL or SIGTERM so often at random moments; return the exit statuses."""
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    statuses = []
    for _ in range(times):
        while_starting = chance.random() >= 0.8
        process = programs.start("softmax", f"--train_dir={train_dir}", *flags, fork=not while_starting)
        if not while_starting:
            wait_for_attempt(process, train_dir)
        time.sleep(chance.uniform(0.0, 1.0))
        process.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM]))
        process.communicate()
        statuses.append(process.returncode)
    return statuses


def check_accounts(tmp_path: Path, small_data: Path, times: int, steps: int) -> str:
    """Compare a run disturbed so often, saving every 5 steps, with an undisturbed one; return a summary."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", f"--train_steps={steps}", "--log_every_steps=100"]
    flags += ["--evaluate_every_steps=20000"]
    undisturbed = programs.train("softmax", tmp_path / "undisturbed", *flags, "--save_every_steps=50000")
    statuses = disturb(tmp_path / "disturbed", [*flags, "--save_every_steps=5"], times, seed=times)
    assert set(statuses) <= {75, -signal.SIGKILL, -signal.SIGTERM}, statuses
    assert values(tmp_path / "disturbed") == values(tmp_path / "undisturbed")[: len(values(tmp_path / "disturbed"))]
    # The rest with fewer saves, which changes no bit.
    result = programs.train("softmax", tmp_path / "disturbed", *flags, "--save_every_steps=50000")
    assert result["weights_sha256"] == undisturbed["weights_sha256"]
    assert values(tmp_path / "disturbed") == values(tmp_path / "undisturbed")

    attempts = history.read(tmp_path / "disturbed")
    summary = history.summary(attempts)
    assert sum(each["steps_done"] for each in attempts) - summary["steps_redone"] == summary["steps"] == steps
    for before, after in itertools.pairwise(attempts):
        assert after["from_step"] == before["to_step"] - after["steps_redone"]
    ended = collections.Counter(each["ended"] for each in attempts)
    assert ended["done"] == 1
    assert ended["killed"] <= statuses.count(-signal.SIGKILL)
    assert ended["stopped by SIGTERM"] <= statuses.count(75)
    assert sum(ended.values()) == len(attempts) == result["restarts"] + 1
    assert result["steps_redone"] == summary["steps_redone"]
    return f"{len(statuses)} signals, attempts {dict(ended)}, {summary['steps_redone']} steps run twice"


def test_the_history_of_a_run_disturbed_four_times_adds_up(tmp_path, small_data):
    """The same weights, and each step of each attempt is accounted for."""
    check_accounts(tmp_path, small_data, times=4, steps=15_000)


@pytest.mark.slow
def test_the_history_of_a_run_disturbed_two_hundred_times_adds_up(tmp_path, small_data, capsys):
    """With the summary printed."""
    summary = check_accounts(tmp_path, small_data, times=200, steps=100_000)
    with capsys.disabled():
        print(f"\n{summary}")  # noqa: T201 - the counts are of interest
