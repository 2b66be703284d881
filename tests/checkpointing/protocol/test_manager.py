import dataclasses
import errno
import os
import resource
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from checkpointing.errors import CheckpointError, DamagedError, NonFiniteError, NotSavedError
from checkpointing.protocol import manifest, resume, save_policy
from checkpointing.protocol.manager import CheckpointManager
from checkpointing.protocol.manifest import Manifest
from checkpointing.protocol.retention import RetentionPolicy
from checkpointing.protocol.snapshot import Snapshot
from checkpointing.storage import durable, layout, regular_file
from tests.checkpoints import tree

SETTINGS = {"model": "counter"}
OPEN = {}
NAMES = ["plain", "run[1]", "with spaces", "größe-数字", "star*?"]


class Clock:
    """A clock that tests set."""

    now = 1_000_000.0

    def __call__(self):
        """Seconds since 1970."""
        return self.now


class Counter:
    """A graph that counts: state that every test can tell apart by its step."""

    def __init__(self, directory, *, restore_from=None, size=3, **options):
        """Opens a train_dir as a run does; the one that had it before is taken to have ended."""
        if directory in OPEN:
            OPEN.pop(directory).manager.close()
        self.directory = directory
        start = resume.open_train_dir(directory, SETTINGS, restore_from=restore_from)
        with tf.Graph().as_default() as graph:
            step = tf.compat.v1.train.get_or_create_global_step()
            value = tf.compat.v1.get_variable("value", [size], initializer=tf.compat.v1.zeros_initializer())
            self._count = [step.assign_add(1), value.assign_add(tf.fill([size], 0.1))]
            self.again = value.assign_add(tf.fill([size], 1000.0))
            self.undo = value.assign_sub(tf.fill([size], 1000.0))
            self._spoil = value.assign(tf.fill([size], float("nan")))
            self._value, self._step = value, step
            initialize = tf.compat.v1.global_variables_initializer()
        self.session = tf.compat.v1.Session(graph=graph)
        self.session.run(initialize)
        self.manager = CheckpointManager(graph, start, variables=[step, value], step=step, **options)
        OPEN[directory] = self
        self.manager.restore(self.session)

    def count(self, steps, *, save=False):
        """Makes so many updates; with `save`, a checkpoint after each."""
        for _ in range(steps):
            self.session.run(self._count)
            if save:
                self.manager.save(self.session)
        return self

    def spoil(self):
        """Makes the value no number."""
        self.session.run(self._spoil)

    def state(self):
        """The step and the value."""
        step, value = self.session.run([self._step, self._value])
        return int(step), value.tolist()


def kept(directory):
    """The steps in TensorFlow's state file, once they are known to be those on the disk."""
    state = tf.train.get_checkpoint_state(str(directory))
    steps = [int(path.rpartition("-")[2]) for path in state.all_model_checkpoint_paths]
    for kind in ("index", "meta", "manifest.json", "data-00000-of-00001"):
        assert layout.steps_with(directory, kind) == steps
    assert layout.steps_with(directory, "incomplete") == []
    return steps


@pytest.mark.parametrize("name", NAMES)
def test_a_run_goes_on_from_its_newest_checkpoint(tmp_path, name):
    """Whatever the train_dir is called, the state that comes back is the one that was saved last."""
    saved = Counter(tmp_path / name).count(3, save=True).state()
    assert Counter(tmp_path / name).state() == saved == (3, saved[1])


def test_the_newest_step_is_that_of_the_last_commit(tmp_path):
    """Whoever shows a run's progress can say from where it would go on; a restart knows it at once."""
    counter = Counter(tmp_path)
    assert counter.manager.newest_step is None
    assert counter.count(2, save=True).count(1).manager.newest_step == 2
    assert Counter(tmp_path).manager.newest_step == 2


def test_a_moved_train_dir_goes_on(tmp_path):
    """Nothing in it holds its old path, TensorFlow's state file included."""
    counter = Counter(tmp_path / "old").count(2, save=True)
    saved = counter.state()
    counter.manager.close()
    shutil.move(tmp_path / "old", tmp_path / "new")
    assert Counter(tmp_path / "new").state() == saved
    assert tf.train.latest_checkpoint(str(tmp_path / "new")) == str(tmp_path / "new" / "model.ckpt-2")


