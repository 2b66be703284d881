"""Rechecks of small graphs, with bits flipped between their steps."""

import platform
import random
from types import SimpleNamespace

import numpy as np
import pytest

from mnist.errors import RecheckError
from mnist.model import training_graph
from mnist.training import loop
from mnist.training.recheck import Recheck
from mnist.training.stopwatch import Stopwatch
from tests.digit_graph import build, digits
from tests.faults import Fault, FaultySession


class Runs:
    """Runs in one session, which is initialized for each."""

    def __init__(self, built, train=None):
        """Open the session. train: what the data are compared with, if not what is loaded."""
        self._built = built
        self._train = train or digits()
        self._rechecks = {}
        self._session = FaultySession(graph=built.graph)

    def __call__(self, *, every, train_steps=20, cut_at=(), faults=(), first_step=0):
        """Train; return the number of rechecks passed, steps yielded, updates per session.run, state, error, faults."""
        session, built = self._session, self._built
        session.set_faults(())
        training_graph.initialize(session, built, digits())
        if first_step:
            session.run(built.run_steps, {built.steps_per_execution: first_step})
        session.set_faults(faults)
        recheck = self._recheck(every, train_steps) if every else None
        before = recheck.passed if recheck else 0
        updates = loop.run_steps(
            session,
            built,
            first_step,
            train_steps=train_steps,
            cut_at=cut_at,
            stopwatch=Stopwatch(),
            recheck=recheck,
        )
        steps, error = [], None
        try:
            steps.extend(update.step for update in updates)
        except RecheckError as found:
            error = found
        return SimpleNamespace(
            passed=recheck.passed - before if recheck else 0,
            trusted_step=recheck.trusted_step if recheck else None,
            steps=steps,
            updates=session.updates,
            state=session.run({each.op.name: each for each in built.saved}),
            error=error,
            flipped=session.flipped,
        )

    def _recheck(self, every, train_steps):
        if (every, train_steps) not in self._rechecks:
            made = Recheck(self._built, self._train, every=every, train_steps=train_steps)
            self._rechecks[every, train_steps] = made
        return self._rechecks[every, train_steps]


@pytest.fixture(scope="module")
def run():
    """Runs of a softmax with Adam and moving averages: weights, two slots each, powers, averages, step."""
    return Runs(build(optimizer="adam", schedule="constant", ema_decay=0.9))


def are_equal(one, other):
    """Whether two states have the same bits."""
    return all(one[name].tobytes() == other[name].tobytes() for name in one)


@pytest.mark.parametrize(
    ("every", "train_steps", "passed"),
    [(10, 20, 2), (10, 23, 3), (10, 27, 3), (3, 20, 7), (1, 6, 6), (5, 20, 4), (1000, 20, 1), (1000, 3, 1)],
)
def test_a_recheck_changes_no_bit(run, every, train_steps, passed):
    """There is one at each multiple and at the last step, and the state is that of a run without."""
    rechecked = run(every=every, train_steps=train_steps)
    assert rechecked.error is None
    assert rechecked.passed == passed
    assert rechecked.trusted_step == train_steps
    assert rechecked.steps[-1] == train_steps
    assert are_equal(rechecked.state, run(every=0, train_steps=train_steps).state)


def test_five_steps_are_computed_twice(run):
    """The steps before are computed once; a call ends where the copy is taken. Fewer steps if training began later."""
    rechecked = run(every=10, train_steps=20, cut_at=(10,))
    assert sum(rechecked.updates) == 20 + 2 * 5
    assert {5, 10, 15, 20} <= set(rechecked.steps)
    resumed = run(every=10, train_steps=20, first_step=7)
    assert sum(resumed.updates) == 13 + 3 + 5
    assert resumed.passed == 2


def test_without_a_recheck_no_call_is_added(run):
    """Each call of session.run is one that is yielded."""
    plain = run(every=0, cut_at=(10,))
    assert len(plain.updates) == len(plain.steps)
    assert sum(plain.updates) == 20


