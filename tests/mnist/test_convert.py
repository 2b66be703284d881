import re
import subprocess
import sys

import numpy as np
import pytest

from mnist import convert
from mnist.convert import main
from tests import programs

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
