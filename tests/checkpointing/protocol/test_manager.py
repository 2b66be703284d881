import dataclasses
import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from checkpointing.errors import LATER, CheckpointError, DamagedError, NonFiniteError, NotSavedError
from checkpointing.protocol import manifest, resume, save_policy
from checkpointing.protocol.manager import CheckpointManager
from checkpointing.protocol.manifest import Manifest
from checkpointing.protocol.retention import RetentionPolicy
from checkpointing.protocol.snapshot import Snapshot
from checkpointing.storage import durable, layout, regular_file
from tests import odd_files
from tests.checkpoints import tree
from tests.counter import OPEN, SETTINGS, Clock, Counter

NAMES = ["plain", "run[1]", "with spaces", "größe-数字", "star*?"]


def kept(directory):
    """Return the steps in TensorFlow's state file; assert that the same checkpoints are on the disk."""
    state = tf.train.get_checkpoint_state(str(directory))
    steps = [int(path.rpartition("-")[2]) for path in state.all_model_checkpoint_paths]
    for kind in ("index", "meta", "manifest.json", "data-00000-of-00001"):
        assert layout.steps_with(directory, kind) == steps
    assert layout.steps_with(directory, "incomplete") == []
    return steps


@pytest.mark.parametrize("name", NAMES)
def test_a_run_resumes_from_its_newest_checkpoint(tmp_path, name):
    """The restored state is the one that was saved last, for any name of the train_dir."""
    saved = Counter(tmp_path / name).count(3, save=True).state()
    assert Counter(tmp_path / name).state() == saved == (3, saved[1])


def test_the_newest_step_is_that_of_the_last_commit(tmp_path):
    """`newest_step` is known after a commit and after a restart."""
    counter = Counter(tmp_path)
    assert counter.manager.newest_step is None
    assert counter.count(2, save=True).count(1).manager.newest_step == 2
    assert Counter(tmp_path).manager.newest_step == 2


def test_a_moved_train_dir_resumes(tmp_path):
    """No file in a train_dir holds its path, TensorFlow's state file included."""
    counter = Counter(tmp_path / "old").count(2, save=True)
    saved = counter.state()
    counter.manager.close()
    shutil.move(tmp_path / "old", tmp_path / "new")
    assert Counter(tmp_path / "new").state() == saved
    assert tf.train.latest_checkpoint(str(tmp_path / "new")) == str(tmp_path / "new" / "model.ckpt-2")


def test_tensorflow_reads_the_checkpoints(tmp_path):
    """load_checkpoint and import_meta_graph find the tensors and the graph under their names."""
    step, value = Counter(tmp_path).count(2, save=True).state()
    prefix = tf.train.latest_checkpoint(str(tmp_path))
    reader = tf.train.load_checkpoint(prefix)
    assert reader.get_tensor("global_step") == step
    assert reader.get_tensor("value").tolist() == value
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.train.import_meta_graph(f"{prefix}.meta").restore(session, prefix)
        assert session.run("value/Read/ReadVariableOp:0").tolist() == value


def test_the_newest_are_kept(tmp_path):
    """The last five of eight checkpoints are kept with all files, and the state file lists them."""
    Counter(tmp_path).count(8, save=True)
    assert kept(tmp_path) == [4, 5, 6, 7, 8]


def test_retention_holds_across_restarts(tmp_path):
    """A restarted run keeps no more checkpoints; with a lower max_to_keep the start deletes some."""
    Counter(tmp_path).count(4, save=True)
    Counter(tmp_path).count(3, save=True)
    assert kept(tmp_path) == [3, 4, 5, 6, 7]
    Counter(tmp_path, retention=RetentionPolicy(2, 10_000))
    assert kept(tmp_path) == [6, 7]


def test_one_checkpoint_per_n_hours_is_kept(tmp_path):
    """The hours are hours of training, summed over restarts."""
    clock = Clock()
    retention = RetentionPolicy(max_to_keep=1, keep_checkpoint_every_n_hours=1)
    for _ in range(2):
        counter = Counter(tmp_path, retention=retention, clock=clock)
        for _ in range(4):
            clock.now += 30 * 60
            counter.count(1, save=True)
        clock.now += 50 * 3600  # between two runs
    assert kept(tmp_path) == [2, 4, 6, 8]


