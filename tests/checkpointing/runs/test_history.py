import json
import os
import time
from pathlib import Path
from random import Random
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpointing.runs.history import DONE, KILLED, UNFINISHED, History, read, summary
from tests.checkpoints import Killed, every_kill, full_disk, killed_before

KEYS = {
    "started_at",
    "last_seen_at",
    "pid",
    "from_step",
    "resumed_from",
    "ended",
    "to_step",
    "steps_done",
    "steps_redone",
    "seconds",
}


class Clock:
    """A clock that advances by a second at each call."""

    now = 1_700_000_000.0

    def __call__(self):
        """Return seconds since 1970."""
        self.now += 1
        return self.now


CLOCK = Clock()
UNHURRIED = settings(deadline=None, max_examples=60)  # no deadline: the machine may be busy
NO_WAITING = mock.patch.object(os, "fsync", return_value=None)  # no test here cuts the power


def attempt(directory, *, step=0, resumed_from=None, clock=CLOCK):
    """Begin an attempt that resumes from a step."""
    history = History(directory, clock)
    history.begin_attempt(step=step, resumed_from=resumed_from)
    return history


def record(history, *steps):
    """Record these steps; as in a run, the values are a function of the step."""
    for step in steps:
        history.record({"step": step, "loss": 1 / step})


def lines(path):
    """Return the objects of a file, one per line."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def recorded_steps(directory):
    """Return the steps in metrics.jsonl."""
    return [each["step"] for each in lines(directory / "metrics.jsonl")]


def ended(directory):
    """Return (from_step, ended, to_step, steps_done, steps_redone) of each attempt in history.jsonl."""
    names = ("from_step", "ended", "to_step", "steps_done", "steps_redone")
    return [tuple(each[name] for name in names) for each in lines(directory / "history.jsonl")]


def balance(history):
    """Return the steps done less those redone: the run's step."""
    return sum(each["steps_done"] for each in history.attempts) - history.steps_redone


def run(directory, begin, to, how=None):
    """Make an attempt from one step to another; it ends with `how`, or is killed if that is None."""
    history = attempt(directory, step=begin)
    history.progress(to, {})
    if how is not None:
        history.end_attempt(how)
    return history


# Records.


def test_nothing_is_written_before_an_attempt_begins(tmp_path):
    """The constructor leaves no file."""
    history = History(tmp_path)
    assert (history.restarts, history.steps_redone, history.attempts) == (0, 0, [])
    assert list(tmp_path.iterdir()) == []


def test_records_are_what_was_recorded(tmp_path):
    """One object per logged step."""
    record(attempt(tmp_path), 10, 20)
    assert lines(tmp_path / "metrics.jsonl") == [{"step": 10, "loss": 0.1}, {"step": 20, "loss": 0.05}]


def test_records_beyond_the_checkpoint_are_dropped(tmp_path):
    """Their steps are redone."""
    record(attempt(tmp_path), 50, 100, 150, 170)
    attempt(tmp_path, step=100)
    assert recorded_steps(tmp_path) == [50, 100]


def test_a_run_that_starts_at_step_0_has_no_old_records(tmp_path):
    """As after a kill before the first checkpoint."""
    record(attempt(tmp_path), 50)
    attempt(tmp_path)
    assert recorded_steps(tmp_path) == []


@pytest.mark.parametrize("name", ["metrics.jsonl", "history.jsonl"])
def test_half_a_line_is_dropped(tmp_path, name):
    """A partial line of a killed process, in either file."""
    record(run(tmp_path, 0, 50, "stopped"), 50)
    with (tmp_path / name).open("a") as file:
        file.write('{"step": 6')
    record(run(tmp_path, 50, 60, "stopped"), 60)
    assert recorded_steps(tmp_path) == [50, 60]
    assert ended(tmp_path) == [(0, "stopped", 50, 50, 0), (50, "stopped", 60, 10, 0)]