def test_other_calls_may_end_between_the_steps(run):
    """As for a log or a save of each step."""
    rechecked = run(every=10, cut_at=(1,))
    assert rechecked.steps == list(range(1, 21))
    assert (rechecked.error, rechecked.passed) == (None, 2)


@pytest.mark.parametrize("time", [1, 2])
@pytest.mark.parametrize(
    "name",
    [
        "layer1/weights",
        "layer1/weights/Adam",
        "layer1/biases/Adam_1",
        "beta1_power",
        "layer1/weights/ExponentialMovingAverage",
    ],
)
def test_a_bit_of_the_state_that_flips_in_one_pass_is_found(run, name, time):
    """The error has the machine, the step and the variable, and the step from before the fault."""
    found = run(every=10, faults=[Fault(18, name, times=(time,))])
    assert len(found.flipped) == 1
    assert str(found.error).startswith(f"{platform.node()}, ")
    assert "fault of processor or memory found at step 20 (the last 5 steps, computed twice, differ in " in str(
        found.error
    )
    assert name in str(found.error)
    assert (found.error.step, found.error.trusted_step, found.error.data_changed) == (20, 10, False)
    assert found.steps[-1] < 20  # the result was not handed on


@pytest.mark.parametrize(("name", "step"), [("train_images", 2), ("train_images", 19), ("train_labels", 10)])
def test_a_change_of_the_data_is_found(run, name, step):
    """At the next recheck, also if the steps that are computed twice came later."""
    found = run(every=20, faults=[Fault(step, name, 12_345)])
    assert f"the training data in memory have changed: {name}" in str(found.error)
    assert found.error.data_changed


@pytest.mark.parametrize("bit", [3, 40])
@pytest.mark.parametrize("step", [3, 18])
def test_a_wrong_step_is_found_after_the_call(run, step, bit):
    """The variable that counts the steps is compared after each call, not only in rechecks."""
    found = run(every=10, faults=[Fault(step, "global_step", bit)])
    assert f"expected step {found.error.step}, got " in str(found.error)
    assert found.error.step <= 20


def test_at_most_ten_variables_are_named():
    """A fault in a CNN changes all variables of the next step."""
    found = Runs(build("small", optimizer="adam"))(every=5, train_steps=5, faults=[Fault(2, "layer1/weights")])
    assert " more)" in str(found.error)
    assert str(found.error).count(", ") < 16


def test_data_that_are_loaded_wrongly_are_found():
    """The data are compared with the arrays, not with the variables at the start."""
    images = digits().images.copy()
    images[7, 7, 7] ^= 1
    found = Runs(build(), digits()._replace(images=images))(every=10)
    assert "changed: train_images" in str(found.error)


def test_100_flipped_bits_are_found(run):
    """Any bit of any variable at any step of either pass is found, if it changes the state or the data."""
    chance = random.Random(0)  # noqa: S311
    expected = {steps: run(every=0, train_steps=steps).state for steps in (10, 20)}
    names = [*expected[10], "train_images", "train_labels"]
    found = 0
    while found < 100:
        due = chance.choice([10, 20])
        fault = Fault(
            chance.randint(due - 4, due), chance.choice(names), chance.randrange(2**40), (chance.choice([1, 2]),)
        )
        rechecked = run(every=10, faults=[fault])
        assert rechecked.flipped == [fault]
        is_of_data = fault.variable.startswith("train_")
        always = is_of_data or fault.variable == "global_step"  # with a wrong step, a run might never end
        changes = always or not are_equal(
            expected[due], run(every=0, train_steps=due, faults=[fault._replace(times=(1,))]).state
        )
        if changes:
            assert rechecked.error is not None, fault
            assert rechecked.error.data_changed == is_of_data
            found += 1
        else:
            assert rechecked.error is None, fault


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps"), [("softmax", 10_000), ("small", 1000)])
def test_no_fault_is_reported_without_one(name, steps):
    """Each step is computed twice."""
    clean = Runs(build(name, optimizer="adam", ema_decay=0.99))(every=5, train_steps=steps)
    assert (clean.error, clean.passed) == (None, steps // 5)
    assert all(np.isfinite(value).all() for value in clean.state.values())