def test_tensorflow_reads_what_is_written(tmp_path):
    """The tensors and the graph are there under the names that TensorFlow's own tools use."""
    step, value = Counter(tmp_path).count(2, save=True).state()
    prefix = tf.train.latest_checkpoint(str(tmp_path))
    reader = tf.train.load_checkpoint(prefix)
    assert reader.get_tensor("global_step") == step
    assert reader.get_tensor("value").tolist() == value
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.train.import_meta_graph(f"{prefix}.meta").restore(session, prefix)
        assert session.run("value/Read/ReadVariableOp:0").tolist() == value


def test_the_newest_are_kept(tmp_path):
    """Of eight checkpoints the last five stay, each with all its files, and the state file lists them."""
    Counter(tmp_path).count(8, save=True)
    assert kept(tmp_path) == [4, 5, 6, 7, 8]


def test_rotation_holds_across_restarts_and_shrinks(tmp_path):
    """A restarted run keeps no more than it was told, and a lowered number deletes at once."""
    Counter(tmp_path).count(4, save=True)
    Counter(tmp_path).count(3, save=True)
    assert kept(tmp_path) == [3, 4, 5, 6, 7]
    Counter(tmp_path, retention=RetentionPolicy(2, 10_000))
    assert kept(tmp_path) == [6, 7]


def test_one_for_every_n_hours_is_kept_for_good(tmp_path):
    """Hours count over restarts, by the run's own clock."""
    clock = Clock()
    retention = RetentionPolicy(max_to_keep=1, keep_checkpoint_every_n_hours=1)
    for _ in range(2):
        counter = Counter(tmp_path, retention=retention, clock=clock)
        for _ in range(4):
            clock.now += 30 * 60
            counter.count(1, save=True)
        clock.now += 50 * 3600  # nothing ran meanwhile
    assert kept(tmp_path) == [2, 4, 6, 8]


def test_saves_come_due_by_steps_and_by_seconds(tmp_path):
    """Either period asks for a save; no period never does."""
    clock = Clock()
    counter = Counter(tmp_path, save_every_steps=4, save_every_seconds=60, clock=clock)
    for step in range(1, 9):
        clock.now += 70 if step == 6 else 10
        counter.count(1).manager.save_if_due(counter.session)
    counter.manager.close()
    assert kept(tmp_path) == [4, 6, 8]


def test_the_best_interval_comes_from_the_cost_of_a_save(tmp_path, monkeypatch):
    """With "auto": that of Young and Daly for the seconds that the last save took."""
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
    """Asked again to save a step that has its checkpoint, the manager leaves every file as it is."""
    counter = Counter(tmp_path).count(3, save=True)
    before = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    counter.manager.save(counter.session)
    assert before == {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in tmp_path.iterdir()}


def test_values_that_are_no_finite_numbers_are_not_saved(tmp_path):
    """They would push out checkpoints that are good; the sentence names the variable and the step."""
    counter = Counter(tmp_path, retention=RetentionPolicy(1, 10_000)).count(1, save=True)
    counter.spoil()
    with pytest.raises(NonFiniteError, match="step 2: value hold values that are no finite numbers"):
        counter.count(1, save=True)
    assert kept(tmp_path) == [1]


def test_a_copy_under_another_name_can_start_a_run(tmp_path):
    """Also with the manifest copied along, which speaks of files of other names."""
    saved = Counter(tmp_path / "old").count(2, save=True).state()
    (tmp_path / "copy").mkdir()
    for path in (tmp_path / "old").glob("model.ckpt-2.*"):
        shutil.copy(path, tmp_path / "copy" / path.name.replace("model.ckpt-2", "best"))
    assert Counter(tmp_path / "new", restore_from=tmp_path / "copy" / "best").state() == saved


def test_the_reason_of_a_failed_save_is_told(tmp_path):
    """Not where in TensorFlow's graph it came up, but what."""
    counter = Counter(tmp_path).count(1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"could not be saved \(.*(File too large|Failed)"):
            counter.count(1, save=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)


