import numpy as np
import pytest
import tensorflow as tf

from checkpointing.errors import CheckpointError
from checkpointing.protocol import resume
from checkpointing.runs import history
from checkpointing.runs.preemption import StopSignal
from configs import flags
from mnist import report
from mnist.input import dataset
from mnist.model import networks
from mnist.training.stopwatch import Stopwatch
from tests import programs
from trainer import train


def make_run(train_dir, data_dir, *arguments):
    """A softmax run in this process, on its way."""
    command = flags.parse(
        "softmax",
        [
            "train_softmax.py",
            "--noreport",
            f"--train_dir={train_dir}",
            "--train_steps=60",
            "--save_every_steps=10",
            "--evaluate_every_steps=30",
            "--log_every_steps=5",
            *arguments,
        ],
    )
    data = dataset.load(data_dir, 200)
    start = resume.open_train_dir(train_dir, command.settings.run_identity(), may_grow=("train_steps",))
    return train.Run(command, networks.Softmax, data=data, start=start, stopwatch=Stopwatch(), stop=StopSignal())


def spoil(run, monkeypatch, steps, times):
    """Makes the weights no numbers at these steps, so often each; gives the list of the steps at which it happened."""
    save_if_due, spoilt_at = run._checkpoints.save_if_due, []  # noqa: SLF001 - where memory would fail

    def save_and_spoil(session, score):
        save_if_due(session, score)
        step = int(session.run(run._graph.step))  # noqa: SLF001
        if step in steps and spoilt_at.count(step) < times:
            spoilt_at.append(step)
            weights = run._graph.trained[0]  # noqa: SLF001
            weights.load(np.full(weights.shape, np.nan, np.float32), session)

    monkeypatch.setattr(run._checkpoints, "save_if_due", save_and_spoil)  # noqa: SLF001
    return spoilt_at


@pytest.mark.parametrize("on_nonfinite", ["stop", "rollback"])
def test_a_state_that_is_spoilt_each_time_ends_the_run(tmp_path, small_data, monkeypatch, on_nonfinite):
    """In one sentence that names the step and the last good checkpoint; going back is tried three times at most."""
    run = make_run(tmp_path, small_data, f"--on_nonfinite={on_nonfinite}", "--nosave_in_background")
    spoilt_at = spoil(run, monkeypatch, {45}, times=100)
    with pytest.raises(
        CheckpointError, match=r"the loss is nan at step 50; the last .* is .*model\.ckpt-40: try"
    ) as ended:
        run.execute()
    rolled_back = on_nonfinite == "rollback"
    assert ("3 rollbacks notwithstanding" in str(ended.value)) == rolled_back
    assert spoilt_at == [45] * (4 if rolled_back else 1)
    [attempt] = history.read(tmp_path)
    assert attempt["steps_redone"] == (10 + 20 + 30 if rolled_back else 0)


def test_whatever_is_wrong_with_a_report_the_run_has_ended_well(tmp_path, small_data, monkeypatch, caplog):
    """A warning, exit 0, and one attempt that is done."""

    def write(*_):
        raise ValueError("no ink")

    monkeypatch.setattr(report, "write", write)
    assert make_run(tmp_path, small_data, "--report").execute() == train.DONE
    assert "the report could not be written (ValueError: no ink)" in caplog.text
    assert [attempt["ended"] for attempt in history.read(tmp_path)] == ["done"]


def test_a_state_spoilt_by_chance_is_made_good(tmp_path, small_data, monkeypatch):
    """With --on_nonfinite=rollback a bit that flips in memory costs some steps, and changes nothing."""
    # Else the second graph of this process would be built of other operations than the first.
    tf.config.experimental.enable_op_determinism()
    assert make_run(tmp_path / "undisturbed", small_data).execute() == train.DONE
    run = make_run(tmp_path / "spoilt", small_data, "--on_nonfinite=rollback", "--nosave_in_background")
    spoilt_at = spoil(run, monkeypatch, {25, 45}, times=1)
    assert run.execute() == train.DONE
    assert spoilt_at == [25, 45]
    one, other = programs.result(tmp_path / "undisturbed"), programs.result(tmp_path / "spoilt")
    assert one["weights_sha256"] == other["weights_sha256"]
    # The end of the next call shows it, at 30 and 50; from 20 and 40 the steps are made again.
    assert (other["steps_redone"], other["restarts"]) == (20, 0)
    records = [
        [{**record, "images_per_second": 0} for record in programs.metrics(tmp_path / name)]
        for name in ("undisturbed", "spoilt")
    ]
    assert records[0] == records[1]