def test_saves_come_due_by_steps_and_by_seconds(tmp_path):
    """A save is due after save_every_steps and after save_every_seconds."""
    clock = Clock()
    counter = Counter(tmp_path, save_every_steps=4, save_every_seconds=60, clock=clock)
    for step in range(1, 9):
        clock.now += 70 if step == 6 else 10
        counter.count(1).manager.save_if_due(counter.session)
    counter.manager.close()
    assert kept(tmp_path) == [4, 6, 8]


def test_the_auto_interval_depends_on_the_duration_of_a_save(tmp_path, monkeypatch):
    """With "auto", the interval is that of Young and Daly for the duration of the last save."""
    clock = Clock()
    counter = Counter(
        tmp_path, save_every_seconds="auto", mean_seconds_between_failures=2, save_in_background=False, clock=clock
    )
    monkeypatch.setattr(
        save_policy, "seconds_between_saves", lambda save, failures: 5.0 if save < 60 and failures == 2 else 0
    )
    for _ in range(6):
        clock.now += 2
        counter.count(1).manager.save_if_due(counter.session)
    assert kept(tmp_path) == [3, 6]


def test_a_checkpoint_is_never_written_twice(tmp_path):
    """A second save of a step leaves every file as it is."""
    counter = Counter(tmp_path).count(3, save=True)
    before = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    counter.manager.save(counter.session)
    assert before == {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in tmp_path.iterdir()}


def test_a_non_finite_state_is_not_saved(tmp_path):
    """It would replace good checkpoints; the error names the step and the variable."""
    counter = Counter(tmp_path, retention=RetentionPolicy(1, 10_000)).count(1, save=True)
    counter.make_non_finite()
    with pytest.raises(NonFiniteError, match="step 2: NaN or infinity in value; not saved"):
        counter.count(1, save=True)
    assert kept(tmp_path) == [1]


def test_a_copy_under_another_name_can_start_a_run(tmp_path):
    """A copy may have any name, although its manifest lists the old file names."""
    saved = Counter(tmp_path / "old").count(2, save=True).state()
    (tmp_path / "copy").mkdir()
    for path in (tmp_path / "old").glob("model.ckpt-2.*"):
        shutil.copy(path, tmp_path / "copy" / path.name.replace("model.ckpt-2", "best"))
    assert Counter(tmp_path / "new", restore_from=tmp_path / "copy" / "best").state() == saved


def test_the_error_of_a_failed_save_has_the_reason(tmp_path):
    """The message holds TensorFlow's reason without its description of the graph's node."""
    counter = Counter(tmp_path).count(1)
    failure = pytest.raises(CheckpointError, match=r"could not be saved \(.*(File too large|Failed)")
    with odd_files.files_of_at_most(8), failure:
        counter.count(1, save=True)


