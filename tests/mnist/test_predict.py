import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist.images.digit_segmentation import Digit
from mnist.input import dataset
from mnist.predict import main
from mnist.tools import digit_reader
from mnist.tools.digit_reader import FoundDigit
from tests import drawing, hostile, odd_files, programs


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    """Return the train_dir of cnn_fast: one epoch."""
    train_dir = tmp_path_factory.mktemp("fast") / "run"
    programs.train("cnn", train_dir, "--config=cnn_fast")
    return train_dir


@pytest.fixture(scope="module")
def test_split():
    """Return MNIST's test images and labels."""
    return dataset.load(None, 0).test


@pytest.fixture
def predict(fast, capsys):
    """Run the program with --json; return its objects and its standard error."""

    def call(*arguments, status=0, model=None):
        ended = main([*map(str, arguments), model or f"--train_dir={fast}", "--json"])
        printed = capsys.readouterr()
        assert ended == status, printed.err
        return [json.loads(line) for line in printed.out.splitlines()], printed.err

    return call


def test_drawings_are_recognised(predict, tmp_path):
    """Of 100 drawings, ten of each kind, at least 97 are classified correctly, and each has one digit."""
    drawing.write(tmp_path, 100)
    found, _ = predict(tmp_path)
    assert len(found) == 100
    wrong = [each["file"] for each in found if str(each["digit"]) != Path(each["file"]).name[0]]
    assert len(wrong) <= 3, wrong


def test_images_as_png_and_as_array_have_the_same_predictions(predict, test_split, tmp_path):
    """All probabilities are equal, and nearly all digits are correct."""
    images = test_split.images[:50]
    for number, image in enumerate(images):
        (tmp_path / "png").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "png" / f"{number:03d}.png")
    np.save(tmp_path / "all.npy", images)
    by_png, by_array = predict(tmp_path / "png")[0], predict(tmp_path / "all.npy")[0]
    assert by_array[7]["file"] == f"{tmp_path / 'all.npy'}[7]"
    assert [{**each, "file": ""} for each in by_png] == [{**each, "file": ""} for each in by_array]
    assert sum(each["digit"] == label for each, label in zip(by_png, test_split.labels, strict=False)) >= 49


def test_every_page_has_a_prediction_and_a_damaged_one_is_an_error(predict, test_split, tmp_path):
    """A TIFF of three pages, whole and cut off in its last page; the images after it are predicted."""
    pages = [Image.fromarray(each) for each in test_split.images[:3]]
    path, cut = tmp_path / "scan.tif", tmp_path / "cut.tif"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    cut.write_bytes(path.read_bytes()[:-100])
    found, _ = predict(path)
    assert [(each["file"], each["digit"]) for each in found] == [(f"{path}[{n}]", d) for n, d in enumerate((7, 2, 1))]
    found, errors = predict(cut, path, status=1)
    assert [each["digit"] for each in found] == [7, 2, 7, 2, 1]
    assert re.fullmatch(rf"error: {re.escape(str(cut))}\[2\]: the image is damaged .*\nhint: .*\n", errors)


def test_each_object_has_its_five_parts(predict, fast, test_split, tmp_path):
    """The keys are in their documented order, and the runners-up are sorted by probability."""
    path = tmp_path / "digit.png"
    Image.fromarray(test_split.images[0]).save(path)
    ((found,), _) = predict(path, model=f"--saved_model={programs.result(fast)['export_dir']}")
    assert list(found) == ["file", "digit", "probability", "runners_up", "warnings"]
    assert (found["file"], found["digit"], found["warnings"]) == (str(path), 7, [])
    others = [each["probability"] for each in found["runners_up"]]
    assert len(others) == 3
    assert found["probability"] >= others[0] >= others[1] >= others[2]


def test_bad_files_are_errors_and_the_others_are_predicted(predict, test_split, tmp_path):
    """A truncated image, a text, a missing file, an empty directory and a blank page: exit status 1."""
    good = tmp_path / "good.png"
    Image.fromarray(test_split.images[0]).save(good)
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:60])
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty").mkdir()
    Image.new("L", (50, 50), 255).save(tmp_path / "blank.png")
    names = ["cut.png", "text.png", "missing.png", "empty", "blank.png"]
    found, output = predict(good, *(tmp_path / name for name in names), good, status=1)
    assert [each["digit"] for each in found] == [7, None, 7]
    for name in names:
        assert re.search(rf"^error: {re.escape(str(tmp_path / name))}: .*$", output, re.MULTILINE), name
    assert re.fullmatch(r"(error: .*\n(hint: .*\n)?)*", output)


def test_the_input_of_the_model_is_shown_and_written(fast, test_split, tmp_path, capsys):
    """--show prints it, --seen writes it as a PNG."""
    path = tmp_path / "digit.png"
    Image.fromarray(255 - test_split.images[0]).save(path)
    assert main([str(path), f"--train_dir={fast}", "--show", f"--seen={tmp_path / 'seen'}"]) == 0
    output = capsys.readouterr().out
    assert "dark on light" in output
    assert digit_reader.as_text(test_split.images[0]) in output
    (seen,) = (tmp_path / "seen").iterdir()
    np.testing.assert_array_equal(np.asarray(Image.open(seen)), test_split.images[0])


