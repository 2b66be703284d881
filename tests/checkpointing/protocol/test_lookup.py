import os
import shutil
from pathlib import Path

import pytest

from checkpointing.errors import CheckpointError
from checkpointing.protocol import checkpoint_state, lookup
from checkpointing.storage import layout
from tests.checkpoints import empty, make_checkpoint, make_files, mark
from tests.writers import make_foreign


def no_warning(message):
    """Fails the test if a choice warns."""
    raise AssertionError(message)


@pytest.fixture
def train_dir(tmp_path):
    """Three checkpoints with scores; the first of the two best ones is of step 2."""
    for step, score in ((1, 0.5), (2, 0.9), (10, 0.9)):
        make_checkpoint(tmp_path, step, score=score)
    return tmp_path


@pytest.mark.parametrize(
    ("which", "step"), [("latest", 10), ("best", 2), ("1", 1), (1, 1), ("10", 10), (10, 10), ("001", 1)]
)
def test_a_checkpoint_is_chosen_by_word_or_step(train_dir, which, step):
    """Steps are compared as numbers; of equal scores the earliest wins, as in retention."""
    assert lookup.choose_checkpoint(train_dir, which, warn=no_warning) == layout.prefix(train_dir, step)


@pytest.mark.parametrize("which", ["newest", "", "-1", "1.0", "1" * 19, "latest ", -1])
def test_anything_else_is_refused(train_dir, which):
    """The message lists what is accepted."""
    assert not lookup.is_choice(str(which))
    with pytest.raises(CheckpointError, match="expected latest, best or a step, got"):
        lookup.choose_checkpoint(train_dir, which)


@pytest.mark.parametrize("which", ["latest", "best", "1"])
@pytest.mark.parametrize("name", ["empty", "missing"])
def test_a_directory_without_checkpoints(tmp_path, which, name):
    """It is one error, whether the directory exists or not."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=f"{name}: no checkpoint found"):
        lookup.choose_checkpoint(tmp_path / name, which)


def test_a_missing_step_lists_the_steps(train_dir):
    """In their numeric order."""
    with pytest.raises(CheckpointError, match="no checkpoint of step 3 found; there are steps 1, 2, 10"):
        lookup.choose_checkpoint(train_dir, 3)


def test_best_needs_a_score(tmp_path):
    """A run without validation records none."""
    make_checkpoint(tmp_path, 1)
    warnings = []
    with pytest.raises(CheckpointError, match=r"(?m)no checkpoint with a validation score found; there are steps 1$"):
        lookup.choose_checkpoint(tmp_path, "best", warn=warnings.append)
    assert warnings == [f"{tmp_path}: best of 0 checkpoints; 1 were saved without a validation"]


def test_an_uncertain_best_is_chosen_with_a_warning(train_dir):
    """A damaged manifest hides its score; checkpoints without a validation have none."""
    make_checkpoint(train_dir, 11)
    empty(layout.manifest_path(layout.prefix(train_dir, 1)))
    warnings = []
    assert lookup.choose_checkpoint(train_dir, "best", warn=warnings.append) == layout.prefix(train_dir, 2)
    damaged, unscored = warnings
    assert damaged.startswith("model.ckpt-1.manifest.json: ")
    assert damaged.endswith("; its score is unknown")
    assert unscored == f"{train_dir}: best of 2 checkpoints; 1 were saved without a validation"


def test_checkpoints_without_a_manifest_count_only_alone(tmp_path):
    """Among committed checkpoints they are unfinished, or another program's."""
    foreign = make_files(tmp_path, 3)
    mark(make_files(tmp_path, 4))
    assert lookup.checkpoints_in(tmp_path) == [foreign]
    assert lookup.choose_checkpoint(tmp_path, "latest") == foreign
    ours = make_checkpoint(tmp_path, 1)
    assert lookup.checkpoints_in(tmp_path) == [ours]


def test_a_plain_savers_prefix_may_have_any_name(tmp_path):
    """Its step is the number at the end; checkpoints without one come first."""
    for name in ("model", "other-7"):
        (tmp_path / f"{name}.index").touch()
    assert lookup.choose_checkpoint(tmp_path, "latest") == tmp_path / "other-7"
    assert lookup.choose_checkpoint(tmp_path, 7) == tmp_path / "other-7"
    with pytest.raises(CheckpointError, match=r"(?m)there are steps 7$"):
        lookup.choose_checkpoint(tmp_path, 8)


# The state file of a directory that is no run's


def state_file(directory, path):
    """Write a state file that names this checkpoint as the newest."""
    (directory / "checkpoint").write_text(f'model_checkpoint_path: "{path}"\n')


