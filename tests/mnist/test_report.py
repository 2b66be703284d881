import base64
import io
import json
import re
import shutil
import signal
import subprocess
import tracemalloc
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from mnist import report
from mnist.report import main
from mnist.reporting import plots
from tests import programs

FLAGS = ["--validation_size=200", "--batch_size=20", "--save_every_steps=10", "--evaluate_every_steps=10"]


class Page(HTMLParser):
    """What a browser would find: titles, cells of tables, pictures, and whatever it would have to fetch."""

    def __init__(self, text):
        """Reads a page."""
        super().__init__()
        self.titles, self.cells, self.pictures, self.fetched = [], [], [], []
        self._within = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        """Notes what is referred to."""
        self._within = tag
        for name, value in attributes:
            if name in {"src", "href"}:
                (self.pictures if value.startswith("data:image/png") else self.fetched).append(value)

    def handle_endtag(self, _tag):
        """Text after it belongs to nothing."""
        self._within = None

    def handle_data(self, data):
        """Sorts text by the element around it."""
        if self._within in {"h1", "h2"}:
            self.titles.append(data)
        if self._within == "td":
            self.cells.append(data)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory, small_data):
    """A CNN's train_dir whose run was killed once."""
    train_dir = tmp_path_factory.mktemp("resumed") / "run"
    flags = [f"--train_dir={train_dir}", f"--data_dir={small_data}", "--train_steps=60", "--log_every_steps=5", *FLAGS]
    watched = programs.Watched("cnn", *flags)
    watched.wait_for("saved ")
    watched.process.send_signal(signal.SIGKILL)
    watched.end()
    programs.train("cnn", train_dir, *flags[1:])
    return train_dir


@pytest.fixture(scope="module")
def reported(resumed, small_data, tmp_path_factory):
    """A copy of it with its report."""
    train_dir = shutil.copytree(resumed, tmp_path_factory.mktemp("reported") / "run")
    assert main([f"--train_dir={train_dir}", f"--data_dir={small_data}"]) == 0
    return train_dir


def test_the_page_is_whole_in_itself(reported):
    """All its pictures lie in it, and nothing is fetched from anywhere."""
    page = Page((reported / "report.html").read_text())
    assert page.titles[1:] == [
        *("Learning", "Mistakes by digit", "Surest mistakes", "Calibration", "First layer"),
        *("Checkpoints", "Attempts", "Made with", "Settings"),
    ]
    assert len(page.pictures) == 5
    assert page.fetched == ["data:,"]
    for picture in page.pictures:
        content = base64.b64decode(picture.partition(",")[2])
        assert Image.open(io.BytesIO(content)).size[0] > 600


def test_its_figures_are_those_of_the_run(reported, resumed):
    """Accuracy, hash, checkpoints and settings, as result.json and the manifests have them."""
    result, page = programs.result(resumed), Page((reported / "report.html").read_text())
    assert f"<b>{result['test_accuracy']:.4f}</b>" in (reported / "report.html").read_text()
    assert result["weights_sha256"] in page.cells
    assert {"model.ckpt-60", "model.ckpt-50", "architecture", "tutorial"} <= set(page.cells)


def test_a_run_writes_the_same_when_it_ends(tmp_path, small_data):
    """What it had asked anyway is what is shown; run again, it is looked at again."""
    train_dir = tmp_path / "run"
    flags = [f"--data_dir={small_data}", "--train_steps=40", *FLAGS]
    programs.train("softmax", train_dir, *flags, "--report")
    own = (train_dir / "report.html").read_text()
    assert main([f"--train_dir={train_dir}", f"--data_dir={small_data}"]) == 0
    assert Page(own).cells == Page((train_dir / "report.html").read_text()).cells
    assert f"<b>{programs.result(train_dir)['test_accuracy']:.4f}</b>" in own
    programs.train("softmax", train_dir, *flags)
    assert Page(own).titles == Page((train_dir / "report.html").read_text()).titles


