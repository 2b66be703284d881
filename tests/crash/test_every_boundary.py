"""Runs killed at any system call that changes a file and run again equal the undisturbed run, bit for bit.

`test_kill.py` kills at random moments, most of them during training. Here a run is killed at every boundary of save,
cleanup, state file, metrics, export and result: before each call that makes, writes, syncs, renames or deletes a file,
and in the middle of each write. What a killed process leaves on the disk changes at these calls only.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tensorflow as tf

from tests import programs
from tests.crash import boundaries
from tests.crash.boundaries import NO_KILL, Call, Ended, Kill, Zygotes

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="kill_at.c needs Linux and a C compiler"
)


class Run(NamedTuple):
    """The run to kill.

    moves: whether the order of its calls varies, as it does if one thread saves while another trains; a few kills may
      then come after the end.
    """

    program: str
    flags: list[str]
    moves: bool = False


# Three saves, two deleted checkpoints, six records, an export. As each step is logged, each is one session.run, so that
# the number of calls does not depend on the machine's speed.
SHORT = [
    "--train_steps=6",
    "--save_every_steps=2",
    "--max_to_keep=1",
    "--log_every_steps=1",
    "--evaluate_every_steps=3",
    "--validation_size=200",
]
RUNS = {
    "softmax": Run("softmax", SHORT, moves=True),
}
SLOW_RUNS = {
    **RUNS,
    "softmax saved in the foreground": Run("softmax", [*SHORT, "--nosave_in_background"]),
    "cnn": Run("cnn", [*SHORT, "--batch_size=10"], moves=True),
}

# Within so many calls a resumed run has removed incomplete files and applied retention, and trains again.
RECOVERY_CALLS = 16
# The share of kills that must have found the run running.
NEARLY_ALL = 0.9
EXPORTED = "saved_model/6"
# Calls that make an empty file or directory, or change nothing that a reader sees.
MAKES_EMPTY = ("openat", "ftruncate", "mkdir", "fsync")
# Parts of the names of unfinished files.
UNFINISHED = (".incomplete", ".tmp", "tempstate", "_temp")


class Outcome(NamedTuple):
    """What two runs must have in common. named: the checkpoints in TensorFlow's state file."""

    weights_sha256: str
    test_accuracy: float
    validation_accuracy: float
    metrics: list[dict[str, Any]]
    files: list[str]
    named: list[str]


class Visit(NamedTuple):
    """A run killed and run again. killed_at: the last calls of the killed runs. wrong: "" if nothing is."""

    killed_at: list[Call]
    wrong: str


@pytest.fixture(scope="module")
def zygotes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygotes]:
    """One for each processor, at most four: each needs half a gigabyte."""
    count = min(4, len(os.sched_getaffinity(0)))
    with Zygotes(boundaries.compile_kill_at(tmp_path_factory.mktemp("kill_at")), count) as started:
        yield started


class Experiment:
    """An undisturbed run, and the same run killed in many ways."""

    def __init__(self, zygotes: Zygotes, run: Run, data: Path, tmp_path: Path) -> None:
        """Run it undisturbed; the others are compared with its calls and outcome."""
        self._zygotes = zygotes
        self._run = run
        self._flags = [f"--data_dir={data}", *run.flags]
        self._tmp_path = tmp_path
        ended = self._start("undisturbed", NO_KILL)
        assert ended.status == 0, ended.output
        self.calls = ended.calls
        self._undisturbed = read_outcome(tmp_path / "undisturbed" / "run")
        check_is_finished(self._undisturbed)

    def _start(self, name: str, kill: Kill) -> Ended:
        return self._zygotes.run(self._run.program, self._flags, self._tmp_path / name, kill)

    def kill_each(self, kills: list[Kill]) -> str:
        """Make a visit for each of these kills; return a summary."""
        killed = self.visit_all([(kill,) for kill in kills])
        assert killed == len(kills) or (self._run.moves and killed > NEARLY_ALL * len(kills))
        in_the_middle = sum(kill.in_the_middle for kill in kills)
        return f"killed at {killed} of {len(kills)} boundaries, {in_the_middle} of them in the middle of a write"

    def visit_all(self, kills_of_visits: list[tuple[Kill, ...]]) -> int:
        """Make many visits, none of which may be wrong; return how many kills found the run running."""
        with ThreadPoolExecutor(self._zygotes.count) as pool:
            visits = list(pool.map(self._visit, kills_of_visits))
        wrong = [f"killed at {', then '.join(map(str, each.killed_at))}: {each.wrong}" for each in visits if each.wrong]
        assert not wrong, "\n".join(wrong)
        return sum(len(each.killed_at) for each in visits)

    def _visit(self, kills: tuple[Kill, ...]) -> Visit:
        """Kill a run, start it again for each further kill, and let it end."""
        name = "-".join(f"{kill.before}{'m' if kill.in_the_middle else ''}" for kill in kills)
        killed_at: list[Call] = []
        try:
            wrong = self._kill_and_resume(name, kills, killed_at)
        except ValueError as error:  # a file is not valid JSON
            wrong = repr(error)
        if not wrong:
            shutil.rmtree(self._tmp_path / name)
        return Visit(killed_at, wrong)

    def _kill_and_resume(self, name: str, kills: tuple[Kill, ...], killed_at: list[Call]) -> str:
        """Add the last calls to `killed_at`; return what is wrong."""
        train_dir = self._tmp_path / name / "run"
        for kill in kills:
            ended = self._start(name, kill)
            if ended.status == -signal.SIGKILL:
                killed_at.append(ended.calls[-1])
            elif ended.status != 0:
                return how_it_failed(ended)
            broken = broken_promises(train_dir, self._undisturbed)
            if broken:
                return broken
        return self._differences(self._start(name, NO_KILL), train_dir)

    def _differences(self, ended: Ended, train_dir: Path) -> str:
        """Return the differences from the undisturbed run; "" if there are none."""
        if ended.status != 0:
            return how_it_failed(ended)
        found, expected = read_outcome(train_dir)._asdict(), self._undisturbed._asdict()
        return "; ".join(
            f"{key}: expected {expected[key]}, got {found[key]}" for key in expected if found[key] != expected[key]
        )


