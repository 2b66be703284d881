import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpointing.protocol.retention import Candidate, RetentionPolicy, Rotation, checkpoints_to_keep, recorded
from tests.checkpoints import calls

HOUR = 3600
NEVER = 1e9
UNHURRIED = settings(deadline=None)  # a busy machine is no failure


def steps(candidates):
    """Return the steps of candidates."""
    return {candidate.step for candidate in candidates}


def kept(candidates, retention):
    """Return the steps of the candidates that are kept."""
    return set(checkpoints_to_keep(candidates, retention))


def remaining(candidates, retention):
    """Return the candidates that are kept."""
    return [candidate for candidate in candidates if candidate.step in checkpoints_to_keep(candidates, retention)]


# Of few values, so that there are equals.
SCORES = st.none() | st.sampled_from([-1.0, 0.0, 0.5, 0.984, 1.0])


@st.composite
def runs(draw):
    """Draw the checkpoints of a run, in order: steps and training time grow."""
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
def test_the_newest_is_kept(run, retention):
    """For any policy, the checkpoint that the run resumes from is kept."""
    assert steps(run[-1:]) <= kept(run, retention)


@UNHURRIED
@given(runs(), st.integers(1, 8))
def test_max_to_keep_of_the_newest_are_kept(run, max_to_keep):
    """Without hours, pins and scores, exactly the newest max_to_keep are kept."""
    plain = [candidate._replace(pinned=False) for candidate in run]
    assert kept(plain, RetentionPolicy(max_to_keep, NEVER)) == steps(run[-max_to_keep:])


@UNHURRIED
@given(runs(), RETENTIONS)
def test_zero_keeps_all(run, retention):
    """max_to_keep=0 deletes nothing, as in Saver."""
    assert kept(run, retention._replace(max_to_keep=0)) == steps(run)


@UNHURRIED
@given(runs(), RETENTIONS)
def test_only_candidates_are_kept(run, retention):
    """Nothing else is returned, and the newest max_to_keep always are."""
    assert kept(run, retention) <= steps(run)
    assert kept(run, retention) >= steps(run[-retention.max_to_keep :])


@UNHURRIED
@given(runs(), RETENTIONS)
def test_the_result_is_sorted_by_step(run, retention):
    """The newest comes last, for any reason."""
    assert list(checkpoints_to_keep(run, retention)) == sorted(kept(run, retention))


@UNHURRIED
@given(runs(), RETENTIONS)
def test_pinned_checkpoints_are_kept(run, retention):
    """For any policy."""
    assert kept(run, retention) >= {candidate.step for candidate in run if candidate.pinned}


@UNHURRIED
@given(runs(), RETENTIONS)
def test_a_pin_changes_nothing_else(run, retention):
    """A pin adds its checkpoint to those that are kept without it."""
    plain = [candidate._replace(pinned=False) for candidate in run]
    pinned = {candidate.step for candidate in run if candidate.pinned}
    assert kept(run, retention) == kept(plain, retention) | pinned


@UNHURRIED
@given(runs(), RETENTIONS)
def test_the_best_are_kept(run, retention):
    """No deleted checkpoint is better than one of the keep_best that are kept."""
    scores = [candidate.score for candidate in run if candidate.score is not None]
    best = [step for step, why in checkpoints_to_keep(run, retention).items() if "best" in why]
    assert len(best) == min(retention.keep_best, len(scores))
    lost = [each.score for each in run if each.step not in kept(run, retention) and each.score is not None]
    assert all(candidate.score >= score for candidate in run if candidate.step in best for score in lost)


@UNHURRIED
@given(runs(), RETENTIONS)
def test_without_a_score_nothing_is_best(run, retention):
    """A checkpoint with an unknown score is not kept as one of the best."""
    unscored = [candidate._replace(score=None) for candidate in run]
    assert kept(unscored, retention) == kept(unscored, retention._replace(keep_best=0))


@UNHURRIED
@given(st.data(), runs(), RETENTIONS)
def test_the_order_of_the_candidates_does_not_matter(data, run, retention):
    """Checkpoints may be listed in any order."""
    assert checkpoints_to_keep(data.draw(st.permutations(run)), retention) == checkpoints_to_keep(run, retention)


@UNHURRIED
@given(runs(), RETENTIONS)
def test_checkpoints_to_keep_is_pure(run, retention):
    """Equal arguments give equal results, and are not changed."""
    before = list(run)
    assert checkpoints_to_keep(run, retention) == checkpoints_to_keep(iter(run), retention)
    assert run == before


@UNHURRIED
@given(runs(), RETENTIONS)
def test_applying_a_policy_again_deletes_nothing(run, retention):
    """After a restart, the same are kept for the same reasons."""
    assert checkpoints_to_keep(remaining(run, retention), retention) == checkpoints_to_keep(run, retention)


@UNHURRIED
@given(runs(), RETENTIONS)
def test_a_newer_checkpoint_restores_no_deleted_one(run, retention):
    """As a run grows, no deleted checkpoint would be kept again."""
    for count in range(len(run)):
        assert kept(run[: count + 1], retention) <= kept(run[:count], retention) | {run[count].step}


@UNHURRIED
@given(runs(), RETENTIONS)
def test_one_per_n_hours_is_kept_forever(run, retention):
    """A checkpoint kept for its hours is kept for them ever after."""
    for count in range(len(run)):
        for step, why in checkpoints_to_keep(run[:count], retention).items():
            assert "hours" not in why or "hours" in checkpoints_to_keep(run, retention)[step]