def test_records_are_kept_while_the_disk_is_full(tmp_path):
    """Training continues; once there is room, they are written with the next, in order and each once."""
    history = attempt(tmp_path)
    record(history, 10)
    with full_disk():
        record(history, 20, 30)
    assert recorded_steps(tmp_path) == [10]
    record(history, 40)
    assert recorded_steps(tmp_path) == [10, 20, 30, 40]
    record(history, 50)
    assert recorded_steps(tmp_path) == [10, 20, 30, 40, 50]


def test_sync_fails_while_records_cannot_be_written(tmp_path):
    """Once there is room, it writes them."""
    history = attempt(tmp_path)
    with full_disk():
        record(history, 10, 20)
        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                history.sync()
    history.sync()
    assert recorded_steps(tmp_path) == [10, 20]


def test_sync_fails_if_records_cannot_be_flushed(tmp_path, monkeypatch):
    """So no checkpoint is committed ahead of its records."""
    history = attempt(tmp_path)
    record(history, 10)

    def refuse(_):
        raise OSError("the disk fails")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="the disk fails"):
        history.sync()


def test_sync_without_records_does_nothing(tmp_path):
    """As for a checkpoint before the first record."""
    attempt(tmp_path).sync()
    assert not (tmp_path / "metrics.jsonl").exists()


def test_an_unfinished_record_is_returned(tmp_path):
    """The attempt that resumes from its step completes it, and records it once."""
    history = attempt(tmp_path)
    record(history, 50)
    history.record({"step": 100, "loss": 0.01, UNFINISHED: True})
    history = History(tmp_path, CLOCK)
    assert history.begin_attempt(step=100, resumed_from=None) == {"step": 100, "loss": 0.01, UNFINISHED: True}
    history.record({"step": 100, "loss": 0.01, "validation_accuracy": 0.9})
    assert lines(tmp_path / "metrics.jsonl")[1:] == [{"step": 100, "loss": 0.01, "validation_accuracy": 0.9}]


def test_an_unfinished_record_of_steps_to_be_redone_is_dropped(tmp_path):
    """They are logged again."""
    history = attempt(tmp_path)
    record(history, 50)
    history.record({"step": 100, "loss": 0.01, UNFINISHED: True})
    assert History(tmp_path, CLOCK).begin_attempt(step=50, resumed_from=None) is None
    assert recorded_steps(tmp_path) == [50]


def test_a_complete_record_is_not_returned(tmp_path):
    """There is nothing to complete."""
    record(attempt(tmp_path), 50, 100)
    assert History(tmp_path, CLOCK).begin_attempt(step=100, resumed_from=None) is None
    assert recorded_steps(tmp_path) == [50, 100]


def test_an_unfinished_record_survives_kills(tmp_path):
    """A kill during the repeated validation does not lose it."""
    unfinished = {"step": 100, "loss": 0.01, UNFINISHED: True}
    attempt(tmp_path).record(unfinished)
    for _ in range(3):
        assert History(tmp_path, CLOCK).begin_attempt(step=100, resumed_from=None) == unfinished


# Attempts.


def test_an_undisturbed_run_has_no_restart(tmp_path):
    """One attempt, no step redone."""
    history = run(tmp_path, 0, 100, DONE)
    assert (history.restarts, history.steps_redone) == (0, 0)
    assert ended(tmp_path) == [(0, DONE, 100, 100, 0)]
    assert not (tmp_path / "attempt.json").exists()


def test_an_attempt_has_all_keys(tmp_path):
    """Times, process, steps, checkpoint, end, and seconds by name."""
    clock = Clock()
    history = attempt(tmp_path, step=70, resumed_from="model.ckpt-70", clock=clock)
    clock.now = 1_700_000_060.0
    history.progress(100, {"train": 12.345678, "saving": 1})
    history.end_attempt(DONE)
    assert lines(tmp_path / "history.jsonl") == [
        {
            "started_at": 1_700_000_001.0,
            "last_seen_at": 1_700_000_061.0,
            "pid": os.getpid(),
            "from_step": 70,
            "resumed_from": "model.ckpt-70",
            "ended": DONE,
            "to_step": 100,
            "steps_done": 30,
            "steps_redone": 0,
            "seconds": {"train": 12.3457, "saving": 1},
        }
    ]


