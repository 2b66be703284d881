import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpointing.protocol.retention import Candidate, RetentionPolicy, Rotation, checkpoints_to_keep, recorded
from tests.checkpoints import calls

HOUR = 3600
NEVER = 1e9
UNHURRIED = settings(deadline=None)  # a busy machine is no failure


def steps(candidates):
    """Their steps."""
    return {candidate.step for candidate in candidates}


def kept(candidates, retention):
    """The steps that survive."""
    return set(checkpoints_to_keep(candidates, retention))


def remaining(candidates, retention):
    """The candidates that survive."""
    return [candidate for candidate in candidates if candidate.step in checkpoints_to_keep(candidates, retention)]


# Of few values, so that there are equals.
SCORES = st.none() | st.sampled_from([-1.0, 0.0, 0.5, 0.984, 1.0])


@st.composite
def runs(draw):
    """The checkpoints of a run, in order: steps and training time grow."""
    count = draw(st.integers(0, 20))
    distances = draw(st.lists(st.integers(1, 1000), min_size=count, max_size=count))
    seconds = draw(st.lists(st.floats(0, 2 * HOUR), min_size=count, max_size=count))
    scores = draw(st.lists(SCORES, min_size=count, max_size=count))
    pinned = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    return [
        Candidate(sum(distances[: n + 1]), sum(seconds[: n + 1]), scores[n], pinned=pinned[n]) for n in range(count)
    ]


RETENTIONS = st.builds(
    RetentionPolicy,
    max_to_keep=st.integers(0, 8),
    keep_checkpoint_every_n_hours=st.sampled_from([0.001, 0.5, 1, 3, NEVER]),
    keep_best=st.integers(0, 4),
)


@UNHURRIED
@given(runs(), RETENTIONS)
def test_the_newest_survives(run, retention):
    """Whatever is to be kept, the checkpoint that the run goes on from is; so something is, where anything was."""
    assert steps(run[-1:]) <= kept(run, retention)


@UNHURRIED
@given(runs(), st.integers(1, 8))
def test_the_newest_so_many_survive(run, max_to_keep):
    """Where no hour is over, nothing pinned and no best wanted, exactly the newest max_to_keep are kept."""
    plain = [candidate._replace(pinned=False) for candidate in run]
    assert kept(plain, RetentionPolicy(max_to_keep, NEVER)) == steps(run[-max_to_keep:])


@UNHURRIED
@given(runs(), RETENTIONS)
def test_zero_keeps_all(run, retention):
    """max_to_keep=0 deletes nothing, as in Saver."""
    assert kept(run, retention._replace(max_to_keep=0)) == steps(run)


@UNHURRIED
@given(runs(), RETENTIONS)
def test_what_survives_was_there(run, retention):
    """Nothing is kept that is not there, and the newest max_to_keep always are."""
    assert kept(run, retention) <= steps(run)
    assert kept(run, retention) >= steps(run[-retention.max_to_keep :])


@UNHURRIED
@given(runs(), RETENTIONS)
def test_survivors_are_told_in_order(run, retention):
    """The newest comes last, whatever it is kept for."""
    assert list(checkpoints_to_keep(run, retention)) == sorted(kept(run, retention))


@UNHURRIED
@given(runs(), RETENTIONS)
def test_what_is_pinned_survives(run, retention):
    """Somebody wants it kept, and nothing else is asked."""
    assert kept(run, retention) >= {candidate.step for candidate in run if candidate.pinned}


@UNHURRIED
@given(runs(), RETENTIONS)
def test_a_pin_keeps_one_and_costs_no_other(run, retention):
    """What is kept without pins is kept with them, and they add but what is pinned."""
    plain = [candidate._replace(pinned=False) for candidate in run]
    pinned = {candidate.step for candidate in run if candidate.pinned}
    assert kept(run, retention) == kept(plain, retention) | pinned


@UNHURRIED
@given(runs(), RETENTIONS)
def test_no_better_one_is_deleted(run, retention):
    """Of those deleted none is better than any of the best that are kept, and so many are kept as are wanted."""
    scores = [candidate.score for candidate in run if candidate.score is not None]
    best = [step for step, why in checkpoints_to_keep(run, retention).items() if "best" in why]
    assert len(best) == min(retention.keep_best, len(scores))
    lost = [each.score for each in run if each.step not in kept(run, retention) and each.score is not None]
    assert all(candidate.score >= score for candidate in run if candidate.step in best for score in lost)


