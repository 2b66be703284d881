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
    """A clock that goes on by a second whenever somebody looks."""

    now = 1_700_000_000.0

    def __call__(self):
        """Seconds since 1970."""
        self.now += 1
        return self.now


CLOCK = Clock()
UNHURRIED = settings(deadline=None, max_examples=60)  # a busy machine is no failure
NO_WAITING = mock.patch.object(os, "fsync", return_value=None)  # for the disk: what is tested is no power cut


def attempt(directory, *, step=0, resumed_from=None, clock=CLOCK):
    """Begins an attempt that goes on from a step."""
    history = History(directory, clock)
    history.begin_attempt(step=step, resumed_from=resumed_from)
    return history


def record(history, *steps):
    """Records these steps; the values are, as in a run, a function of the step."""
    for step in steps:
        history.record({"step": step, "loss": 1 / step})


def lines(path):
    """The objects of a file, one a line."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def recorded_steps(directory):
    """The steps in metrics.jsonl."""
    return [each["step"] for each in lines(directory / "metrics.jsonl")]


def ended(directory):
    """Of each attempt that has its line: where it began, how it ended, how far it came, what it did and did again."""
    names = ("from_step", "ended", "to_step", "steps_done", "steps_redone")
    return [tuple(each[name] for name in names) for each in lines(directory / "history.jsonl")]


def balance(history):
    """The steps done less those done again: where the run is."""
    return sum(each["steps_done"] for each in history.attempts) - history.steps_redone


def run(directory, begin, to, how=None):
    """An attempt that comes so far; with `how`, it ends, else it is killed."""
    history = attempt(directory, step=begin)
    history.progress(to, {})
    if how is not None:
        history.end_attempt(how)
    return history


# Records.


def test_nothing_is_written_before_an_attempt_begins(tmp_path):
    """Who only asks leaves no file."""
    history = History(tmp_path)
    assert (history.restarts, history.steps_redone, history.attempts) == (0, 0, [])
    assert list(tmp_path.iterdir()) == []


def test_records_are_what_was_recorded(tmp_path):
    """One object a logged step."""
    record(attempt(tmp_path), 10, 20)
    assert lines(tmp_path / "metrics.jsonl") == [{"step": 10, "loss": 0.1}, {"step": 20, "loss": 0.05}]


def test_records_beyond_the_checkpoint_are_dropped(tmp_path):
    """Their steps are made again."""
    record(attempt(tmp_path), 50, 100, 150, 170)
    attempt(tmp_path, step=100)
    assert recorded_steps(tmp_path) == [50, 100]


def test_a_run_that_begins_anew_has_none_of_the_old_records(tmp_path):
    """A kill before the first checkpoint leaves nothing."""
    record(attempt(tmp_path), 50)
    attempt(tmp_path)
    assert recorded_steps(tmp_path) == []


@pytest.mark.parametrize("name", ["metrics.jsonl", "history.jsonl"])
def test_half_a_line_is_dropped(tmp_path, name):
    """What a kill left in the middle of a line does not stay, in either file."""
    record(run(tmp_path, 0, 50, "stopped"), 50)
    with (tmp_path / name).open("a") as file:
        file.write('{"step": 6')
    record(run(tmp_path, 50, 60, "stopped"), 60)
    assert recorded_steps(tmp_path) == [50, 60]
    assert ended(tmp_path) == [(0, "stopped", 50, 50, 0), (50, "stopped", 60, 10, 0)]


def test_records_are_kept_while_the_disk_refuses(tmp_path):
    """Training goes on; once there is room again, they are written with the next, in order and each once."""
    history = attempt(tmp_path)
    record(history, 10)
    with full_disk():
        record(history, 20, 30)
    assert recorded_steps(tmp_path) == [10]
    record(history, 40)
    assert recorded_steps(tmp_path) == [10, 20, 30, 40]
    record(history, 50)
    assert recorded_steps(tmp_path) == [10, 20, 30, 40, 50]


def test_no_checkpoint_is_ahead_of_records_that_the_disk_refused(tmp_path):
    """Whoever is about to save hears of it, and with room again has them written."""
    history = attempt(tmp_path)
    with full_disk():
        record(history, 10, 20)
        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                history.sync()
    history.sync()
    assert recorded_steps(tmp_path) == [10, 20]


def test_a_checkpoint_is_not_ahead_of_its_records(tmp_path, monkeypatch):
    """Where the records cannot be made safe, whoever is about to save hears of it."""
    history = attempt(tmp_path)
    record(history, 10)

    def refuse(_):
        raise OSError("the disk refuses")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="the disk refuses"):
        history.sync()


def test_without_records_there_is_nothing_to_make_safe(tmp_path):
    """A checkpoint before the first record is fine."""
    attempt(tmp_path).sync()
    assert not (tmp_path / "metrics.jsonl").exists()


def test_an_unfinished_record_is_given_back(tmp_path):
    """Whoever goes on from its step makes good what was interrupted, and records it anew, once."""
    history = attempt(tmp_path)
    record(history, 50)
    history.record({"step": 100, "loss": 0.01, UNFINISHED: True})
    history = History(tmp_path, CLOCK)
    assert history.begin_attempt(step=100, resumed_from=None) == {"step": 100, "loss": 0.01, UNFINISHED: True}
    history.record({"step": 100, "loss": 0.01, "validation_accuracy": 0.9})
    assert lines(tmp_path / "metrics.jsonl")[1:] == [{"step": 100, "loss": 0.01, "validation_accuracy": 0.9}]


def test_an_unfinished_record_of_steps_to_be_made_again_is_dropped(tmp_path):
    """They are logged again; nobody has to make it good."""
    history = attempt(tmp_path)
    record(history, 50)
    history.record({"step": 100, "loss": 0.01, UNFINISHED: True})
    assert History(tmp_path, CLOCK).begin_attempt(step=50, resumed_from=None) is None
    assert recorded_steps(tmp_path) == [50]


def test_a_whole_record_is_not_given_back(tmp_path):
    """There is nothing to make good."""
    record(attempt(tmp_path), 50, 100)
    assert History(tmp_path, CLOCK).begin_attempt(step=100, resumed_from=None) is None
    assert recorded_steps(tmp_path) == [50, 100]


def test_a_kill_before_an_unfinished_record_is_made_good_does_not_lose_it(tmp_path):
    """Validating takes a while, and a kill may come meanwhile: the next attempt is given the record again."""
    unfinished = {"step": 100, "loss": 0.01, UNFINISHED: True}
    attempt(tmp_path).record(unfinished)
    for _ in range(3):
        assert History(tmp_path, CLOCK).begin_attempt(step=100, resumed_from=None) == unfinished


# Attempts.


def test_a_run_left_alone_has_no_restart(tmp_path):
    """One attempt, nothing made twice, and its line says so."""
    history = run(tmp_path, 0, 100, DONE)
    assert (history.restarts, history.steps_redone) == (0, 0)
    assert ended(tmp_path) == [(0, DONE, 100, 100, 0)]
    assert not (tmp_path / "attempt.json").exists()


def test_each_attempt_is_told_with_its_time(tmp_path):
    """When it began and was last seen, which process it was, where it went on and where its time went."""
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


def test_the_attempt_under_way_can_be_watched(tmp_path):
    """Its object is there from its beginning, and newer after each progress."""
    history = attempt(tmp_path, step=10)
    for to in (10, 20, 40):
        history.progress(to, {"train": to / 10})
        note = json.loads((tmp_path / "attempt.json").read_bytes())
        assert set(note) == KEYS
        assert (note["ended"], note["to_step"], note["steps_done"]) == (None, to, to - 10)
        assert history.attempts == [note]
    assert lines(tmp_path / "history.jsonl") == []


def test_a_killed_attempt_gets_its_line_from_the_next(tmp_path):
    """What it did is known up to what it noted last, and what of that is lost is made again."""
    run(tmp_path, 0, 170)
    assert ended(tmp_path) == []
    history = run(tmp_path, 100, 200, DONE)
    assert ended(tmp_path) == [(0, KILLED, 170, 170, 0), (100, DONE, 200, 100, 70)]
    assert (history.restarts, history.steps_redone, balance(history)) == (1, 70, 200)


def test_a_killed_attempt_that_made_no_step_is_one(tmp_path):
    """It began, and that is told."""
    attempt(tmp_path)
    assert attempt(tmp_path).restarts == 1
    assert ended(tmp_path) == [(0, KILLED, 0, 0, 0)]


def test_crashes_add_up(tmp_path):
    """Over all attempts, restarts and steps made twice are counted together."""
    run(tmp_path, 0, 130)
    run(tmp_path, 100, 120)
    history = run(tmp_path, 100, 150)
    assert (history.restarts, history.steps_redone, balance(history)) == (2, 50, 150)


def test_a_stop_that_saved_costs_no_step(tmp_path):
    """A run stopped by a signal is a restart, but nothing is made twice."""
    run(tmp_path, 0, 104, "stopped by SIGTERM")
    history = run(tmp_path, 104, 200, DONE)
    assert (history.restarts, history.steps_redone, balance(history)) == (1, 0, 200)


def test_a_kill_while_the_last_line_is_written_counts_once(tmp_path):
    """Wherever it comes in an attempt's end, or in the next one's beginning, the attempt has one line."""
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


def test_after_a_power_cut_the_steps_that_nobody_saw_are_counted(tmp_path):
    """What was noted last may be older than the checkpoint; the steps up to that were made."""
    run(tmp_path, 0, 40)
    history = run(tmp_path, 100, 150)
    assert ended(tmp_path) == [(0, KILLED, 100, 100, 0)]
    assert (history.steps_redone, balance(history)) == (0, 150)


GARBAGE = [b"", b"\0" * 300, b"\xff", b"{", b"[]", b"null", b"7", b"{}", b'{"started_at": 7}', b'{"to_step": 7}']


@pytest.mark.parametrize("garbage", [None, *GARBAGE])
def test_an_account_that_was_lost_stops_nobody(tmp_path, garbage):
    """What a power cut left of it is no attempt; the run goes on, and its own account is whole."""
    run(tmp_path, 0, 100, "stopped")
    attempt(tmp_path, step=100)
    if garbage is None:
        (tmp_path / "attempt.json").unlink()
    else:
        (tmp_path / "attempt.json").write_bytes(garbage)
    history = run(tmp_path, 100, 150, DONE)
    assert ended(tmp_path) == [(0, "stopped", 100, 100, 0), (100, DONE, 150, 50, 0)]
    assert balance(history) == 150


def test_no_flipped_bit_in_an_account_stops_anybody(tmp_path):
    """It is for the accounts alone: whatever it says, the run goes on, and what is told of it is told."""
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


def test_looking_at_a_finished_run_is_no_attempt(tmp_path):
    """Run again after its end, without a step to make, everything stays as it was."""
    run(tmp_path, 0, 100, DONE)
    before = (tmp_path / "history.jsonl").read_bytes()
    for _ in range(3):
        history = attempt(tmp_path, step=100)
        history.progress(100, {"train": 0.0})
        history.end_attempt(DONE)
        assert (history.restarts, history.steps_redone, balance(history)) == (0, 0, 100)
        assert (tmp_path / "history.jsonl").read_bytes() == before
        assert not (tmp_path / "attempt.json").exists()


def test_a_finished_run_that_is_prolonged_has_another_attempt(tmp_path):
    """With steps to make, it is more than a look: the accounts are those of the whole run."""
    run(tmp_path, 0, 100, DONE)
    history = run(tmp_path, 100, 200, DONE)
    assert ended(tmp_path) == [(0, DONE, 100, 100, 0), (100, DONE, 200, 100, 0)]
    assert (history.restarts, balance(history)) == (1, 200)


def test_a_finished_run_whose_last_checkpoint_was_damaged_has_another_attempt(tmp_path):
    """Its last steps are made again."""
    run(tmp_path, 0, 100, DONE)
    history = run(tmp_path, 80, 100, DONE)
    assert ended(tmp_path) == [(0, DONE, 100, 100, 0), (80, DONE, 100, 20, 20)]
    assert balance(history) == 100


def test_going_back_makes_steps_again(tmp_path):
    """Records beyond it are dropped, also those that the disk had refused, and their steps count as made twice."""
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


def test_going_back_beyond_its_own_beginning_is_going_back(tmp_path):
    """Also the steps of an earlier attempt are made again."""
    run(tmp_path, 0, 100, "stopped")
    history = attempt(tmp_path, step=100)
    history.go_back(40)
    assert (history.steps_redone, balance(history)) == (60, 40)


def test_a_disk_that_refuses_the_accounts_stops_nobody(tmp_path, caplog):
    """They are worth no run: it ends well, and says what is missing."""
    history = attempt(tmp_path)
    with full_disk():
        history.progress(100, {})
        history.end_attempt(DONE)
    assert "No space left" in caplog.text
    assert history.attempts[0]["to_step"] == 100


# Any sequence of what can happen to a run.


class Run:
    """A run that saves, is killed, stopped and sent back; it knows where it is, and the History has to."""

    def __init__(self, directory):
        """Begins."""
        self.directory = directory
        self.step = self.saved = 0
        self.saves = [0]
        self.notes = []
        self.start()

    def start(self):
        """Goes on from the last save."""
        self.step = self.saved
        self.history = attempt(self.directory, step=self.saved)
        self.notes = []

    def train(self, steps):
        """Makes steps."""
        self.step += steps
        self.history.progress(self.step, {"train": 1.0, "total": 1.5})
        record(self.history, self.step)
        self.notes.append((self.directory / "attempt.json").read_bytes())

    def save(self, _):
        """Makes a checkpoint."""
        self.saved = self.step
        self.saves.append(self.step)

    def kill(self, _):
        """Ends without a word."""
        self.start()

    def stop(self, _):
        """Ends in its own way."""
        self.save(_)
        self.history.end_attempt("stopped")
        self.start()

    def cut_power(self, lost):
        """Ends without a word, and of attempt.json only an older state is on the disk."""
        if self.notes:
            (self.directory / "attempt.json").write_bytes(self.notes[-1 - lost % len(self.notes)])
        self.start()

    def kill_at_the_end(self, change):
        """Ends while it is writing its last line."""
        self.save(change)
        try:
            with killed_before(change % 6):
                self.history.end_attempt("stopped")
        except Killed:
            pass
        self.start()

    def go_back(self, which):
        """Is sent back to one of its checkpoints; those after it stay, as is the manager's way."""
        self.step = min(self.saves[which % len(self.saves)], self.step)
        self.history.go_back(self.step)


