import pytest

import configs
from checkpointing.errors import CheckpointError
from checkpointing.storage import layout
from tests.checkpoints import flip_a_bit, make_checkpoint
from trainer.replay import plan

SETTINGS = {"model": "cnn", "data": "00ff", **configs.load("cnn").run_identity()}


@pytest.fixture
def run(tmp_path):
    """A train_dir in which steps 200, 400 and 500 are kept."""
    for step in (200, 400, 500):
        make_checkpoint(tmp_path, step, settings=SETTINGS)
    return tmp_path


def chosen(*args, **options):
    """Return the segments as text."""
    return list(map(str, plan.choose(*args, **options)))


def test_segments_lie_between_kept_checkpoints(run):
    """By default there is one, the last."""
    assert chosen(run) == ["model.ckpt-400 -> model.ckpt-500"]
    assert chosen(run, first=200) == ["model.ckpt-200 -> model.ckpt-400"]
    assert chosen(run, last=400) == ["model.ckpt-200 -> model.ckpt-400"]
    assert chosen(run, first=200, last=500) == ["model.ckpt-200 -> model.ckpt-500"]
    assert chosen(run, first=0) == chosen(run, last=200) == ["step 0 -> model.ckpt-200"]
    assert chosen(run, every=True) == [
        "step 0 -> model.ckpt-200",
        "model.ckpt-200 -> model.ckpt-400",
        "model.ckpt-400 -> model.ckpt-500",
    ]
    assert [each.steps for each in plan.choose(run, every=True)] == [200, 200, 100]


def test_a_single_checkpoint_is_replayed_from_the_begin(tmp_path):
    """Also the one of step 0, which a run saves if it is stopped at once."""
    make_checkpoint(tmp_path, 0, settings=SETTINGS)
    assert chosen(tmp_path) == ["step 0 -> model.ckpt-0"]
    make_checkpoint(tmp_path, 7, settings=SETTINGS)
    assert chosen(tmp_path, every=True) == ["step 0 -> model.ckpt-0", "model.ckpt-0 -> model.ckpt-7"]
    assert chosen(tmp_path, first=0) == ["model.ckpt-0 -> model.ckpt-7"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first": 300}, "no checkpoint of step 300 found; there are steps 200, 400, 500"),
        ({"last": 300}, "no checkpoint of step 300 found; there are steps 200, 400, 500"),
        ({"first": 500}, "no checkpoint after step 500 found; there are steps 200, 400, 500"),
        ({"first": 400, "last": 200}, "--from=400: expected a step before 200"),
    ],
)
def test_steps_that_are_not_kept_are_an_error(run, options, message):
    """It lists those that are."""
    with pytest.raises(CheckpointError, match=message):
        plan.choose(run, **options)


def test_only_the_checkpoints_that_are_used_are_verified(run):
    """A damaged one elsewhere does not matter."""
    flip_a_bit(layout.index_path(layout.prefix(run, 200)))
    plan.choose(run)
    with pytest.raises(CheckpointError, match=r"damaged checkpoints: model\.ckpt-200\.index: some of its bytes"):
        plan.choose(run, every=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"settings": SETTINGS | {"seed": 1}}, "model.ckpt-500 and model.ckpt-600: seed 0 and 1"),
        ({"settings": SETTINGS | {"train_steps": 10}}, "train_steps 5500 and 10"),
        ({"settings": SETTINGS, "started_from": "00ff"}, "they started from different checkpoints"),
    ],
)
def test_checkpoints_of_different_runs_are_an_error(run, fields, message):
    """The settings that differ are listed."""
    make_checkpoint(run, 600, **fields)
    with pytest.raises(CheckpointError, match=message):
        plan.choose(run)


def test_an_ensemble_is_an_error_that_names_its_members(tmp_path):
    """It was joined, not trained."""
    members = [tmp_path / f"seed-{seed}" for seed in (3, 4)]
    for member in members:
        member.mkdir()
    make_checkpoint(tmp_path, 600, settings=SETTINGS | {"members": 2})
    with pytest.raises(CheckpointError, match="expected the train_dir of one network, got an ensemble of 2") as error:
        plan.choose(tmp_path)
    assert error.value.hint == f"replay its members: {members[0]}, {members[1]}"


def test_members_without_a_joined_model_are_named(tmp_path):
    """There is no checkpoint to replay in the ensemble's own directory then."""
    (tmp_path / "seed-3").mkdir()
    with pytest.raises(CheckpointError, match="no checkpoint with a manifest") as error:
        plan.choose(tmp_path)
    assert error.value.hint == f"give one of {tmp_path / 'seed-3'}"
    with pytest.raises(CheckpointError, match="expected the train_dir of a run, got no directory"):
        plan.choose(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"started_from": "00ff", "settings": SETTINGS},
            r"the checkpoint that the run started from \(index sha256 00ff\)",
        ),
        (
            {"settings": SETTINGS | {"warm_start": {}}},
            "started_from.json: expected the checkpoint that the first weights",
        ),
    ],
)
def test_a_run_whose_source_is_unknown_cannot_be_replayed_from_its_begin(tmp_path, fields, message):
    """The other segments can."""
    for step in (10, 20):
        make_checkpoint(tmp_path, step, **fields)
    assert chosen(tmp_path) == ["model.ckpt-10 -> model.ckpt-20"]
    with pytest.raises(CheckpointError, match=message) as error:
        plan.choose(tmp_path, every=True)
    assert "--from and --to" in error.value.hint
