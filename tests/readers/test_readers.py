"""OpenVINO, tf2onnx, onnxruntime and KServe read our SavedModels and `.meta` files, in a separate environment."""

import base64
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from mnist.input import dataset
from tests import guide, programs
from tests.digit_graph import WRONG_SHAPES

ENVIRONMENT = programs.ROOT / ".venv-readers"
SCRIPTS = Path(__file__).parent

pytestmark = pytest.mark.skipif(
    not (ENVIRONMENT / "ready").is_file(),
    reason=f"{ENVIRONMENT.name}/ready is missing: `make readers` installs OpenVINO, tf2onnx, onnxruntime and KServe",
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


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The SavedModel of docs/serving.md, and the port of a KServe server for it."""
    directory = tmp_path_factory.mktemp("served")
    model = programs.train("softmax", directory / "run", "--train_steps=600")["export_dir"]
    command = [ENVIRONMENT / "bin" / "python", SCRIPTS / "serve_kserve.py", model]
    with (
        (directory / "log").open("w") as log,
        subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, stderr=log, text=True) as server,
    ):
        port = server.stdout.readline().strip()
        assert port, (directory / "log").read_text()
        yield Path(model), port
        server.kill()


def post(port, request):
    """Send a request to the server; return the status and the response."""
    url = f"http://127.0.0.1:{port}/v1/models/mnist:predict"
    headers = {"Content-Type": "application/json"}
    sent = urllib.request.Request(url, json.dumps(request).encode(), headers)
    try:
        with urllib.request.urlopen(sent, timeout=60) as response:  # noqa: S310
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_kserve_predicts_what_a_session_predicts(served):
    """Over HTTP, from pixels and from PNG files; the labels, too."""
    model, port = served
    images = dataset.load(None, 0).test.images[:5]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        graph = tf.compat.v1.saved_model.load(session, ["serve"], str(model))
        signature = graph.signature_def["serving_default"]
        fetches = {name: info.name for name, info in signature.outputs.items()}
        expected = session.run(fetches, {signature.inputs["images"].name: images})
    files = [base64.b64encode(tf.io.encode_png(image[..., None]).numpy()).decode() for image in images]
    requests = (
        {"instances": images.tolist()},
        {"signature_name": "png", "instances": [{"png": {"b64": file}} for file in files]},
    )
    for request in requests:
        status, response = post(port, request)
        assert status == 200, response
        assert [each["classes"] for each in response["predictions"]] == expected["classes"].tolist()
        probabilities = np.array([each["probabilities"] for each in response["predictions"]], np.float32)
        assert np.array_equal(probabilities, expected["probabilities"])
    status, response = post(port, {"signature_name": "labels", "instances": images.tolist()})
    assert (status, response["predictions"][0]) == (200, "7")


@pytest.mark.parametrize("signature", ["serving_default", "labels"])
def test_kserve_answers_wrong_shapes_with_an_error(served, signature):
    """Status 400 and a message with both shapes; the next request gets predictions."""
    for shape in WRONG_SHAPES:
        request = {"signature_name": signature, "instances": np.zeros(shape, int).tolist()}
        shown = f"{list(shape)}".replace(" ", "")
        message = f"Shape of tensor images {shown} is not compatible with expected shape [?,28,28]."
        assert post(served[1], request) == (400, {"error": message})
    for wrong in (np.full((1, 28, 28), 0.5).tolist(), [[1, 2], [3]]):
        status, response = post(served[1], {"signature_name": signature, "instances": wrong})
        assert (status, list(response)) == (400, ["error"])
    status, response = post(served[1], {"signature_name": signature, "instances": np.zeros((2, 28, 28), int).tolist()})
    assert (status, len(response["predictions"])) == (200, 2)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing")
def test_the_guide_shows_what_kserve_answers(served, tmp_path):
    """The commands in docs/serving.md that send requests, and their output."""
    page = (programs.ROOT / "docs" / "serving.md").read_text()
    [block] = re.findall(r"^```shell-session\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    block = block.replace("localhost:8501", f"127.0.0.1:{served[1]}")
    session = guide.Session(tmp_path)
    for step in guide.steps(f"```console\n{block}```\n"):
        got = session.run(step)
        assert guide.same(step.expected, got), f"{step.source}\nwrites:\n{got}"