EVENTS = st.sampled_from(["train", "train", "save", "kill", "stop", "cut_power", "kill_at_the_end"])


@given(st.lists(st.tuples(EVENTS, st.integers(1, 30)), max_size=12))
@UNHURRIED
def test_the_accounts_come_out_even_whatever_happens(tmp_path_factory, events):
    """Steps done less steps done again is where the run is, after any kills, stops and power cuts."""
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
def test_the_accounts_come_out_even_where_a_run_is_sent_back(tmp_path_factory, events):
    """So it is where it goes back by itself."""
    with NO_WAITING:
        run = Run(tmp_path_factory.mktemp("run"))
        for name, number in events:
            getattr(run, name)(number)
            assert balance(run.history) == run.step


def train(history, begin, steps, *, log_every, save_every):
    """Makes steps of a run of 60; gives the last step, and the last that is saved."""
    made = range(begin + 1, min(begin + steps, 60) + 1)
    record(history, *[step for step in made if step % log_every == 0])
    history.progress(made[-1] if made else begin, {})
    return max((step for step in made if step % save_every == 0), default=begin)


@given(kills=st.lists(st.integers(1, 59), max_size=5), log_every=st.integers(1, 15), save_every=st.integers(1, 59))
@UNHURRIED
def test_kills_leave_no_trace_in_the_metrics(tmp_path_factory, kills, log_every, save_every):
    """Killed after any number of steps, any number of times: the records are those of a run left alone."""
    with NO_WAITING:
        directory = tmp_path_factory.mktemp("run")
        saved = 0
        for steps in kills:
            saved = train(attempt(directory, step=saved), saved, steps, log_every=log_every, save_every=save_every)
        last = attempt(directory, step=saved)
        train(last, saved, 60, log_every=log_every, save_every=save_every)
        assert recorded_steps(directory) == list(range(log_every, 61, log_every))
        assert (last.restarts, balance(last)) == (len(kills), 60)


