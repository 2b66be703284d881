import re
from pathlib import Path

import pytest

from mnist.reporting import model_card
from tests import programs

FLAGS = ["--validation_size=200", "--batch_size=20", "--train_steps=20", "--save_every_steps=10"]


@pytest.fixture
def train(tmp_path, small_data):
    """Train a softmax in a train_dir of this name; return its result.json and its model card."""

    def call(name, *flags, fork=True):
        result = programs.train("softmax", tmp_path / name, f"--data_dir={small_data}", *FLAGS, *flags, fork=fork)
        return result, (Path(result["export_dir"]) / "assets.extra" / model_card.NAME).read_text()

    return call


def test_the_card_agrees_with_result_json(train):
    """Recipe, seed, step, accuracies with standard errors, hash and sizes of the data are on the card."""
    result, text = train("run", "--seed=3")
    assert text.startswith("# softmax, seed 3, step 20\n")
    error = (result["test_accuracy"] * (1 - result["test_accuracy"]) / 300) ** 0.5
    assert f"test accuracy: {result['test_accuracy']:.4f}, standard error {error:.4f}" in text
    assert f"validation accuracy: {result['validation_accuracy']:.4f}" in text
    assert result["weights_sha256"] in text
    assert f"{result['environment']['processor']}, instruction set {result['environment']['instruction_set']}, " in text
    assert "1,000 training images, 200 validation images" in text
    assert not re.search(r"[{}]", text)


def test_the_same_model_has_the_same_card(train):
    """The card has neither a time nor a path."""
    assert train("one")[1] == train("two", fork=False)[1]


def test_without_validation_the_card_has_no_validation_accuracy(train):
    """The line is left out, rather than 0."""
    _, text = train("run", "--validation_size=0")
    assert "validation accuracy" not in text