def test_the_current_attempt_is_in_attempt_json(tmp_path):
    """From its beginning, and updated by each progress."""
    history = attempt(tmp_path, step=10)
    for to in (10, 20, 40):
        history.progress(to, {"train": to / 10})
        saved = json.loads((tmp_path / "attempt.json").read_bytes())
        assert set(saved) == KEYS
        assert (saved["ended"], saved["to_step"], saved["steps_done"]) == (None, to, to - 10)
        assert history.attempts == [saved]
    assert lines(tmp_path / "history.jsonl") == []


def test_the_next_attempt_appends_a_killed_one(tmp_path):
    """With the progress that it saved last; its lost steps are redone."""
    run(tmp_path, 0, 170)
    assert ended(tmp_path) == []
    history = run(tmp_path, 100, 200, DONE)
    assert ended(tmp_path) == [(0, KILLED, 170, 170, 0), (100, DONE, 200, 100, 70)]
    assert (history.restarts, history.steps_redone, balance(history)) == (1, 70, 200)


def test_a_killed_attempt_without_a_step_counts(tmp_path):
    """As one attempt with 0 steps."""
    attempt(tmp_path)
    assert attempt(tmp_path).restarts == 1
    assert ended(tmp_path) == [(0, KILLED, 0, 0, 0)]


def test_crashes_add_up(tmp_path):
    """Restarts and redone steps are counted over all attempts."""
    run(tmp_path, 0, 130)
    run(tmp_path, 100, 120)
    history = run(tmp_path, 100, 150)
    assert (history.restarts, history.steps_redone, balance(history)) == (2, 50, 150)


def test_a_stop_that_saved_costs_no_step(tmp_path):
    """Resuming after a signal is a restart, but no step is redone."""
    run(tmp_path, 0, 104, "stopped by SIGTERM")
    history = run(tmp_path, 104, 200, DONE)
    assert (history.restarts, history.steps_redone, balance(history)) == (1, 0, 200)


def test_a_kill_while_the_last_line_is_written_counts_once(tmp_path):
    """For a kill anywhere in an attempt's end, or the next one's beginning."""
    histories = {}

    def make(directory):
        histories[directory] = run(directory, 0, 100)

    kills = [
        *every_kill(tmp_path / "end", make, lambda directory: histories[directory].end_attempt("stopped")),
        *every_kill(tmp_path / "begin", make, lambda directory: attempt(directory, step=80)),
    ]
    for directory in kills:
        history = run(directory, 80, 90, DONE)
        first, *between, last = ended(directory)
        assert first in {(0, "stopped", 100, 100, 0), (0, KILLED, 100, 100, 0)}
        assert between in ([], [(80, KILLED, 80, 0, 20)])
        assert last == (80, DONE, 90, 10, 0 if between else 20)
        assert balance(history) == 90


def test_after_a_power_cut_unseen_steps_are_counted(tmp_path):
    """attempt.json may be older than the checkpoint; the steps up to the checkpoint were done."""
    run(tmp_path, 0, 40)
    history = run(tmp_path, 100, 150)
    assert ended(tmp_path) == [(0, KILLED, 100, 100, 0)]
    assert (history.steps_redone, balance(history)) == (0, 150)


GARBAGE = [b"", b"\0" * 300, b"\xff", b"{", b"[]", b"null", b"7", b"{}", b'{"started_at": 7}', b'{"to_step": 7}']