@UNHURRIED
@given(runs(), RETENTIONS)
def test_deleting_after_each_save_equals_deleting_once(run, retention):
    """So a crash in between changes nothing."""
    left = []
    for candidate in run:
        left = remaining([*left, candidate], retention)
    assert checkpoints_to_keep(left, retention) == checkpoints_to_keep(run, retention)


@UNHURRIED
@given(runs(), RETENTIONS, st.sampled_from([0.5, 1, 3]))
def test_each_n_hours_but_the_first_have_one(run, retention, hours):
    """A checkpoint is left of each n hours of training in which one was saved."""
    stretches = {candidate.training_seconds // (hours * HOUR) for candidate in run}
    left = remaining(run, retention._replace(keep_checkpoint_every_n_hours=hours))
    assert stretches - {0} <= {candidate.training_seconds // (hours * HOUR) for candidate in left}


@UNHURRIED
@given(runs(), RETENTIONS)
def test_each_kept_checkpoint_has_reasons(run, retention):
    """At least one of four, and all that apply."""
    for step, why in checkpoints_to_keep(run, retention).items():
        candidate = next(each for each in run if each.step == step)
        assert set(why.split(", ")) <= {"newest", "best", "one per n hours", "pinned"}
        assert ("newest" in why) == (retention.max_to_keep == 0 or candidate in run[-retention.max_to_keep :])
        assert ("pinned" in why) == candidate.pinned


def test_a_checkpoint_may_have_several_reasons():
    """They are separated by commas."""
    run = [Candidate(1, HOUR * 5.0, 0.9, pinned=True)]
    assert checkpoints_to_keep(run, RetentionPolicy(1, 1, 1)) == {1: "newest, best, one per n hours, pinned"}


def test_of_equal_scores_the_earlier_is_best():
    """A later one that is no better replaces nothing."""
    run = [Candidate(step, 0.0, score) for step, score in enumerate([0.5, 0.9, 0.9, 0.1])]
    assert checkpoints_to_keep(run, RetentionPolicy(1, NEVER, 1)) == {1: "best", 3: "newest"}


def test_a_score_of_zero_is_a_score():
    """It is better than one below zero."""
    run = [Candidate(1, 0.0, -1.0), Candidate(2, 0.0, 0.0), Candidate(3, 0.0, None)]
    assert checkpoints_to_keep(run, RetentionPolicy(1, NEVER, 1)) == {2: "best", 3: "newest"}


def test_lowering_max_to_keep_deletes_some():
    """A run that kept eight and is to keep two has two."""
    run = [Candidate(step, 60.0 * step) for step in range(1, 9)]
    assert checkpoints_to_keep(run, RetentionPolicy(2, NEVER)) == {7: "newest", 8: "newest"}


def test_hours_and_max_to_keep_together():
    """Saved every half hour for five hours, with 2 to keep and one per 2 hours: the first after 2, after 4, and two."""
    run = [Candidate(step, step * HOUR / 2) for step in range(1, 11)]
    assert checkpoints_to_keep(run, RetentionPolicy(2, 2)) == {
        4: "one per n hours",
        8: "one per n hours",
        9: "newest",
        10: "newest",
    }


def test_steps_decide_what_is_newest():
    """Not the training time, which a wrong clock can turn back."""
    assert kept([Candidate(2, 10.0), Candidate(1, 20.0)], RetentionPolicy(1, NEVER)) == {2}


@pytest.mark.parametrize("hours", [0.001, 1.0])
def test_negative_training_time_is_allowed(hours):
    """A wrong clock can cause it; the newest is kept nevertheless."""
    run = [Candidate(1, -5.0), Candidate(2, -3.0)]
    assert kept(run, RetentionPolicy(1, hours)) == {2}


@pytest.mark.parametrize("retention", [RetentionPolicy(0), RetentionPolicy(1), RetentionPolicy(5, 1, 3)])
def test_no_candidates_no_result(retention):
    """A directory may be empty."""
    assert checkpoints_to_keep([], retention) == {}


@UNHURRIED
@given(runs(), RETENTIONS)
def test_rotation_equals_checkpoints_to_keep(run, retention):
    """After each checkpoint, Rotation deletes the ones that checkpoints_to_keep does not return."""
    rotation, there = Rotation(retention), []
    for candidate in run:
        rotation.add(candidate._replace(pinned=False))
        there = remaining([*there, candidate], retention)
        pinned = {each.step for each in there if each.pinned}
        rotation.drop(set(rotation.to_delete()) - pinned)
        assert set(rotation.steps) == steps(there)


@pytest.mark.parametrize("retention", [RetentionPolicy(3, 1, 2), RetentionPolicy(3, NEVER, 2)])
def test_the_cost_of_rotation_does_not_depend_on_the_number_kept(retention):
    """Also if one is kept per hour."""
    counts = []
    for number in (100, 1000):
        rotation = Rotation(retention)
        for step in range(number):
            rotation.add(Candidate(step, step * 1.5 * HOUR, 1 / (step + 1)))
            rotation.drop(rotation.to_delete())
        rotation.add(Candidate(number, number * 1.5 * HOUR, 0.5))
        counts.append(calls(rotation.to_delete))
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
def test_an_invalid_record_of_a_policy_is_none(record):
    """A manifest's hash may match, and its content be wrong."""
    assert recorded(record) is None


def test_a_recorded_policy_is_read():
    """The result equals the policy of the run."""
    for retention in (RetentionPolicy(0), RetentionPolicy(5, 0.5, 1)):
        assert recorded(retention._asdict()) == retention


def test_the_smallest_number_of_hours_is_no_error():
    """With hours near 0, each checkpoint is kept."""
    assert set(checkpoints_to_keep([Candidate(1, 1e9), Candidate(2, 2e9)], RetentionPolicy(1, 5e-324))) == {1, 2}
