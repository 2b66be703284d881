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
    """Of a graph with one operation."""
    with tf.Graph().as_default() as graph:
        tf.constant(1, name="one")
    return graph.as_graph_def()


def append(path, content):
    """Adds to a file that may be new."""
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as file:
        file.write(content)


def begun(directory, step, graph_def, now=1000.0):
    """The events of an attempt."""
    events = SummaryWriter(directory, append, lambda: now)
    events.begin(step, graph_def, {"learning_rate": 0.5, "architecture": "tutorial"})
    return events


def read(directory):
    """What TensorBoard shows."""
    return EventAccumulator(str(directory)).Reload()


def test_tensorboard_shows_what_was_written(tmp_path, graph_def):
    """Scalars, histograms, pictures, the graph and the settings."""
    events = begun(tmp_path, 0, graph_def)
    events.scalars(10, {"loss": 0.5})
    events.histograms(10, {"layer1/weights": np.arange(100.0)})
    images = np.full((3, 28, 28), 9, np.uint8)
    events.judged(10, images, np.array([1, 2, 3], np.uint8), np.array([1, 2, 4]))
    shown = read(tmp_path)
    assert [(each.step, each.value) for each in shown.Scalars("loss")] == [(10, 0.5)]
    (histogram,) = shown.Histograms("layer1/weights")
    assert (histogram.histogram_value.min, histogram.histogram_value.max) == (0, 99)
    assert sum(histogram.histogram_value.bucket) == 100
    assert set(shown.Tags()["images"]) == {"validation/confusion_matrix", "validation/wrong"}
    assert tf.io.decode_png(shown.Images("validation/wrong")[0].encoded_image_string).shape[:2] == (28, 8 * 28)
    assert [node.name for node in tf.compat.v1.GraphDef.FromString(shown.Graph().SerializeToString()).node] == ["one"]
    assert shown.SummaryMetadata("_hparams_/session_start_info").plugin_data.plugin_name == "hparams"


def test_no_curve_is_double_after_a_crash(tmp_path, graph_def):
    """What a killed attempt wrote beyond the checkpoint is not shown; nor is it after going back."""
    first = begun(tmp_path, 0, graph_def)
    for step in range(10, 60, 10):
        first.scalars(step, {"loss": 1.0})
    second = begun(tmp_path, 30, graph_def, now=2000.0)
    for step in range(40, 80, 10):
        second.scalars(step, {"loss": 2.0})
    second.purge_from(60)
    second.scalars(70, {"loss": 3.0})
    shown = [(each.step, each.value) for each in read(tmp_path).Scalars("loss")]
    assert shown == [(10, 1.0), (20, 1.0), (30, 1.0), (40, 2.0), (50, 2.0), (60, 2.0), (70, 3.0)]


def test_each_event_is_in_the_file_at_once(tmp_path, graph_def):
    """A process that is killed has lost none."""
    events = begun(tmp_path, 0, graph_def)
    events.scalars(10, {"loss": 0.5})
    assert len(read(tmp_path).Scalars("loss")) == 1


def test_a_disk_that_refuses_stops_nothing(tmp_path, graph_def, caplog):
    """One warning, and training goes on; once it takes records again, they are shown."""
    events = begun(tmp_path, 0, graph_def)
    (written,) = tmp_path.iterdir()
    written.rename(tmp_path / "moved")
    written.mkdir()
    with caplog.at_level(logging.WARNING):
        events.scalars(10, {"loss": 0.5})
        events.scalars(20, {"loss": 0.4})
    assert len(caplog.records) == 1
    written.rmdir()
    (tmp_path / "moved").rename(written)
    events.scalars(30, {"loss": 0.3})
    assert [each.step for each in read(tmp_path).Scalars("loss")] == [30]
    assert "training goes on" in caplog.text


def test_nothing_is_written_before_an_attempt_begins(tmp_path):
    """A run that has ended is only looked at."""
    events = SummaryWriter(tmp_path, append)
    events.scalars(10, {"loss": 0.5})
    assert not list(tmp_path.iterdir())


def test_the_confusion_matrix_is_dark_where_answers_are():
    """Labels are rows."""
    pixels = confusion(np.array([0, 0, 7]), np.array([0, 1, 7]))
    assert pixels.shape == (160, 160)
    cells = pixels[8::16, 8::16]
    assert cells[7, 7] == 0
    assert cells[0, 0] == cells[0, 1] < 100
    assert cells[1, 0] == 255


def test_a_grid_shows_each_image_in_its_place():
    """Eight a row."""
    images = np.arange(10, dtype=np.uint8)[:, None, None] * np.ones((28, 28), np.uint8)
    pixels = grid(images)
    assert pixels.shape == (56, 224)
    assert [pixels[0, 28 * column] for column in range(8)] == list(range(8))
    assert (pixels[28, 28], pixels[28, 56]) == (9, 0)
    assert grid(images[:0]).shape == (28, 224)


def test_numbers_that_are_none_are_left_out(tmp_path, graph_def):
    """A spoilt state is for others to judge; showing it stops nothing."""
    events = begun(tmp_path, 0, graph_def)
    events.histograms(10, {"some": np.array([1.0, np.nan, np.inf]), "all": np.array([np.nan])})
    shown = read(tmp_path)
    assert shown.Tags()["histograms"] == ["some"]
    assert shown.Histograms("some")[0].histogram_value.num == 1


def test_what_a_file_begins_with_is_made_up_for(tmp_path, graph_def):
    """Where the disk refuses at first, version and start come before whatever is written later."""
    full = [True]

    def append_unless_full(path, content):
        if full[0]:
            raise OSError(28, "No space left on device")
        append(path, content)

    append(tmp_path / "events.out.tfevents.0000000001.1", b"")
    events = SummaryWriter(tmp_path, append_unless_full, lambda: 1000.0)
    events.begin(0, graph_def, {})
    events.scalars(10, {"loss": 0.5})
    full[0] = False
    events.scalars(20, {"loss": 0.4})
    shown = read(tmp_path)
    assert [each.step for each in shown.Scalars("loss")] == [20]
    assert shown.FirstEventTimestamp() == 1000.0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_curves_are_those_in_the_metrics(how, tmp_path, small_data):
    """Also of a run that was killed or stopped: each logged step once, with the figures that metrics.jsonl has."""
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
        wanted = [(each["step"], each[name]) for each in records if name in each]
        found = [(each.step, each.value) for each in shown.Scalars(name)]
        assert [step for step, _ in found] == [step for step, _ in wanted]
        np.testing.assert_allclose([value for _, value in found], [value for _, value in wanted], rtol=1e-6)
    assert {"layer1/weights", "layer1/biases"} == set(shown.Tags()["histograms"])
    assert len(list((train_dir / "events").iterdir())) == 2