@pytest.mark.parametrize("garbage", [None, *GARBAGE])
def test_a_lost_or_damaged_attempt_json_is_ignored(tmp_path, garbage):
    """The run continues, and its own attempt is complete."""
    run(tmp_path, 0, 100, "stopped")
    attempt(tmp_path, step=100)
    if garbage is None:
        (tmp_path / "attempt.json").unlink()
    else:
        (tmp_path / "attempt.json").write_bytes(garbage)
    history = run(tmp_path, 100, 150, DONE)
    assert ended(tmp_path) == [(0, "stopped", 100, 100, 0), (100, DONE, 150, 50, 0)]
    assert balance(history) == 150


def test_no_flipped_bit_in_attempt_json_stops_a_run(tmp_path):
    """Nor its summary."""
    history = run(tmp_path, 0, 170)
    history.progress(170, {"train": 1.5})
    content = (tmp_path / "attempt.json").read_bytes()
    failures = []
    with NO_WAITING:
        for position, byte in enumerate(content):
            for bit in (0, 4):
                (tmp_path / "history.jsonl").unlink(missing_ok=True)
                flipped = content[:position] + bytes([byte ^ 1 << bit]) + content[position + 1 :]
                (tmp_path / "attempt.json").write_bytes(flipped)
                try:
                    history = attempt(tmp_path, step=100)
                    assert isinstance(history.steps_redone, int)
                    summary(history.attempts)
                except (LookupError, TypeError, ValueError, AttributeError) as error:
                    failures.append(f"{flipped}: {error!r}")
    assert not failures, f"{len(failures)}, such as {failures[0]}"


def test_running_a_finished_run_again_is_no_attempt(tmp_path):
    """Without a step to do, no file changes."""
    run(tmp_path, 0, 100, DONE)
    before = (tmp_path / "history.jsonl").read_bytes()
    for _ in range(3):
        history = attempt(tmp_path, step=100)
        history.progress(100, {"train": 0.0})
        history.end_attempt(DONE)
        assert (history.restarts, history.steps_redone, balance(history)) == (0, 0, 100)
        assert (tmp_path / "history.jsonl").read_bytes() == before
        assert not (tmp_path / "attempt.json").exists()


def test_a_prolonged_run_has_another_attempt(tmp_path):
    """It continues after its end with more steps."""
    run(tmp_path, 0, 100, DONE)
    history = run(tmp_path, 100, 200, DONE)
    assert ended(tmp_path) == [(0, DONE, 100, 100, 0), (100, DONE, 200, 100, 0)]
    assert (history.restarts, balance(history)) == (1, 200)


def test_a_finished_run_whose_last_checkpoint_was_damaged_has_another_attempt(tmp_path):
    """Its last steps are redone."""
    run(tmp_path, 0, 100, DONE)
    history = run(tmp_path, 80, 100, DONE)
    assert ended(tmp_path) == [(0, DONE, 100, 100, 0), (80, DONE, 100, 20, 20)]
    assert balance(history) == 100


def test_going_back_redoes_steps(tmp_path):
    """Later records are dropped, written or not, and their steps count as redone."""
    history = attempt(tmp_path)
    record(history, 50, 100)
    history.progress(100, {})
    with full_disk():
        record(history, 110)
    history.go_back(50)
    history.sync()
    assert recorded_steps(tmp_path) == [50]
    history.progress(150, {})
    history.end_attempt(DONE)
    assert ended(tmp_path) == [(0, DONE, 150, 200, 50)]
    assert balance(history) == 150


def test_an_attempt_can_go_back_beyond_its_beginning(tmp_path):
    """Steps of an earlier attempt are redone, too."""
    run(tmp_path, 0, 100, "stopped")
    history = attempt(tmp_path, step=100)
    history.go_back(40)
    assert (history.steps_redone, balance(history)) == (60, 40)


