import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpointing.history import History


class Clock:
    """A clock that tests set."""

    now = 1_700_000_000.0

    def __call__(self):
        """Seconds since 1970."""
        return self.now


def attempt(directory, *, step=0, finished=False, clock=None):
    """Begins an attempt that goes on from a step."""
    history = History(directory, clock or Clock())
    history.begin_attempt(step=step, finished=finished)
    return history


def record(history, *steps):
    """Records these steps; the values are, as in a run, a function of the step."""
    for step in steps:
        history.record({"step": step, "loss": 1 / step})


def lines(path):
    """The objects of a file, one a line."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def recorded_steps(directory):
    """The steps in metrics.jsonl."""
    return [each["step"] for each in lines(directory / "metrics.jsonl")]


def told(history):
    """What result.json tells of the attempts."""
    return history.restarts, history.steps_redone


def test_nothing_is_written_before_an_attempt_begins(tmp_path):
    """Who only asks leaves no file."""
    history = History(tmp_path)
    assert told(history) == (0, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_run_left_alone_has_no_restart(tmp_path):
    """Its records are what was recorded, and nothing was made twice."""
    history = attempt(tmp_path)
    record(history, 10, 20)
    assert lines(tmp_path / "metrics.jsonl") == [{"step": 10, "loss": 0.1}, {"step": 20, "loss": 0.05}]
    assert told(history) == (0, 0)


def test_each_attempt_is_told_with_its_time(tmp_path):
    """history.jsonl says when each attempt began, and at which step."""
    clock = Clock()
    attempt(tmp_path, clock=clock)
    clock.now += 60
    attempt(tmp_path, step=100, clock=clock)
    assert lines(tmp_path / "history.jsonl") == [
        {"started_at": 1_700_000_000.0, "step": 0, "steps_redone": 0},
        {"started_at": 1_700_000_060.0, "step": 100, "steps_redone": 0},
    ]


def test_a_crash_costs_the_steps_since_the_checkpoint(tmp_path):
    """Records beyond the checkpoint are dropped, and their steps count as made twice."""
    record(attempt(tmp_path), 50, 100, 150, 170)
    history = attempt(tmp_path, step=100)
    assert recorded_steps(tmp_path) == [50, 100]
    assert told(history) == (1, 70)


def test_a_crash_before_the_first_checkpoint_costs_all_steps(tmp_path):
    """A run that begins anew has none of the old records."""
    record(attempt(tmp_path), 50)
    assert told(attempt(tmp_path)) == (1, 50)
    assert recorded_steps(tmp_path) == []


def test_crashes_add_up(tmp_path):
    """Over all attempts, restarts and steps made twice are counted together."""
    record(attempt(tmp_path), 100, 130)
    record(attempt(tmp_path, step=100), 120)
    assert told(attempt(tmp_path, step=100)) == (2, 50)


def test_a_stop_that_saved_costs_no_step(tmp_path):
    """A run stopped by a signal is a restart, but nothing is made twice."""
    record(attempt(tmp_path), 100)
    assert told(attempt(tmp_path, step=104)) == (1, 0)
    assert recorded_steps(tmp_path) == [100]


def test_looking_at_a_finished_run_is_no_attempt(tmp_path):
    """Run again after its end, the counts stay."""
    record(attempt(tmp_path), 100)
    for _ in range(3):
        assert told(attempt(tmp_path, step=100, finished=True)) == (0, 0)
    assert len(lines(tmp_path / "history.jsonl")) == 1


def test_half_a_line_is_dropped(tmp_path):
    """What a kill left in the middle of a line does not stay, in either file."""
    record(attempt(tmp_path), 50)
    for name in ("metrics.jsonl", "history.jsonl"):
        with (tmp_path / name).open("a") as file:
            file.write('{"step": 6')
    history = attempt(tmp_path, step=50)
    record(history, 60)
    assert recorded_steps(tmp_path) == [50, 60]
    assert told(history) == (1, 0)
    assert len(lines(tmp_path / "history.jsonl")) == 2


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


def train(history, begin, steps, *, log_every, save_every):
    """Makes steps of a run of 60; gives the last step that is recorded, and the last that is saved."""
    made = range(begin + 1, min(begin + steps, 60) + 1)
    logged = [step for step in made if step % log_every == 0]
    record(history, *logged)
    return max(logged, default=begin), max((step for step in made if step % save_every == 0), default=begin)


@given(kills=st.lists(st.integers(1, 59), max_size=5), log_every=st.integers(1, 15), save_every=st.integers(1, 59))
@settings(deadline=None)
def test_kills_leave_no_trace_in_the_metrics(tmp_path_factory, kills, log_every, save_every):
    """Killed after any number of steps, any number of times: the records are those of a run left alone."""
    directory = tmp_path_factory.mktemp("run")
    saved, redone = 0, 0
    for steps in kills:
        recorded, saved = train(
            attempt(directory, step=saved), saved, steps, log_every=log_every, save_every=save_every
        )
        redone += max(0, recorded - saved)
    last = attempt(directory, step=saved)
    train(last, saved, 60, log_every=log_every, save_every=save_every)
    assert recorded_steps(directory) == list(range(log_every, 61, log_every))
    assert told(last) == (len(kills), redone)
