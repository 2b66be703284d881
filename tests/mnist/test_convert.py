import re
import subprocess
import sys

import numpy as np
import onnx
import pytest
import tensorflow as tf
from onnxruntime.capi import onnxruntime_pybind11_state as pybind11_state

from mnist.convert import main
from mnist.tools import model_conversion
from tests import hostile, programs
from tests.digit_graph import WRONG_SHAPES

RUNS = {
    "softmax": ("softmax", []),
    "small": ("cnn", ["--architecture=small", "--crops=3"]),
    "tutorial": ("cnn", []),
}


@pytest.fixture(scope="module", params=RUNS)
def exported(request, tmp_path_factory, small_data):
    """Return the exported model of a short run."""
    program, flags = RUNS[request.param]
    train_dir = tmp_path_factory.mktemp(request.param) / "run"
    common = [f"--data_dir={small_data}", "--validation_size=200", "--batch_size=20", "--train_steps=20"]
    return programs.train(program, train_dir, *common, *flags)["export_dir"]


def without_declared_shape(path):
    """Remove the input's shape from an ONNX model; onnxruntime checks a declared shape before it runs the graph."""
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    onnx.save(model, path)


ERRORS = (ValueError, RuntimeError, pybind11_state.Fail, pybind11_state.InvalidArgument)


def assert_wrong_images_raise(path):
    """Check that a converted model refuses other shapes than [N, 28, 28], and other dtypes; then predicts again."""
    _, load = model_conversion.FORMATS[path.suffix]
    predict = load(path)
    for shape in WRONG_SHAPES:
        with pytest.raises(ERRORS):
            predict({"images": np.zeros(shape, np.uint8)})
    with pytest.raises(ERRORS):
        predict({"images": np.zeros((2, 28, 28), np.float32)})
    assert predict({"images": np.zeros((2, 28, 28), np.uint8)})["classes"].shape == (2,)


@pytest.mark.parametrize("ending", ["onnx", "tflite"])
def test_the_converted_model_has_the_same_predictions(ending, exported, small_data, tmp_path, capfd):
    """All test images have the same class, the file is written, and its operations hold images to their shape."""
    target = tmp_path / f"model.{ending}"
    assert main([f"--saved_model={exported}", str(target), f"--data_dir={small_data}"]) == 0
    assert re.fullmatch(
        rf"{re.escape(str(target))}: 300 of 300 classes equal, probabilities within \d\.\de-\d\d\n",
        capfd.readouterr().out,
    )
    assert target.stat().st_size > 10_000
    assert_wrong_images_raise(target)
    if ending == "onnx":
        without_declared_shape(target)
        assert_wrong_images_raise(target)


@pytest.mark.parametrize(("target", "message"), [("there.onnx", "got a directory"), ("absent/x.onnx", "that exists")])
def test_a_target_that_cannot_be_written_is_an_error(target, message, exported, tmp_path, capsys):
    """A directory in its place, or a missing directory: an error before the conversion."""
    (tmp_path / "there.onnx").mkdir()
    assert main([f"--saved_model={exported}", str(tmp_path / target)]) == 1
    output = capsys.readouterr().err
    assert output.startswith(f"error: {tmp_path / target}: expected ")
    assert message in output


def test_a_model_with_other_predictions_is_not_written(tmp_path, small_data, capsys, monkeypatch):
    """A wrong conversion leaves no file."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", "--train_steps=20"]
    exported = programs.train("softmax", tmp_path / "run", *flags)["export_dir"]
    classes, probabilities = np.zeros(500, np.int64), np.zeros((500, 10), np.float32)

    def load(_path):
        return lambda inputs: {
            "classes": classes[: len(inputs["images"])],
            "probabilities": probabilities[: len(inputs["images"])],
        }

    write, _ = model_conversion.FORMATS[".tflite"]
    monkeypatch.setitem(model_conversion.FORMATS, ".tflite", (write, load))
    target = tmp_path / "model.tflite"
    assert main([f"--saved_model={exported}", str(target), f"--data_dir={small_data}"]) == 1
    assert "not written" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--saved_model=nowhere", "a.onnx"], 1, "nowhere: no SavedModel found"),
        (["--saved_model=nowhere", "a.pt"], 2, "expected a name that ends in .onnx or .tflite, got a.pt"),
    ],
)
def test_usage_errors_and_missing_models(arguments, status, message):
    """Exit status 2 or 1, a message, and no traceback."""
    command = [sys.executable, "-m", "mnist.convert", *arguments]
    ended = subprocess.run(command, cwd=programs.ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == status
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_missing_package_is_an_error_with_a_hint(tmp_path, small_data, monkeypatch, capsys):
    """The hint is the command that installs it."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", "--train_steps=20"]
    exported = programs.train("softmax", tmp_path / "run", *flags)["export_dir"]
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    assert main([f"--saved_model={exported}", str(tmp_path / "model.onnx"), f"--data_dir={small_data}"]) == 1
    expected = "error: tf2onnx is not installed\nhint: pip install -r requirements-convert.txt\n"
    assert expected in capsys.readouterr().err


def test_a_model_that_writes_files_is_refused(tmp_path, small_data, capsys):
    """No file is written without --trust."""
    victim = tmp_path / "victim"
    model = hostile.save(tmp_path / "1", tf.identity, initialise=lambda: tf.io.write_file(str(victim), "x"))
    command = [f"--saved_model={model}", str(tmp_path / "model.tflite"), f"--data_dir={small_data}"]
    assert main(command) == 1
    assert f"{model}: expected a graph that only computes, got operation WriteFile" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1"]
    assert main([*command, "--trust"]) == 0
    assert victim.exists()


class Hidden(tf.saved_model.experimental.TrackableResource):
    """A resource whose initializer writes a file."""

    def __init__(self, victim):
        """The argument is the path of the file."""
        super().__init__()
        self._victim = victim

    def _create_resource(self):
        return tf.raw_ops.HashTableV2(key_dtype=tf.int64, value_dtype=tf.int64, shared_name="hidden")

    def _initialize(self):
        tf.io.write_file(self._victim, "x")


def test_a_converter_gets_only_the_scanned_part(tmp_path, small_data):
    """tf.saved_model.load, which tf2onnx calls, runs functions that neither a signature nor the main_op calls."""
    victim = tmp_path / "victim"
    module = tf.Module()
    module.hidden = Hidden(str(victim))
    module.weights = tf.Variable(tf.linspace(0.0, 1.0, 10))

    @tf.function(input_signature=[tf.TensorSpec([None, 28, 28], tf.uint8, name="images")], autograph=False)
    def serve(images):
        probabilities = tf.cast(images[:, :1, 0], tf.float32) * 0 + tf.nn.softmax(module.weights)
        return {"classes": tf.argmax(probabilities, axis=1), "probabilities": probabilities}

    tf.saved_model.save(module, str(tmp_path / "1"), signatures=serve)

    def hide(meta_graph):
        del meta_graph.signature_def["__saved_model_init_op"]
        del meta_graph.collection_def["saved_model_main_op"]

    hostile.change(tmp_path / "1", hide)
    tf.saved_model.load(str(tmp_path / "1"))
    assert victim.exists()
    victim.unlink()
    command = [f"--saved_model={tmp_path / '1'}", str(tmp_path / "model.onnx"), f"--data_dir={small_data}"]
    assert main(command) == 0
    assert not victim.exists()