def test_the_state_file_is_only_a_cache(tmp_path):
    """A missing or damaged state file is rebuilt from the manifests."""
    Counter(tmp_path).count(3, save=True)
    for content in (b"", b"\0" * 100, b'model_checkpoint_path: "nowhere"', b"\xff\xfe"):
        (tmp_path / "checkpoint").write_bytes(content)
        assert Counter(tmp_path).state()[0] == 3
        assert kept(tmp_path) == [1, 2, 3]
    (tmp_path / "checkpoint").unlink()
    Counter(tmp_path)
    assert kept(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize("relative", [True, False])
def test_paths_in_the_state_file_are_relative_or_absolute(tmp_path, relative):
    """The state file holds names with save_relative_paths, absolute paths without."""
    Counter(tmp_path, save_relative_paths=relative).count(1, save=True)
    first = (tmp_path / "checkpoint").read_text().splitlines()[0]
    assert first == f'model_checkpoint_path: "{"" if relative else str(tmp_path) + "/"}model.ckpt-1"'


def test_a_sharded_checkpoint_is_restored(tmp_path):
    """Saver's option works, and leaves no temporary directory."""
    saved = Counter(tmp_path, sharded=True).count(2, save=True).state()
    assert Counter(tmp_path, sharded=True).state() == saved
    assert not list(tmp_path.glob("*temp*"))


def test_a_checkpoint_of_another_shape_is_refused(tmp_path):
    """The error names the variable and both shapes."""
    Counter(tmp_path / "three").count(1, save=True)
    with pytest.raises(CheckpointError, match=r"variable value: expected float32 \[4\], got float32 \[3\]"):
        Counter(tmp_path / "four", size=4, restore_from=tmp_path / "three" / "model.ckpt-1")


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    """The error names the missing variable and those in the checkpoint."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        other = tf.compat.v1.get_variable("other", initializer=1.0)
        session.run(other.initializer)
        tf.compat.v1.train.Saver([other]).save(session, str(tmp_path / "foreign" / "model"))
    with pytest.raises(CheckpointError, match=r"global_step: expected .*, got no such variable; it holds other"):
        Counter(tmp_path / "run", restore_from=tmp_path / "foreign" / "model")


def test_a_checkpoint_of_a_plain_saver_can_start_a_run(tmp_path):
    """A run can start from any checkpoint that has the model's variables."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        step = tf.compat.v1.get_variable("global_step", initializer=tf.constant(70, tf.int64))
        value = tf.compat.v1.get_variable("value", initializer=tf.constant([1.0, 2.0, 3.0]))
        session.run([step.initializer, value.initializer])
        prefix = tf.compat.v1.train.Saver().save(session, str(tmp_path / "plain" / "model"), global_step=70)
    counter = Counter(tmp_path / "run", restore_from=Path(prefix))
    assert counter.state() == (70, [1.0, 2.0, 3.0])
    assert Counter(tmp_path / "run", restore_from=Path(prefix)).count(2, save=True).state()[0] == 72
    assert Counter(tmp_path / "run", restore_from=Path(prefix)).state()[0] == 72


def test_before_commit_is_called_before_the_commit(tmp_path):
    """When it is called, the checkpoint's manifest does not exist yet."""
    seen = []
    counter = Counter(tmp_path, before_commit=lambda: seen.append(layout.steps_with(tmp_path, "manifest.json")))
    counter.count(2, save=True)
    assert seen == [[], [1]]


def block_commit(directory, step):
    """Make every commit of a step fail: create a directory at the path of the manifest's temporary file."""
    (directory / f"model.ckpt-{step}.manifest.json.tmp").mkdir()


def test_a_failed_save_loses_no_checkpoint(tmp_path):
    """It raises an error that names the newest complete checkpoint; the next run saves the step."""
    counter = Counter(tmp_path).count(2, save=True)
    block_commit(tmp_path, 3)
    with pytest.raises(
        NotSavedError, match=r"(?m)ckpt-3: could not be saved \(Is a directory\); the last .* is .*ckpt-2$"
    ):
        counter.count(1, save=True)
    assert kept(tmp_path) == [1, 2]
    assert Counter(tmp_path).count(1, save=True).state()[0] == 3
    assert kept(tmp_path) == [1, 2, 3]


def count_and_save_if_due(counter, steps):
    """Apply updates, and call save_if_due after each."""
    for _ in range(steps):
        counter.count(1).manager.save_if_due(counter.session)


def test_training_continues_when_a_save_fails(tmp_path, caplog):
    """The first failure is logged with the newest complete checkpoint; later saves are made as usual."""
    counter = Counter(tmp_path, save_every_steps=1, save_in_background=False)
    for step in (3, 4):
        block_commit(tmp_path, step)
    with caplog.at_level("WARNING"):
        count_and_save_if_due(counter, 7)
    counter.manager.close()
    assert kept(tmp_path) == [1, 2, 5, 6, 7]
    about_saves = [record for record in caplog.records if record.name == "checkpointing.protocol.save_policy"]
    assert [record.levelname for record in about_saves] == ["WARNING"]
    assert "model.ckpt-3: could not be saved (Is a directory)" in caplog.text
    assert "the last complete checkpoint is" in caplog.text
    assert "max_failed_saves=10 more failures in a row" in caplog.text


@pytest.mark.parametrize("in_background", [True, False])
def test_too_many_failures_in_a_row_end_the_run(tmp_path, in_background):
    """One failure more than max_failed_saves is an error that names the newest complete checkpoint."""
    counter = Counter(tmp_path, save_every_steps=1, max_failed_saves=2, save_in_background=in_background)
    for step in (2, 3, 5, 6, 7, 8, 9):  # two in a row are allowed
        block_commit(tmp_path, step)
    with pytest.raises(NotSavedError, match=r"(?m)ckpt-7: .*, like the 2 saves before it; the last .* is .*ckpt-4$"):
        count_and_save_if_due(counter, 9)
    assert counter.state()[0] in ({8, 9} if in_background else {7})


def test_a_deleted_train_dir_is_created_again(tmp_path, caplog):
    """The next save creates and locks it again."""
    counter = Counter(tmp_path / "run").count(2, save=True)
    shutil.rmtree(tmp_path / "run")
    counter.count(1, save=True)
    assert "was deleted during the run" in caplog.text
    assert kept(tmp_path / "run") == [3]
    with pytest.raises(CheckpointError, match=f"in use by process {os.getpid()} on"):
        resume.open_train_dir(tmp_path / "run", SETTINGS)


def test_no_save_is_started_without_free_space(tmp_path, monkeypatch):
    """If a checkpoint cannot fit on the disk, no file is written."""
    counter = Counter(tmp_path).count(1, save=True)
    monkeypatch.setattr(durable, "free_bytes", lambda _: 1000)
    with pytest.raises(NotSavedError, match=r"expected 0\.0 MB free on the disk, got 0\.0 MB"):
        counter.count(1, save=True)
    assert layout.steps_with(tmp_path, "index") == [1]
    assert kept(tmp_path) == [1]


@pytest.mark.parametrize("in_background", [True, False])
def test_a_snapshot_is_the_state_of_its_step(tmp_path, in_background):
    """A checkpoint holds the state of its step, although training changes the variables meanwhile."""
    counter = Counter(tmp_path, size=2**20, save_every_steps=5, save_in_background=in_background)
    expected = {}
    for _ in range(20):
        counter.count(1)
        step, value = counter.state()
        expected[step] = value[0]
        counter.manager.save_if_due(counter.session)
        counter.session.run(counter.again)  # while the writer reads
        counter.session.run(counter.undo)
    counter.manager.close()
    assert kept(tmp_path) == [5, 10, 15, 20]
    for step in (5, 10, 15, 20):
        value = tf.train.load_checkpoint(str(layout.prefix(tmp_path, step))).get_tensor("value")
        assert np.unique(value).tolist() == [np.float32(expected[step])]


def test_saves_in_background_and_foreground_are_equal(tmp_path):
    """A checkpoint's bytes do not depend on the thread that wrote them, sharded or not."""
    for name, options in {
        "background": {},
        "foreground": {"save_in_background": False},
        "sharded": {"sharded": True},
        "sharded foreground": {"sharded": True, "save_in_background": False},
    }.items():
        Counter(tmp_path / name, **options).count(3).manager.save(OPEN[tmp_path / name].session)
    for one, other in (("background", "foreground"), ("sharded", "sharded foreground")):
        for path in (tmp_path / one).glob("model.ckpt-3.*"):
            if path.suffix != ".json":
                assert path.read_bytes() == (tmp_path / other / path.name).read_bytes()
    digests = {Manifest.read(path).state_digest for path in tmp_path.glob("*/*.manifest.json")}
    assert len(digests) == 1


def test_the_best_and_the_pinned_are_kept(tmp_path):
    """The best and the pinned checkpoints are kept in addition to the newest."""
    counter = Counter(tmp_path, retention=RetentionPolicy(max_to_keep=1, keep_best=1))
    for step, score in enumerate([0.5, 0.9, 0.7, None, 0.9, 0.8], start=1):
        counter.count(1).manager.save(counter.session, score)
        if step == 3:
            layout.pinned_path(layout.prefix(tmp_path, 3)).touch()
    assert kept(tmp_path) == [2, 3, 6]


def test_a_protected_checkpoint_is_kept(tmp_path):
    """The newest one up to a step is kept in addition to the newest, until a larger step is protected."""
    counter = Counter(tmp_path, retention=RetentionPolicy(max_to_keep=1)).count(2, save=True)
    for protected, steps_kept in ((2, [2, 3]), (2, [2, 4]), (3, [2, 5]), (5, [5, 6]), (5, [5, 7])):
        counter.manager.protect(protected)
        counter.count(1, save=True)
        assert kept(tmp_path) == steps_kept
    assert counter.manager.roll_back(counter.session, before=6).name == "model.ckpt-5"


def test_rolling_back_restores_an_older_state(tmp_path):
    """roll_back restores the newest checkpoint before a step, and moves newer ones to quarantine."""
    counter = Counter(tmp_path).count(3, save=True)
    expected = Counter(tmp_path).state()
    counter = OPEN[tmp_path].count(2, save=True)
    assert counter.manager.roll_back(counter.session, before=4).name == "model.ckpt-3"
    assert counter.state() == expected
    assert kept(tmp_path) == [1, 2, 3]
    assert (
        (tmp_path / "quarantine" / "model.ckpt-5" / "reason.txt")
        .read_text()
        .endswith("rolled back from it to step 3\n")
    )
    counter.count(1, save=True)
    assert kept(tmp_path) == [1, 2, 3, 4]
    with pytest.raises(CheckpointError, match="no complete checkpoint before step 1"):
        counter.manager.roll_back(counter.session, before=1)


def test_a_restored_state_with_another_digest_is_damage(tmp_path, caplog):
    """The files match the manifest, but the restored state does not: the one before is restored."""
    Counter(tmp_path).count(2, save=True)
    path = layout.manifest_path(layout.prefix(tmp_path, 2))
    path.write_bytes(dataclasses.replace(Manifest.read(path), state_digest="0" * 64).to_json())
    assert Counter(tmp_path).state()[0] == 1
    assert "the restored state is not the one that was saved" in caplog.text
    assert (tmp_path / "quarantine" / "model.ckpt-2" / "reason.txt").exists()


def test_a_matching_digest_is_logged(tmp_path, caplog):
    """The digest of the restored variables equals that of the snapshot."""
    Counter(tmp_path).count(1, save=True)
    with caplog.at_level("INFO"):
        Counter(tmp_path)
    digest = Manifest.read(layout.manifest_path(layout.prefix(tmp_path, 1))).state_digest
    assert f"state matches, digest {digest[:12]}" in caplog.text


def plain_saver(directory, step, version=tf.compat.v1.train.SaverDef.V2):
    """Save a checkpoint with a plain Saver; return its prefix."""
    directory.mkdir(exist_ok=True)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        count = tf.compat.v1.get_variable("global_step", initializer=tf.constant(step, tf.int64))
        value = tf.compat.v1.get_variable("value", initializer=tf.fill([3], float(step)))
        other = tf.compat.v1.get_variable("other", initializer=tf.fill([30_000], float(step)))
        session.run([count.initializer, value.initializer, other.initializer])
        saver = tf.compat.v1.train.Saver(write_version=version)
        return Path(saver.save(session, str(directory / "weights"), global_step=step))


def test_checkpoints_of_a_plain_saver_are_adopted(tmp_path):
    """A run resumes from the newest, saves under its own names, and deletes none of them."""
    for step in (9, 70, 200):
        plain_saver(tmp_path, step)
    theirs = {path: path.read_bytes() for path in tmp_path.glob("weights*")}
    counter = Counter(tmp_path, retention=RetentionPolicy(1))
    assert counter.state() == (200, [200.0] * 3)
    counter.count(3, save=True)
    assert kept(tmp_path) == [203]
    assert Counter(tmp_path).state()[0] == 203
    assert theirs == {path: path.read_bytes() for path in tmp_path.glob("weights*")}


def test_a_run_goes_on_from_the_checkpoint_that_the_state_file_names(tmp_path):
    """The user has gone back to 70; later checkpoints stay, also one whose name the run needs itself."""
    for step in (70, 200):
        for path in sorted(plain_saver(tmp_path, step).parent.glob(f"weights-{step}.*")):
            path.rename(tmp_path / path.name.replace("weights", "model.ckpt"))
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-70"\n')
    theirs = sorted(path.read_bytes() for path in tmp_path.glob("model.ckpt-*"))
    counter = Counter(tmp_path, retention=RetentionPolicy(1))
    assert counter.state() == (70, [70.0] * 3)
    counter.count(130, save=True)
    assert layout.steps_with(tmp_path, "manifest.json") == [200]
    assert Counter(tmp_path).state()[0] == 200
    kept_bytes = [path.read_bytes() for path in tmp_path.rglob("model.ckpt-*") if path.is_file()]
    assert all(content in kept_bytes for content in theirs)


def test_an_adopted_checkpoint_is_verified(tmp_path, caplog):
    """A wrong byte in a tensor that is not restored counts, too: the one before is adopted."""
    plain_saver(tmp_path, 70)
    path = plain_saver(tmp_path, 200).with_suffix(".data-00000-of-00001")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert Counter(tmp_path).state()[0] == 70
    assert "weights-200.data-00000-of-00001: tensor other: its bytes have changed" in caplog.text
    assert path.exists()


def test_only_damaged_foreign_checkpoints_are_an_error(tmp_path):
    """If all checkpoints of a plain Saver are damaged, no run starts at step 0 in their directory."""
    path = plain_saver(tmp_path, 70).with_suffix(".index")
    path.write_bytes(b"garbage")
    with pytest.raises(
        CheckpointError, match=r"weights-70: cannot be restored, and there is no older checkpoint \(weights-70.index: "
    ):
        Counter(tmp_path)


class ReferenceCounter:
    """A graph of reference variables, which are updated in place (use_resource=False)."""

    def __init__(self, directory):
        """Open a train_dir."""
        start = resume.open_train_dir(directory, {})
        with tf.Graph().as_default() as graph:
            step = tf.compat.v1.get_variable("global_step", initializer=tf.constant(0, tf.int64), use_resource=False)
            value = tf.compat.v1.get_variable("value", initializer=tf.zeros([2**20]), use_resource=False)
            self.count = [step.assign_add(1), value.assign_add(tf.ones_like(value))]
            initialize = tf.compat.v1.global_variables_initializer()
        self.session = tf.compat.v1.Session(graph=graph)
        self.session.run(initialize)
        self.manager = CheckpointManager(graph, start, variables=[step, value], step=step, save_every_steps=1)


def test_a_snapshot_of_reference_variables_is_constant(tmp_path):
    """Their buffers cannot be shared, so the snapshot copies them."""
    counter = ReferenceCounter(tmp_path)
    for _ in range(8):
        counter.session.run(counter.count)
        counter.manager.save_if_due(counter.session)
        for _ in range(3):
            counter.session.run(counter.count[1:])
            counter.session.run(counter.count[1:])
    counter.manager.close()
    for step in layout.steps_with(tmp_path, "index"):
        value = tf.train.load_checkpoint(str(layout.prefix(tmp_path, step))).get_tensor("value")
        assert np.unique(value).tolist() == [7.0 * step - 6]


def test_restored_values_are_bit_identical(tmp_path):
    """Restored values equal the saved ones in every bit."""
    saved = Counter(tmp_path).count(7).count(1, save=True).state()
    assert np.array_equal(Counter(tmp_path).state()[1], saved[1])


def test_a_failed_save_deletes_no_adopted_checkpoint(tmp_path, monkeypatch):
    """Not even if the adopted checkpoint is named model.ckpt-N."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        step = tf.compat.v1.get_variable("global_step", initializer=tf.constant(3, tf.int64))
        value = tf.compat.v1.get_variable("value", initializer=[1.0, 2.0, 3.0])
        session.run([step.initializer, value.initializer])
        tf.compat.v1.train.Saver().save(session, str(tmp_path / "model.ckpt"), global_step=3)
    counter = Counter(tmp_path)
    theirs = {path: path.read_bytes() for path in tmp_path.glob("model.ckpt-3.*")}
    monkeypatch.setattr(durable, "free_bytes", lambda _: 0)
    counter.manager.save(counter.session)  # the adopted checkpoint has this name
    with pytest.raises(NotSavedError):
        counter.count(1, save=True)
    monkeypatch.undo()
    assert theirs == {path: path.read_bytes() for path in tmp_path.glob("model.ckpt-3.*")}
    assert Counter(tmp_path).state()[0] == 3


def test_files_of_an_unreadable_checkpoint_prevent_a_fresh_start(tmp_path):
    """Files without an index, or in TensorFlow's format V1, are an error, and stay."""
    plain_saver(tmp_path / "index lost", 5).with_suffix(".index").unlink()
    plain_saver(tmp_path / "old format", 5, tf.compat.v1.train.SaverDef.V1)
    for name in ("index lost", "old format"):
        before = sorted((tmp_path / name).glob("[!l]*"))
        with pytest.raises(CheckpointError, match=r"found, but no \.index file that goes with it"):
            Counter(tmp_path / name)
        assert sorted((tmp_path / name).glob("[!l]*")) == before


def test_a_save_in_progress_survives_an_error_in_training(tmp_path):
    """When an exception leaves the manager's block, the save is finished first."""
    counter = Counter(tmp_path, size=2**22, save_every_steps=1)

    def fail():
        with counter.session, counter.manager:
            count_and_save_if_due(counter, 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert layout.steps_with(tmp_path, "manifest.json") == [1]


def test_close_reports_a_failed_save(tmp_path, caplog):
    """`close` logs or raises the error of the save in progress."""
    counter = Counter(tmp_path, save_every_steps=1)
    block_commit(tmp_path, 1)
    count_and_save_if_due(counter, 1)
    counter.manager.close()
    assert "model.ckpt-1: could not be saved" in caplog.text
    other = Counter(tmp_path / "other", save_every_steps=1)
    other.make_non_finite()
    with pytest.raises(NonFiniteError), other.manager:
        count_and_save_if_due(other, 1)


def test_a_save_is_due_when_a_multiple_is_passed(tmp_path):
    """Also with several updates between two calls of save_if_due."""
    counter = Counter(tmp_path, save_every_steps=10)
    for _ in range(7):
        counter.count(7).manager.save_if_due(counter.session)
    counter.manager.close()
    assert kept(tmp_path) == [14, 21, 35, 42]


def test_a_partitioned_variable_is_refused(tmp_path):
    """Part of a partitioned variable would be saved under a name that no graph has."""
    with tf.Graph().as_default() as graph:
        step = tf.compat.v1.train.get_or_create_global_step()
        parts = tf.compat.v1.get_variable(
            "value", initializer=tf.zeros([8, 2]), partitioner=tf.compat.v1.fixed_size_partitioner(2), use_resource=True
        )
        start = resume.open_train_dir(tmp_path, SETTINGS)
        with pytest.raises(ValueError, match="expected a whole variable, got part of a partitioned one"):
            CheckpointManager(graph, start, variables=[step, *parts], step=step)
        start.close()


def test_the_first_step_is_saved_again_if_its_checkpoint_is_gone(tmp_path):
    """After a rollback, and after the files were deleted, the step at which a run resumed is saved."""
    Counter(tmp_path).count(3, save=True)
    counter = Counter(tmp_path)
    counter.manager.roll_back(counter.session, before=3)
    counter.count(1, save=True)
    assert kept(tmp_path) == [1, 2, 3]
    counter = Counter(tmp_path)
    for path in tmp_path.glob("model.ckpt-3.*"):
        path.unlink()
    counter.manager.save(counter.session)
    assert kept(tmp_path) == [1, 2, 3]


SHORTAGES = {
    "thread": RuntimeError("can't start new thread"),
    "memory": MemoryError(),
    "descriptor": OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
    "TensorFlow's descriptor": tf.errors.ResourceExhaustedError(
        None, None, "x.data-00000-of-00001; Too many open files"
    ),
    "stale": tf.errors.AbortedError(None, None, "x.index; Stale file handle"),
    "network": tf.errors.DeadlineExceededError(None, None, "x.index; Connection timed out"),
    "unknown": tf.errors.UnknownError(None, None, "x.index; something new"),
    "end": tf.errors.OutOfRangeError(None, None, "Read fewer bytes than requested"),
}


@pytest.mark.parametrize("cause", SHORTAGES)
@pytest.mark.parametrize("call", ["restore", "digest_of_variables"])
def test_damage_is_concluded_from_bytes_only(tmp_path, monkeypatch, call, cause):
    """If restoring fails but all files are intact, nothing is moved, and the next start resumes there."""
    Counter(tmp_path).count(3, save=True)
    before = tree(tmp_path)

    def fail(*_):
        raise SHORTAGES[cause]

    with monkeypatch.context() as patched:
        patched.setattr(Snapshot, call, fail)
        with pytest.raises(CheckpointError, match=r"model.ckpt-3: cannot be restored now ") as raised:
            Counter(tmp_path)
    assert not isinstance(raised.value, DamagedError)
    assert raised.value.hint == LATER
    assert tree(tmp_path) == before
    assert Counter(tmp_path).state()[0] == 3


def test_files_that_cannot_be_read_are_not_damaged(tmp_path, monkeypatch):
    """If the files cannot be verified either, nothing is moved."""
    Counter(tmp_path).count(3, save=True)
    before = tree(tmp_path)

    def refuse(*_):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), "model.ckpt-3.index")

    def fail(*_):
        monkeypatch.setattr(regular_file, "open_to_read", refuse)
        raise tf.errors.AbortedError(None, None, "Stale file handle")

    with monkeypatch.context() as patched:
        patched.setattr(Snapshot, "restore", fail)
        with pytest.raises(CheckpointError, match=r"cannot be read \(Stale file handle\)") as raised:
            Counter(tmp_path)
    assert not isinstance(raised.value, DamagedError)
    monkeypatch.undo()
    assert tree(tmp_path) == before


