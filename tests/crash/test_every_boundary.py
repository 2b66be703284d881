"""Killed at any system call that changes a file, run again: bit for bit the undisturbed run.

`test_kill.py` kills at random moments, and most of them fall into training. Here a run is killed at every boundary of
save, retirement, state file, metrics, export and result: before each call that makes, writes, syncs, renames or deletes
anything, and in the middle of each write. What a killed process leaves on the disk changes at these calls alone.
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
    sys.platform != "linux" or shutil.which("cc") is None, reason="kill_at.c wants Linux and a C compiler"
)


class Run(NamedTuple):
    """What is killed.

    moves: whether its calls come in another order from run to run, as they do where one thread saves and another
      trains: then a few kills may find that the run has ended before.
    """

    program: str
    flags: list[str]
    moves: bool = False


# Three saves, two retirements, six records, an export. Logging each step makes each a call of TensorFlow of its own, so
# that the number of calls does not depend on the machine's speed.
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

# A run that goes on has swept and rotated before so many of its calls, and trains again.
RECOVERY_CALLS = 16
# Of the kills, the share that must have found the run still running.
NEARLY_ALL = 0.9
EXPORTED = "saved_model/6"
# Parts of the names of what is not finished.
UNFINISHED = (".incomplete", ".tmp", "tempstate", "_temp")


class Outcome(NamedTuple):
    """What two runs must agree on. named: the checkpoints in TensorFlow's state file."""

    weights_sha256: str
    test_accuracy: float
    validation_accuracy: float
    metrics: list[dict[str, Any]]
    files: list[str]
    named: list[str]


class Visit(NamedTuple):
    """A run that was killed and run again. killed_at: the calls that were its last. wrong: "" where all is well."""

    killed_at: list[Call]
    wrong: str


@pytest.fixture(scope="module")
def zygotes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygotes]:
    """As many as there are processors, within reason: each takes half a gigabyte."""
    count = min(4, len(os.sched_getaffinity(0)))
    with Zygotes(boundaries.compile_kill_at(tmp_path_factory.mktemp("kill_at")), count) as started:
        yield started


class Experiment:
    """One run undisturbed, and the same run killed in many ways."""

    def __init__(self, zygotes: Zygotes, run: Run, data: Path, tmp_path: Path) -> None:
        """Lets the run end undisturbed: the others are held against what it does and gives."""
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
        """Makes a visit for each of these kills. Gives how many runs were killed, for people."""
        killed = self.visit_all([(kill,) for kill in kills])
        assert killed == len(kills) or (self._run.moves and killed > NEARLY_ALL * len(kills))
        in_the_middle = sum(kill.in_the_middle for kill in kills)
        return f"killed at {killed} of {len(kills)} boundaries, {in_the_middle} of them in the middle of a write"

    def visit_all(self, kills_of_visits: list[tuple[Kill, ...]]) -> int:
        """Makes many visits; nothing may be wrong with any. Gives how many kills found the run still running."""
        with ThreadPoolExecutor(self._zygotes.count) as pool:
            visits = list(pool.map(self._visit, kills_of_visits))
        wrong = [f"killed at {', then '.join(map(str, each.killed_at))}: {each.wrong}" for each in visits if each.wrong]
        assert not wrong, "\n".join(wrong)
        return sum(len(each.killed_at) for each in visits)

    def _visit(self, kills: tuple[Kill, ...]) -> Visit:
        """Kills a run, starts it again for each further kill, and lets it end."""
        name = "-".join(f"{kill.before}{'m' if kill.in_the_middle else ''}" for kill in kills)
        killed_at: list[Call] = []
        try:
            wrong = self._kill_and_resume(name, kills, killed_at)
        except ValueError as error:  # a file that is not the JSON that it should be
            wrong = repr(error)
        if not wrong:
            shutil.rmtree(self._tmp_path / name)
        return Visit(killed_at, wrong)

    def _kill_and_resume(self, name: str, kills: tuple[Kill, ...], killed_at: list[Call]) -> str:
        """Adds the last calls to `killed_at`; says what is wrong."""
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
        """What is not as in the undisturbed run; "" where nothing is."""
        if ended.status != 0:
            return how_it_failed(ended)
        found, wanted = read_outcome(train_dir)._asdict(), self._undisturbed._asdict()
        return "; ".join(
            f"{key}: {found[key]} found, {wanted[key]} wanted" for key in wanted if found[key] != wanted[key]
        )


def how_it_failed(ended: Ended) -> str:
    """The end of what a run has said, in a line."""
    hung = f" (it hung for {boundaries.SECONDS} s)" if ended.status == -signal.SIGALRM else ""
    return f"exit status {ended.status}{hung}: {ended.output[-300:]!r}"