# What the accounts are for.


def test_the_accounts_can_be_read_by_anybody(tmp_path):
    """All attempts, the one under way last, and nothing is changed: the run may be going on."""
    assert read(tmp_path) == []
    run(tmp_path, 0, 100, "stopped")
    history = run(tmp_path, 100, 150)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert read(tmp_path) == history.attempts
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_attempt_killed_at_its_very_end_is_read_once(tmp_path):
    """Wherever the kill came while it wrote its last line."""
    for directory in every_kill(tmp_path, lambda _: None, lambda directory: run(directory, 0, 100, "stopped")):
        times = [each["started_at"] for each in read(directory)]
        assert len(times) == len(set(times))


def test_what_an_attempt_did_before_it_began_is_in_its_time(tmp_path):
    """Starting takes a while, and is told even where nothing else was."""
    history = History(tmp_path, CLOCK)
    history.begin_attempt(step=0, resumed_from=None, seconds={"restoring": 1.23456, "total": 5})
    assert read(tmp_path)[0]["seconds"] == {"restoring": 1.2346, "total": 5}


def an_attempt(seconds, train, done, redone=0, begin=0):
    """An attempt of so many seconds."""
    steps = {"from_step": begin, "to_step": begin + done, "steps_done": done, "steps_redone": redone}
    return {"started_at": 100.0, "last_seen_at": 100.0 + seconds, "seconds": {"train": train, "total": seconds}} | steps


