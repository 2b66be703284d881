import re
from pathlib import Path

import pytest

from mnist.reporting import model_card
from tests import programs

FLAGS = ["--validation_size=200", "--batch_size=20", "--train_steps=20", "--save_every_steps=10"]


@pytest.fixture
def train(tmp_path, small_data):
    """Trains a softmax in a train_dir of this name; gives its result.json and the card of its model."""

    def call(name, *flags, fork=True):
        result = programs.train("softmax", tmp_path / name, f"--data_dir={small_data}", *FLAGS, *flags, fork=fork)
        return result, (Path(result["export_dir"]) / "assets.extra" / model_card.NAME).read_text()

    return call


def test_the_card_says_what_result_json_says(train):
    """Recipe, seed, step, accuracies with their standard errors, hash, sizes of the data."""
    result, text = train("run", "--seed=3")
    assert text.startswith("# softmax, seed 3, step 20\n")
    error = (result["test_accuracy"] * (1 - result["test_accuracy"]) / 300) ** 0.5
    assert f"test accuracy: {result['test_accuracy']:.4f}, standard error {error:.4f}" in text
    assert f"validation accuracy: {result['validation_accuracy']:.4f}" in text
    assert result["weights_sha256"] in text
    assert "1,000 images to train on, 200 to validate by" in text
    assert not re.search(r"[{}]", text)


def test_the_same_model_has_the_same_card(train):
    """No time and no place is on it."""
    assert train("one")[1] == train("two", fork=False)[1]


def test_without_validation_there_is_no_accuracy_of_it(train):
    """None is told, rather than 0."""
    _, text = train("run", "--validation_size=0")
    assert "validation accuracy" not in text
