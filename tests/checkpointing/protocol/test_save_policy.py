import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpointing.protocol.save_policy import seconds_between_saves

UNHURRIED = settings(deadline=None)  # a busy machine is no failure
SAVES = st.floats(0.001, 1000)
FAILURES = st.floats(1, 1e9)
DAY = 86_400.0


def lost(interval, save_seconds, mean_seconds_between_failures):
    """Return the share of time that saves and, half an interval per failure, repeated steps take."""
    return save_seconds / interval + interval / 2 / mean_seconds_between_failures


def test_the_interval_is_youngs():
    """A save of half a second and one failure a day: about five minutes."""
    assert seconds_between_saves(0.5, DAY) == pytest.approx(math.sqrt(DAY))


@UNHURRIED
@given(SAVES, FAILURES, st.floats(1.01, 100))
def test_no_longer_interval_loses_less(save_seconds, failures, factor):
    """Saving less often costs more steps than it saves time."""
    interval = seconds_between_saves(save_seconds, failures)
    assert lost(interval, save_seconds, failures) <= lost(interval * factor, save_seconds, failures)


@UNHURRIED
@given(SAVES, FAILURES, st.floats(0.01, 0.99))
def test_a_shorter_interval_loses_more_or_costs_too_much(save_seconds, failures, factor):
    """Saving more often loses more time, or takes more than 1 % of a run without failures."""
    best = seconds_between_saves(save_seconds, failures)
    shorter = best * factor
    assert (
        lost(shorter, save_seconds, failures) >= lost(best, save_seconds, failures) or save_seconds / shorter > 0.0099
    )


@UNHURRIED
@given(SAVES, FAILURES)
def test_saves_take_at_most_one_percent(save_seconds, failures):
    """For any mean time between failures."""
    assert save_seconds / seconds_between_saves(save_seconds, failures) <= 0.01 * (1 + 1e-9)


@UNHURRIED
@given(SAVES, SAVES, FAILURES, FAILURES)
def test_longer_saves_and_rarer_failures_lengthen_the_interval(save, longer, failures, rarer):
    """The interval grows with both."""
    save, longer = sorted([save, longer])
    failures, rarer = sorted([failures, rarer])
    assert seconds_between_saves(save, failures) <= seconds_between_saves(longer, rarer)


def test_saves_of_no_duration_need_no_interval():
    """The interval is 0."""
    assert seconds_between_saves(0.0, DAY) == 0.0
