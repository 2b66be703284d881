"""Tests of run_identity.py: which settings make a run another one."""

import pytest

from checkpointing.protocol.run_identity import Difference, diff

DEFAULTS = {"batch_size": 100, "augment_elastic": 0.0, "newest": "off"}


def test_equal_settings_do_not_differ():
    """Equal settings are equal in any order."""
    assert diff({"batch_size": 64, "seed": 0}, {"seed": 0, "batch_size": 64}) == []


def test_differences_are_sorted_by_name_and_hold_both_values():
    """A message can list them: each has a text with both values."""
    differences = diff({"seed": 0, "batch_size": 64}, {"seed": 1, "batch_size": 32})
    assert differences == [Difference("batch_size", 64, 32), Difference("seed", 0, 1)]
    assert [str(each) for each in differences] == ["batch_size 64 (now 32)", "seed 0 (now 1)"]


def test_a_setting_that_the_record_lacks_has_its_default():
    """A release may add a setting: older records have its default."""
    assert diff({"seed": 0}, {"seed": 0, "newest": "off"}, defaults=DEFAULTS) == []
    assert diff({"seed": 0}, {"seed": 0, "newest": "on"}, defaults=DEFAULTS) == [Difference("newest", "off", "on")]


def test_a_removed_setting_has_its_default_now():
    """A release may remove a setting: it has its default from then on."""
    assert diff({"augment_elastic": 0.0}, {}, defaults=DEFAULTS) == []
    assert diff({"augment_elastic": 2.0}, {}, defaults=DEFAULTS) == [Difference("augment_elastic", 2.0, 0.0)]


def test_a_missing_setting_without_a_default_is_a_difference():
    """Without a default a missing setting is None, as JSON's null."""
    assert diff({"warm_start": "x"}, {}, defaults=DEFAULTS) == [Difference("warm_start", "x", None)]
    assert diff({}, {"warm_start": "x"}) == [Difference("warm_start", None, "x")]
    assert diff({"warm_start": None}, {}) == []


@pytest.mark.parametrize(("recorded", "current", "differs"), [(100, 200, False), (200, 100, True), (100, "200", True)])
def test_a_setting_that_may_grow_may_not_shrink(recorded: int, current: object, differs: bool):  # noqa: FBT001
    """Only integers grow, and only those that are listed."""
    settings = {"train_steps": recorded}, {"train_steps": current}
    assert bool(diff(*settings, may_grow=["train_steps"])) is differs
    assert diff(*settings)
