import pytest

from checkpointing.errors import CheckpointError
from checkpointing.protocol import lookup
from checkpointing.storage import layout
from tests.checkpoints import empty, make_checkpoint, make_files, mark


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