def test_a_report_that_cannot_be_written_fails_no_run(tmp_path, small_data):
    """Where it should go, something else is in the way: a warning, and the run has succeeded."""
    train_dir = tmp_path / "run"
    (train_dir / "report").parent.mkdir()
    (train_dir / "report").write_text("in the way")
    ended = programs.run(
        "softmax", f"--train_dir={train_dir}", f"--data_dir={small_data}", "--train_steps=40", *FLAGS, "--report"
    )
    assert ended.returncode == 0
    assert "the report could not be written" in ended.stderr
    assert programs.result(train_dir)["step"] == 40


def test_the_kill_is_on_the_page(reported):
    """An attempt that was killed, and the one that ended."""
    cells = Page((reported / "report.html").read_text()).cells
    assert cells.count("killed") == 1
    assert cells.count("done") == 1


def test_pictures_lie_beside_it(reported):
    """The same, as files."""
    names = {path.name for path in (reported / "report").iterdir()}
    assert names == {
        *("learning.png", "mistakes-by-digit.png", "surest-mistakes.png", "calibration.png", "first-layer.png")
    }


def test_pictures_are_not_written_through_a_link(resumed, small_data, tmp_path, capsys):
    """What the link leads to stays as it was."""
    train_dir = shutil.copytree(resumed, tmp_path / "run")
    (tmp_path / "precious").mkdir()
    shutil.rmtree(train_dir / "report", ignore_errors=True)
    (train_dir / "report").symlink_to(tmp_path / "precious")
    assert main([f"--train_dir={train_dir}", f"--data_dir={small_data}"]) == 1
    assert "report: expected a directory, got a symbolic link" in capsys.readouterr().err
    assert not list((tmp_path / "precious").iterdir())


def test_nothing_else_in_the_train_dir_changes(reported, resumed):
    """A run goes on after it as before."""

    def files(directory):
        paths = (path for path in directory.rglob("*") if path.is_file())
        contents = {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}
        return {name: content for name, content in contents.items() if not name.startswith("report")}

    assert "result.json" in files(resumed)
    assert files(reported) == files(resumed)


def test_the_learning_curves_show_the_records():
    """One point a record, one line a resume in each of the three axes."""
    records = [
        {"step": step, "loss": 1 / step, "learning_rate": 0.1, "images_per_second": 100.0}
        for step in range(10, 100, 10)
    ]
    records[4]["validation_accuracy"] = 0.75
    figure = plots.learning_curve(records, [(40, "killed")])
    losses, rates, speeds, errors = figure.axes
    np.testing.assert_allclose(losses.get_lines()[0].get_ydata(), [each["loss"] for each in records])
    np.testing.assert_allclose(errors.get_lines()[0].get_xydata(), [[50, 25.0]])
    assert [line.get_xdata()[0] for axes in (losses, rates, speeds) for line in axes.get_lines()[1:]] == [40] * 3


def test_the_confusion_matrix_counts_each_image_once():
    """Rows are labels, columns answers."""
    labels, classes = np.array([3, 3, 3, 5], np.uint8), np.array([3, 3, 5, 5])
    texts = [text.get_text() for text in plots.confusion(labels, classes).axes[0].texts]
    assert (texts[33], texts[35], texts[55]) == ("2", "1", "1")
    assert sum(map(int, texts)) == 4


def test_the_surest_mistakes_come_first():
    """At most so many, none that is right, and each caption above its image."""
    probabilities = np.full((4, 10), 0.01)
    classes = np.array([1, 2, 3, 4])
    probabilities[range(4), classes] = [0.5, 0.9, 0.99, 0.7]
    images = np.arange(4)[:, None, None] * np.ones((28, 28))
    [axes] = plots.confusion_matrix(images, np.array([0, 0, 3, 0]), classes, probabilities, most=2).axes
    assert [text.get_text() for text in axes.texts] == ["0 as 2, 0.90\nimage 1", "0 as 4, 0.70\nimage 3"]
    assert [image.get_array().max() for image in axes.images] == [1, 3]
    for text, image in zip(axes.texts, axes.images, strict=True):
        left, right, bottom, top = image.get_extent()
        x, y = text.get_position()
        assert x == pytest.approx((left + right) / 2)
        assert y < top < bottom


