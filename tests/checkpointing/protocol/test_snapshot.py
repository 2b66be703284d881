import hashlib
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from checkpointing.protocol.snapshot import Snapshot, size

KINDS = {
    "float32": np.arange(12, dtype=np.float32).reshape(3, 4),
    "float64": np.array([1.5, -0.0, 1e300]),
    "half": np.array([0.5, 2.0], np.float16),
    "int64": np.array(7, np.int64),
    "uint8": np.arange(5, dtype=np.uint8),
    "bool": np.array([True, False]),
    "empty": np.zeros([0, 3], np.float32),
    "text": np.array([b"abc", b"", b"\xff\x00"], dtype=object),
}


class State:
    """Variables of all dtypes, and a snapshot of them."""

    def __init__(self, shards=1, kinds=KINDS):
        """Initialize all variables."""
        with tf.Graph().as_default() as graph:
            self.variables = {
                name: tf.compat.v1.get_variable(name, initializer=tf.constant(value)) for name, value in kinds.items()
            }
            self.collections = {key: list(graph.get_collection(key)) for key in graph.get_all_collection_keys()}
            self.snapshot = Snapshot(list(self.variables.values()), shards)
            initialize = tf.compat.v1.global_variables_initializer()
        self.graph = graph
        self.session = tf.compat.v1.Session(graph=graph)
        self.session.run(initialize)

    def set(self, name, value):
        """Assign a value to a variable."""
        with self.graph.as_default():
            self.variables[name].load(value, self.session)


@pytest.mark.parametrize("shards", [1, 3, 50])
@pytest.mark.parametrize("side_by_side", [True, False])
def test_the_snapshot_is_written_not_the_variables(tmp_path, shards, side_by_side):
    """For every dtype and any number of files; TensorFlow reads them."""
    state = State(shards)
    state.snapshot.take(state.session)
    state.set("float32", np.zeros([3, 4], np.float32))
    state.set("text", np.array([b"x", b"y", b"z"], dtype=object))
    state.snapshot.write(state.session, tmp_path / "model", side_by_side=side_by_side)
    reader = tf.train.load_checkpoint(str(tmp_path / "model"))
    for name, value in KINDS.items():
        assert np.array_equal(reader.get_tensor(name), value), name
    files = sorted(path.name for path in tmp_path.iterdir())
    count = len(files) - 1
    assert count == {1: 1, 3: 3, 50: 7}[shards]  # one for each variable that has bytes
    assert files == [*(f"model.data-{number:05d}-of-{count:05d}" for number in range(count)), "model.index"]


@pytest.mark.parametrize("directory", ["run[1]", "with spaces", "größe-数字", "star*?"])
def test_any_directory_can_be_written_to(tmp_path, directory):
    """TensorFlow does not treat the path as a pattern."""
    state = State(shards=2)
    (tmp_path / directory).mkdir()
    state.snapshot.take(state.session)
    state.snapshot.write(state.session, tmp_path / directory / "model", side_by_side=True)
    assert len(list((tmp_path / directory).iterdir())) == 3


def test_a_released_snapshot_can_be_taken_again(tmp_path):
    """Its memory is freed in between."""
    state = State()
    for value in (1, 2):
        state.set("int64", value)
        state.snapshot.take(state.session)
        state.snapshot.write(state.session, tmp_path / f"model-{value}", side_by_side=False)
        state.snapshot.release(state.session)
        assert tf.train.load_checkpoint(str(tmp_path / f"model-{value}")).get_tensor("int64") == value


def test_the_digest_of_the_snapshot_is_that_of_the_variables():
    """Until a variable changes in any bit."""
    state = State()
    state.snapshot.take(state.session)
    taken = state.snapshot.examine(state.session).digest
    assert state.snapshot.digest_of_variables(state.session) == taken
    for name, value in {
        "float64": [1.5, 0.0, 1e300],
        "bool": [True, True],
        "text": [b"abcd", b"", b"\xff\x00"],
    }.items():
        state.set(name, np.array(value, KINDS[name].dtype))
        assert state.snapshot.digest_of_variables(state.session) != taken
        state.set(name, KINDS[name])
        assert state.snapshot.digest_of_variables(state.session) == taken


def test_the_digest_is_a_persistent_format():
    """Checkpoints hold it; snapshot.py describes it."""
    state = State(kinds={"float32": KINDS["float32"], "int64": KINDS["int64"]})
    lines = []
    for name, label in (("float32", "float32 [3, 4]"), ("int64", "int64 []")):
        row = np.frombuffer(KINDS[name].tobytes(), np.uint8).reshape(1, -1)
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            fingerprint = session.run(tf.raw_ops.Fingerprint(data=row, method="farmhash64"))
        lines.append(f"{name} {label} {fingerprint.tobytes().hex()}\n")
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert state.snapshot.digest_of_variables(state.session) == expected
    assert expected == "73c2d0943b912cf3f67900f5e621b53a2888fcaf5a2b70f13e41096eb863076f"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_variables_are_named(value):
    """Those of the snapshot, not of the variables now."""
    state = State()
    state.set("float64", np.array([0, value, 0]))
    state.snapshot.take(state.session)
    state.set("half", np.array([value, 0], np.float16))
    state.set("float64", np.zeros(3))
    assert state.snapshot.examine(state.session).non_finite == ["float64"]
    state.snapshot.take(state.session)
    assert state.snapshot.examine(state.session).non_finite == ["half"]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_one_non_finite_value_is_found_anywhere(dtype):
    """The largest and smallest finite numbers are finite, although their sum overflows."""
    info = ml_dtypes.finfo(dtype)
    values = np.full([4099], info.max)
    values[::2] = info.min
    values[7] = info.smallest_subnormal
    state = State(kinds={"values": values, "whole": values})
    state.snapshot.take(state.session)
    assert state.snapshot.examine(state.session).non_finite == []
    for place in (0, 2048, 4098):
        non_finite = values.copy()
        non_finite[place] = np.nan
        state.set("values", non_finite)
        state.snapshot.take(state.session)
        assert state.snapshot.examine(state.session).non_finite == ["values"], place


def test_shadows_are_in_no_collection():
    """A Saver or initializer of all variables does not include them."""
    state = State()
    for key, members in state.collections.items():
        assert state.graph.get_collection(key) == members


def test_an_unknown_shape_is_refused():
    """When the snapshot is built, before anything runs."""
    with tf.Graph().as_default():
        variable = tf.compat.v1.get_variable(
            "value", initializer=tf.compat.v1.placeholder(tf.float32, [None]), validate_shape=False
        )
        with pytest.raises(ValueError, match=r"value: expected a known shape, got"):
            Snapshot([variable], shards=1)


def test_shards_are_about_equally_large(tmp_path):
    """So that writing them in parallel takes half the time."""
    kinds = {f"v{number}": np.zeros(100 * (number + 1), np.float32) for number in range(9)}
    state = State(shards=2, kinds=kinds)
    state.snapshot.take(state.session)
    state.snapshot.write(state.session, tmp_path / "model", side_by_side=True)
    sizes = [path.stat().st_size for path in sorted(tmp_path.glob("*.data-*"))]
    assert abs(sizes[0] - sizes[1]) <= 400
    assert sum(sizes) == sum(size(variable) for variable in state.variables.values())


def test_a_failed_write_raises_an_error_of_tensorflow():
    """The manager turns it into NotSavedError."""
    state = State()
    state.snapshot.take(state.session)
    with pytest.raises(tf.errors.OpError):
        state.snapshot.write(state.session, Path("/proc/none/model"), side_by_side=False)