@UNHURRIED
@given(runs(), RETENTIONS)
def test_without_a_score_nothing_is_best(run, retention):
    """Where nobody asked how good it is, a checkpoint is not kept for it."""
    unscored = [candidate._replace(score=None) for candidate in run]
    assert kept(unscored, retention) == kept(unscored, retention._replace(keep_best=0))


@UNHURRIED
@given(st.data(), runs(), RETENTIONS)
def test_the_order_on_the_disk_does_not_matter(data, run, retention):
    """Checkpoints may be listed in any order; each is kept for the same reason."""
    assert checkpoints_to_keep(data.draw(st.permutations(run)), retention) == checkpoints_to_keep(run, retention)


@UNHURRIED
@given(runs(), RETENTIONS)
def test_nothing_but_what_is_asked_decides(run, retention):
    """The same checkpoints give the same survivors again, and are as they were."""
    before = list(run)
    assert checkpoints_to_keep(run, retention) == checkpoints_to_keep(iter(run), retention)
    assert run == before


@UNHURRIED
@given(runs(), RETENTIONS)
def test_rotating_again_deletes_nothing_more(run, retention):
    """After a restart, what survived survives, for the same reason."""
    assert checkpoints_to_keep(remaining(run, retention), retention) == checkpoints_to_keep(run, retention)


@UNHURRIED
@given(runs(), RETENTIONS)
def test_a_newer_checkpoint_brings_none_back(run, retention):
    """As a run grows, what was to be deleted stays so."""
    for count in range(len(run)):
        assert kept(run[: count + 1], retention) <= kept(run[:count], retention) | {run[count].step}


@UNHURRIED
@given(runs(), RETENTIONS)
def test_one_of_every_stretch_is_kept_for_good(run, retention):
    """What is kept for the hours is kept for them ever after."""
    for count in range(len(run)):
        for step, why in checkpoints_to_keep(run[:count], retention).items():
            assert "hours" not in why or "hours" in checkpoints_to_keep(run, retention)[step]


@UNHURRIED
@given(runs(), RETENTIONS)
def test_it_does_not_matter_when_one_rotates(run, retention):
    """Deleting after each save leaves what deleting once, at the end, would: a crash in between changes nothing."""
    left = []
    for candidate in run:
        left = remaining([*left, candidate], retention)
    assert checkpoints_to_keep(left, retention) == checkpoints_to_keep(run, retention)