def test_a_full_disk_does_not_stop_a_run(tmp_path, caplog):
    """The history is not essential: a warning is logged."""
    history = attempt(tmp_path)
    with full_disk():
        history.progress(100, {})
        history.end_attempt(DONE)
    assert "No space left" in caplog.text
    assert history.attempts[0]["to_step"] == 100


# Any sequence of events in a run.


class Run:
    """A run that saves, is killed, stopped and rolled back; its step is compared with its History's."""

    def __init__(self, directory):
        """Start at step 0."""
        self.directory = directory
        self.step = self.saved = 0
        self.saves = [0]
        self.saved_attempts = []
        self.start()

    def start(self):
        """Resume from the last save."""
        self.step = self.saved
        self.history = attempt(self.directory, step=self.saved)
        self.saved_attempts = []

    def train(self, steps):
        """Do some steps."""
        self.step += steps
        self.history.progress(self.step, {"train": 1.0, "total": 1.5})
        record(self.history, self.step)
        self.saved_attempts.append((self.directory / "attempt.json").read_bytes())

    def save(self, _):
        """Save a checkpoint."""
        self.saved = self.step
        self.saves.append(self.step)

    def kill(self, _):
        """Be killed, and restart."""
        self.start()

    def stop(self, _):
        """Save, end and restart."""
        self.save(_)
        self.history.end_attempt("stopped")
        self.start()

    def cut_power(self, lost):
        """Restart after a power cut that leaves an older attempt.json."""
        if self.saved_attempts:
            (self.directory / "attempt.json").write_bytes(self.saved_attempts[-1 - lost % len(self.saved_attempts)])
        self.start()

    def kill_at_the_end(self, change):
        """Be killed while the end is written."""
        self.save(change)
        try:
            with killed_before(change % 6):
                self.history.end_attempt("stopped")
        except Killed:
            pass
        self.start()

    def go_back(self, which):
        """Go back to one of its checkpoints; later ones stay, as in the manager."""
        self.step = min(self.saves[which % len(self.saves)], self.step)
        self.history.go_back(self.step)


EVENTS = st.sampled_from(["train", "train", "save", "kill", "stop", "cut_power", "kill_at_the_end"])


@given(st.lists(st.tuples(EVENTS, st.integers(1, 30)), max_size=12))
@UNHURRIED
def test_the_balance_is_the_runs_step(tmp_path_factory, events):
    """After any kills, stops and power cuts."""
    with NO_WAITING:
        run = Run(tmp_path_factory.mktemp("run"))
        for name, number in events:
            getattr(run, name)(number)
            assert balance(run.history) == run.step
            assert all(each["steps_redone"] >= 0 and each["steps_done"] >= 0 for each in run.history.attempts)
            steps = recorded_steps(run.directory)
            assert steps == sorted(set(steps))
            assert all(step <= run.step for step in steps)


@given(st.lists(st.tuples(st.sampled_from(["train", "save", "kill", "go_back"]), st.integers(1, 30)), max_size=12))
@UNHURRIED
def test_the_balance_is_the_runs_step_after_going_back(tmp_path_factory, events):
    """Also after kills."""
    with NO_WAITING:
        run = Run(tmp_path_factory.mktemp("run"))
        for name, number in events:
            getattr(run, name)(number)
            assert balance(run.history) == run.step


def train(history, begin, steps, *, log_every, save_every):
    """Do some steps of a run of 60; return the last saved step."""
    made = range(begin + 1, min(begin + steps, 60) + 1)
    record(history, *[step for step in made if step % log_every == 0])
    history.progress(made[-1] if made else begin, {})
    return max((step for step in made if step % save_every == 0), default=begin)