def test_special_files_are_errors_and_the_others_are_predicted(predict, test_split, tmp_path):
    """A FIFO, a device and a socket in a directory: an error each, without blocking, and the image is predicted."""
    Image.fromarray(test_split.images[0]).save(tmp_path / "good.png")
    for kind in ("FIFO", "device", "socket", "link to a FIFO", "dangling link"):
        odd_files.make(kind, tmp_path / kind)
    with odd_files.no_hang(60):
        found, output = predict(tmp_path, status=1)
    assert [each["digit"] for each in found] == [7]
    for kind in ("FIFO", "device", "socket", "link to a FIFO", "dangling link"):
        assert f"error: {tmp_path / kind}: cannot be read" in output
    assert "Traceback" not in output


def test_a_file_name_that_is_not_utf_8_is_printed(fast, test_split, tmp_path, capfd):
    """Bytes that are not UTF-8 are printed as escapes."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    with path.open("wb") as file:
        Image.fromarray(test_split.images[0]).save(file, "PNG")
    assert main([str(path), f"--train_dir={fast}"]) == 0
    assert "\\xff.png: 7" in capfd.readouterr().out


def test_seen_must_be_a_new_or_empty_directory(fast, tmp_path, capsys):
    """Otherwise it is an error before the model is opened, and nothing is overwritten."""
    (tmp_path / "seen").write_text("mine")
    assert main([str(tmp_path / "x.png"), f"--train_dir={fast}", f"--seen={tmp_path / 'seen'}"]) == 1
    assert f"error: --seen={tmp_path / 'seen'}: expected a directory" in capsys.readouterr().err
    assert (tmp_path / "seen").read_text() == "mine"
    assert main([str(tmp_path / "x.png"), f"--train_dir={fast}", f"--seen={tmp_path}"]) == 1
    assert f"error: --seen={tmp_path}: expected a directory that is new or empty, got one with files" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(("probability", "warnings"), [(0.95, []), (0.55, ["unsure: it could be 4 as well"])])
def test_an_unsure_prediction_has_a_warning(probability, warnings):
    """The warning names the second most probable digit."""
    probabilities = np.full((1, 10), 0.001)
    probabilities[0, [9, 4]] = probability, 0.9 - probability + 0.09
    digit = Digit(np.zeros((28, 28), np.uint8), "as in MNIST")
    outputs = {"classes": np.array([9]), "probabilities": probabilities}
    ((_, found),) = digit_reader.predict(lambda _: outputs, [FoundDigit("file", digit)])
    assert found["digit"] == 9
    assert found["runners_up"][0]["digit"] == 4
    assert found["warnings"] == warnings


@pytest.mark.parametrize(
    ("left", "right", "warnings"),
    [
        (0.95, 0.9, ["it may be two digits that touch: 1 and 4"]),
        (0.95, 0.7, []),  # one of the halves is no digit
        (0.7, 0.95, []),
    ],
)
def test_halves_that_the_model_is_more_certain_of_have_a_warning(left, right, warnings):
    """Of several pairs of halves the surest one counts; it is named if both of it are surer than the whole."""
    whole, pair, worse = (np.full((2, 28, 28), shade, np.uint8) for shade in (0, 100, 200))
    pair[1], worse[1] = 101, 201
    answers = {0: (9, 0.8), 100: (1, left), 101: (4, right), 200: (3, 0.5), 201: (5, 0.99)}

    def model(arrays):
        read = [answers[int(image[0, 0])] for image in arrays["images"]]
        probabilities = np.zeros((len(read), 10), np.float32)
        for row, (digit, probability) in zip(probabilities, read, strict=True):
            row[digit] = probability
        return {"classes": np.array([digit for digit, _ in read]), "probabilities": probabilities}

    halved = Digit(whole[0], "dark on light", halves=(tuple(worse), tuple(pair)))
    plain = Digit(whole[1], "dark on light")
    records = [record for _, record in digit_reader.predict(model, [FoundDigit("a", halved), FoundDigit("b", plain)])]
    assert [record["digit"] for record in records] == [9, 9]
    assert [record["warnings"] for record in records] == [warnings, []]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "FILE"),
        (["x.png", "--train_dir=a", "--saved_model=b"], 2, "not allowed with"),
        (["x.png", "--train_dir=nowhere"], 1, "nowhere: no checkpoint found"),
        (["x.png"], 1, "train one with `python train_cnn.py"),
    ],
)
def test_usage_errors_and_missing_models(arguments, status, message, tmp_path):
    """Exit status 2 or 1, a message, and no traceback."""
    command = [sys.executable, "-m", "mnist.predict", *arguments]
    environment = {"PYTHONPATH": str(programs.ROOT), "PATH": ""}
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == status
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_model_that_writes_files_is_refused(predict, tmp_path):
    """It is not run without --trust."""
    drawing.write(tmp_path / "pictures", 1)
    model = hostile.save(tmp_path / "1", hostile.writing(tmp_path / "victim"))
    _, found = predict(tmp_path / "pictures", model=f"--saved_model={model}", status=1)
    assert found.startswith(f"error: {model}: expected a graph that only computes, got operation WriteFile at node ")
    assert re.fullmatch(r"error: .*\n(hint: .*\n)?", found)
    assert not (tmp_path / "victim").exists()
    found, _ = predict(tmp_path / "pictures", "--trust", model=f"--saved_model={model}")
    assert [each["digit"] for each in found] == [9]
    assert (tmp_path / "victim").exists()