@UNHURRIED
@given(runs(), RETENTIONS, st.sampled_from([0.5, 1, 3]))
def test_every_stretch_but_the_first_has_one(run, retention, hours):
    """Of each n hours of training in which anything was saved, something is left."""
    stretches = {candidate.training_seconds // (hours * HOUR) for candidate in run}
    left = remaining(run, retention._replace(keep_checkpoint_every_n_hours=hours))
    assert stretches - {0} <= {candidate.training_seconds // (hours * HOUR) for candidate in left}


@UNHURRIED
@given(runs(), RETENTIONS)
def test_each_survivor_has_its_reasons(run, retention):
    """Each is kept for at least one of the four, and told with all of them."""
    for step, why in checkpoints_to_keep(run, retention).items():
        candidate = next(each for each in run if each.step == step)
        assert set(why.split(", ")) <= {"newest", "best", "one for the hours", "pinned"}
        assert ("newest" in why) == (retention.max_to_keep == 0 or candidate in run[-retention.max_to_keep :])
        assert ("pinned" in why) == candidate.pinned


def test_a_checkpoint_may_have_more_reasons_than_one():
    """They are told in one line."""
    run = [Candidate(1, HOUR * 5.0, 0.9, pinned=True)]
    assert checkpoints_to_keep(run, RetentionPolicy(1, 1, 1)) == {1: "newest, best, one for the hours, pinned"}


def test_of_equals_the_earlier_is_best():
    """A later one that is no better moves nothing."""
    run = [Candidate(step, 0.0, score) for step, score in enumerate([0.5, 0.9, 0.9, 0.1])]
    assert checkpoints_to_keep(run, RetentionPolicy(1, NEVER, 1)) == {1: "best", 3: "newest"}


def test_a_score_of_zero_is_a_score():
    """It is better than one below zero."""
    run = [Candidate(1, 0.0, -1.0), Candidate(2, 0.0, 0.0), Candidate(3, 0.0, None)]
    assert checkpoints_to_keep(run, RetentionPolicy(1, NEVER, 1)) == {2: "best", 3: "newest"}


def test_lowering_what_is_kept_deletes_the_rest():
    """A run that kept eight and is to keep two has two."""
    run = [Candidate(step, 60.0 * step) for step in range(1, 9)]
    assert checkpoints_to_keep(run, RetentionPolicy(2, NEVER)) == {7: "newest", 8: "newest"}


def test_saver_users_find_what_they_expect():
    """Saved every half an hour for five hours, keep 2 and one of every 2 hours: the first after 2, after 4, and two."""
    run = [Candidate(step, step * HOUR / 2) for step in range(1, 11)]
    assert checkpoints_to_keep(run, RetentionPolicy(2, 2)) == {
        4: "one for the hours",
        8: "one for the hours",
        9: "newest",
        10: "newest",
    }


def test_steps_decide_what_is_newest():
    """Not the clock, which a checkpoint gone back to can turn back."""
    assert kept([Candidate(2, 10.0), Candidate(1, 20.0)], RetentionPolicy(1, NEVER)) == {2}


@pytest.mark.parametrize("hours", [0.001, 1.0])
def test_a_clock_that_was_set_back_deletes_no_more(hours):
    """Training time below zero, which a wrong clock can give, keeps the newest all the same."""
    run = [Candidate(1, -5.0), Candidate(2, -3.0)]
    assert kept(run, RetentionPolicy(1, hours)) == {2}


@pytest.mark.parametrize("retention", [RetentionPolicy(0), RetentionPolicy(1), RetentionPolicy(5, 1, 3)])
def test_of_nothing_nothing_survives(retention):
    """A directory may be empty."""
    assert checkpoints_to_keep([], retention) == {}


@UNHURRIED
@given(runs(), RETENTIONS)
def test_one_at_a_time_comes_to_the_same(run, retention):
    """After each checkpoint, what a run's rotation lets go is what the function of all that are there does not keep."""
    rotation, there = Rotation(retention), []
    for candidate in run:
        rotation.add(candidate._replace(pinned=False))
        there = remaining([*there, candidate], retention)
        pinned = {each.step for each in there if each.pinned}
        rotation.drop(set(rotation.going()) - pinned)
        assert set(rotation.steps) == steps(there)


@pytest.mark.parametrize("retention", [RetentionPolicy(3, 1, 2), RetentionPolicy(3, NEVER, 2)])
def test_one_more_costs_the_same_however_many_are_kept(retention):
    """Also where one is kept for each hour."""
    counts = []
    for number in (100, 1000):
        rotation = Rotation(retention)
        for step in range(number):
            rotation.add(Candidate(step, step * 1.5 * HOUR, 1 / (step + 1)))
            rotation.drop(rotation.going())
        rotation.add(Candidate(number, number * 1.5 * HOUR, 0.5))
        counts.append(calls(rotation.going))
    assert counts[1] < counts[0] + 20


@pytest.mark.parametrize(
    "record",
    [
        None,
        {},
        {"keep_best": 1},
        {"max_to_keep": -1},
        {"max_to_keep": True},
        {"max_to_keep": 2.5},
        {"max_to_keep": "2"},
        {"max_to_keep": 2, "keep_best": None},
        {"max_to_keep": 2, "keep_checkpoint_every_n_hours": 0},
        {"max_to_keep": 2, "keep_checkpoint_every_n_hours": float("nan")},
        {"max_to_keep": 2, "keep_newest": 1},
    ],
)
def test_what_no_run_could_have_recorded_is_not_known(record):
    """A manifest's hash may be right, and what it says not."""
    assert recorded(record) is None


def test_what_a_run_records_is_read():
    """As it was."""
    for retention in (RetentionPolicy(0), RetentionPolicy(5, 0.5, 1)):
        assert recorded(retention._asdict()) == retention


def test_the_smallest_stretch_is_no_error():
    """Of hours that are next to nothing, each checkpoint is in a stretch of its own, or all in the last."""
    assert set(checkpoints_to_keep([Candidate(1, 1e9), Candidate(2, 2e9)], RetentionPolicy(1, 5e-324))) == {1, 2}
