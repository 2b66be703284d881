import logging
import signal

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist.training.summaries import SummaryWriter, confusion, grid
from tests import programs


@pytest.fixture
def graph_def():
    """The GraphDef of a graph with one op."""
    with tf.Graph().as_default() as graph:
        tf.constant(1, name="one")
    return graph.as_graph_def()


def append(path, content):
    """Append to a file, which is created if necessary."""
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as file:
        file.write(content)


def begin(directory, step, graph_def, now=1000.0):
    """Return the writer of an attempt that begins at a step."""
    writer = SummaryWriter(directory, append, lambda: now)
    writer.begin(step, graph_def, {"learning_rate": 0.5, "architecture": "tutorial"})
    return writer


def read(directory):
    """Read a directory as TensorBoard does."""
    return EventAccumulator(str(directory)).Reload()


def test_tensorboard_shows_what_was_written(tmp_path, graph_def):
    """Scalars, histograms, images, the graph and the settings."""
    writer = begin(tmp_path, 0, graph_def)
    writer.scalars(10, {"loss": 0.5})
    writer.histograms(10, {"layer1/weights": np.arange(100.0)})
    images = np.full((3, 28, 28), 9, np.uint8)
    writer.predictions(10, images, np.array([1, 2, 3], np.uint8), np.array([1, 2, 4]))
    shown = read(tmp_path)
    assert [(each.step, each.value) for each in shown.Scalars("loss")] == [(10, 0.5)]
    (histogram,) = shown.Histograms("layer1/weights")
    assert (histogram.histogram_value.min, histogram.histogram_value.max) == (0, 99)
    assert sum(histogram.histogram_value.bucket) == 100
    assert set(shown.Tags()["images"]) == {"validation/confusion_matrix", "validation/wrong"}
    assert tf.io.decode_png(shown.Images("validation/wrong")[0].encoded_image_string).shape[:2] == (28, 8 * 28)
    assert [node.name for node in tf.compat.v1.GraphDef.FromString(shown.Graph().SerializeToString()).node] == ["one"]
    assert shown.SummaryMetadata("_hparams_/session_start_info").plugin_data.plugin_name == "hparams"


def test_resuming_purges_later_steps(tmp_path, graph_def):
    """TensorBoard shows one value per step after a crash and after a rollback."""
    first = begin(tmp_path, 0, graph_def)
    for step in range(10, 60, 10):
        first.scalars(step, {"loss": 1.0})
    second = begin(tmp_path, 30, graph_def, now=2000.0)
    for step in range(40, 80, 10):
        second.scalars(step, {"loss": 2.0})
    second.purge_from(60)
    second.scalars(70, {"loss": 3.0})
    shown = [(each.step, each.value) for each in read(tmp_path).Scalars("loss")]
    assert shown == [(10, 1.0), (20, 1.0), (30, 1.0), (40, 2.0), (50, 2.0), (60, 2.0), (70, 3.0)]


def test_each_event_is_in_the_file_at_once(tmp_path, graph_def):
    """A killed process loses none."""
    writer = begin(tmp_path, 0, graph_def)
    writer.scalars(10, {"loss": 0.5})
    assert len(read(tmp_path).Scalars("loss")) == 1


def test_a_write_error_is_logged_once(tmp_path, graph_def, caplog):
    """Training continues, and later records are written once the disk accepts them."""
    writer = begin(tmp_path, 0, graph_def)
    (written,) = tmp_path.iterdir()
    written.rename(tmp_path / "moved")
    written.mkdir()
    with caplog.at_level(logging.WARNING):
        writer.scalars(10, {"loss": 0.5})
        writer.scalars(20, {"loss": 0.4})
    assert len(caplog.records) == 1
    written.rmdir()
    (tmp_path / "moved").rename(written)
    writer.scalars(30, {"loss": 0.3})
    assert [each.step for each in read(tmp_path).Scalars("loss")] == [30]
    assert "training continues" in caplog.text


def test_nothing_is_written_before_an_attempt_begins(tmp_path):
    """A finished run is only evaluated."""
    writer = SummaryWriter(tmp_path, append)
    writer.scalars(10, {"loss": 0.5})
    assert not list(tmp_path.iterdir())


def test_the_confusion_matrix_is_dark_at_frequent_cells():
    """Labels are rows, classes are columns."""
    pixels = confusion(np.array([0, 0, 7]), np.array([0, 1, 7]))
    assert pixels.shape == (160, 160)
    cells = pixels[8::16, 8::16]
    assert cells[7, 7] == 0
    assert cells[0, 0] == cells[0, 1] < 100
    assert cells[1, 0] == 255


def test_a_grid_has_rows_of_eight_images():
    """In order; without images, one black row."""
    images = np.arange(10, dtype=np.uint8)[:, None, None] * np.ones((28, 28), np.uint8)
    pixels = grid(images)
    assert pixels.shape == (56, 224)
    assert [pixels[0, 28 * column] for column in range(8)] == list(range(8))
    assert (pixels[28, 28], pixels[28, 56]) == (9, 0)
    assert grid(images[:0]).shape == (28, 224)


def test_non_finite_numbers_are_left_out_of_histograms(tmp_path, graph_def):
    """An array without finite numbers has no histogram."""
    writer = begin(tmp_path, 0, graph_def)
    writer.histograms(10, {"some": np.array([1.0, np.nan, np.inf]), "all": np.array([np.nan])})
    shown = read(tmp_path)
    assert shown.Tags()["histograms"] == ["some"]
    assert shown.Histograms("some")[0].histogram_value.num == 1


def test_the_start_of_a_file_is_written_later_after_an_error(tmp_path, graph_def):
    """If the disk is full at first, version and session log precede the next record."""
    full = [True]

    def append_unless_full(path, content):
        if full[0]:
            raise OSError(28, "No space left on device")
        append(path, content)

    append(tmp_path / "events.out.tfevents.0000000001.1", b"")
    writer = SummaryWriter(tmp_path, append_unless_full, lambda: 1000.0)
    writer.begin(0, graph_def, {})
    writer.scalars(10, {"loss": 0.5})
    full[0] = False
    writer.scalars(20, {"loss": 0.4})
    shown = read(tmp_path)
    assert [each.step for each in shown.Scalars("loss")] == [20]
    assert shown.FirstEventTimestamp() == 1000.0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_scalars_are_those_of_the_metrics(how, tmp_path, small_data):
    """Also after a run was killed or stopped: each logged step once, with the values in metrics.jsonl."""
    train_dir = tmp_path / "run"
    flags = [f"--train_dir={train_dir}", f"--data_dir={small_data}", "--validation_size=200", "--train_steps=2000"]
    flags += ["--save_every_steps=500", "--log_every_steps=40", "--evaluate_every_steps=400"]
    watched = programs.Watched("softmax", *flags)
    watched.wait_for("saved ")
    watched.process.send_signal(how)
    watched.end()
    programs.train("softmax", train_dir, *flags[1:])
    shown, records = read(train_dir / "events"), programs.metrics(train_dir)
    for name in ("loss", "learning_rate", "validation_accuracy"):
        expected = [(each["step"], each[name]) for each in records if name in each]
        found = [(each.step, each.value) for each in shown.Scalars(name)]
        assert [step for step, _ in found] == [step for step, _ in expected]
        np.testing.assert_allclose([value for _, value in found], [value for _, value in expected], rtol=1e-6)
    assert {"layer1/weights", "layer1/biases"} == set(shown.Tags()["histograms"])
    assert len(list((train_dir / "events").iterdir())) == 2
