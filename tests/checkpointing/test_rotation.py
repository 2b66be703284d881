import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpointing.rotation import Candidate, Retention, survivors

HOUR = 3600
NEVER = 1e9
UNHURRIED = settings(deadline=None)  # a busy machine is no failure


def steps(candidates):
    """Their steps."""
    return {candidate.step for candidate in candidates}


def remaining(candidates, retention):
    """The candidates that survive."""
    kept = survivors(candidates, retention)
    return [candidate for candidate in candidates if candidate.step in kept]


@st.composite
def runs(draw):
    """The checkpoints of a run, in order: steps and training time grow."""
    count = draw(st.integers(0, 20))
    distances = draw(st.lists(st.integers(1, 1000), min_size=count, max_size=count))
    seconds = draw(st.lists(st.floats(0, 2 * HOUR), min_size=count, max_size=count))
    return [Candidate(sum(distances[: n + 1]), sum(seconds[: n + 1])) for n in range(count)]


RETENTIONS = st.builds(
    Retention, max_to_keep=st.integers(1, 8), keep_checkpoint_every_n_hours=st.sampled_from([0.001, 0.5, 1, 3, NEVER])
)


@UNHURRIED
@given(runs(), RETENTIONS)
def test_the_newest_survives(run, retention):
    """Whatever is to be kept, the checkpoint that the run goes on from is."""
    assert {candidate.step for candidate in run[-1:]} <= survivors(run, retention)


@UNHURRIED
@given(runs(), st.integers(1, 8))
def test_the_newest_so_many_survive(run, max_to_keep):
    """Where no hour is over, exactly the newest max_to_keep are kept."""
    assert survivors(run, Retention(max_to_keep, NEVER)) == steps(run[-max_to_keep:])


@UNHURRIED
@given(runs(), st.sampled_from([0.001, 1, NEVER]))
def test_zero_keeps_all(run, hours):
    """max_to_keep=0 deletes nothing, as in Saver."""
    assert survivors(run, Retention(0, hours)) == steps(run)


@UNHURRIED
@given(runs(), RETENTIONS)
def test_what_survives_was_there(run, retention):
    """Nothing is kept that is not there, and the newest max_to_keep always are."""
    kept = survivors(run, retention)
    assert kept <= steps(run)
    assert kept >= steps(run[-retention.max_to_keep :])


@UNHURRIED
@given(st.data(), runs(), RETENTIONS)
def test_the_order_on_the_disk_does_not_matter(data, run, retention):
    """Checkpoints may be listed in any order."""
    assert survivors(data.draw(st.permutations(run)), retention) == survivors(run, retention)


@UNHURRIED
@given(runs(), RETENTIONS)
def test_rotating_again_deletes_nothing_more(run, retention):
    """After a restart, what survived survives."""
    kept = remaining(run, retention)
    assert survivors(kept, retention) == steps(kept)


@UNHURRIED
@given(runs(), RETENTIONS)
def test_a_newer_checkpoint_brings_none_back(run, retention):
    """As a run grows, what was to be deleted stays so."""
    for count in range(len(run)):
        assert survivors(run[: count + 1], retention) <= survivors(run[:count], retention) | {run[count].step}


@UNHURRIED
@given(runs(), RETENTIONS)
def test_one_of_every_stretch_is_kept_for_good(run, retention):
    """What is not among the newest and yet kept is kept ever after."""
    for count in range(len(run)):
        newest = steps(run[:count][-retention.max_to_keep :])
        assert survivors(run[:count], retention) - newest <= survivors(run, retention)


@UNHURRIED
@given(runs(), RETENTIONS)
def test_it_does_not_matter_when_one_rotates(run, retention):
    """Deleting after each save leaves what deleting once, at the end, would: a crash in between changes nothing."""
    kept = []
    for candidate in run:
        kept = remaining([*kept, candidate], retention)
    assert steps(kept) == survivors(run, retention)


@UNHURRIED
@given(runs(), st.integers(1, 8), st.sampled_from([0.5, 1, 3]))
def test_every_stretch_but_the_first_has_one(run, max_to_keep, hours):
    """Of each n hours of training in which anything was saved, something is left."""
    stretches = {candidate.training_seconds // (hours * HOUR) for candidate in run}
    kept = remaining(run, Retention(max_to_keep, hours))
    assert stretches - {0} <= {candidate.training_seconds // (hours * HOUR) for candidate in kept}


def test_lowering_what_is_kept_deletes_the_rest():
    """A run that kept eight and is to keep two has two."""
    run = [Candidate(step, 60.0 * step) for step in range(1, 9)]
    assert survivors(run, Retention(2, NEVER)) == {7, 8}


def test_saver_users_find_what_they_expect():
    """Saved every half an hour for five hours, keep 2 and one of every 2 hours: the first after 2, after 4, and two."""
    run = [Candidate(step, step * HOUR / 2) for step in range(1, 11)]
    assert survivors(run, Retention(2, 2)) == {4, 8, 9, 10}


def test_steps_decide_what_is_newest():
    """Not the clock, which a checkpoint gone back to can turn back."""
    assert survivors([Candidate(2, 10.0), Candidate(1, 20.0)], Retention(1, NEVER)) == {2}


@pytest.mark.parametrize("hours", [0.001, 1.0])
def test_a_clock_that_was_set_back_deletes_no_more(hours):
    """Training time below zero, which a wrong clock can give, keeps the newest all the same."""
    run = [Candidate(1, -5.0), Candidate(2, -3.0)]
    assert survivors(run, Retention(1, hours)) == {2}
