"""Runs with --recheck_every_steps in this process, with bits of their memory flipped."""

import os
import signal

import pytest
import tensorflow as tf

import train_softmax
from checkpointing.errors import CheckpointError
from checkpointing.protocol.manager import CheckpointManager
from checkpointing.runs import history
from checkpointing.storage import layout
from configs import flags
from mnist.errors import DataError
from mnist.input import dataset
from mnist.model import training_graph
from tests import programs
from tests.faults import NAN, Fault, FaultySession
from trainer import app

SETTINGS = (
    *("--validation_size=200", "--train_steps=33", "--save_every_steps=6", "--evaluate_every_steps=18"),
    *("--log_every_steps=9", "--optimizer=momentum", "--learning_rate=0.05", "--ema_decay=0.9"),
)


def train(train_dir, data_dir, *arguments):
    """Train a softmax; return the exit status."""
    argv = ["train_softmax.py", "--noreport", f"--data_dir={data_dir}", f"--train_dir={train_dir}", *SETTINGS]
    return app.main(flags.parse("softmax", [*argv, *arguments]), train_softmax.make_model, "softmax")


def outcome(train_dir):
    """Return the hash of the weights and the records without their speeds."""
    records = [{**record, "images_per_second": 0} for record in programs.metrics(train_dir)]
    return programs.result(train_dir)["weights_sha256"], records


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, small_data):
    """The outcome of a run without rechecks and faults."""
    # Without it the second graph of this process would be built of other operations than the first.
    tf.config.experimental.enable_op_determinism()
    train_dir = tmp_path_factory.mktemp("undisturbed")
    assert train(train_dir, small_data) == 0
    return outcome(train_dir)


@pytest.fixture
def inject(monkeypatch):
    """Return a function that sets the faults of the session to come, and returns the session in a list."""

    def set_faults(*faults):
        sessions = []

        def open_session(graph, _threads):
            session = FaultySession(graph=graph)
            session.set_faults(faults)
            sessions.append(session)
            return session

        monkeypatch.setattr(training_graph, "open_session", open_session)
        return sessions

    return set_faults


def steps_in_quarantine(train_dir):
    """Return the steps of the checkpoints in quarantine."""
    return sorted(int(path.name.split("-")[1].split(".")[0]) for path in (train_dir / "quarantine").glob("*"))


def test_rechecks_change_nothing(tmp_path, small_data, undisturbed):
    """Weights and metrics are those of a run without. There is a checkpoint of the first step until others follow."""
    assert train(tmp_path, small_data, "--recheck_every_steps=10", "--max_to_keep=100") == 0
    assert outcome(tmp_path) == undisturbed
    assert layout.steps_with(tmp_path, "manifest.json") == [0, 6, 12, 18, 24, 30, 33]
    assert programs.result(tmp_path)["steps_redone"] == 0


@pytest.mark.parametrize(
    ("fault", "restored"),
    [
        (Fault(17, "layer1/weights"), 6),
        (Fault(17, "layer1/weights", times=(2,)), 6),
        (Fault(26, "layer1/weights/Momentum", 29), 18),
        (Fault(8, "layer1/biases/ExponentialMovingAverage", 22), 0),
        (Fault(13, "train_images", 10_003), 6),
        (Fault(31, "train_labels", 800), 30),
        (Fault(14, "global_step", 2), 6),
    ],
    ids=lambda value: f"{value.variable} at {value.step}" if isinstance(value, Fault) else str(value),
)
def test_a_flipped_bit_changes_no_bit_of_the_result(  # noqa: PLR0917
    tmp_path, small_data, undisturbed, inject, caplog, fault, restored
):
    """The run returns to the newest checkpoint up to the last recheck that passed, and trains on."""
    sessions = inject(fault)
    assert train(tmp_path, small_data, "--recheck_every_steps=10") == 0
    [session] = sessions
    assert session.flipped == [fault]
    [warning] = [each.getMessage() for each in caplog.records if "fault of processor" in each.getMessage()]
    assert f"rolling back to {layout.prefix(tmp_path, restored)}" in warning
    assert fault.variable in warning or "expected step" in warning
    assert all(step > restored for step in steps_in_quarantine(tmp_path))
    assert programs.result(tmp_path)["steps_redone"] > 0
    assert outcome(tmp_path) == undisturbed
    [attempt] = history.read(tmp_path)
    assert attempt["steps_done"] - attempt["steps_redone"] == 33


