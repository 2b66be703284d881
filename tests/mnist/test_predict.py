import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from checkpointing.graphs.predictor import Predictor
from mnist.images.digit_segmentation import Digit
from mnist.input import dataset
from mnist.predict import Found, answers, drawn, main
from tests import drawing, hostile, odd_files, programs


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    """The train_dir of cnn_fast: one epoch."""
    train_dir = tmp_path_factory.mktemp("fast") / "run"
    programs.train("cnn", train_dir, "--config=cnn_fast")
    return train_dir


@pytest.fixture(scope="module")
def test_split():
    """MNIST's own test images and labels."""
    return dataset.load(None, 0).test


@pytest.fixture
def predict(fast, capsys):
    """Calls the program; gives the objects that it told, and what it said of errors."""

    def call(*arguments, status=0, model=None):
        found = main([*map(str, arguments), model or f"--train_dir={fast}", "--json"])
        said = capsys.readouterr()
        assert found == status, said.err
        return [json.loads(line) for line in said.out.splitlines()], said.err

    return call


def test_drawings_are_recognised(predict, tmp_path):
    """Of 100 pictures, ten of each kind, at least 97 are read right, and each holds one digit."""
    drawing.write(tmp_path, 100)
    told, _ = predict(tmp_path)
    assert len(told) == 100
    wrong = [each["file"] for each in told if str(each["digit"]) != Path(each["file"]).name[0]]
    assert len(wrong) <= 3, wrong


def test_test_images_as_png_are_answered_as_they_are(predict, test_split, tmp_path):
    """To the last digit: through PNG, IDX and .npy, from the checkpoint and from the exported model."""
    images = test_split.images[:50]
    for number, image in enumerate(images):
        (tmp_path / "png").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "png" / f"{number:03d}.png")
    np.save(tmp_path / "all.npy", images)
    by_png, by_array = predict(tmp_path / "png")[0], predict(tmp_path / "all.npy")[0]
    assert by_array[7]["file"] == f"{tmp_path / 'all.npy'}[7]"
    assert [{**each, "file": ""} for each in by_png] == [{**each, "file": ""} for each in by_array]
    assert sum(each["digit"] == label for each, label in zip(by_png, test_split.labels, strict=False)) >= 49


def test_each_object_has_its_five_parts(predict, fast, test_split, tmp_path):
    """As programs rely on; the probabilities are those of digits, most likely first."""
    path = tmp_path / "digit.png"
    Image.fromarray(test_split.images[0]).save(path)
    ((told,), _) = predict(path, model=f"--saved_model={programs.result(fast)['export_dir']}")
    assert list(told) == ["file", "digit", "probability", "runners_up", "warnings"]
    assert (told["file"], told["digit"], told["warnings"]) == (str(path), 7, [])
    others = [each["probability"] for each in told["runners_up"]]
    assert len(others) == 3
    assert told["probability"] >= others[0] >= others[1] >= others[2]


def test_bad_files_are_named_and_the_others_answered(predict, test_split, tmp_path):
    """A truncated picture, a text, a missing file, an empty directory, a blank page: status 1."""
    good = tmp_path / "good.png"
    Image.fromarray(test_split.images[0]).save(good)
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:60])
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty").mkdir()
    Image.new("L", (50, 50), 255).save(tmp_path / "blank.png")
    names = ["cut.png", "text.png", "missing.png", "empty", "blank.png"]
    told, said = predict(good, *(tmp_path / name for name in names), good, status=1)
    assert [each["digit"] for each in told] == [7, None, 7]
    for name in names:
        assert re.search(rf"^error: {re.escape(str(tmp_path / name))}: .*\.$", said, re.MULTILINE), name


def test_what_the_model_sees_is_shown_and_written(fast, test_split, tmp_path, capsys):
    """In the terminal, and as a picture that is the model's own input."""
    path = tmp_path / "digit.png"
    Image.fromarray(255 - test_split.images[0]).save(path)
    assert main([str(path), f"--train_dir={fast}", "--show", f"--seen={tmp_path / 'seen'}"]) == 0
    said = capsys.readouterr().out
    assert "dark on light" in said
    assert drawn(test_split.images[0]) in said
    (seen,) = (tmp_path / "seen").iterdir()
    np.testing.assert_array_equal(np.asarray(Image.open(seen)), test_split.images[0])