@pytest.mark.parametrize("shape", [(784, 10), (5, 5, 1, 16), (5, 5, 1, 100)])
def test_the_first_layers_weights_are_side_by_side(shape):
    """An image a class or a channel, of the first 64; none overlaps another or leaves the page."""
    [axes] = plots.first_weights(np.random.default_rng(0).normal(size=shape)).axes
    count = min(64, shape[-1])
    assert [text.get_text() for text in axes.texts] == [str(number) for number in range(count)]
    corners = sorted((image.get_extent()[3], image.get_extent()[0]) for image in axes.images)
    assert len(set(corners)) == count
    width, height = axes.figure.get_size_inches()
    for left, right, bottom, top in (image.get_extent() for image in axes.images):
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert not [(y, x) for y, x in corners if (y, x) != (top, left) and top <= y < bottom and left <= x < right]


def test_calibration_of_a_model_that_is_as_sure_as_right():
    """Eight of ten right at 0.8 is no error; ten of ten is one of 0.2."""
    probabilities = np.full((10, 10), 0.2 / 9)
    probabilities[:, 0] = 0.8
    classes = np.zeros(10, int)
    labels = np.array([0] * 8 + [1] * 2)
    assert plots.reliability_diagram(labels, classes, probabilities)[1] == pytest.approx(0.0)
    assert plots.reliability_diagram(classes, classes, probabilities)[1] == pytest.approx(0.2)


@pytest.mark.parametrize("flags", [["--train_dir=nowhere"], ["--data_dir=nowhere"]])
def test_what_is_missing_is_told(flags, resumed, capsys):
    """In one sentence."""
    status = main([f"--train_dir={resumed}", *flags])
    assert status == 1
    assert re.fullmatch(r"error: .*nowhere.*\.\n", capsys.readouterr().err)


def test_other_data_than_the_runs_is_refused(resumed, capsys):
    """The bundled MNIST is not what this run was made with."""
    assert main([f"--train_dir={resumed}"]) == 1
    assert "give its --data_dir" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium")
@pytest.mark.parametrize("width", [360, 1280])
def test_a_browser_shows_it(width, reported, tmp_path):
    """On a telephone and on a desk: nothing to complain of on its console, and a picture that is not blank."""
    shot = tmp_path / "shot.png"
    flags = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"),
        *("--enable-logging=stderr", f"--window-size={width},2400", f"--screenshot={shot}"),
    ]
    ended = subprocess.run(
        ["chromium", *flags, (reported / "report.html").as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "CONSOLE" not in ended.stderr
    assert np.asarray(Image.open(shot).convert("L")).std() > 10


def test_the_curves_of_a_long_run_are_thinned_out(tmp_path):
    """Memory does not grow with its journal; ends and validations are drawn, and all steps are counted."""
    record = {"loss": 0.5, "learning_rate": 0.1, "images_per_second": 1000.0}
    with (tmp_path / "metrics.jsonl").open("w") as file:
        for step in range(1, 40_001):
            validated = {"validation_accuracy": 0.9} if step % 10 == 0 else {}
            file.write(json.dumps({"step": step, **record, **validated}) + "\n")
    tracemalloc.start()
    try:
        metrics, count = report._metrics(tmp_path)  # noqa: SLF001
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()
    steps = [each["step"] for each in metrics]
    assert count == 40_000
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (1, 40_000)
    assert len(steps) < 10_000
    assert sum("validation_accuracy" in each for each in metrics) == 4000


@pytest.mark.parametrize("value", [None, True, "0.5", [], float("nan"), 10**400], ids=lambda value: str(value)[:5])
@pytest.mark.parametrize("name", ["loss", "learning_rate", "images_per_second", "validation_accuracy"])
def test_a_record_of_other_types_is_not_drawn(tmp_path, name, value):
    """Of those that a flipped bit has changed, what is no number is left out."""
    record = {"step": 5, "loss": 0.5, "learning_rate": 0.1, "images_per_second": 1.0, "validation_accuracy": 0.9}
    (tmp_path / "metrics.jsonl").write_text(
        json.dumps(record | {name: value, "step": 4}) + "\n" + json.dumps(record) + "\n"
    )
    metrics, _ = report._metrics(tmp_path)  # noqa: SLF001
    assert metrics[-1] == record
    assert all(isinstance(each.get("validation_accuracy", 0.0), float) for each in metrics)
    plots.learning_curve(metrics, [])
