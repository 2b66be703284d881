"""Tests of hints.py: which flag to change after an error of the library."""

import re

import pytest

from checkpointing import errors
from checkpointing.errors import CheckpointError, SettingsDifferError, UserError
from checkpointing.protocol import resume
from checkpointing.storage import layout, staging
from configs import flags
from mnist.errors import NonFiniteLossError
from tests.checkpoints import SETTINGS, empty, make_checkpoint
from trainer.hints import _HINTS, add_hint


def hint_of(error: UserError) -> str | None:
    """Return an error's hint after `add_hint`."""
    add_hint(error)
    return error.hint


def test_an_error_of_a_subclass_has_its_class_hint():
    """The class of the error or its nearest base class decides."""

    class SpecialError(SettingsDifferError):
        pass

    assert hint_of(SpecialError("x: y")) == hint_of(SettingsDifferError("x: y")) is not None


def test_other_errors_keep_their_hint():
    """An error whose class has no hint here keeps the one it was raised with, or none."""
    assert hint_of(CheckpointError("x: y", hint="wait")) == "wait"
    assert hint_of(CheckpointError("x: y")) is None


def test_hints_name_flags_that_exist():
    """Every --flag in a hint is one of the program's."""
    known = flags.define_flags("cnn")
    for hint in _HINTS.values():
        found = re.findall(r"--(\w+)", hint)
        assert found
        assert all(name in known for name in found), hint
        assert not hint.endswith(".")


def test_a_refused_train_dir_has_a_hint_with_a_flag(tmp_path):
    """Errors of the library as they are raised: the library's hint names no flag, the trainer's does."""
    make_checkpoint(tmp_path / "other", 50)
    empty(layout.index_path(make_checkpoint(tmp_path / "damaged", 50)))
    (tmp_path / "blocked" / layout.RESULT).mkdir(parents=True)
    (tmp_path / "file").write_text("")
    for name in ("other", "damaged", "blocked", "file"):
        with pytest.raises(CheckpointError) as refused:
            resume.open_train_dir(tmp_path / name, SETTINGS | {"seed": 1})
        assert refused.value.hint is not None
        assert "--" not in refused.value.hint + str(refused.value)
        assert "--train_dir" in (hint_of(refused.value) or "")


def test_an_existing_target_has_a_hint_with_a_flag(tmp_path):
    """An export overwrites nothing."""
    with pytest.raises(staging.TargetExistsError) as refused:
        staging.check_target(tmp_path)
    assert hint_of(refused.value) == "give another --export_dir"


def test_a_non_finite_loss_has_the_hint_of_non_finite_weights():
    """Both are answered by a lower learning rate."""
    assert hint_of(NonFiniteLossError("loss: nan")) == hint_of(errors.NonFiniteError("step 2: NaN"))
