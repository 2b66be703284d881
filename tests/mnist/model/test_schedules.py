import pytest
import tensorflow as tf

from mnist.model import schedules


def rates(schedule, steps=100, peak=0.1):
    """The learning rate at the steps 0 to `steps`."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        step = tf.compat.v1.placeholder(tf.int64, [])
        rate = schedules.learning_rate(step, schedule=schedule, peak=peak, train_steps=steps)
        return [float(session.run(rate, {step: number})) for number in range(steps + 1)]


def test_constant():
    """A constant rate is the peak at every step."""
    assert rates("constant") == [pytest.approx(0.1)] * 101


def test_cosine():
    """Starts at the peak, is half of it after half of the steps, ends at 0, and never rises."""
    found = rates("cosine")
    assert found[0] == pytest.approx(0.1)
    assert found[50] == pytest.approx(0.05)
    assert found[100] == pytest.approx(0, abs=1e-8)
    assert found == sorted(found, reverse=True)


def test_one_cycle():
    """Starts at 1/25 of the peak, reaches the peak after 30 % of the steps, and ends at 0."""
    found = rates("one_cycle")
    assert found[0] == pytest.approx(0.1 / 25)
    assert found[30] == max(found) == pytest.approx(0.1)
    assert found[:31] == sorted(found[:31])
    assert found[30:] == sorted(found[30:], reverse=True)
    assert found[100] == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("schedule", schedules.NAMES)
def test_depends_on_train_steps(schedule):
    """True for exactly the schedules whose rates change with train_steps."""
    changes = rates(schedule, steps=100)[:50] != rates(schedule, steps=50)[:50]
    assert schedules.depends_on_train_steps(schedule) == changes


def test_an_unknown_schedule_raises():
    """The message lists the schedules."""
    with pytest.raises(ValueError, match="constant, cosine, one_cycle"):
        rates("linear")