@pytest.fixture
def foreign(tmp_path):
    """A plain Saver's directory: 100 and 200 of its last run, 500 left by an earlier one."""
    directory = tmp_path / "foreign"
    directory.mkdir()
    for step in (100, 200, 500):
        make_foreign(directory, f"model.ckpt-{step}")
    state_file(directory, "model.ckpt-200")
    return directory


@pytest.mark.parametrize("path", ["model.ckpt-{}", "./model.ckpt-{}", "/moved/away/model.ckpt-{}", "{}/model.ckpt-{}"])
@pytest.mark.parametrize("step", [100, 200, 500])
def test_a_plain_savers_state_file_decides(foreign, step, path):
    """As for tf.train.latest_checkpoint, and after a user's edit; absolute paths also after a move."""
    state_file(foreign, path.format(*([foreign, step] if path.count("{") == 2 else [step])))
    expected = layout.prefix(foreign, step)
    assert lookup.resolve_checkpoint(foreign, warn=no_warning) == expected
    assert lookup.choose_checkpoint(foreign, "latest", warn=no_warning) == expected
    assert lookup.choose_checkpoint(foreign, 500, warn=no_warning) == layout.prefix(foreign, 500)
    assert [prefix.name[11:] for prefix in lookup.checkpoints_in(foreign)] == ["100", "200", "500"]


def damaged_state_file(directory, problem):
    """Make the state file useless; return what the warning says about it."""
    path = directory / "checkpoint"
    if problem == "missing":
        path.unlink()
        return "no such file"
    if problem == "directory":
        path.unlink()
        path.mkdir()
        return "names no checkpoint"
    if problem == "garbage":
        path.write_bytes(b"\0\xff")
        return "names no checkpoint"
    if problem == "gone":
        state_file(directory, "model.ckpt-300")
        return "expected a complete checkpoint in its directory, got 'model.ckpt-300'"
    if problem == "incomplete":
        layout.data_path(layout.prefix(directory, 200), 0, 1).unlink()
    else:
        mark(layout.prefix(directory, 200))
    return "expected a complete checkpoint in its directory, got 'model.ckpt-200'"


@pytest.mark.parametrize("problem", ["missing", "directory", "garbage", "gone", "incomplete", "marked"])
def test_without_a_useful_state_file_the_highest_step_is_the_newest(foreign, problem):
    """One warning says so."""
    said = damaged_state_file(foreign, problem)
    for find in (
        lookup.resolve_checkpoint,
        lambda path, **options: lookup.choose_checkpoint(path, "latest", **options),
    ):
        warnings = []
        assert find(foreign, warn=warnings.append) == layout.prefix(foreign, 500)
        assert warnings == [f"{foreign / 'checkpoint'}: {said}; model.ckpt-500 is taken for the newest checkpoint"]


def test_a_state_file_that_may_not_be_read_is_a_warning(foreign, monkeypatch):
    """Another error of the system, such as a lack of descriptors, is raised: the next call may find another newest."""
    for error in (PermissionError(13, os.strerror(13)), OSError(24, os.strerror(24))):

        def refuse(*_, error=error):
            raise error

        monkeypatch.setattr(checkpoint_state, "read_newest", refuse)
        if isinstance(error, PermissionError):
            warnings = []
            assert lookup.resolve_checkpoint(foreign, warn=warnings.append) == layout.prefix(foreign, 500)
            assert warnings == [
                f"{foreign / 'checkpoint'}: Permission denied; model.ckpt-500 is taken for the newest checkpoint"
            ]
        else:
            with pytest.raises(OSError, match="Too many open files"):
                lookup.resolve_checkpoint(foreign)


def test_one_checkpoint_needs_no_state_file(tmp_path):
    """There is no choice, so there is no warning."""
    prefix = make_foreign(tmp_path, "model-1")
    assert lookup.resolve_checkpoint(tmp_path, warn=no_warning) == prefix


def test_in_a_runs_directory_the_state_file_is_a_cache(foreign):
    """Only checkpoints with a manifest count; the file is not read."""
    make_checkpoint(foreign, 50)
    assert lookup.resolve_checkpoint(foreign, warn=no_warning) == layout.prefix(foreign, 50)
    make_checkpoint(foreign, 60)
    state_file(foreign, "model.ckpt-50")
    assert lookup.choose_checkpoint(foreign, "latest", warn=no_warning) == layout.prefix(foreign, 60)


def test_a_copied_directory_uses_its_own_checkpoint(foreign):
    """Not the one in the directory that it was copied from, which absolute paths name."""
    state_file(foreign, layout.prefix(foreign, 100))
    copy = Path(shutil.copytree(foreign, foreign.with_name("copy")))
    assert lookup.resolve_checkpoint(copy, warn=no_warning) == layout.prefix(copy, 100)