def read_outcome(train_dir: Path) -> Outcome:
    """Reads what a run has left."""
    result = programs.result(train_dir)
    state = tf.train.get_checkpoint_state(str(train_dir))
    return Outcome(
        weights_sha256=result["weights_sha256"],
        test_accuracy=result["test_accuracy"],
        validation_accuracy=result["validation_accuracy"],
        # No two runs are equally fast.
        metrics=[{**record, "images_per_second": None} for record in programs.metrics(train_dir)],
        # An attempt's file of events is called after its time and its process.
        files=sorted(
            path.relative_to(train_dir).as_posix() for path in train_dir.rglob("*") if ".tfevents." not in path.name
        ),
        named=[Path(path).name for path in state.all_model_checkpoint_paths] if state else [],
    )


def broken_promises(train_dir: Path, finished: Outcome) -> str:
    """What somebody who looks at the train_dir right after a kill is told but would not find; "" where nothing is.

    A manifest tells of whole files, TensorFlow's state file of checkpoints, and an exported model is a whole one.
    """
    missing = []
    for path in train_dir.glob("*.manifest.json"):
        for name, wanted in json.loads(path.read_text())["files"].items():
            file = train_dir / name
            if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != wanted["sha256"]:
                missing.append(f"{name}, as {path.name} says")
    state = tf.train.get_checkpoint_state(str(train_dir))
    named = state.all_model_checkpoint_paths if state else []
    missing += [f"{each}, as the state file says" for each in named if not Path(f"{each}.manifest.json").exists()]
    if (train_dir / EXPORTED).exists():
        missing += [name for name in finished.files if name.startswith(EXPORTED) and not (train_dir / name).exists()]
    return f"not there: {', '.join(missing)}" if missing else ""


def check_is_finished(outcome: Outcome) -> None:
    """Nothing half-made is left, and the checkpoints that TensorFlow is told of are there."""
    assert not [name for name in outcome.files if any(part in name for part in UNFINISHED)]
    assert outcome.named == ["model.ckpt-6"]
    assert EXPORTED in outcome.files
    for name in outcome.named:
        assert {f"{name}.index", f"{name}.meta", f"{name}.manifest.json"} <= set(outcome.files)


def all_kills(calls: list[Call]) -> list[Kill]:
    """Before each call, and in the middle of each write."""
    in_the_middle = [Kill(call.number, in_the_middle=True) for call in calls if call.name == "write"]
    return [*(Kill(call.number) for call in calls), *in_the_middle]


def sample(calls: list[Call]) -> list[Kill]:
    """One of `all_kills` for each kind of call, now from the first save, now from a later one."""
    kinds = {call.number: call.kind for call in calls}
    of_a_kind = defaultdict(list)
    for kill in all_kills(calls):
        of_a_kind[kinds[kill.before], kill.in_the_middle].append(kill)
    return [kills[number % len(kills)] for number, kills in enumerate(of_a_kind.values())]


def tell(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Shows a line on the terminal, also where nothing fails."""
    with capsys.disabled():
        print(f"\n{text}")  # noqa: T201


@pytest.mark.parametrize("name", RUNS)
def test_a_kill_at_each_kind_of_boundary_changes_no_bit(zygotes, small_data, tmp_path, capsys, name):
    """Each kind of call on each kind of file once: the run ends as if nothing had happened."""
    experiment = Experiment(zygotes, RUNS[name], small_data, tmp_path)
    count = experiment.kill_each(sample(experiment.calls))
    tell(capsys, f"{name}: {count}; there are {len(all_kills(experiment.calls))}")


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_RUNS)
def test_a_kill_at_every_boundary_changes_no_bit(zygotes, small_data, tmp_path, capsys, name):
    """All of them."""
    experiment = Experiment(zygotes, SLOW_RUNS[name], small_data, tmp_path)
    tell(capsys, f"{name}: {experiment.kill_each(all_kills(experiment.calls))}")


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_second_kill_during_recovery_changes_no_bit(zygotes, small_data, tmp_path, capsys, name):
    """Killed at every boundary, and again while the next run sweeps up: the third ends as if nothing had happened."""
    experiment = Experiment(zygotes, RUNS[name], small_data, tmp_path)
    kills = [(Kill(call.number), Kill(1 + call.number % RECOVERY_CALLS)) for call in experiment.calls]
    killed = experiment.visit_all(kills)
    assert killed > NEARLY_ALL * 2 * len(kills)  # a run that has little left to do ends before its second kill
    tell(capsys, f"{name}: killed {killed} times, at {len(kills)} boundaries and again in recovery")