def how_it_failed(ended: Ended) -> str:
    """Return the end of a run's output on one line."""
    hung = f" (it hung for {boundaries.SECONDS} s)" if ended.status == -signal.SIGALRM else ""
    return f"exit status {ended.status}{hung}: {ended.output[-300:]!r}"


def read_outcome(train_dir: Path) -> Outcome:
    """Read the outcome of a finished run."""
    result = programs.result(train_dir)
    state = tf.train.get_checkpoint_state(str(train_dir))
    return Outcome(
        weights_sha256=result["weights_sha256"],
        test_accuracy=result["test_accuracy"],
        validation_accuracy=result["validation_accuracy"],
        # The speed varies.
        metrics=[{**record, "images_per_second": None} for record in programs.metrics(train_dir)],
        # The name of an event file contains time and pid.
        files=sorted(
            path.relative_to(train_dir).as_posix() for path in train_dir.rglob("*") if ".tfevents." not in path.name
        ),
        named=[Path(path).name for path in state.all_model_checkpoint_paths] if state else [],
    )


def broken_promises(train_dir: Path, finished: Outcome) -> str:
    """Return what is named but missing in the train_dir right after a kill; "" if nothing is.

    A manifest names complete files, TensorFlow's state file names checkpoints, and an exported model is complete.
    """
    missing = []
    for path in train_dir.glob("*.manifest.json"):
        for name, recorded in json.loads(path.read_text())["files"].items():
            file = train_dir / name
            if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != recorded["sha256"]:
                missing.append(f"{name}, named in {path.name}")
    state = tf.train.get_checkpoint_state(str(train_dir))
    named = state.all_model_checkpoint_paths if state else []
    missing += [f"{each}, named in the state file" for each in named if not Path(f"{each}.manifest.json").exists()]
    if (train_dir / EXPORTED).exists():
        missing += [name for name in finished.files if name.startswith(EXPORTED) and not (train_dir / name).exists()]
    return f"missing: {', '.join(missing)}" if missing else ""


def check_is_finished(outcome: Outcome) -> None:
    """Nothing unfinished is left, and the checkpoints of the state file exist."""
    assert not [name for name in outcome.files if any(part in name for part in UNFINISHED)]
    assert outcome.named == ["model.ckpt-6"]
    assert EXPORTED in outcome.files
    for name in outcome.named:
        assert {f"{name}.index", f"{name}.meta", f"{name}.manifest.json"} <= set(outcome.files)


def all_kills(calls: list[Call]) -> list[Kill]:
    """Return a kill before each call, and one in the middle of each write."""
    in_the_middle = [Kill(call.number, in_the_middle=True) for call in calls if call.name == "write"]
    return [*(Kill(call.number) for call in calls), *in_the_middle]


def sample(calls: list[Call]) -> list[Kill]:
    """Return a kill in the middle of a write of each kind of file, and before each kind of renaming and deletion.

    They come from varying saves. Before the other calls a killed run leaves what it leaves there, or an empty file.
    """
    changing = {call.number: call for call in calls if call.name not in MAKES_EMPTY and not call.deletes_temporary}
    of_a_kind = defaultdict(list)
    for kill in all_kills(calls):
        call = changing.get(kill.before)
        if call and kill.in_the_middle == (call.name == "write"):
            of_a_kind[call.kind].append(kill)
    return [kills[number % len(kills)] for number, kills in enumerate(of_a_kind.values())]


def print_line(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Print a line on the terminal, also if the test passes."""
    with capsys.disabled():
        print(f"\n{text}")  # noqa: T201


@pytest.mark.parametrize("name", RUNS)
def test_a_kill_at_each_kind_of_boundary_changes_no_bit(zygotes, small_data, tmp_path, capsys, name):
    """In the middle of a write of each kind of file, and before each kind of renaming and deletion."""
    experiment = Experiment(zygotes, RUNS[name], small_data, tmp_path)
    count = experiment.kill_each(sample(experiment.calls))
    print_line(capsys, f"{name}: {count}; there are {len(all_kills(experiment.calls))}")


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_RUNS)
def test_a_kill_at_every_boundary_changes_no_bit(zygotes, small_data, tmp_path, capsys, name):
    """All calls, not one of each kind."""
    experiment = Experiment(zygotes, SLOW_RUNS[name], small_data, tmp_path)
    print_line(capsys, f"{name}: {experiment.kill_each(all_kills(experiment.calls))}")


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_second_kill_during_recovery_changes_no_bit(zygotes, small_data, tmp_path, capsys, name):
    """Killed at every boundary, and again while the next run recovers: the third run ends undisturbed."""
    experiment = Experiment(zygotes, RUNS[name], small_data, tmp_path)
    kills = [(Kill(call.number), Kill(1 + call.number % RECOVERY_CALLS)) for call in experiment.calls]
    killed = experiment.visit_all(kills)
    assert killed > NEARLY_ALL * 2 * len(kills)  # a run that has little left to do ends before its second kill
    print_line(capsys, f"{name}: killed {killed} times, at {len(kills)} boundaries and again in recovery")