def test_the_state_file_is_only_a_cache(tmp_path):
    """Missing or full of rubbish, it is rebuilt from the manifests."""
    Counter(tmp_path).count(3, save=True)
    for rubbish in (b"", b"\0" * 100, b'model_checkpoint_path: "nowhere"', b"\xff\xfe"):
        (tmp_path / "checkpoint").write_bytes(rubbish)
        assert Counter(tmp_path).state()[0] == 3
        assert kept(tmp_path) == [1, 2, 3]
    (tmp_path / "checkpoint").unlink()
    Counter(tmp_path)
    assert kept(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize("relative", [True, False])
def test_paths_in_the_state_file_are_as_asked_for(tmp_path, relative):
    """Names with save_relative_paths, absolute paths without."""
    Counter(tmp_path, save_relative_paths=relative).count(1, save=True)
    first = (tmp_path / "checkpoint").read_text().splitlines()[0]
    assert first == f'model_checkpoint_path: "{"" if relative else str(tmp_path) + "/"}model.ckpt-1"'


def test_a_sharded_checkpoint_comes_back(tmp_path):
    """Saver's option works, and leaves no temporary directory."""
    saved = Counter(tmp_path, sharded=True).count(2, save=True).state()
    assert Counter(tmp_path, sharded=True).state() == saved
    assert not list(tmp_path.glob("*temp*"))


def test_a_checkpoint_of_another_shape_is_told(tmp_path):
    """The sentence names the variable, with the shape found and the one wanted."""
    Counter(tmp_path / "three").count(1, save=True)
    with pytest.raises(CheckpointError, match=r"variable value: float32 \[3\] found, float32 \[4\] wanted"):
        Counter(tmp_path / "four", size=4, restore_from=tmp_path / "three" / "model.ckpt-1")


def test_a_checkpoint_of_another_model_is_told(tmp_path):
    """A variable that is not in the checkpoint is named, with those that are."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        other = tf.compat.v1.get_variable("other", initializer=1.0)
        session.run(other.initializer)
        tf.compat.v1.train.Saver([other]).save(session, str(tmp_path / "foreign" / "model"))
    with pytest.raises(CheckpointError, match=r"global_step: expected .*, got no such variable; it holds other"):
        Counter(tmp_path / "run", restore_from=tmp_path / "foreign" / "model")


def test_a_checkpoint_of_a_plain_saver_can_start_a_run(tmp_path):
    """Anybody's checkpoint will do, if its variables are the model's."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        step = tf.compat.v1.get_variable("global_step", initializer=tf.constant(70, tf.int64))
        value = tf.compat.v1.get_variable("value", initializer=tf.constant([1.0, 2.0, 3.0]))
        session.run([step.initializer, value.initializer])
        prefix = tf.compat.v1.train.Saver().save(session, str(tmp_path / "plain" / "model"), global_step=70)
    counter = Counter(tmp_path / "run", restore_from=Path(prefix))
    assert counter.state() == (70, [1.0, 2.0, 3.0])
    assert Counter(tmp_path / "run", restore_from=Path(prefix)).count(2, save=True).state()[0] == 72
    assert Counter(tmp_path / "run", restore_from=Path(prefix)).state()[0] == 72


def test_what_must_be_safe_first_is_asked_for_before_the_commit(tmp_path):
    """When the hook runs, the checkpoint does not exist yet."""
    seen = []
    counter = Counter(tmp_path, before_commit=lambda: seen.append(layout.steps_with(tmp_path, "manifest.json")))
    counter.count(2, save=True)
    assert seen == [[], [1]]


def in_the_way(directory, step):
    """Something that makes every commit of this step fail."""
    obstacle = directory / f"model.ckpt-{step}.manifest.json.tmp"
    obstacle.mkdir()
    return obstacle


def test_a_disk_that_refuses_loses_no_checkpoint(tmp_path):
    """A last save that fails is an error in one sentence, and what was complete stays complete."""
    counter = Counter(tmp_path).count(2, save=True)
    in_the_way(tmp_path, 3)
    with pytest.raises(
        NotSavedError, match=r"ckpt-3: could not be saved \(Is a directory\); the last .* is .*ckpt-2\."
    ):
        counter.count(1, save=True)
    assert kept(tmp_path) == [1, 2]
    assert Counter(tmp_path).count(1, save=True).state()[0] == 3
    assert kept(tmp_path) == [1, 2, 3]


def count_and_offer(counter, steps):
    """Makes updates, and lets the manager save after each."""
    for _ in range(steps):
        counter.count(1).manager.save_if_due(counter.session)


def test_training_goes_on_when_a_save_fails(tmp_path, caplog):
    """It is said once, with what is still safe; the saves after it are made as if nothing had happened."""
    counter = Counter(tmp_path, save_every_steps=1, save_in_background=False)
    for step in (3, 4):
        in_the_way(tmp_path, step)
    with caplog.at_level("WARNING"):
        count_and_offer(counter, 7)
    counter.manager.close()
    assert kept(tmp_path) == [1, 2, 5, 6, 7]
    # That what was in the way has been moved is another matter.
    about_saves = [record for record in caplog.records if record.name == "checkpointing.protocol.manager"]
    assert [record.levelname for record in about_saves] == ["WARNING"]
    assert "model.ckpt-3: could not be saved (Is a directory)" in caplog.text
    assert "the last complete checkpoint is" in caplog.text
    assert "--max_failed_saves=10" in caplog.text


@pytest.mark.parametrize("in_background", [True, False])
def test_too_many_failures_in_a_row_end_the_run(tmp_path, in_background):
    """Computing what cannot be kept is a waste; the sentence says what is safe."""
    counter = Counter(tmp_path, save_every_steps=1, max_failed_saves=2, save_in_background=in_background)
    for step in (2, 3, 5, 6, 7, 8, 9):  # two in a row are borne
        in_the_way(tmp_path, step)
    with pytest.raises(NotSavedError, match=r"ckpt-7: .*, as did the 2 saves before it; the last .* is .*ckpt-4\."):
        count_and_offer(counter, 9)
    assert counter.state()[0] in ({8, 9} if in_background else {7})


def test_a_deleted_train_dir_is_made_again(tmp_path, caplog):
    """Better a short history than none; and it is the run's own again."""
    counter = Counter(tmp_path / "run").count(2, save=True)
    shutil.rmtree(tmp_path / "run")
    counter.count(1, save=True)
    assert "was deleted during the run" in caplog.text
    assert kept(tmp_path / "run") == [3]
    with pytest.raises(CheckpointError, match=f"in use by process {os.getpid()} on"):
        resume.open_train_dir(tmp_path / "run", SETTINGS)


def test_a_disk_without_room_is_not_filled(tmp_path, monkeypatch):
    """Where it is known that a checkpoint will not fit, none is begun."""
    counter = Counter(tmp_path).count(1, save=True)
    monkeypatch.setattr(durable, "free_bytes", lambda _: 1000)
    with pytest.raises(NotSavedError, match=r"0\.0 MB free on the disk, .* wanted"):
        counter.count(1, save=True)
    assert layout.steps_with(tmp_path, "index") == [1]
    assert kept(tmp_path) == [1]


@pytest.mark.parametrize("in_background", [True, False])
def test_a_snapshot_is_the_state_of_its_step(tmp_path, in_background):
    """However far training has gone on while it was written."""
    counter = Counter(tmp_path, size=2**20, save_every_steps=5, save_in_background=in_background)
    expected = {}
    for _ in range(20):
        counter.count(1)
        step, value = counter.state()
        expected[step] = value[0]
        counter.manager.save_if_due(counter.session)
        counter.session.run(counter.again)  # at once, while the writer reads
        counter.session.run(counter.undo)
    counter.manager.close()
    assert kept(tmp_path) == [5, 10, 15, 20]
    for step in (5, 10, 15, 20):
        value = tf.train.load_checkpoint(str(layout.prefix(tmp_path, step))).get_tensor("value")
        assert np.unique(value).tolist() == [np.float32(expected[step])]


def test_both_ways_to_save_give_the_same_bytes(tmp_path):
    """In the background or not, sharded or not: what is in a checkpoint does not depend on when it was written."""
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
    """Besides the newest."""
    counter = Counter(tmp_path, retention=RetentionPolicy(max_to_keep=1, keep_best=1))
    for step, score in enumerate([0.5, 0.9, 0.7, None, 0.9, 0.8], start=1):
        counter.count(1).manager.save(counter.session, score)
        if step == 3:
            layout.pinned_path(layout.prefix(tmp_path, 3)).touch()
    assert kept(tmp_path) == [2, 3, 6]


def test_rolling_back_restores_an_older_state(tmp_path):
    """The newest from before a step; what is newer is nothing to go on from."""
    counter = Counter(tmp_path).count(3, save=True)
    wanted = Counter(tmp_path).state()
    counter = OPEN[tmp_path].count(2, save=True)
    assert counter.manager.roll_back(counter.session, before=4).name == "model.ckpt-3"
    assert counter.state() == wanted
    assert kept(tmp_path) == [1, 2, 3]
    assert (
        (tmp_path / "quarantine" / "model.ckpt-5" / "reason.txt").read_text().endswith("went back from it to step 3\n")
    )
    counter.count(1, save=True)
    assert kept(tmp_path) == [1, 2, 3, 4]
    with pytest.raises(CheckpointError, match="no checkpoint from before step 1"):
        counter.manager.roll_back(counter.session, before=1)


def test_a_state_that_does_not_match_is_set_aside(tmp_path, caplog):
    """Bytes that are as written but give another state than the one that was saved are not gone on from."""
    Counter(tmp_path).count(2, save=True)
    path = layout.manifest_path(layout.prefix(tmp_path, 2))
    path.write_bytes(dataclasses.replace(Manifest.read(path), state_digest="0" * 64).to_json())
    assert Counter(tmp_path).state()[0] == 1
    assert "the restored state is not the one that was saved" in caplog.text
    assert (tmp_path / "quarantine" / "model.ckpt-2" / "reason.txt").exists()


def test_a_restored_state_is_said_to_match(tmp_path, caplog):
    """With the digest that was taken before the save, and taken anew from the variables after the restore."""
    Counter(tmp_path).count(1, save=True)
    with caplog.at_level("INFO"):
        Counter(tmp_path)
    digest = Manifest.read(layout.manifest_path(layout.prefix(tmp_path, 1))).state_digest
    assert f"state matches, digest {digest[:12]}" in caplog.text


def plain_saver(directory, step, version=tf.compat.v1.train.SaverDef.V2):
    """What a program that has never heard of this one leaves."""
    directory.mkdir(exist_ok=True)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        count = tf.compat.v1.get_variable("global_step", initializer=tf.constant(step, tf.int64))
        value = tf.compat.v1.get_variable("value", initializer=tf.fill([3], float(step)))
        other = tf.compat.v1.get_variable("other", initializer=tf.fill([30_000], float(step)))
        session.run([count.initializer, value.initializer, other.initializer])
        saver = tf.compat.v1.train.Saver(write_version=version)
        return Path(saver.save(session, str(directory / "weights"), global_step=step))


def test_what_a_plain_saver_left_is_adopted(tmp_path):
    """The run goes on from the newest, saves under its own names, and deletes none of the others."""
    for step in (9, 70, 200):
        plain_saver(tmp_path, step)
    theirs = {path: path.read_bytes() for path in tmp_path.glob("weights*")}
    counter = Counter(tmp_path, retention=RetentionPolicy(1))
    assert counter.state() == (200, [200.0] * 3)
    counter.count(3, save=True)
    assert kept(tmp_path) == [203]
    assert Counter(tmp_path).state()[0] == 203
    assert theirs == {path: path.read_bytes() for path in tmp_path.glob("weights*")}


def test_an_adopted_checkpoint_has_been_read_whole(tmp_path, caplog):
    """A byte is wrong in a tensor that is not even restored: the one before is taken."""
    plain_saver(tmp_path, 70)
    path = plain_saver(tmp_path, 200).with_suffix(".data-00000-of-00001")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert Counter(tmp_path).state()[0] == 70
    assert "weights-200.data-00000-of-00001: tensor other: its bytes have changed" in caplog.text
    assert path.exists()


def test_only_damaged_foreign_checkpoints_are_an_error(tmp_path):
    """Never a fresh start beside what may be repaired."""
    path = plain_saver(tmp_path, 70).with_suffix(".index")
    path.write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match=r"weights-70.index: .*; it is the last one"):
        Counter(tmp_path)


