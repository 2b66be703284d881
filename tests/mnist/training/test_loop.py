import itertools

import pytest

from checkpointing.runs import history
from mnist.errors import NonFiniteLossError
from mnist.model import training_graph
from mnist.training import loop
from mnist.training.stopwatch import Stopwatch
from tests.digit_graph import build, digits


class Stopped(Exception):  # noqa: N818 - a request, not an error
    """Raised by `check_stop` of these tests."""


class RecordingHooks:
    """Hooks that record their calls."""

    def __init__(self, stop_after=None, *, stop_in_evaluation=False):
        """Raise Stopped after that many calls of save_if_due, or in the first evaluation."""
        self.calls = []
        self.saves = []
        self._stop_in_evaluation = stop_in_evaluation
        self.records = []
        self._accuracies = itertools.count(1)
        self._stop_after = stop_after

    def as_hooks(self):
        """Return them as loop.Hooks."""
        return loop.Hooks(self.evaluate, self.record, self.save_if_due, self.check_stop)

    def evaluate(self):
        """Return 0.01, 0.02 and so on."""
        self.calls.append("evaluate")
        if self._stop_in_evaluation:
            raise Stopped
        return next(self._accuracies) / 100

    def record(self, record):
        """Keep the record."""
        self.calls.append(f"record {record['step']}")
        self.records.append(record)

    def save_if_due(self, step, score):
        """Keep step and score."""
        self.calls.append("save_if_due")
        self.saves.append((step, score))

    def check_stop(self):
        """Raise after the configured number of calls of save_if_due."""
        if self._stop_after is not None and self.calls.count("save_if_due") >= self._stop_after:
            raise Stopped


def train(hooks, *, train_steps=24, log_every_steps=5, evaluate_every_steps=10, save_every_steps=7, before=None):
    """Train on the digits; return the validation accuracy and the session's last step.

    `before` is called with session and graph after initialization.
    """
    built = build(schedule="constant")
    with training_graph.open_session(built.graph, threads=1) as session:
        training_graph.initialize(session, built, digits())
        if before is not None:
            before(session, built)
        accuracy = loop.train(
            session,
            built,
            hooks.as_hooks(),
            Stopwatch(),
            train_steps=train_steps,
            batch_size=16,
            log_every_steps=log_every_steps,
            evaluate_every_steps=evaluate_every_steps,
            save_every_steps=save_every_steps,
        )
        return accuracy, int(session.run(built.step))


def test_logged_steps_are_multiples_and_the_last():
    """Multiples of both periods and the last step have one record each; evaluated ones have an accuracy."""
    hooks = RecordingHooks()
    accuracy, step = train(hooks)
    assert step == 24
    assert [record["step"] for record in hooks.records] == [5, 10, 15, 20, 24]
    assert [record.get("validation_accuracy") for record in hooks.records] == [None, 0.01, None, 0.02, 0.03]
    assert accuracy == 0.03


def test_save_if_due_gets_the_validation_accuracy():
    """Of evaluated steps only."""
    hooks = RecordingHooks()
    train(hooks)
    scores = {step: score for step, score in hooks.saves if score is not None}
    assert scores == {10: 0.01, 20: 0.02, 24: 0.03}
    assert {step for step, _ in hooks.saves} >= {5, 7, 14, 15, 21}


def test_the_history_has_the_same_key_for_unfinished_records():
    """The two packages do not import one another, so the key is written down twice."""
    assert loop.UNFINISHED == history.UNFINISHED


def test_an_interrupted_validation_leaves_its_record_unfinished():
    """`validate` completes it in the next attempt, to the record of an undisturbed run."""
    undisturbed, hooks = RecordingHooks(), RecordingHooks(stop_in_evaluation=True)
    train(undisturbed, train_steps=10)
    with pytest.raises(Stopped):
        train(hooks, train_steps=10)
    record = hooks.records[-1]
    assert record.pop(loop.UNFINISHED) is True
    assert "validation_accuracy" not in record
    loop.validate(record, undisturbed.as_hooks(), Stopwatch())
    for each in (record, undisturbed.records[-1]):
        del each["images_per_second"], each["validation_accuracy"]
    assert record == undisturbed.records[-1]


def test_periods_of_zero_never_come_due():
    """Only the last step is logged."""
    hooks = RecordingHooks()
    train(hooks, log_every_steps=0, evaluate_every_steps=0, save_every_steps=0)
    assert [record["step"] for record in hooks.records] == [24]


def test_a_step_is_recorded_before_it_is_saved():
    """save_if_due is called after the record, never between an evaluation and its record."""
    hooks = RecordingHooks()
    train(hooks)
    for before, after in itertools.pairwise(hooks.calls):
        assert (before == "evaluate") == (after in {"record 10", "record 20", "record 24"})
        if before.startswith("record"):
            assert after == "save_if_due"


def test_check_stop_stops_the_loop():
    """After the current call of session.run."""
    hooks = RecordingHooks(stop_after=3)
    with pytest.raises(Stopped):
        train(hooks)
    assert hooks.calls.count("save_if_due") == 3


def test_check_stop_is_called_before_the_first_step():
    """If it raises, no step is run."""
    hooks = RecordingHooks(stop_after=0)
    with pytest.raises(Stopped):
        train(hooks)
    assert hooks.calls == []


def test_a_non_finite_loss_raises():
    """The step is neither recorded nor saved."""

    def set_weights_to_nan(session, built):
        weights = next(variable for variable in built.trained if variable.op.name == "layer1/weights")
        weights.load(float("nan") * session.run(weights), session)

    hooks = RecordingHooks()
    with pytest.raises(NonFiniteLossError, match="the loss is nan at step 1"):
        train(hooks, before=set_weights_to_nan)
    assert hooks.calls == []


def test_a_finished_run_is_only_evaluated():
    """One evaluation, no record, no save."""

    def finish(session, built):
        session.run(built.run_steps, {built.steps_per_execution: 24})

    hooks = RecordingHooks()
    assert train(hooks, before=finish) == (0.01, 24)
    assert hooks.calls == ["evaluate"]
