import resource
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from checkpointing import layout, resume
from checkpointing.errors import CheckpointError
from checkpointing.manager import CheckpointManager
from checkpointing.rotation import Retention

SETTINGS = {"model": "counter"}
KEEP_FIVE = Retention(max_to_keep=5, keep_checkpoint_every_n_hours=10_000)
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
        """Opens a train_dir as a run does."""
        self.directory = directory
        start = resume.find_start(directory, SETTINGS, restore_from=restore_from, may_grow=())
        with tf.Graph().as_default() as graph:
            step = tf.compat.v1.train.get_or_create_global_step()
            value = tf.compat.v1.get_variable("value", [size], initializer=tf.compat.v1.zeros_initializer())
            self._count = [step.assign_add(1), value.assign_add(tf.fill([size], 0.1))]
            self._spoil = value.assign(tf.fill([size], float("nan")))
            self._value, self._step = value, step
            initialize = tf.compat.v1.global_variables_initializer()
        self.session = tf.compat.v1.Session(graph=graph)
        self.session.run(initialize)
        options = {"retention": KEEP_FIVE, "start": start, "settings": SETTINGS} | options
        self.manager = CheckpointManager(graph, directory, variables=[step, value], step=step, **options)
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


def test_a_moved_train_dir_goes_on(tmp_path):
    """Nothing in it holds its old path, TensorFlow's state file included."""
    saved = Counter(tmp_path / "old").count(2, save=True).state()
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
    Counter(tmp_path, retention=Retention(2, 10_000))
    assert kept(tmp_path) == [6, 7]


def test_one_for_every_n_hours_is_kept_for_good(tmp_path):
    """Hours count over restarts, by the run's own clock."""
    clock = Clock()
    retention = Retention(max_to_keep=1, keep_checkpoint_every_n_hours=1)
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
    assert kept(tmp_path) == [4, 6, 8]


def test_a_checkpoint_is_never_written_twice(tmp_path):
    """Asked again to save a step that has its checkpoint, the manager leaves every file as it is."""
    counter = Counter(tmp_path).count(3, save=True)
    before = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    counter.manager.save(counter.session)
    assert before == {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in tmp_path.iterdir()}


def test_values_that_are_no_finite_numbers_are_not_saved(tmp_path):
    """They would push out checkpoints that are good; the sentence names the variable and the step."""
    counter = Counter(tmp_path, retention=Retention(1, 10_000)).count(1, save=True)
    counter.spoil()
    with pytest.raises(CheckpointError, match="step 2: value hold values that are no finite numbers"):
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
        with pytest.raises(CheckpointError, match=r"cannot be saved \(.*(File too large|Failed)"):
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


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), " bytes with sha256 "),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"), " bytes with sha256 "),
        (Path.unlink, "no such file"),
    ],
    ids=["truncated", "changed", "missing"],
)
@pytest.mark.parametrize("kind", ["data-00000-of-00001", "index", "meta"])
def test_a_damaged_checkpoint_is_told_and_nothing_is_lost(tmp_path, kind, damage, found):
    """One sentence names the file; no file is deleted, and never does the run start anew."""
    Counter(tmp_path).count(2, save=True)
    damage(tmp_path / f"model.ckpt-2.{kind}")
    files = sorted(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match=rf"model\.ckpt-2\.{kind}: .*{found}"):
        Counter(tmp_path)
    assert sorted(tmp_path.iterdir()) == files


def test_nothing_is_retired_before_what_is_kept_is_known_to_be_good(tmp_path):
    """Told to keep only the newest, which is damaged, a run deletes no older one that it could go on from."""
    Counter(tmp_path).count(2, save=True)
    (tmp_path / "model.ckpt-2.index").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="the checkpoint is damaged"):
        Counter(tmp_path, retention=Retention(1, 10_000))
    assert layout.steps_with(tmp_path, "manifest.json") == [1, 2]


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
    with pytest.raises(CheckpointError, match=r"variable global_step: no such variable found, .* it holds other"):
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


def test_a_disk_that_refuses_loses_no_checkpoint(tmp_path):
    """A save that fails is an error in one sentence, and what was complete stays complete."""
    counter = Counter(tmp_path).count(2, save=True)
    (tmp_path / "model.ckpt-3.manifest.json.tmp").mkdir()  # in the way of the commit
    with pytest.raises(CheckpointError, match=r"model\.ckpt-3: cannot be saved \(.*\); run again"):
        counter.count(1, save=True)
    assert tf.train.get_checkpoint_state(str(tmp_path)).model_checkpoint_path.endswith("model.ckpt-2")
    assert Counter(tmp_path).count(1, save=True).state()[0] == 3
    assert kept(tmp_path) == [1, 2, 3]


def test_arrays_come_back_to_the_last_bit(tmp_path):
    """What is restored is what was saved, not merely close to it."""
    saved = Counter(tmp_path).count(7).count(1, save=True).state()
    assert np.array_equal(Counter(tmp_path).state()[1], saved[1])