class OldStyle:
    """A graph of variables that are updated in place (use_resource=False)."""

    def __init__(self, directory):
        """Opens a train_dir."""
        start = resume.open_train_dir(directory, {})
        with tf.Graph().as_default() as graph:
            step = tf.compat.v1.get_variable("global_step", initializer=tf.constant(0, tf.int64), use_resource=False)
            value = tf.compat.v1.get_variable("value", initializer=tf.zeros([2**20]), use_resource=False)
            self.count = [step.assign_add(1), value.assign_add(tf.ones_like(value))]
            initialize = tf.compat.v1.global_variables_initializer()
        self.session = tf.compat.v1.Session(graph=graph)
        self.session.run(initialize)
        self.manager = CheckpointManager(graph, start, variables=[step, value], step=step, save_every_steps=1)


def test_variables_that_are_updated_in_place_are_held_still_too(tmp_path):
    """Their buffers cannot be shared, so they are copied."""
    old = OldStyle(tmp_path)
    for _ in range(8):
        old.session.run(old.count)
        old.manager.save_if_due(old.session)
        for _ in range(3):
            old.session.run(old.count[1:])
            old.session.run(old.count[1:])
    old.manager.close()
    for step in layout.steps_with(tmp_path, "index"):
        value = tf.train.load_checkpoint(str(layout.prefix(tmp_path, step))).get_tensor("value")
        assert np.unique(value).tolist() == [7.0 * step - 6]


