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
    """The share of time that goes into saves and, half an interval a failure, into steps made again."""
    return save_seconds / interval + interval / 2 / mean_seconds_between_failures


def test_it_is_youngs():
    """A save of half a second, a failure a day: one in five minutes."""
    assert seconds_between_saves(0.5, DAY) == pytest.approx(math.sqrt(DAY))


@UNHURRIED
@given(SAVES, FAILURES, st.floats(1.01, 100))
def test_no_longer_interval_loses_less(save_seconds, failures, factor):
    """Who saves more seldom pays more for failures than is won by saving."""
    interval = seconds_between_saves(save_seconds, failures)
    assert lost(interval, save_seconds, failures) <= lost(interval * factor, save_seconds, failures)


@UNHURRIED
@given(SAVES, FAILURES, st.floats(0.01, 0.99))
def test_a_shorter_interval_loses_more_or_costs_too_much(save_seconds, failures, factor):
    """Who saves more often pays more, or more than a hundredth of the time where nothing ever fails."""
    best = seconds_between_saves(save_seconds, failures)
    shorter = best * factor
    assert (
        lost(shorter, save_seconds, failures) >= lost(best, save_seconds, failures) or save_seconds / shorter > 0.0099
    )


@UNHURRIED
@given(SAVES, FAILURES)
def test_an_undisturbed_run_pays_little(save_seconds, failures):
    """However often it fails, saving takes no more than a hundredth of the time."""
    assert save_seconds / seconds_between_saves(save_seconds, failures) <= 0.01 * (1 + 1e-9)


@UNHURRIED
@given(SAVES, SAVES, FAILURES, FAILURES)
def test_dearer_saves_and_rarer_failures_make_it_longer(save, dearer, failures, rarer):
    """The interval grows with both."""
    save, dearer = sorted([save, dearer])
    failures, rarer = sorted([failures, rarer])
    assert seconds_between_saves(save, failures) <= seconds_between_saves(dearer, rarer)


def test_what_costs_nothing_may_be_done_always():
    """A save that takes no time needs no interval."""
    assert seconds_between_saves(0.0, DAY) == 0.0
