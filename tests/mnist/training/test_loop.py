import itertools

import pytest

from mnist.errors import NonFiniteLossError
from mnist.model import graph
from mnist.training import loop
from mnist.training.stopwatch import Stopwatch
from tests.mnist.model.test_graph import build, digits


class Stopped(Exception):  # noqa: N818 - a request, no error
    """What check_stop raises here."""


class Events:
    """Hooks that write down what they were called for."""

    def __init__(self, stop_after=None, *, stop_in_evaluation=False):
        """Stops at the check so many saves later, or in the first evaluation."""
        self.seen = []
        self.saves = []
        self._stop_in_evaluation = stop_in_evaluation
        self.records = []
        self._accuracies = itertools.count(1)
        self._stop_after = stop_after

    def hooks(self):
        """These events as hooks."""
        return loop.Hooks(self.evaluate, self.record, self.save_if_due, self.check_stop)

    def evaluate(self):
        """An accuracy that tells how many came before."""
        self.seen.append("evaluate")
        if self._stop_in_evaluation:
            raise Stopped
        return next(self._accuracies) / 100

    def record(self, record):
        """Keeps the record."""
        self.seen.append(f"record {record['step']}")
        self.records.append(record)

    def save_if_due(self, step, score):
        """Notes the call."""
        self.seen.append("save_if_due")
        self.saves.append((step, score))

    def check_stop(self):
        """Stops once enough saves were offered."""
        if self._stop_after is not None and self.seen.count("save_if_due") >= self._stop_after:
            raise Stopped


def train(events, *, train_steps=24, log_every_steps=5, evaluate_every_steps=10, save_every_steps=7, before=None):
    """Trains on the digits; gives the validation accuracy and the step that the session ends at.

    `before` is called with session and graph, once all is at its start.
    """
    training_graph = build(schedule="constant")
    with graph.open_session(training_graph.graph, threads=1) as session:
        graph.start(session, training_graph, digits())
        if before is not None:
            before(session, training_graph)
        accuracy = loop.train(
            session,
            training_graph,
            events.hooks(),
            Stopwatch(),
            train_steps=train_steps,
            batch_size=16,
            log_every_steps=log_every_steps,
            evaluate_every_steps=evaluate_every_steps,
            save_every_steps=save_every_steps,
        )
        return accuracy, int(session.run(training_graph.step))


def test_logged_steps_are_the_multiples_and_the_last():
    """Each multiple of either period and the last step have one record; the evaluated ones say how good."""
    events = Events()
    accuracy, step = train(events)
    assert step == 24
    assert [record["step"] for record in events.records] == [5, 10, 15, 20, 24]
    assert [record.get("validation_accuracy") for record in events.records] == [None, 0.01, None, 0.02, 0.03]
    assert accuracy == 0.03


def test_a_save_is_told_how_good_the_state_is():
    """Where the step was evaluated; of any other, nobody knows."""
    events = Events()
    train(events)
    scores = {step: score for step, score in events.saves if score is not None}
    assert scores == {10: 0.01, 20: 0.02, 24: 0.03}
    assert {step for step, _ in events.saves} >= {5, 7, 14, 15, 21}


def test_an_interrupted_validation_leaves_its_record_unfinished():
    """What is known of the step is kept; whoever goes on completes it, and the record is the undisturbed one."""
    undisturbed, events = Events(), Events(stop_in_evaluation=True)
    train(undisturbed, train_steps=10)
    with pytest.raises(Stopped):
        train(events, train_steps=10)
    record = events.records[-1]
    assert record.pop(loop.UNFINISHED) is True
    assert "validation_accuracy" not in record
    loop.validate(record, undisturbed.hooks(), Stopwatch())
    for each in (record, undisturbed.records[-1]):
        del each["images_per_second"], each["validation_accuracy"]
    assert record == undisturbed.records[-1]


def test_periods_of_zero_never_come_due():
    """With all periods 0, only the last step is logged."""
    events = Events()
    train(events, log_every_steps=0, evaluate_every_steps=0, save_every_steps=0)
    assert [record["step"] for record in events.records] == [24]


def test_a_step_is_recorded_before_it_can_be_saved():
    """A save is offered after each call, never between an evaluation and its record."""
    events = Events()
    train(events)
    for before, after in itertools.pairwise(events.seen):
        assert (before == "evaluate") == (after in {"record 10", "record 20", "record 24"})
        if before.startswith("record"):
            assert after == "save_if_due"


def test_the_loop_stops_where_it_is_asked_to():
    """A request is heard after the call that is under way, at a step that is whole."""
    events = Events(stop_after=3)
    with pytest.raises(Stopped):
        train(events)
    assert events.seen.count("save_if_due") == 3


def test_no_step_is_made_beyond_a_stop_before_the_first():
    """A request that came before training is heard before the first step."""
    events = Events(stop_after=0)
    with pytest.raises(Stopped):
        train(events)
    assert events.seen == []


def test_a_loss_that_is_no_number_ends_the_run_unsaved():
    """Weights that have become useless are not offered for saving."""

    def spoil(session, training_graph):
        weights = next(variable for variable in training_graph.trained if variable.op.name == "layer1/weights")
        weights.load(float("nan") * session.run(weights), session)

    events = Events()
    with pytest.raises(NonFiniteLossError, match="the loss is nan at step 1"):
        train(events, before=spoil)
    assert events.seen == []


def test_a_finished_run_is_only_evaluated():
    """Nothing is left to train: one evaluation, no record, no save."""

    def finish(session, training_graph):
        session.run(training_graph.run_steps, {training_graph.steps_to_run: 24})

    events = Events()
    assert train(events, before=finish) == (0.01, 24)
    assert events.seen == ["evaluate"]