@pytest.mark.parametrize("cause", [MemoryError(), RuntimeError("can't start new thread")])
def test_training_continues_after_a_shortage(tmp_path, monkeypatch, caplog, cause):
    """A save that fails for lack of memory or threads is logged, and a later one is made."""
    counter = Counter(tmp_path, save_every_steps=1)

    def fail(*_, **__):
        raise cause

    with monkeypatch.context() as patched:
        patched.setattr(Snapshot, "write", fail)
        counter.count(1).manager.save_if_due(counter.session)
        counter.count(1).manager.save_if_due(counter.session)
    counter.count(1).manager.save(counter.session)
    assert "could not be saved" in caplog.text
    assert 3 in kept(tmp_path)


def test_a_link_at_the_path_of_the_shards_is_not_followed(tmp_path):
    """The directory that the link leads to is not changed."""
    (tmp_path / "precious").mkdir()
    counter = Counter(tmp_path / "run", sharded=True)
    layout.shards_directory(layout.prefix(tmp_path / "run", 1)).symlink_to(tmp_path / "precious")
    with pytest.raises(NotSavedError, match="expected a directory, got a symbolic link"):
        counter.count(1, save=True)
    assert not list((tmp_path / "precious").iterdir())


def test_a_save_searches_no_directory(tmp_path, monkeypatch):
    """The cost of a save does not depend on the number of files; only the first one reads manifests."""
    counter = Counter(tmp_path, retention=RetentionPolicy(2, keep_best=1)).count(3, save=True)

    def refuse(*_):
        raise AssertionError("a directory is searched")

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", refuse)
        patch.setattr(os, "scandir", refuse)
        counter.count(3, save=True)
    assert kept(tmp_path) == [5, 6]