@given(kills=st.lists(st.integers(1, 59), max_size=5), log_every=st.integers(1, 15), save_every=st.integers(1, 59))
@UNHURRIED
def test_kills_leave_no_trace_in_the_metrics(tmp_path_factory, kills, log_every, save_every):
    """Killed after any number of steps, any number of times: the records are those of an undisturbed run."""
    with NO_WAITING:
        directory = tmp_path_factory.mktemp("run")
        saved = 0
        for steps in kills:
            saved = train(attempt(directory, step=saved), saved, steps, log_every=log_every, save_every=save_every)
        last = attempt(directory, step=saved)
        train(last, saved, 60, log_every=log_every, save_every=save_every)
        assert recorded_steps(directory) == list(range(log_every, 61, log_every))
        assert (last.restarts, balance(last)) == (len(kills), 60)


# Reading and summing up.


def test_read_returns_all_attempts(tmp_path):
    """The current one last; no file changes, because the run may be running."""
    assert read(tmp_path) == []
    run(tmp_path, 0, 100, "stopped")
    history = run(tmp_path, 100, 150)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert read(tmp_path) == history.attempts
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_attempt_killed_at_its_very_end_is_read_once(tmp_path):
    """For a kill anywhere in its end."""
    for directory in every_kill(tmp_path, lambda _: None, lambda directory: run(directory, 0, 100, "stopped")):
        times = [each["started_at"] for each in read(directory)]
        assert len(times) == len(set(times))


def test_seconds_before_the_attempt_are_recorded(tmp_path):
    """Starting takes a while."""
    history = History(tmp_path, CLOCK)
    history.begin_attempt(step=0, resumed_from=None, seconds={"restoring": 1.23456, "total": 5})
    assert read(tmp_path)[0]["seconds"] == {"restoring": 1.2346, "total": 5}


def an_attempt(seconds, train, done, redone=0, begin=0):
    """Return an attempt's record."""
    steps = {"from_step": begin, "to_step": begin + done, "steps_done": done, "steps_redone": redone}
    return {"started_at": 100.0, "last_seen_at": 100.0 + seconds, "seconds": {"train": train, "total": seconds}} | steps


def useful_share(*attempts):
    """Return the useful share of these attempts."""
    return summary(list(attempts))["useful_share"]


def test_attempts_add_up():
    """Steps, redone steps, seconds, and the useful share."""
    attempts = [an_attempt(10, 8, done=100), an_attempt(20, 8, done=100, redone=50, begin=50)]
    assert summary(attempts) == {"steps": 150, "steps_redone": 50, "seconds": 30, "useful_share": 0.4}


def test_without_redone_steps_the_useful_share_is_that_of_training():
    """Eight seconds of training in ten."""
    assert useful_share(an_attempt(10, 8, done=100)) == pytest.approx(0.8)


def test_redone_steps_are_not_useful():
    """Half of the first attempt's steps were redone by the second: of eight seconds, four count."""
    attempts = [an_attempt(10, 8, done=100), an_attempt(10, 8, done=100, redone=50, begin=50)]
    assert useful_share(*attempts) == pytest.approx((4 + 8) / 20)


def test_steps_redone_in_the_same_attempt_are_not_useful():
    """For an attempt that went back halfway, half of its steps count."""
    assert useful_share(an_attempt(10, 8, done=100, redone=50) | {"to_step": 50}) == pytest.approx(0.4)


def test_redone_steps_can_span_attempts():
    """If the third resumes before the second began, steps of the first are redone, too."""
    first, second = an_attempt(10, 10, done=100), an_attempt(10, 10, done=10, begin=100)
    assert useful_share(first, second, an_attempt(0, 0, done=0, redone=60, begin=50)) == pytest.approx(5 / 20)


def test_without_time_there_is_no_share():
    """It is None, not an error."""
    assert useful_share(an_attempt(0, 0, done=0)) is None


def test_an_attempt_without_a_step_is_not_useful():
    """Its seconds count in the total."""
    assert useful_share(an_attempt(10, 0, done=0), an_attempt(10, 10, done=100)) == pytest.approx(0.5)