def test_the_checkpoint_to_return_to_is_not_deleted(tmp_path, small_data, undisturbed, inject):
    """With --max_to_keep=1 the newest one up to the last recheck stays in addition."""
    inject(Fault(29, "train_images", 77))
    assert train(tmp_path, small_data, "--recheck_every_steps=20", "--max_to_keep=1", "--keep_best=0") == 0
    assert steps_in_quarantine(tmp_path) == [30]
    assert layout.steps_with(tmp_path, "manifest.json") == [33]
    assert outcome(tmp_path) == undisturbed


def test_a_fault_that_repeats_ends_the_run(tmp_path, small_data, undisturbed, inject, monkeypatch):
    """After three rollbacks. No checkpoint since the last good recheck stays; another machine continues from there."""
    [fault] = faults = [Fault(17, "layer1/weights", times=(1, 3, 5, 7))]
    sessions = inject(*faults)
    with pytest.raises(CheckpointError, match=r"(?m)found at step 20 \(.*after 3 rollbacks; .*model\.ckpt-6$") as ended:
        train(tmp_path, small_data, "--recheck_every_steps=10")
    assert ended.value.hint.startswith("run the same command on another machine")
    assert sessions[0].flipped == [fault] * 4
    assert layout.steps_with(tmp_path, "manifest.json") == [0, 6]
    monkeypatch.undo()
    assert train(tmp_path, small_data, "--recheck_every_steps=10") == 0
    assert outcome(tmp_path) == undisturbed


def test_data_that_have_changed_everywhere_end_the_run(tmp_path, small_data, inject, monkeypatch):
    """If the arrays have another fingerprint than at the start, they are not loaded again."""
    inject(Fault(13, "train_images"))
    monkeypatch.setattr(dataset, "fingerprint_in_memory", lambda _: "0" * 64)
    with pytest.raises(DataError, match=r"the copy that the data were loaded from: expected fingerprint .*, got 0000"):
        train(tmp_path, small_data, "--recheck_every_steps=10")
    assert layout.steps_with(tmp_path, "manifest.json") == [0, 6]


def test_without_a_checkpoint_to_return_to_the_run_ends(tmp_path, small_data, inject, monkeypatch):
    """The error has the fault and what is missing."""
    inject(Fault(8, "layer1/weights"))
    monkeypatch.setattr(CheckpointManager, "save", lambda *_: None)
    with pytest.raises(CheckpointError, match=r"found at step 10 .*no complete checkpoint before step 1 to roll back"):
        train(tmp_path, small_data, "--recheck_every_steps=10")


@pytest.mark.parametrize("stop_at", [9, 18])
def test_a_signal_between_the_copy_and_the_recheck(tmp_path, small_data, undisturbed, monkeypatch, stop_at):
    """The state of that step is saved, and the next attempt rechecks the steps that are left."""
    save_if_due = CheckpointManager.save_if_due

    def save_and_stop(manager, session, score=None):
        save_if_due(manager, session, score)
        if int(session.run(manager._step)) == stop_at:  # noqa: SLF001
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(CheckpointManager, "save_if_due", save_and_stop)
    assert train(tmp_path, small_data, "--recheck_every_steps=10") == 75
    assert max(layout.steps_with(tmp_path, "manifest.json")) == stop_at
    monkeypatch.undo()
    assert train(tmp_path, small_data, "--recheck_every_steps=10") == 0
    assert outcome(tmp_path) == undisturbed


@pytest.mark.slow
def test_a_kill_within_a_recheck(tmp_path, small_data, undisturbed):  # noqa: ARG001 - op determinism
    """Wherever it comes, the next attempt ends at the same weights. With a period of 1 each step is a recheck."""
    longer = ("--train_steps=1500", "--save_every_steps=300", "--learning_rate=0.01")
    assert train(tmp_path / "undisturbed", small_data, *longer) == 0
    train_dir = tmp_path / "killed"
    arguments = (f"--data_dir={small_data}", *SETTINGS, *longer, "--recheck_every_steps=1")
    for step in (300, 900):
        running = programs.Watched("softmax", f"--train_dir={train_dir}", *arguments)
        running.wait_for(f"saved {train_dir}/model.ckpt-{step}")
        running.process.kill()
        assert running.end() == -signal.SIGKILL
    assert train(train_dir, small_data, *longer, "--recheck_every_steps=7") == 0
    assert outcome(train_dir) == outcome(tmp_path / "undisturbed")


@pytest.mark.parametrize("step", [13, 17])
def test_a_state_that_becomes_non_finite(tmp_path, small_data, undisturbed, inject, step):
    """In the steps that are rechecked, or before them: with --on_nonfinite=rollback both are undone."""
    sessions = inject(Fault(step, "layer1/biases", NAN))
    assert train(tmp_path, small_data, "--recheck_every_steps=10", "--on_nonfinite=rollback") == 0
    assert sessions[0].flipped
    assert outcome(tmp_path) == undisturbed