def test_with_max_to_keep_0_the_state_file_lists_one(tmp_path):
    """It lists the newest alone, as TensorFlow's Saver does."""
    Counter(tmp_path, retention=RetentionPolicy(0)).count(4, save=True)
    state = tf.train.get_checkpoint_state(str(tmp_path))
    assert list(state.all_model_checkpoint_paths) == [str(tmp_path / "model.ckpt-4")]
    assert layout.steps_with(tmp_path, "manifest.json") == [1, 2, 3, 4]


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_non_finite_score_is_recorded_as_unknown(tmp_path, score):
    """The checkpoint is saved, and resumed from."""
    counter = Counter(tmp_path, retention=RetentionPolicy(5, float("inf")))
    counter.count(1).manager.save(counter.session, score)
    counter.count(1, save=True)
    assert kept(tmp_path) == [1, 2]
    assert Manifest.read(layout.manifest_path(layout.prefix(tmp_path, 1))).score is None
    assert Counter(tmp_path).state()[0] == 2


def test_a_fall_back_never_takes_another_runs_weights(tmp_path):
    """If the checkpoint before has other settings, that is an error, and nothing is moved."""
    Counter(tmp_path).count(1, save=True)
    OPEN.pop(tmp_path).manager.close()
    path = layout.manifest_path(layout.prefix(tmp_path, 1))
    path.write_bytes(dataclasses.replace(Manifest.read(path), settings={"model": "another"}).to_json())
    found = Manifest.read(path)
    own = layout.prefix(tmp_path, 2)
    for each in list(tmp_path.glob("model.ckpt-1.*")):
        shutil.copy(each, each.with_name(each.name.replace("ckpt-1.", "ckpt-2.")))
    files = manifest.describe_files(layout.contents_of(own))
    wrong = dataclasses.replace(found, step=2, settings=SETTINGS, files=files, state_digest="00")
    layout.manifest_path(own).write_bytes(wrong.to_json())
    before = tree(tmp_path)
    with pytest.raises(CheckpointError, match="was made with model another"):
        Counter(tmp_path)
    assert tree(tmp_path) == before
