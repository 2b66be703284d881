"""Pitfalls of a plain Saver: each is shown to happen with it, and not to happen with CheckpointManager.

`Plain` does what the tutorials do: Saver with its defaults, tf.train.latest_checkpoint, restore. The numbers are those
of a list of pitfalls that users reported or that were measured on TensorFlow 2.21. Number 1 (no fsync) is in
test_power_cut.py.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from checkpointing.errors import CheckpointError, NonFiniteError
from checkpointing.protocol.retention import RetentionPolicy
from checkpointing.storage import layout, staging
from tests import programs
from tests.counter import OPEN, Clock, Counter


class Plain:
    """The graph of tests/counter.py, saved and restored by a plain Saver."""

    def __init__(self, directory: Path, *, size: int = 3, restore: bool = True, **options: Any) -> None:
        """Restore the checkpoint that tf.train.latest_checkpoint finds, if there is one."""
        self.directory = directory
        with tf.Graph().as_default() as graph:
            self.step = tf.compat.v1.train.get_or_create_global_step()
            value = tf.compat.v1.get_variable("value", [size], initializer=tf.compat.v1.zeros_initializer())
            self.value = value
            self._count = [self.step.assign_add(1), value.assign_add(tf.fill([size], 0.1))]
            self.saver = tf.compat.v1.train.Saver(**options)
            initialize = tf.compat.v1.global_variables_initializer()
        self.session = tf.compat.v1.Session(graph=graph)
        self.session.run(initialize)
        latest = tf.train.latest_checkpoint(str(directory)) if restore else None
        if latest is not None:
            with graph.as_default():
                self.saver.restore(self.session, latest)

    def count(self, steps: int, *, save: bool = False) -> "Plain":
        """Apply some updates; if `save`, save a checkpoint after each. Return self."""
        for _ in range(steps):
            self.session.run(self._count)
            if save:
                self.save()
        return self

    def save(self, **options: Any) -> None:
        """Save as the tutorials do."""
        with self.session.graph.as_default():
            self.saver.save(self.session, str(self.directory / "model.ckpt"), **{"global_step": self.step, **options})

    def at(self) -> int:
        """Return the step."""
        return int(self.session.run(self.step))


def saved_by_both(tmp_path: Path, steps: int) -> tuple[Path, Path]:
    """Return two directories with one checkpoint per step, of a plain Saver and of this package."""
    (tmp_path / "plain").mkdir()
    Plain(tmp_path / "plain").count(steps, save=True)
    Counter(tmp_path / "ours").count(steps, save=True)
    return tmp_path / "plain", tmp_path / "ours"


@pytest.mark.parametrize("content", [b"garbage", b"\0" * 80, b'model_checkpoint_path: "mod', b"", b"\xff\xfe", None])
def test_2_a_damaged_state_file(tmp_path, content):
    """Plain: a silent fresh start, or an unexpected exception. Ours: resumes from the newest."""
    for directory in saved_by_both(tmp_path, 3):
        (directory / "checkpoint").unlink()
        if content is not None:
            (directory / "checkpoint").write_bytes(content)
    try:
        assert Plain(tmp_path / "plain").at() == 0
    except (ValueError, UnicodeDecodeError):
        assert content in {b"", b"\xff\xfe"}
    assert Counter(tmp_path / "ours").state()[0] == 3


def test_3_a_monitored_session_saves_step_0_over_a_damaged_state_file(tmp_path):
    """Plain: the older checkpoints are lost to the state file. Ours: see number 2."""
    (tmp_path / "plain").mkdir()
    Plain(tmp_path / "plain").count(3, save=True)
    (tmp_path / "plain" / "checkpoint").write_bytes(b"garbage")
    with tf.Graph().as_default():
        step = tf.compat.v1.train.get_or_create_global_step()
        tf.compat.v1.get_variable("value", [3], initializer=tf.compat.v1.zeros_initializer())
        with tf.compat.v1.train.MonitoredTrainingSession(checkpoint_dir=str(tmp_path / "plain")) as session:
            assert session.run(step) == 0
    assert tf.train.latest_checkpoint(str(tmp_path / "plain")).endswith("model.ckpt-0")


DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes | None], type[Exception]]] = {
    "data cut": ("data-00000-of-00001", lambda content: content[:-4], tf.errors.OutOfRangeError),
    "data flipped": (
        "data-00000-of-00001",
        lambda content: bytes([content[0] ^ 1]) + content[1:],
        tf.errors.DataLossError,
    ),
    "data missing": ("data-00000-of-00001", lambda _: None, tf.errors.NotFoundError),
    "index cut": ("index", lambda content: content[:-40], tf.errors.DataLossError),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_4_a_damaged_newest_checkpoint(tmp_path, name):
    """Plain: each start raises an exception whose class depends on the damage. Ours: resumes from the one before."""
    kind, damage, raised = DAMAGE[name]
    for directory in saved_by_both(tmp_path, 3):
        path = directory / f"model.ckpt-3.{kind}"
        content = damage(path.read_bytes())
        path.unlink()
        if content is not None:
            path.write_bytes(content)
    with pytest.raises(raised):
        Plain(tmp_path / "plain")
    assert Counter(tmp_path / "ours").state()[0] == 2


def test_5_bytes_that_no_tensor_covers(tmp_path):
    """Plain: garbage after the last tensor is ignored. Ours: the file differs from the manifest."""
    for directory in saved_by_both(tmp_path, 2):
        with (directory / "model.ckpt-2.data-00000-of-00001").open("ab") as file:
            file.write(b"garbage")
    assert Plain(tmp_path / "plain").at() == 2
    assert Counter(tmp_path / "ours").state()[0] == 1


def test_6_saving_twice_to_one_prefix(tmp_path):
    """Plain: overwrites the only copy, which is unreadable meanwhile. Ours: a prefix is written once."""
    (tmp_path / "plain").mkdir()
    plain, ours = Plain(tmp_path / "plain").count(1, save=True), Counter(tmp_path / "ours").count(1, save=True)
    inodes = [(tmp_path / name / "model.ckpt-1.index").stat().st_ino for name in ("plain", "ours")]
    plain.save()
    ours.manager.save(ours.session)
    again = [(tmp_path / name / "model.ckpt-1.index").stat().st_ino for name in ("plain", "ours")]
    assert inodes[0] != again[0]
    assert inodes[1] == again[1]


def test_7_files_left_by_a_kill(tmp_path):
    """Plain: half-written files stay. Ours: the next start deletes its own."""
    leftovers = ["model.ckpt-3.data-00000-of-00001.tempstate123", "model.ckpt-3.index.tempstate123", "checkpoint.tmp1"]
    for directory in saved_by_both(tmp_path, 2):
        for name in leftovers:
            (directory / name).write_bytes(b"half")
    (tmp_path / "ours" / "model.ckpt-3.incomplete").touch()
    (tmp_path / "ours" / "checkpoint.tmp1").unlink()  # ours is named checkpoint.tmp, and is replaced
    Plain(tmp_path / "plain").count(1, save=True)
    Counter(tmp_path / "ours")
    assert all((tmp_path / "plain" / name).exists() for name in leftovers)
    assert not any((tmp_path / "ours" / name).exists() for name in leftovers)


def test_8_a_disk_that_fills_up_during_a_save(small_disk):
    """Plain: the half-written file keeps the disk full. Ours: is deleted at once."""
    size = 1_000_000  # 4 MB, to a disk of 3
    plain = Plain(small_disk / "plain", size=size)
    (small_disk / "plain").mkdir()
    with pytest.raises(tf.errors.OpError):
        plain.count(1, save=True)
    kept_by_plain = sum(path.stat().st_size for path in (small_disk / "plain").iterdir())
    shutil.rmtree(small_disk / "plain")
    ours = Counter(small_disk / "ours", size=size).count(1)
    with pytest.raises(CheckpointError, match="MB free on the disk"):
        ours.manager.save(ours.session)
    assert sum(path.stat().st_size for path in (small_disk / "ours").iterdir()) < 100
    ours.manager.close()
    # TensorFlow 2.21 deletes files smaller than its buffer of 8 MB; then both are clean.
    assert kept_by_plain in {0, *range(2**20, 2**22)}


def test_9_retention_after_a_restart(tmp_path):
    """Plain: each start keeps max_to_keep more. Ours: counts the checkpoints on the disk."""
    (tmp_path / "plain").mkdir()
    for _ in range(2):
        Plain(tmp_path / "plain", max_to_keep=3).count(3, save=True)
        Counter(tmp_path / "ours", retention=RetentionPolicy(3)).count(3, save=True)
    assert len(list((tmp_path / "plain").glob("*.index"))) == 6
    assert layout.steps_with(tmp_path / "ours", "index") == [4, 5, 6]


def test_10_a_moved_directory(tmp_path):
    """Plain: absolute paths in the state file, so a silent fresh start. Ours: names."""
    for directory in saved_by_both(tmp_path, 2):
        if directory in OPEN:
            OPEN.pop(directory).manager.close()
        directory.rename(directory.with_name(f"{directory.name}-moved"))
    assert Plain(tmp_path / "plain-moved").at() == 0
    assert Counter(tmp_path / "ours-moved").state()[0] == 2


def test_11_brackets_in_the_path(tmp_path):
    """Plain: a pattern, so nothing is found or deleted. Ours: a path."""
    (tmp_path / "run[1]").mkdir()
    Plain(tmp_path / "run[1]", max_to_keep=2).count(4, save=True)
    assert Plain(tmp_path / "run[1]").at() == 0
    assert len(list((tmp_path / "run[1]").glob("*.index"))) == 4
    ours = tmp_path / "ours[1]"
    Counter(ours, retention=RetentionPolicy(2)).count(4, save=True)
    assert Counter(ours, retention=RetentionPolicy(2)).state()[0] == 4
    assert layout.steps_with(ours, "index") == [3, 4]


def test_12_the_clock_of_every_n_hours(tmp_path, monkeypatch):
    """Plain: starts at 0 in each process, so short attempts keep nothing. Ours: is in the manifests."""
    clock = Clock()
    (tmp_path / "plain").mkdir()
    for _ in range(6):
        monkeypatch.setattr(time, "time", clock)
        plain = Plain(tmp_path / "plain", max_to_keep=1, keep_checkpoint_every_n_hours=1)
        ours = Counter(tmp_path / "ours", retention=RetentionPolicy(1, 1), clock=clock)
        clock.now += 40 * 60
        plain.count(1, save=True)
        ours.count(1, save=True)
        plain.saver.recover_last_checkpoints([str(tmp_path / "plain" / f"model.ckpt-{plain.at()}")])
        plain.count(1, save=True)
        ours.count(1, save=True)
        monkeypatch.undo()
    ours.manager.close()
    assert len(layout.steps_with(tmp_path / "ours", "index")) >= 4  # four hours of training


def test_13_the_graph_is_written_last(tmp_path):
    """Plain: a kill before it leaves no graph, and the old checkpoint is gone. Ours: written before the commit."""
    (tmp_path / "plain").mkdir()
    plain = Plain(tmp_path / "plain", max_to_keep=1).count(1, save=True)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    plain.saver.export_meta_graph = killed
    with pytest.raises(KeyboardInterrupt):
        plain.count(1, save=True)
    assert not (tmp_path / "plain" / "model.ckpt-1.index").exists()
    assert not (tmp_path / "plain" / "model.ckpt-2.meta").exists()
    ours = Counter(tmp_path / "ours", retention=RetentionPolicy(1)).count(1, save=True)
    assert (tmp_path / "ours" / "model.ckpt-1.meta").exists()
    ours.manager._committer.meta_graph = None  # noqa: SLF001 - writing it raises
    with pytest.raises(TypeError):
        ours.count(1, save=True)
    assert Counter(tmp_path / "ours").state()[0] == 1


def draw(*, seed: int, stateless_at: tf.Tensor | None = None) -> tf.Tensor:
    """Return a random number of a stateful or a stateless generator."""
    if stateless_at is None:
        return tf.random.uniform([], seed=seed)
    return tf.random.stateless_uniform([], tf.stack([tf.constant(seed, tf.int64), stateless_at]))


def drawn(steps: int, *, stateless: bool, resumed_at: int) -> list[float]:
    """Return the random numbers of a run's steps after a restart."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        step = tf.compat.v1.get_variable("step", initializer=tf.constant(resumed_at, tf.int64))
        number = draw(seed=7, stateless_at=step.read_value() if stateless else None)
        session.run(step.initializer)
        found = []
        for _ in range(steps):
            found.append(float(session.run(number)))
            session.run(step.assign_add(1))
        return found


