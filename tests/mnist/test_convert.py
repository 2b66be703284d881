import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from mnist import convert
from mnist.convert import main
from tests import hostile, programs

RUNS = {
    "softmax": ("softmax", []),
    "small": ("cnn", ["--architecture=small", "--crops=3"]),
    "tutorial": ("cnn", []),
}


@pytest.fixture(scope="module", params=RUNS)
def exported(request, tmp_path_factory, small_data):
    """The exported model of a short run."""
    program, flags = RUNS[request.param]
    train_dir = tmp_path_factory.mktemp(request.param) / "run"
    common = [f"--data_dir={small_data}", "--validation_size=200", "--batch_size=20", "--train_steps=20"]
    return programs.train(program, train_dir, *common, *flags)["export_dir"]


@pytest.mark.parametrize("ending", ["onnx", "tflite"])
def test_the_converted_model_answers_alike(ending, exported, small_data, tmp_path, capfd):
    """All test images have the same class; and the file is there."""
    target = tmp_path / f"model.{ending}"
    assert main([f"--saved_model={exported}", str(target), f"--data_dir={small_data}"]) == 0
    assert re.fullmatch(
        rf"{re.escape(str(target))}: 300 of 300 classes alike, probabilities within \d\.\de-\d\d\n",
        capfd.readouterr().out,
    )
    assert target.stat().st_size > 10_000


@pytest.mark.parametrize(("target", "told"), [("there.onnx", "got a directory"), ("absent/x.onnx", "that exists")])
def test_a_place_that_cannot_be_written_is_named_at_once(target, told, exported, tmp_path, capsys):
    """A directory in the place of the file, or none to put it into: said before anything is converted."""
    (tmp_path / "there.onnx").mkdir()
    assert main([f"--saved_model={exported}", str(tmp_path / target)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / target}: expected ")
    assert told in said


def test_what_answers_otherwise_is_not_written(tmp_path, small_data, capsys, monkeypatch):
    """A converter that has lost something leaves no file."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", "--train_steps=20"]
    exported = programs.train("softmax", tmp_path / "run", *flags)["export_dir"]
    classes, probabilities = np.zeros(500, np.int64), np.zeros((500, 10), np.float32)

    def ask(_path):
        return lambda inputs: {
            "classes": classes[: len(inputs["images"])],
            "probabilities": probabilities[: len(inputs["images"])],
        }

    write, _ = convert._FORMATS[".tflite"]  # noqa: SLF001 - the converter that fails
    monkeypatch.setitem(convert._FORMATS, ".tflite", (write, ask))  # noqa: SLF001
    target = tmp_path / "model.tflite"
    assert main([f"--saved_model={exported}", str(target), f"--data_dir={small_data}"]) == 1
    assert "not written" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["--saved_model=nowhere", "a.onnx"], 1, "nowhere: no SavedModel found there"),
        (["--saved_model=nowhere", "a.pt"], 2, "a name that ends in .onnx or .tflite wanted"),
    ],
)
def test_wrong_usage_is_told(arguments, status, told):
    """In one sentence."""
    command = [sys.executable, "-m", "mnist.convert", *arguments]
    ended = subprocess.run(command, cwd=programs.ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == status
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_package_that_is_missing_is_named(tmp_path, small_data, monkeypatch, capsys):
    """With what installs it."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", "--train_steps=20"]
    exported = programs.train("softmax", tmp_path / "run", *flags)["export_dir"]
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    assert main([f"--saved_model={exported}", str(tmp_path / "model.onnx"), f"--data_dir={small_data}"]) == 1
    assert "tf2onnx is not installed: pip install -r requirements-convert.txt" in capsys.readouterr().err


def test_a_model_that_writes_files_is_refused(tmp_path, small_data, capsys):
    """Without a file of either kind; --trust converts it."""
    victim = tmp_path / "victim"
    model = hostile.save(tmp_path / "1", tf.identity, initialise=lambda: tf.io.write_file(str(victim), "x"))
    command = [f"--saved_model={model}", str(tmp_path / "model.tflite"), f"--data_dir={small_data}"]
    assert main(command) == 1
    assert f"{model}: expected a graph that only computes, got operation WriteFile" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1"]
    assert main([*command, "--trust"]) == 0
    assert victim.exists()


class Hidden(tf.saved_model.experimental.TrackableResource):
    """A resource whose initialiser writes a file."""

    def __init__(self, victim):
        """The file's path."""
        super().__init__()
        self._victim = victim

    def _create_resource(self):
        return tf.raw_ops.HashTableV2(key_dtype=tf.int64, value_dtype=tf.int64, shared_name="hidden")

    def _initialize(self):
        tf.io.write_file(self._victim, "x")


def test_a_converter_gets_no_more_than_was_scanned(tmp_path, small_data):
    """tf.saved_model.load, which tf2onnx calls, runs functions that no signature and no main operation calls."""
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
