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

from mnist.report import main
from mnist.reporting import plots
from mnist.tools import run_report
from tests import programs

FLAGS = ["--validation_size=200", "--batch_size=20", "--save_every_steps=10", "--evaluate_every_steps=10"]


class Page(HTMLParser):
    """The titles, table cells and images of a page, and the addresses that a browser would fetch."""

    def __init__(self, text):
        """Parse a page."""
        super().__init__()
        self.titles, self.cells, self.pictures, self.fetched = [], [], [], []
        self._within = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        """Collect addresses."""
        self._within = tag
        for name, value in attributes:
            if name in {"src", "href"}:
                (self.pictures if value.startswith("data:image/png") else self.fetched).append(value)

    def handle_endtag(self, _tag):
        """Text that follows belongs to no element."""
        self._within = None

    def handle_data(self, data):
        """Collect text by its element."""
        if self._within in {"h1", "h2"}:
            self.titles.append(data)
        if self._within == "td":
            self.cells.append(data)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory, small_data):
    """Return the train_dir of a CNN's run that was killed once."""
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
    """Return a copy of it with its report."""
    train_dir = shutil.copytree(resumed, tmp_path_factory.mktemp("reported") / "run")
    assert main([f"--train_dir={train_dir}", f"--data_dir={small_data}"]) == 0
    return train_dir


def test_the_page_needs_no_other_file(reported):
    """All plots are in the page, and nothing is fetched."""
    page = Page((reported / "report.html").read_text())
    assert page.titles[1:] == [
        *("Learning curves", "Confusion matrix", "Most confident errors", "Reliability diagram", "First layer"),
        *("Checkpoints", "Attempts", "Made with", "Settings"),
    ]
    assert len(page.pictures) == 5
    assert page.fetched == ["data:,"]
    for picture in page.pictures:
        content = base64.b64decode(picture.partition(",")[2])
        assert Image.open(io.BytesIO(content)).size[0] > 600


def test_the_page_agrees_with_the_run(reported, resumed):
    """Accuracy, hash, checkpoints and settings are those in result.json and the manifests."""
    result, page = programs.result(resumed), Page((reported / "report.html").read_text())
    assert f"<b>{result['test_accuracy']:.4f}</b>" in (reported / "report.html").read_text()
    assert result["weights_sha256"] in page.cells
    assert {"model.ckpt-60", "model.ckpt-50", "architecture", "tutorial"} <= set(page.cells)


def test_a_run_writes_the_same_when_it_ends(tmp_path, small_data):
    """Its report equals that of the command line. A finished run that is started again writes it again."""
    train_dir = tmp_path / "run"
    flags = [f"--data_dir={small_data}", "--train_steps=40", *FLAGS]
    programs.train("softmax", train_dir, *flags, "--report")
    own = (train_dir / "report.html").read_text()
    assert main([f"--train_dir={train_dir}", f"--data_dir={small_data}"]) == 0
    assert Page(own).cells == Page((train_dir / "report.html").read_text()).cells
    assert f"<b>{programs.result(train_dir)['test_accuracy']:.4f}</b>" in own
    programs.train("softmax", train_dir, *flags)
    assert Page(own).titles == Page((train_dir / "report.html").read_text()).titles


def test_a_report_that_cannot_be_written_is_a_warning(tmp_path, small_data):
    """A file is in the directory's place: the run succeeds."""
    train_dir = tmp_path / "run"
    (train_dir / "report").parent.mkdir()
    (train_dir / "report").write_text("in the way")
    ended = programs.run(
        "softmax", f"--train_dir={train_dir}", f"--data_dir={small_data}", "--train_steps=40", *FLAGS, "--report"
    )
    assert ended.returncode == 0
    assert "the report could not be written" in ended.stderr
    assert programs.result(train_dir)["step"] == 40


def test_the_page_lists_the_attempts(reported):
    """One was killed, one is done."""
    cells = Page((reported / "report.html").read_text()).cells
    assert cells.count("killed") == 1
    assert cells.count("done") == 1


def test_plots_are_also_files(reported):
    """Their names are the titles."""
    names = {path.name for path in (reported / "report").iterdir()}
    assert names == {
        *("learning-curves.png", "confusion-matrix.png", "most-confident-errors.png"),
        *("reliability-diagram.png", "first-layer.png"),
    }


def test_plots_are_not_written_through_a_link(resumed, small_data, tmp_path, capsys):
    """The directory that the link points to is unchanged."""
    train_dir = shutil.copytree(resumed, tmp_path / "run")
    (tmp_path / "precious").mkdir()
    shutil.rmtree(train_dir / "report", ignore_errors=True)
    (train_dir / "report").symlink_to(tmp_path / "precious")
    assert main([f"--train_dir={train_dir}", f"--data_dir={small_data}"]) == 1
    assert "report: expected a directory, got a symbolic link" in capsys.readouterr().err
    assert not list((tmp_path / "precious").iterdir())


def test_nothing_else_in_the_train_dir_changes(reported, resumed):
    """All other files are unchanged."""

    def files(directory):
        paths = (path for path in directory.rglob("*") if path.is_file())
        contents = {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}
        return {name: content for name, content in contents.items() if not name.startswith("report")}

    assert "result.json" in files(resumed)
    assert files(reported) == files(resumed)


@pytest.mark.parametrize("flags", [["--train_dir=nowhere"], ["--data_dir=nowhere"]])
def test_missing_directories_are_errors(flags, resumed, capsys):
    """The error names the directory."""
    status = main([f"--train_dir={resumed}", *flags])
    assert status == 1
    assert re.fullmatch(r"error: .*nowhere.*\n(hint: .*\n)?", capsys.readouterr().err)


def test_other_data_than_the_runs_is_refused(resumed, capsys):
    """The bundled MNIST is not what this run was made with."""
    assert main([f"--train_dir={resumed}"]) == 1
    assert "hint: give the run's --data_dir\n" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium")
@pytest.mark.parametrize("width", [360, 1280])
def test_a_browser_shows_it(width, reported, tmp_path):
    """On a telephone's and on a desktop's screen, the console has no messages and the page is not blank."""
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
    """Memory does not grow with the journal. Both ends and all validations are kept, and all steps are counted."""
    record = {"loss": 0.5, "learning_rate": 0.1, "images_per_second": 1000.0}
    with (tmp_path / "metrics.jsonl").open("w") as file:
        for step in range(1, 40_001):
            validated = {"validation_accuracy": 0.9} if step % 10 == 0 else {}
            file.write(json.dumps({"step": step, **record, **validated}) + "\n")
    tracemalloc.start()
    try:
        metrics, count = run_report.read_metrics(tmp_path)
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
def test_values_of_other_types_are_not_plotted(tmp_path, name, value):
    """A record that a flipped bit has changed keeps only its finite numbers."""
    record = {"step": 5, "loss": 0.5, "learning_rate": 0.1, "images_per_second": 1.0, "validation_accuracy": 0.9}
    (tmp_path / "metrics.jsonl").write_text(
        json.dumps(record | {name: value, "step": 4}) + "\n" + json.dumps(record) + "\n"
    )
    metrics, _ = run_report.read_metrics(tmp_path)
    assert metrics[-1] == record
    assert all(isinstance(each.get("validation_accuracy", 0.0), float) for each in metrics)
    plots.learning_curve(metrics, [])
