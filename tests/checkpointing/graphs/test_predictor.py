import shutil
from pathlib import Path

import numpy as np
import pytest

from checkpointing.errors import CheckpointError
from checkpointing.graphs import predictor
from tests import programs

NAMES = ({"images"}, {"classes", "probabilities"})
IMAGES = np.arange(3 * 28 * 28, dtype=np.uint32).reshape(3, 28, 28).astype(np.uint8)


@pytest.fixture(scope="module")
def train_dir(tmp_path_factory, small_data):
    """A finished softmax run."""
    directory = tmp_path_factory.mktemp("softmax") / "run"
    programs.train("softmax", directory, f"--data_dir={small_data}", "--validation_size=200", "--train_steps=20")
    return directory


def predict(path):
    """Return the source and the predictions of the model at a path."""
    with predictor.open_predictor(path, *NAMES) as model:
        return model.source, model.predict({"images": IMAGES})


def test_checkpoint_and_exported_model_predict_the_same(train_dir):
    """A train_dir, a prefix and a SavedModel give the same classes and probabilities."""
    result = programs.result(train_dir)
    source, expected = predict(train_dir)
    assert source == train_dir / "model.ckpt-20"
    assert expected["classes"].shape == (3,)
    np.testing.assert_allclose(expected["probabilities"].sum(axis=1), 1, rtol=1e-5)
    for path in (train_dir / "model.ckpt-20", train_dir / "model.ckpt-20.index", result["export_dir"]):
        _, found = predict(train_dir / path)
        np.testing.assert_array_equal(found["classes"], expected["classes"])
        np.testing.assert_allclose(found["probabilities"], expected["probabilities"], rtol=1e-5)


@pytest.mark.parametrize("name", ["model.ckpt-20.data-00000-of-00001", "saved_model/20/saved_model.pb"])
def test_a_damaged_model_is_not_loaded(name, train_dir, tmp_path):
    """A changed byte is found before anything is loaded."""
    copy = shutil.copytree(train_dir, tmp_path / "run")
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{Path(name).name}: ") as error:
        predict(copy / "saved_model" / "20" if "saved_model" in name else copy)
    assert error.value.hint.startswith("put a good copy back")


def test_a_signature_with_other_names_is_an_error(train_dir):
    """The message lists the names expected and found; inputs of a wrong shape are an error, too."""
    message = "expected a signature from pictures to classes, got one from images to classes, probabilities"
    with pytest.raises(CheckpointError, match=message):  # noqa: SIM117
        with predictor.open_predictor(train_dir, {"pictures"}, {"classes"}):
            pass
    with (
        predictor.open_predictor(train_dir, *NAMES) as model,
        pytest.raises(CheckpointError, match="prediction failed"),
    ):
        model.predict({"images": IMAGES[0]})


def test_a_directory_without_a_model_is_an_error(tmp_path):
    """The message is that of all commands."""
    with pytest.raises(CheckpointError, match="no checkpoint found"):
        predict(tmp_path)