def useful_share(*attempts):
    """How much of the attempts' time went into updates that still count."""
    return summary(list(attempts))["useful_share"]


def test_attempts_add_up():
    """Where the run is, what was made twice, and what it took."""
    attempts = [an_attempt(10, 8, done=100), an_attempt(20, 8, done=100, redone=50, begin=50)]
    assert summary(attempts) == {"steps": 150, "steps_redone": 50, "seconds": 30, "useful_share": 0.4}


def test_without_a_loss_the_useful_share_is_that_of_training():
    """Eight seconds of training in ten."""
    assert useful_share(an_attempt(10, 8, done=100)) == pytest.approx(0.8)


def test_what_was_made_again_was_of_no_use():
    """Half of the first attempt's steps were made again by the second: of eight seconds, four counted."""
    attempts = [an_attempt(10, 8, done=100), an_attempt(10, 8, done=100, redone=50, begin=50)]
    assert useful_share(*attempts) == pytest.approx((4 + 8) / 20)


def test_what_an_attempt_made_again_itself_was_of_no_use():
    """An attempt that went back halfway has half its steps to show, as if it had been killed there."""
    assert useful_share(an_attempt(10, 8, done=100, redone=50) | {"to_step": 50}) == pytest.approx(0.4)


def test_a_loss_can_reach_beyond_one_attempt():
    """Where the third goes on before the second began, steps of the first are lost, too."""
    first, second = an_attempt(10, 10, done=100), an_attempt(10, 10, done=10, begin=100)
    assert useful_share(first, second, an_attempt(0, 0, done=0, redone=60, begin=50)) == pytest.approx(5 / 20)