def test_what_is_no_file_is_named_and_the_others_answered(predict, test_split, tmp_path):
    """A FIFO, a device and a socket in a directory of pictures: an error each, no wait, and the picture's answer."""
    Image.fromarray(test_split.images[0]).save(tmp_path / "good.png")
    for kind in ("FIFO", "device", "socket", "link to a FIFO", "dangling link"):
        odd_files.make(kind, tmp_path / kind)
    with odd_files.no_hang(60):
        told, said = predict(tmp_path, status=1)
    assert [each["digit"] for each in told] == [7]
    for kind in ("FIFO", "device", "socket", "link to a FIFO", "dangling link"):
        assert f"error: {tmp_path / kind}: cannot be read" in said
    assert "Traceback" not in said


def test_a_name_that_is_not_utf_8_is_answered(fast, test_split, tmp_path, capfd):
    """Its odd bytes are printed as digits, and the run goes on."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    with path.open("wb") as file:
        Image.fromarray(test_split.images[0]).save(file, "PNG")
    assert main([str(path), f"--train_dir={fast}"]) == 0
    assert "\\xff.png: 7" in capfd.readouterr().out


def test_a_file_in_place_of_the_directory_to_write_to_is_named(fast, tmp_path, capsys):
    """Before the model is opened, in one sentence; the file stays as it was."""
    (tmp_path / "seen").write_text("mine")
    assert main([str(tmp_path / "x.png"), f"--train_dir={fast}", f"--seen={tmp_path / 'seen'}"]) == 1
    assert f"error: --seen={tmp_path / 'seen'}: expected a directory" in capsys.readouterr().err
    assert (tmp_path / "seen").read_text() == "mine"


@pytest.mark.parametrize(("sure", "doubts"), [(0.95, []), (0.55, ["unsure: it could be 4 as well"])])
def test_an_unsure_answer_says_so(sure, doubts):
    """And what else it could be."""
    probabilities = np.full((1, 10), 0.001)
    probabilities[0, [9, 4]] = sure, 0.9 - sure + 0.09
    model = Predictor(Path("model"), lambda _: {"classes": np.array([9]), "probabilities": probabilities})
    digit = Digit(np.zeros((28, 28), np.uint8), "as in MNIST")
    (told,) = answers(model, [Found("file", digit)])
    assert told["digit"] == 9
    assert told["runners_up"][0]["digit"] == 4
    assert told["warnings"] == doubts


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ([], 2, "FILE"),
        (["x.png", "--train_dir=a", "--saved_model=b"], 2, "not allowed with"),
        (["x.png", "--train_dir=nowhere"], 1, "nowhere: no checkpoint found"),
        (["x.png"], 1, "train one by `python train_cnn.py"),
    ],
)
def test_wrong_usage_is_told(arguments, status, told, tmp_path):
    """In one sentence, whatever is missing."""
    command = [sys.executable, "-m", "mnist.predict", *arguments]
    environment = {"PYTHONPATH": str(programs.ROOT), "PATH": ""}
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == status
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_model_that_writes_files_is_refused(predict, tmp_path):
    """In one sentence; --trust runs it."""
    drawing.write(tmp_path / "pictures", 1)
    model = hostile.save(tmp_path / "1", hostile.writing(tmp_path / "victim"))
    _, told = predict(tmp_path / "pictures", model=f"--saved_model={model}", status=1)
    assert told.startswith(f"error: {model}: expected a graph that only computes, got operation WriteFile at node ")
    assert [line.partition(":")[0] for line in told.splitlines()] == ["error", "hint"]
    assert not (tmp_path / "victim").exists()
    told, _ = predict(tmp_path / "pictures", "--trust", model=f"--saved_model={model}")
    assert [each["digit"] for each in told] == [9]
    assert (tmp_path / "victim").exists()
