"""examples/saver_and_saved_model.py."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from checkpointing.format import tensor_io
from mnist.input import dataset
from tests.programs import ROOT

EXAMPLE = ROOT / "examples" / "saver_and_saved_model.py"


def test_both_ways_to_save_give_the_same_predictions(tmp_path):
    """Output, files, and predictions of the checkpoint's weights and of the exported model."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(EXAMPLE), str(tmp_path)]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    accuracies = re.fullmatch(
        rf"checkpoint   {tmp_path}/model\.ckpt-300  test accuracy (\d\.\d+)\n"
        rf"saved model  {tmp_path}/saved_model  test accuracy (\d\.\d+)\n"
        "same predictions: True\n",
        ended.stdout,
    )
    assert accuracies, ended.stdout
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == {
        "checkpoint",
        *(f"model.ckpt-300.{kind}" for kind in ("data-00000-of-00001", "index", "meta")),
        "saved_model/saved_model.pb",
        *(f"saved_model/variables/variables.{kind}" for kind in ("data-00000-of-00001", "index")),
    }

    test = dataset.load(None, 5000).test
    saved = tensor_io.read(tmp_path / "model.ckpt-300")
    restored = np.argmax(test.images.reshape(-1, 784) / 255 @ saved["weights"] + saved["biases"], axis=1)
    model = tf.saved_model.load(str(tmp_path / "saved_model")).signatures["predict"]
    loaded = model(images=tf.constant(test.images))["classes"].numpy()
    assert np.mean(restored == loaded) > 0.999  # computed in float64 and float32
    assert f"{np.mean(loaded == test.labels):.4f}" == accuracies[1] == accuracies[2]
    assert float(accuracies[1]) > 0.85
    with pytest.raises(tf.errors.InvalidArgumentError, match="Shape of tensor"):
        model(images=tf.zeros([1, 56, 56], tf.uint8))


def test_what_the_comments_name_exists():
    """Each path and each `name` of the comments that begin with "Here"."""
    lines = EXAMPLE.read_text().splitlines()
    comments = " ".join(line.strip(" #") for line in lines if line.strip().startswith("#"))
    paths = re.findall(r"\b(?:mnist|checkpointing|trainer)/[\w/]+\.py", comments)
    assert len(paths) >= 5
    code = "\n".join((ROOT / path).read_text() for path in paths)
    for name in re.findall(r"`(\w+(?:\.\w+)?)`", comments):
        assert re.search(rf"\b(?:def|class) {name.rpartition('.')[2]}\b", code), name