def test_where_no_time_has_passed_there_is_no_share():
    """Nor is it an error."""
    assert useful_share(an_attempt(0, 0, done=0)) is None


def test_an_attempt_without_a_step_was_of_no_use():
    """It took its time all the same."""
    assert useful_share(an_attempt(10, 0, done=0), an_attempt(10, 10, done=100)) == pytest.approx(0.5)


@given(st.lists(st.tuples(EVENTS, st.integers(1, 30)), max_size=8))
@UNHURRIED
def test_a_share_is_a_share(tmp_path_factory, events):
    """Whatever happened, it is between nothing and all."""
    with NO_WAITING:
        run = Run(tmp_path_factory.mktemp("run"))
        for name, number in events:
            getattr(run, name)(number)
        share = summary(run.history.attempts)["useful_share"]
        assert share is None or 0 <= share <= 1


@pytest.mark.parametrize("name", ["metrics.jsonl", "history.jsonl"])
def test_a_line_that_a_flipped_bit_has_changed_stops_nobody(tmp_path, name):
    """It is no record any more, and dropped as one that was cut short."""
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
    """The same bytes with one bit flipped, or cut off; which bit or where is spread over the file."""
    random = Random(number)  # noqa: S311 - no secret
    position = random.randrange(len(content))
    if damage == "cut":
        return content[:position]
    return content[:position] + bytes([content[position] ^ 1 << random.randrange(8)]) + content[position + 1 :]


@pytest.mark.parametrize("name", ["history.jsonl", "metrics.jsonl", "attempt.json"])
def test_no_damage_to_a_file_stops_a_run_or_a_reader(tmp_path, name):
    """200 flipped bits and 50 truncations of each: the run goes on, ends and is told; a damaged line may be lost."""
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
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the failure looked for
            failures.append(f"{damage} {number}: {error!r}")
    assert not failures, f"{len(failures)}, such as {failures[0]}"


@pytest.mark.parametrize("value", [None, True, -1, "1", [], {}, 1.5, float("nan"), float("inf"), 10**400, ...])
@pytest.mark.parametrize("key", sorted(KEYS))
def test_an_attempt_of_other_types_is_none(tmp_path, key, value):
    """Every reader finds what it uses, of the type that it uses, or no attempt at all."""
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
def test_an_attempt_that_is_no_file_is_not_read(tmp_path, make):
    """Nothing is waited for."""
    run(tmp_path, 0, 50, "stopped")
    make(tmp_path / "attempt.json")
    assert len(read(tmp_path)) == 1
