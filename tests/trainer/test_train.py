"""A run in this process, with faults."""

import numpy as np
import pytest
import tensorflow as tf

import train_softmax
from checkpointing.errors import CheckpointError
from checkpointing.protocol.manager import CheckpointManager
from checkpointing.runs import history
from configs import flags
from mnist.tools import run_report
from tests import programs
from trainer import app


def train(train_dir, data_dir, *arguments):
    """Train a softmax; return the exit status."""
    options = flags.parse(
        "softmax",
        [
            "train_softmax.py",
            "--noreport",
            f"--data_dir={data_dir}",
            "--validation_size=200",
            f"--train_dir={train_dir}",
            "--train_steps=60",
            "--save_every_steps=10",
            "--evaluate_every_steps=30",
            "--log_every_steps=5",
            *arguments,
        ],
    )
    return app.main(options, train_softmax.make_model, "softmax")


def make_non_finite(monkeypatch, steps, times):
    """Set the weights to NaN after each of these steps, so often each; return the list of the steps where it was."""
    save_if_due, done = CheckpointManager.save_if_due, []

    def save_and_break(manager, session, score=None):
        save_if_due(manager, session, score)
        graph = session.graph
        step = int(session.run(tf.compat.v1.train.get_global_step(graph)))
        if step in steps and done.count(step) < times:
            done.append(step)
            weights = graph.get_collection(tf.compat.v1.GraphKeys.TRAINABLE_VARIABLES)[0]
            weights.load(np.full(weights.shape, np.nan, np.float32), session)

    monkeypatch.setattr(CheckpointManager, "save_if_due", save_and_break)
    return done


@pytest.mark.parametrize("on_nonfinite", ["stop", "rollback"])
def test_a_deterministic_fault_ends_the_run(tmp_path, small_data, monkeypatch, on_nonfinite):
    """The error names the step and the last good checkpoint; there are three rollbacks at most."""
    faults = make_non_finite(monkeypatch, {45}, times=100)
    with pytest.raises(
        CheckpointError, match=r"(?m)the loss is nan at step 50(, after 3 rollbacks)?; the last .* is .*model\.ckpt-40$"
    ) as ended:
        train(tmp_path, small_data, f"--on_nonfinite={on_nonfinite}", "--nosave_in_background")
    assert ended.value.hint == "try a lower --learning_rate in a new --train_dir"
    rolled_back = on_nonfinite == "rollback"
    assert str(ended.value).startswith("the loss is nan at step 50, after 3 rollbacks; ") == rolled_back
    assert faults == [45] * (4 if rolled_back else 1)
    [attempt] = history.read(tmp_path)
    assert attempt["steps_redone"] == (10 + 20 + 30 if rolled_back else 0)
    assert attempt["ended"].startswith("error: ")


def test_a_transient_fault_changes_no_bit(tmp_path, small_data, monkeypatch):
    """With --on_nonfinite=rollback a bit flipped in memory costs some steps and changes neither weights nor metrics."""
    # Without it the second graph of this process would be built of other operations than the first.
    tf.config.experimental.enable_op_determinism()
    assert train(tmp_path / "undisturbed", small_data) == 0
    faults = make_non_finite(monkeypatch, {25, 45}, times=1)
    assert train(tmp_path / "disturbed", small_data, "--on_nonfinite=rollback", "--nosave_in_background") == 0
    assert faults == [25, 45]
    one, other = programs.result(tmp_path / "undisturbed"), programs.result(tmp_path / "disturbed")
    assert one["weights_sha256"] == other["weights_sha256"]
    # Found at the end of the next call, at steps 30 and 50; the steps since 20 and 40 are run again.
    assert (other["steps_redone"], other["restarts"]) == (20, 0)
    records = [
        [{**record, "images_per_second": 0} for record in programs.metrics(tmp_path / name)]
        for name in ("undisturbed", "disturbed")
    ]
    assert records[0] == records[1]


def test_a_report_that_cannot_be_written_is_a_warning(tmp_path, small_data, monkeypatch, caplog):
    """The exit status is 0, and the one attempt is done."""

    def write(*_):
        raise ValueError("no ink")

    monkeypatch.setattr(run_report, "write", write)
    assert train(tmp_path, small_data, "--report") == 0
    assert "the report could not be written (ValueError: no ink)" in caplog.text
    assert [attempt["ended"] for attempt in history.read(tmp_path)] == ["done"]


def test_a_checkpoint_beyond_the_last_step_is_an_error(tmp_path, small_data):
    """A run restored from a longer one; the hint names the flags, and nothing is exported."""
    assert train(tmp_path / "long", small_data) == 0
    source = tmp_path / "long" / "model.ckpt-60"
    with pytest.raises(CheckpointError, match=r"(?m)expected a step up to --train_steps=50, got 60$") as ended:
        train(tmp_path / "run", small_data, "--train_steps=50", f"--restore_from={source}")
    assert "--train_dir" in ended.value.hint
    assert not (tmp_path / "run" / "saved_model").exists()


def test_older_code_is_a_warning(tmp_path, small_data, monkeypatch, caplog):
    """A train_dir that other code wrote is resumed."""
    monkeypatch.setattr(app.preparation.code_version, "code_sha256", lambda: "0" * 64)
    assert train(tmp_path, small_data) == 0
    monkeypatch.undo()
    assert train(tmp_path, small_data) == 0
    assert "other code" in caplog.text
