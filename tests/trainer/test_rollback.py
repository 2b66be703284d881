"""The policy of --on_nonfinite=rollback, without a run."""

from trainer.rollback import MAX_ROLLBACKS, Rollback, restore_before


def test_the_first_failure_goes_back_to_the_newest_checkpoint():
    """Any older than the failing step."""
    assert restore_before(50, []) == 50


def test_a_failure_further_on_is_a_new_one():
    """It too goes back to the newest checkpoint."""
    assert restore_before(70, [Rollback(failed_at=50, restored=40)]) == 70


def test_the_same_failure_again_goes_back_one_checkpoint_further():
    """The checkpoint just restored may be at fault; so also if the run fails before that step."""
    for failed_at in (50, 45):
        assert restore_before(failed_at, [Rollback(failed_at=50, restored=40)]) == 40
    assert restore_before(50, [Rollback(50, 40), Rollback(50, 30)]) == 30
    assert restore_before(50, [Rollback(60, 50), Rollback(50, 40)]) == 40


def test_after_three_rollbacks_it_gives_up():
    """Failures at different steps count as well."""
    earlier = [Rollback(failed_at=step, restored=step - 10) for step in (30, 50, 70)]
    assert len(earlier) == MAX_ROLLBACKS
    assert restore_before(90, earlier) is None


def test_each_rollback_of_one_failure_restores_an_older_checkpoint():
    """A state that is non-finite each time ends after three rollbacks, each to an older checkpoint."""
    checkpoints, earlier = [10, 20, 30, 40], []
    while (before := restore_before(45, earlier)) is not None:
        earlier.append(Rollback(45, max(step for step in checkpoints if step < before)))
    assert [each.restored for each in earlier] == [40, 30, 20]