def test_arrays_come_back_to_the_last_bit(tmp_path):
    """What is restored is what was saved, not merely close to it."""
    saved = Counter(tmp_path).count(7).count(1, save=True).state()
    assert np.array_equal(Counter(tmp_path).state()[1], saved[1])


def test_a_failed_save_deletes_nothing_of_somebody_elses(tmp_path, monkeypatch):
    """Not even where the adopted checkpoint has the very name of the one that could not be saved."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        step = tf.compat.v1.get_variable("global_step", initializer=tf.constant(3, tf.int64))
        value = tf.compat.v1.get_variable("value", initializer=[1.0, 2.0, 3.0])
        session.run([step.initializer, value.initializer])
        tf.compat.v1.train.Saver().save(session, str(tmp_path / "model.ckpt"), global_step=3)
    counter = Counter(tmp_path)
    theirs = {path: path.read_bytes() for path in tmp_path.glob("model.ckpt-3.*")}
    monkeypatch.setattr(durable, "free_bytes", lambda _: 0)
    counter.manager.save(counter.session)  # it is there already, in somebody's name
    with pytest.raises(NotSavedError):
        counter.count(1, save=True)
    monkeypatch.undo()
    assert theirs == {path: path.read_bytes() for path in tmp_path.glob("model.ckpt-3.*")}
    assert Counter(tmp_path).state()[0] == 3


def test_what_is_left_of_a_checkpoint_is_no_fresh_start(tmp_path):
    """A plain Saver's files without their index, or in TensorFlow's old format: one sentence, and nothing is lost."""
    plain_saver(tmp_path / "index lost", 5).with_suffix(".index").unlink()
    plain_saver(tmp_path / "old format", 5, tf.compat.v1.train.SaverDef.V1)
    for name in ("index lost", "old format"):
        before = sorted((tmp_path / name).glob("[!l]*"))
        with pytest.raises(CheckpointError, match=r"found, but no \.index file that goes with it"):
            Counter(tmp_path / name)
        assert sorted((tmp_path / name).glob("[!l]*")) == before


def test_a_save_under_way_outlives_an_error_in_training(tmp_path):
    """Whoever leaves the block by an exception finds the checkpoint that was being written."""
    counter = Counter(tmp_path, size=2**22, save_every_steps=1)

    def fail():
        with counter.session, counter.manager:
            count_and_offer(counter, 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert layout.steps_with(tmp_path, "manifest.json") == [1]


def test_closing_tells_what_became_of_the_last_save(tmp_path, caplog):
    """That it failed is said, also where nobody asks again."""
    counter = Counter(tmp_path, save_every_steps=1)
    in_the_way(tmp_path, 1)
    count_and_offer(counter, 1)
    counter.manager.close()
    assert "model.ckpt-1: could not be saved" in caplog.text
    other = Counter(tmp_path / "other", save_every_steps=1)
    other.spoil()
    with pytest.raises(NonFiniteError), other.manager:
        count_and_offer(other, 1)


def test_a_multiple_that_is_passed_over_is_saved_after(tmp_path):
    """Also a program that makes several updates between two looks saves as often as it asked to."""
    counter = Counter(tmp_path, save_every_steps=10)
    for _ in range(7):
        counter.count(7).manager.save_if_due(counter.session)
    counter.manager.close()
    assert kept(tmp_path) == [14, 21, 35, 42]


def test_a_partitioned_variable_is_refused(tmp_path):
    """In one sentence, rather than saved under a name that no graph knows."""
    with tf.Graph().as_default() as graph:
        step = tf.compat.v1.train.get_or_create_global_step()
        parts = tf.compat.v1.get_variable(
            "value", initializer=tf.zeros([8, 2]), partitioner=tf.compat.v1.fixed_size_partitioner(2), use_resource=True
        )
        start = resume.open_train_dir(tmp_path, SETTINGS)
        with pytest.raises(ValueError, match="part of a partitioned variable found, whole ones wanted"):
            CheckpointManager(graph, start, variables=[step, *parts], step=step)
        start.close()


def test_where_a_run_started_is_saved_anew_once_it_is_gone(tmp_path):
    """After going back beyond it, or with the train_dir deleted, its step has no checkpoint, and gets one again."""
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


AT_THE_MOMENT = {
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


@pytest.mark.parametrize("cause", AT_THE_MOMENT)
@pytest.mark.parametrize("call", ["restore", "digest_of_variables"])
def test_whatever_tensorflow_says_damage_is_concluded_from_bytes(tmp_path, monkeypatch, call, cause):
    """Where every byte is as it was written, nothing is moved: one sentence, and the next start goes on from there."""
    Counter(tmp_path).count(3, save=True)
    before = tree(tmp_path)

    def fail(*_):
        raise AT_THE_MOMENT[cause]

    with monkeypatch.context() as patched:
        patched.setattr(Snapshot, call, fail)
        with pytest.raises(
            CheckpointError, match=r"model.ckpt-3: cannot be restored now .*run the same command"
        ) as said:
            Counter(tmp_path)
    assert not isinstance(said.value, DamagedError)
    assert tree(tmp_path) == before
    assert Counter(tmp_path).state()[0] == 3


def test_bytes_that_cannot_be_looked_at_either_are_not_damage(tmp_path, monkeypatch):
    """The shortage lasts: still nothing is moved."""
    Counter(tmp_path).count(3, save=True)
    before = tree(tmp_path)

    def refuse(*_):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), "model.ckpt-3.index")

    def fail(*_):
        monkeypatch.setattr(regular_file, "open_to_read", refuse)
        raise tf.errors.AbortedError(None, None, "Stale file handle")

    with monkeypatch.context() as patched:
        patched.setattr(Snapshot, "restore", fail)
        with pytest.raises(CheckpointError, match=r"cannot be read \(Stale file handle\)") as said:
            Counter(tmp_path)
    assert not isinstance(said.value, DamagedError)
    monkeypatch.undo()
    assert tree(tmp_path) == before


@pytest.mark.parametrize("cause", [MemoryError(), RuntimeError("can't start new thread")])
def test_a_save_for_which_something_is_short_is_made_later(tmp_path, monkeypatch, caplog, cause):
    """Training goes on, and says so, as where the disk refuses."""
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


def test_a_link_in_the_place_of_the_shards_is_not_written_through(tmp_path):
    """The directory that it leads to stays as it was."""
    (tmp_path / "precious").mkdir()
    counter = Counter(tmp_path / "run", sharded=True)
    layout.shards_directory(layout.prefix(tmp_path / "run", 1)).symlink_to(tmp_path / "precious")
    with pytest.raises(NotSavedError, match="expected a directory, got a symbolic link"):
        counter.count(1, save=True)
    assert not list((tmp_path / "precious").iterdir())


def test_a_save_searches_no_directory(tmp_path, monkeypatch):
    """What it costs does not depend on how many files lie there; the first one after a restart reads the manifests."""
    counter = Counter(tmp_path, retention=RetentionPolicy(2, keep_best=1)).count(3, save=True)

    def refuse(*_):
        raise AssertionError("a directory is searched")

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", refuse)
        patch.setattr(os, "scandir", refuse)
        counter.count(3, save=True)
    assert kept(tmp_path) == [5, 6]


def test_where_all_are_kept_the_state_file_does_not_grow(tmp_path):
    """It names the newest alone, as TensorFlow's Saver has it."""
    Counter(tmp_path, retention=RetentionPolicy(0)).count(4, save=True)
    state = tf.train.get_checkpoint_state(str(tmp_path))
    assert list(state.all_model_checkpoint_paths) == [str(tmp_path / "model.ckpt-4")]
    assert layout.steps_with(tmp_path, "manifest.json") == [1, 2, 3, 4]


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_costs_no_checkpoint(tmp_path, score):
    """It is recorded as unknown, and the checkpoint is gone on from."""
    counter = Counter(tmp_path, retention=RetentionPolicy(5, float("inf")))
    counter.count(1).manager.save(counter.session, score)
    counter.count(1, save=True)
    assert kept(tmp_path) == [1, 2]
    assert Manifest.read(layout.manifest_path(layout.prefix(tmp_path, 1))).score is None
    assert Counter(tmp_path).state()[0] == 2


def test_a_fall_back_never_takes_another_runs_weights(tmp_path):
    """Where the checkpoint before is of other settings, that is one sentence, and nothing is moved."""
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
