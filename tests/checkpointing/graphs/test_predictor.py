import shutil

import numpy as np
import pytest

from checkpointing.errors import CheckpointError
from checkpointing.graphs import predictor
from tests import programs

NAMES = ({"images"}, {"classes", "probabilities"})
IMAGES = np.arange(3 * 28 * 28, dtype=np.uint32).reshape(3, 28, 28).astype(np.uint8)


@pytest.fixture(scope="module")
def train_dir(tmp_path_factory, small_data):
    """A softmax run that has ended."""
    directory = tmp_path_factory.mktemp("softmax") / "run"
    programs.train("softmax", directory, f"--data_dir={small_data}", "--validation_size=200", "--train_steps=20")
    return directory


def asked(path):
    """What the model there says."""
    with predictor.open_predictor(path, *NAMES) as model:
        return model.source, model.predict({"images": IMAGES})


def test_checkpoint_and_exported_model_answer_alike(train_dir):
    """By a train_dir, by a prefix and by a SavedModel: the same classes and probabilities."""
    result = programs.result(train_dir)
    source, wanted = asked(train_dir)
    assert source == train_dir / "model.ckpt-20"
    assert wanted["classes"].shape == (3,)
    np.testing.assert_allclose(wanted["probabilities"].sum(axis=1), 1, rtol=1e-5)
    for path in (train_dir / "model.ckpt-20", train_dir / "model.ckpt-20.index", result["export_dir"]):
        _, found = asked(train_dir / path)
        np.testing.assert_array_equal(found["classes"], wanted["classes"])
        np.testing.assert_allclose(found["probabilities"], wanted["probabilities"], rtol=1e-5)


@pytest.mark.parametrize("name", ["model.ckpt-20.data-00000-of-00001", "saved_model/20/saved_model.pb"])
def test_a_damaged_model_is_not_asked(name, train_dir, tmp_path):
    """A changed byte is found before anything is loaded."""
    copy = shutil.copytree(train_dir, tmp_path / "run")
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"put a good copy back"):
        asked(copy / "saved_model" / "20" if "saved_model" in name else copy)


def test_what_cannot_be_asked_so_says_what_it_takes(train_dir):
    """Its own names, and those that were wanted; and a wrong shape is a sentence, too."""
    with pytest.raises(CheckpointError, match="from images to classes, probabilities found, from pictures to"):  # noqa: SIM117
        with predictor.open_predictor(train_dir, {"pictures"}, {"classes"}):
            pass
    with (
        predictor.open_predictor(train_dir, *NAMES) as model,
        pytest.raises(CheckpointError, match="cannot be asked"),
    ):
        model.predict({"images": IMAGES[0]})


def test_where_nothing_is_the_message_says_so(tmp_path):
    """As the inspection of checkpoints has it."""
    with pytest.raises(CheckpointError, match="no checkpoint found"):
        asked(tmp_path)
