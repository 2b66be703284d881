"""OpenVINO, tf2onnx and onnxruntime read our SavedModels and `.meta` files, in a separate environment."""

import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from mnist.input import dataset
from tests import programs

ENVIRONMENT = programs.ROOT / ".venv-readers"
SCRIPTS = Path(__file__).parent

pytestmark = pytest.mark.skipif(
    not (ENVIRONMENT / "ready").is_file(),
    reason=f"{ENVIRONMENT.name}/ready is missing: OpenVINO, tf2onnx and onnxruntime are installed by `make readers`",
)


class Trained(NamedTuple):
    """The files of a run, and TensorFlow's predictions for 300 images with its SavedModel."""

    saved_model: Path
    meta: Path
    images: Path
    signatures: set[str]
    classes: np.ndarray
    probabilities: np.ndarray


RUNS = {
    "softmax": ("softmax", ["--train_steps=60"]),
    "cnn": ("cnn", ["--train_steps=30"]),
}


@pytest.fixture(scope="module", params=[*RUNS, "ensemble"])
def trained(request, tmp_path_factory, small_data):
    """A short run of a program or an ensemble; tests must not change it."""
    directory = tmp_path_factory.mktemp(request.param)
    if request.param == "ensemble":
        result = programs.result(request.getfixturevalue("ensemble"))
    else:
        program, flags = RUNS[request.param]
        common = [f"--data_dir={small_data}", "--validation_size=200", "--batch_size=20"]
        result = programs.train(program, directory / "run", *common, *flags)
    images = dataset.load(small_data, 200).test.images
    np.save(directory / "images.npy", images)
    signatures = tf.saved_model.load(result["export_dir"]).signatures
    outputs = signatures["serving_default"](images=tf.constant(images))
    return Trained(
        saved_model=Path(result["export_dir"]),
        meta=Path(result["checkpoint"] + ".meta"),
        images=directory / "images.npy",
        signatures=set(signatures),
        classes=outputs["classes"].numpy(),
        probabilities=outputs["probabilities"].numpy(),
    )


def run(directory, *arguments):
    """Run the environment's Python in a directory; it must succeed."""
    command = [str(ENVIRONMENT / "bin" / "python"), *map(str, arguments)]
    ended = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def assert_predictions_of_tensorflow(path, trained):
    """The class of each image is TensorFlow's, and each probability is within 1e-5."""
    found = np.load(path)
    assert len(trained.classes) == 300
    assert found["probabilities"].dtype == np.float32
    assert np.array_equal(found["classes"], trained.classes)
    np.testing.assert_allclose(found["probabilities"], trained.probabilities, rtol=0, atol=1e-5)


def test_openvino_reads_the_exported_model(tmp_path, trained):
    """OpenVINO's predictions are TensorFlow's, although the model has signatures that OpenVINO cannot run."""
    assert "png" in trained.signatures
    run(tmp_path, SCRIPTS / "run_openvino.py", trained.saved_model, trained.images, "predictions.npz")
    assert_predictions_of_tensorflow(tmp_path / "predictions.npz", trained)


def test_openvino_reads_the_meta_file(tmp_path, trained):
    """OpenVINO finds the model in the training graph by its signature, and the weights by the file names."""
    run(tmp_path, SCRIPTS / "run_openvino.py", trained.meta, trained.images, "predictions.npz")
    assert_predictions_of_tensorflow(tmp_path / "predictions.npz", trained)


def test_onnxruntime_runs_the_exported_model(tmp_path, trained):
    """The model converted by tf2onnx has TensorFlow's predictions."""
    flags = ["--tag", "serve", "--signature_def", "serving_default"]
    run(tmp_path, "-m", "tf2onnx.convert", "--saved-model", trained.saved_model, *flags, "--output", "model.onnx")
    run(tmp_path, SCRIPTS / "run_onnx.py", "model.onnx", trained.images, "predictions.npz")
    assert_predictions_of_tensorflow(tmp_path / "predictions.npz", trained)
