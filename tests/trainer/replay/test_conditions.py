import os

import pytest

import configs
from checkpointing.errors import CheckpointError
from checkpointing.protocol import manifest
from checkpointing.protocol.manifest import Manifest
from checkpointing.storage import layout
from tests.checkpoints import make_checkpoint
from trainer.replay import conditions
from trainer.replay.conditions import Here

IDENTITY = configs.load("cnn").run_identity()
SETTINGS = {"model": "cnn", "data": "aa" * 32, **IDENTITY}
ENVIRONMENT = {
    "TF_ENABLE_ONEDNN_OPTS": "1",
    "TF_NUM_INTRAOP_THREADS": "2",
    "processor": "one",
    "instruction_set": "avx2",
}
HERE = Here("aa" * 32, "bb" * 32, ENVIRONMENT | {"processor": "another"})


@pytest.fixture
def saved(tmp_path):
    """Make a manifest of a run under the same conditions as HERE, with other fields if given."""

    def make(settings=SETTINGS, **fields):
        fields = {"code": "bb" * 32, "environment": ENVIRONMENT, **fields}
        return Manifest.read(layout.manifest_path(make_checkpoint(tmp_path, 10, settings=settings, **fields)))

    return make


@pytest.mark.parametrize("name", [*configs.names("softmax"), *configs.names("cnn")])
def test_every_recipes_settings_come_back(name, saved):
    """All that change the weights; of the others, only threads is used: the program's default."""
    recipe = configs.load(name)
    program = name.partition("_")[0]
    found = conditions.settings_of(saved({"model": program, "data": "aa", **recipe.run_identity()}))
    assert found.run_identity() == recipe.run_identity()
    assert type(found) is type(recipe)
    assert found.threads == configs.load(program).threads


def test_a_missing_setting_has_its_default(saved):
    """A run of an earlier release can be replayed."""
    settings = {name: value for name, value in SETTINGS.items() if name != "instruction_set"}
    assert conditions.settings_of(saved(settings)).instruction_set == "native"
    assert conditions.differences([saved(settings)], HERE) == []
    assert conditions.differences([saved(settings | {"augment_cutout": 0})], HERE) == []  # removed since


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "linear"}, "expected a checkpoint of softmax or cnn, got model 'linear'"),
        ({"model": "cnn"}, "train_steps: expected a value, got none; optimizer: expected a value, got none"),
        (SETTINGS | {"batch_size": "100"}, "batch_size: expected a value of type int, got '100'"),
        (SETTINGS | {"seed": True}, "seed: expected a value of type int, got True"),
        (SETTINGS | {"learning_rate": float("nan")}, "learning_rate=nan: expected a finite number"),
        (SETTINGS | {"optimizer": "lion"}, "optimizer=lion: expected one of sgd, momentum, adam"),
    ],
)
def test_settings_that_cannot_be_used_are_an_error(saved, settings, message):
    """It begins with the checkpoint and names each of them."""
    with pytest.raises(CheckpointError, match=message) as error:
        conditions.settings_of(saved(settings))
    assert str(error.value).startswith("model.ckpt-10: ")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, []),
        ({"environment": ENVIRONMENT | {"processor": "a third"}}, []),
        ({"settings": SETTINGS | {"data": "cc" * 32}}, ["data cccccccccccc (now aaaaaaaaaaaa)"]),
        ({"settings": SETTINGS | {"width": 3}}, ["setting width 3 (now unknown to this code)"]),
        ({"settings": SETTINGS | {"augment_cutout": 4}}, ["setting augment_cutout 4 (now unknown to this code)"]),
        ({"code": None}, ["code not recorded (now bbbbbbbbbbbb)"]),
        ({"versions": manifest.versions() | {"numpy": "1.0"}}, [f"numpy 1.0 (now {manifest.versions()['numpy']})"]),
        (
            {"environment": None},
            ["environment not recorded (now another, instruction set avx2, 2 threads, oneDNN on)"],
        ),
        (
            {"environment": {"LD_PRELOAD": "x.so", **ENVIRONMENT, "instruction_set": "avx512_core"}},
            ["LD_PRELOAD x.so (now unset)", "instruction_set avx512_core (now avx2)"],
        ),
    ],
)
def test_each_difference_is_listed_once(saved, fields, expected):
    """However many checkpoints have it; the processor's name is none."""
    assert list(map(str, conditions.differences([saved(**fields)] * 2, HERE))) == expected


@pytest.mark.parametrize(
    ("recorded", "own", "expected"),
    [("3", None, "3"), ("3", "5", "5"), ("²", None, None), ("x", None, None), (None, None, None)],
)
def test_onednns_sums_have_as_many_parts_as_recorded(saved, monkeypatch, recorded, own, expected):
    """Unless the user has set another number, which is then a difference."""
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    if own:
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", own)
    conditions.use_recorded_threads(saved(environment={"TF_NUM_INTRAOP_THREADS": recorded} if recorded else None))
    assert os.environ.get("TF_NUM_INTRAOP_THREADS") == expected
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)


@pytest.mark.parametrize(
    "record",
    [3, {}, {"prefix": "a", "pattern": "(", "renames": {}}, {"prefix": "a", "pattern": "", "renames": {"a": 1}}],
)
def test_a_record_of_a_warm_start_that_cannot_be_used_is_an_error(saved, record):
    """It is not passed on to TensorFlow."""
    with pytest.raises(CheckpointError, match="its manifest's warm_start cannot be used"):
        conditions.warm_start_of(saved(SETTINGS | {"warm_start": record}))


def test_what_changed_between_two_attempts_is_named(saved):
    """A replay of those steps under one of the two conditions may differ."""
    before = saved(SETTINGS | {"train_steps": 100}, code="cc" * 32)
    assert conditions.changes_within(before, saved()) == ["train_steps", "code"]
    assert conditions.changes_within(None, saved()) == []