@given(st.lists(st.tuples(EVENTS, st.integers(1, 30)), max_size=8))
@UNHURRIED
def test_a_share_is_between_0_and_1(tmp_path_factory, events):
    """After any events."""
    with NO_WAITING:
        run = Run(tmp_path_factory.mktemp("run"))
        for name, number in events:
            getattr(run, name)(number)
        share = summary(run.history.attempts)["useful_share"]
        assert share is None or 0 <= share <= 1


@pytest.mark.parametrize("name", ["metrics.jsonl", "history.jsonl"])
def test_a_line_with_a_flipped_bit_is_dropped(tmp_path, name):
    """Like a truncated one."""
    history = attempt(tmp_path)
    record(history, 50, 100)
    history.progress(100, {})
    history.end_attempt("stopped by SIGTERM")
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content.replace(b"step", b"stfp"))
    attempt(tmp_path, step=100)
    assert "stfp" not in (tmp_path / name).read_text()


# Damaged files.

DAMAGES = [("flip", number) for number in range(200)] + [("cut", number) for number in range(50)]


def damaged(content, damage, number):
    """Return the content with one bit flipped, or truncated, at a random position."""
    random = Random(number)  # noqa: S311 - no secret
    position = random.randrange(len(content))
    if damage == "cut":
        return content[:position]
    return content[:position] + bytes([content[position] ^ 1 << random.randrange(8)]) + content[position + 1 :]


@pytest.mark.parametrize("name", ["history.jsonl", "metrics.jsonl", "attempt.json"])
def test_no_damage_to_a_file_stops_a_run_or_a_reader(tmp_path, name):
    """200 flipped bits and 50 truncations of each: the run continues and ends; a damaged line may be lost."""
    history = run(tmp_path, 0, 50, "stopped by SIGTERM")
    record(history, 25, 50)
    history = run(tmp_path, 50, 100)
    record(history, 75)
    history.record({"step": 100, "loss": 0.01, UNFINISHED: True})
    history.progress(100, {"train": 1.5, "total": 2.5})
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    failures = []
    for damage, number in DAMAGES:
        for path, content in before.items():
            path.write_bytes(damaged(content, damage, number) if path.name == name else content)
        try:
            with NO_WAITING:
                summary(read(tmp_path) or [an_attempt(1, 1, 1)])
                history = run(tmp_path, 100, 150)
                record(history, 150)
                history.end_attempt(DONE)
                summary(read(tmp_path))
                assert (history.restarts, history.steps_redone) >= (0, 0)
                assert recorded_steps(tmp_path)[-1] == 150
        except Exception as error:  # noqa: BLE001 - any exception is a failure
            failures.append(f"{damage} {number}: {error!r}")
    assert not failures, f"{len(failures)}, such as {failures[0]}"


@pytest.mark.parametrize("value", [None, True, -1, "1", [], {}, 1.5, float("nan"), float("inf"), 10**400, ...])
@pytest.mark.parametrize("key", sorted(KEYS))
def test_an_attempt_with_wrong_types_is_ignored(tmp_path, key, value):
    """Readers get attempts with all keys, of the right types, only."""
    run(tmp_path, 0, 50, "stopped")
    [attempt_record] = lines(tmp_path / "history.jsonl")
    attempt_record[key] = value
    if value is ...:
        del attempt_record[key]
    (tmp_path / "history.jsonl").write_text(json.dumps(attempt_record) + "\n")
    history = run(tmp_path, 50, 100, DONE)
    assert isinstance(history.steps_redone, int)
    assert isinstance(summary(read(tmp_path))["seconds"], float)
    for each in read(tmp_path):
        assert set(each) == KEYS
        time.localtime(each["started_at"])


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir])
def test_an_attempt_json_that_is_not_a_file_is_not_read(tmp_path, make):
    """Reading does not block."""
    run(tmp_path, 0, 50, "stopped")
    make(tmp_path / "attempt.json")
    assert len(read(tmp_path)) == 1