def test_14_random_numbers_after_a_restart():
    """Plain: the generators' state is in no checkpoint, and starts again. Ours: keyed by (seed, step)."""
    for stateless in (False, True):
        undisturbed = drawn(6, stateless=stateless, resumed_at=0)
        resumed = undisturbed[:3] + drawn(3, stateless=stateless, resumed_at=3)
        assert (resumed == undisturbed) == stateless


def test_15_non_finite_weights(tmp_path):
    """Plain: saved, and good checkpoints are deleted. Ours: refused."""
    (tmp_path / "plain").mkdir()
    plain = Plain(tmp_path / "plain", max_to_keep=1).count(1, save=True)
    plain.session.run(plain.value.initializer)
    with plain.session.graph.as_default():
        plain.session.run(plain.value.assign([np.nan] * 3))
    plain.count(1, save=True)
    assert np.isnan(tf.train.load_checkpoint(str(tmp_path / "plain")).get_tensor("value")).all()
    ours = Counter(tmp_path / "ours", retention=RetentionPolicy(1)).count(1, save=True)
    ours.make_non_finite()
    with pytest.raises(NonFiniteError):
        ours.count(1, save=True)
    assert Counter(tmp_path / "ours").state()[0] == 1


def test_16_two_runs_in_one_directory(tmp_path):
    """Plain: each deletes the other's checkpoints. Ours: the second run fails with the first one's pid."""
    (tmp_path / "plain").mkdir()
    one, other = Plain(tmp_path / "plain", max_to_keep=2), Plain(tmp_path / "plain", max_to_keep=2)
    for program, steps in ((one, 3), (other, 1)):
        program.count(steps, save=True)
    state = tf.train.get_checkpoint_state(str(tmp_path / "plain"))
    assert [Path(path).name for path in state.all_model_checkpoint_paths] == ["model.ckpt-1"]  # of the slower one
    Counter(tmp_path / "ours").count(1, save=True)
    code = (
        "import sys, pathlib; from checkpointing.protocol import resume\n"
        "resume.open_train_dir(pathlib.Path(sys.argv[1]), {})"
    )
    second = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "ours")],
        cwd=programs.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"in use by process {os.getpid()}" in second.stderr


def test_17_an_export_that_was_killed(tmp_path):
    """Plain: Builder refuses the directory, and a server may load half a model. Ours: starts again."""
    for directory in (tmp_path / "plain", layout.staging_path(tmp_path / "ours", "01234567")):
        (directory / "variables").mkdir(parents=True)
        (directory / "saved_model.pb").write_bytes(b"half")
    layout.staging_lock_path(directory).touch()
    with pytest.raises(AssertionError, match="already exists"):
        tf.compat.v1.saved_model.Builder(str(tmp_path / "plain"))
    staging.check_target(tmp_path / "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["plain"]
