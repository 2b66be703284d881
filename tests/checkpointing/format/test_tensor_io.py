import errno
import os
import subprocess
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

from checkpointing.errors import CheckpointError, DamagedError
from checkpointing.format import tensor_io
from checkpointing.storage import durable, layout
from tests import programs
from tests.checkpoints import AWKWARD, Killed, cut_in_half, every_kill, flip_a_bit, tree

DTYPES = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
    *(ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2),
]
NAMES = ["file", "layer1/weights", "größe/数字", "a b", "x", "x.npy", "self", "__metadata__x", "../up", "arr_0"]


def of_every_dtype(dtypes=DTYPES):
    """Make scalars, vectors, matrices and empty arrays of every byte value, NaNs with a payload included."""
    state = {}
    for dtype in map(np.dtype, dtypes):
        content = bytes(range(256)) if dtype.name != "bool" else bytes([0, 1] * 128)
        array = np.frombuffer(content, dtype)
        state |= {f"{dtype.name}/vector": array, f"{dtype.name}/scalar": array[3], f"{dtype.name}/empty": array[:0]}
        state[f"{dtype.name}/matrix"] = array.reshape(2, -1)
    return {name: np.asarray(array) for name, array in state.items()}


def assert_same(found, expected):
    """Compare names, dtypes, shapes and bits."""
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        assert found[name].tolist() == array.tolist() if array.dtype == object else True, name
        assert array.dtype == object or found[name].tobytes() == array.tobytes(), name


def strings(*values):
    """Make a vector of strings."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


@pytest.mark.parametrize("name", AWKWARD[:-1])
def test_tensors_are_read_as_they_were_written(tmp_path, name):
    """Here and by TensorFlow, to the last bit, with any names of directory and tensors."""
    state = {**of_every_dtype(), **{each: np.arange(3) for each in NAMES}}
    state |= {"strings": strings(b"", b"\0\xff", b"x" * 300), "no strings": strings()}
    tensor_io.write(tmp_path / name / "all", state)
    assert_same(tensor_io.read(tmp_path / name / "all"), state)
    directory = (tmp_path / name).rename(tmp_path / "x")  # TensorFlow's reader finds nothing in "run[1]"
    reader = tf.train.load_checkpoint(str(directory / "all"))
    assert sorted(reader.get_variable_to_shape_map()) == sorted(state)
    assert reader.get_tensor("float32/matrix").tobytes() == state["float32/matrix"].tobytes()
    assert sorted(path.name for path in directory.iterdir()) == ["all.data-00000-of-00001", "all.index"]


def test_a_checkpoint_can_be_written_in_graph_mode(tmp_path):
    """No operation is added to the current graph."""
    with tf.Graph().as_default() as graph:
        tensor_io.write(tmp_path / "new", {"a": np.arange(3)})
        assert not graph.get_operations()
    assert tensor_io.read(tmp_path / "new")["a"].tolist() == [0, 1, 2]


def test_a_graph_is_copied(tmp_path):
    """The .meta file has the same bytes."""
    (tmp_path / "graph").write_bytes(b"a graph")
    tensor_io.write(tmp_path / "new", {"a": np.arange(3)}, tmp_path / "graph")
    assert (tmp_path / "new.meta").read_bytes() == b"a graph"


def test_no_checkpoint_is_overwritten(tmp_path):
    """An existing one is an error, and is unchanged."""
    tensor_io.write(tmp_path / "new", {"a": np.arange(3)})
    before = tree(tmp_path)
    with pytest.raises(CheckpointError, match="new: exists already; checkpoints are not overwritten") as caught:
        tensor_io.write(tmp_path / "new", {"a": np.arange(4)})
    assert caught.value.hint == "use another name"
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["model.ckpt-7", "model.ckpt-0"])
def test_names_of_a_runs_own_checkpoints_are_refused(tmp_path, name):
    """A run would resume from it, or delete it."""
    with pytest.raises(CheckpointError, match="the name of a run's own checkpoint"):
        tensor_io.write(tmp_path / name, {"a": np.arange(3)})
    assert list(tmp_path.iterdir()) == []


def test_a_kill_leaves_a_complete_checkpoint_or_none(tmp_path):
    """It exists once its index does; leftovers of a kill during the write do not block the name."""
    state = {"a": np.arange(3), "b": np.ones(1000)}
    (tmp_path / "graph").write_bytes(b"a graph")
    kills = 0

    def write(directory):
        tensor_io.write(directory / "run" / "new", state, tmp_path / "graph")

    for directory in every_kill(tmp_path / "kills", lambda _: None, write):
        kills += 1
        prefix = directory / "run" / "new"
        if layout.index_path(prefix).exists():
            assert_same(tensor_io.read(prefix), state)
            assert (directory / "run" / "new.meta").read_bytes() == b"a graph"
        elif not prefix.parent.exists() or not layout.contents_of(prefix):
            tensor_io.write(prefix, state)
            assert [path.name for path in prefix.parent.iterdir() if path.is_dir()] == []
    assert kills > 8


def test_leftovers_are_not_mixed_in(tmp_path, monkeypatch):
    """Shards of a killed attempt are not in the next checkpoint."""
    with monkeypatch.context() as patched:
        patched.setattr(durable, "move", lambda *_: (_ for _ in ()).throw(Killed))
        patched.setattr(durable, "delete_tree", lambda _: None)
        with pytest.raises(Killed):
            tensor_io.write(tmp_path / "new", {"a": np.arange(3)}, meta=programs.ROOT / "README.md")
    assert (tmp_path / "new_temp" / "new.meta").exists()
    tensor_io.write(tmp_path / "new", {"a": np.arange(3)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.data-00000-of-00001", "new.index"]


def test_user_files_stay(tmp_path):
    """Also in the directory to which the shards would be written."""
    (tmp_path / "new_temp").mkdir()
    (tmp_path / "new_temp" / "notes.txt").touch()
    with pytest.raises(CheckpointError, match="new: exists already"):
        tensor_io.write(tmp_path / "new", {"a": np.arange(3)})
    assert (tmp_path / "new_temp" / "notes.txt").exists()


@pytest.mark.parametrize("array", [np.zeros(2, "M8[s]"), np.zeros(2, [("x", int)]), np.zeros(2, np.longdouble)])
def test_unknown_dtypes_are_an_error(tmp_path, array):
    """An archive may hold dates or structured arrays, which TensorFlow lacks. The tensor is named."""
    with pytest.raises(CheckpointError, match=r"new: tensor b is .*, which TensorFlow cannot store"):
        tensor_io.write(tmp_path / "new", {"a": np.zeros(2), "b": array})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["a", ""], "expected a name for each tensor, got an empty one"),
        (["a\0b"], r"expected tensors' names without NUL, got 'a\\x00b'"),
        (["\0a\0\1"], "expected tensors' names without NUL"),
        (["\udcff"], r"expected tensors' names in UTF-8, got '\\udcff'"),
        ([], "expected at least one tensor to write, got none"),
    ],
)
@pytest.mark.parametrize("name", ["x", "x.npz", "x.safetensors"])
def test_names_that_cannot_be_stored_are_an_error(tmp_path, name, names, problem):
    """TensorFlow's writer ends the process if a name is empty (CHECK); nothing is written."""
    write = tensor_io.write if name == "x" else tensor_io.write_archive
    with pytest.raises(CheckpointError, match=f"{name}: {problem}"):
        write(tmp_path / name, {each: np.zeros(2) for each in names})
    assert list(tmp_path.iterdir()) == []


ODD_ARRAYS = [np.zeros((0, 3)), np.zeros((0, 2**40)), np.zeros((1,) * 64), np.arange(3, dtype=">i4")]


@pytest.mark.parametrize("array", ODD_ARRAYS, ids=["empty", "long", "deep", "big-endian"])
def test_unusual_shapes_are_written(tmp_path, array):
    """No elements, many dimensions, another byte order: TensorFlow stores them all."""
    tensor_io.write(tmp_path / "new", {"a": array})
    found = tensor_io.read(tmp_path / "new")["a"]
    assert (found.shape, found.tolist()) == (array.shape, array.tolist())


def quantized():
    """Make an array of each quantized dtype, in TensorFlow's NumPy form."""
    dtypes = [tf.qint8, tf.quint8, tf.qint16, tf.quint16, tf.qint32]
    return {each.name: np.frombuffer(bytes(range(48)), each.as_numpy_dtype).reshape(2, -1) for each in dtypes}


def dtypes_of(prefix):
    """Return the names of the dtypes that TensorFlow finds in a checkpoint, by tensor."""
    found = tf.train.load_checkpoint(str(prefix)).get_variable_to_dtype_map()
    return {name: dtype.name for name, dtype in found.items()}


def test_quantized_dtypes_are_kept(tmp_path):
    """Averaged, renamed, and converted to .npz and back: qint8 does not become int8."""
    state = quantized()
    tensor_io.write(tmp_path / "a", state)
    read = tensor_io.read(tmp_path / "a")
    assert_same(read, state)
    tensor_io.write(tmp_path / "b", tensor_io.averaged([read, read]))
    tensor_io.write(tmp_path / "c", tensor_io.renamed(read, {"qint8": "x"}))
    tensor_io.write_archive(tmp_path / "d.npz", read)
    tensor_io.write(tmp_path / "d", tensor_io.read_archive(tmp_path / "d.npz"))
    assert dtypes_of(tmp_path / "a") == {name: name for name in state}
    assert dtypes_of(tmp_path / "b") == dtypes_of(tmp_path / "d") == dtypes_of(tmp_path / "a")
    assert dtypes_of(tmp_path / "c")["x"] == "qint8"
    assert_same(tensor_io.read(tmp_path / "d"), state)


def test_a_quantized_variable_in_slices_keeps_its_dtype(tmp_path):
    """A partitioned variable's slices are joined by TensorFlow, whose reader returns plain integers."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        values = [tf.bitcast(tf.constant(part, tf.int8), tf.qint8) for part in ([1, 2], [3, -4])]
        names = {"tensor_names": ["q", "q"], "shape_and_slices": ["4 0,2", "4 2,2"]}
        session.run(tf.raw_ops.SaveV2(prefix=str(tmp_path / "a"), tensors=values, **names))
    state = tensor_io.read(tmp_path / "a")
    assert state["q"].dtype == tf.qint8.as_numpy_dtype
    assert state["q"].view("i1").tolist() == [1, 2, 3, -4]


@pytest.mark.parametrize("dtype", ["int4", "uint4", "int2", "uint2", "float4_e2m1fn", "float8_e4m3fnuz"])
def test_small_dtypes_are_kept(tmp_path, dtype):
    """Each has a NumPy dtype; an archive that would store another one refuses it by name."""
    state = {"a": np.arange(4).astype(getattr(ml_dtypes, dtype))}
    tensor_io.write(tmp_path / "a", state)
    tensor_io.write(tmp_path / "b", tensor_io.averaged([tensor_io.read(tmp_path / "a")] * 2))
    assert dtypes_of(tmp_path / "b") == {"a": dtype}
    assert_same(tensor_io.read(tmp_path / "b"), state)
    for ending in tensor_io.ARCHIVES:
        with pytest.raises(CheckpointError, match=f"tensor a is {dtype}, which {ending} cannot store"):
            tensor_io.write_archive(tmp_path / f"x{ending}", state)


@pytest.mark.parametrize("path", ["file/new", "file/deeper/new"])
def test_a_directory_that_cannot_be_made_is_an_error(tmp_path, path):
    """The message names the checkpoint."""
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"new: could not be written \(.*\)"):
        tensor_io.write(tmp_path / path, {"a": np.arange(3)})


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    """No unfinished checkpoint, and no directory of shards."""

    def refuse(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(durable, "fsync", refuse)
    monkeypatch.setattr(durable, "make_directory", lambda path: path.mkdir(exist_ok=True))
    with pytest.raises(CheckpointError, match=r"new: could not be written \(No space left on device\)"):
        tensor_io.write(tmp_path / "new", {"a": np.arange(3)})
    assert list(tmp_path.iterdir()) == []


def test_damage_is_found_before_any_tensor_is_used(tmp_path):
    """Reading checks every byte first; the message names the file."""
    tensor_io.write(tmp_path / "new", {"a": np.arange(300)})
    flip_a_bit(tmp_path / "new.data-00000-of-00001")
    with pytest.raises(DamagedError, match=r"new\.data-00000-of-00001: tensor a"):
        tensor_io.read(tmp_path / "new")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"layer1": "hidden"}, ["hidden", "hidden/biases", "hidden/weights", "layer10/weights", "layer2/weights"]),
        ({"layer1/weights": "w"}, ["layer1", "layer1/biases", "layer10/weights", "layer2/weights", "w"]),
        ({"layer1": "a", "layer1/biases": "b"}, ["a", "a/weights", "b", "layer10/weights", "layer2/weights"]),
        (
            {"layer1": "layer2", "layer2": "layer1"},
            ["layer1/weights", "layer10/weights", "layer2", "layer2/biases", "layer2/weights"],
        ),
    ],
)
def test_tensors_and_scopes_are_renamed(names, expected):
    """A scope with all below it, but not layer10 with layer1; the longest match counts; two can be swapped."""
    state = {name: np.array(name) for name in ("layer1", "layer1/biases", "layer1/weights", "layer10/weights")}
    state["layer2/weights"] = np.array("other")
    found = tensor_io.renamed(state, names)
    assert list(found) == expected
    assert len({str(array) for array in found.values()}) == len(state)


def test_an_unknown_name_is_an_error():
    """The message lists the names that exist."""
    with pytest.raises(CheckpointError, match="no tensor or scope is called layer; there are layer1/weights, step"):
        tensor_io.renamed({"layer1/weights": np.zeros(1), "step": np.zeros(1)}, {"layer": "x"})


def test_two_tensors_cannot_have_one_name():
    """One of them would be lost."""
    with pytest.raises(CheckpointError, match=r"(?m)two tensors would be called b$"):
        tensor_io.renamed({"a": np.zeros(1), "b": np.ones(1)}, {"a": "b"})


def test_the_mean_is_computed_in_double_precision():
    """For floating-point and complex dtypes; of the others the last state's tensor is returned."""
    rows = [[1.0, 3.0], [2.0, 60000.0], [4.5, 60000.0]]
    for name in ("float16", "float32", "float64", "bfloat16", "complex64"):
        dtype = np.dtype(getattr(ml_dtypes, name, None) or name)
        mean = tensor_io.averaged([{"w": np.array(row, dtype)} for row in rows])["w"]
        exact = np.mean([np.array(row, dtype).astype(np.complex128) for row in rows], axis=0)
        assert mean.dtype == dtype
        assert mean.tolist() == (exact if name == "complex64" else exact.real).astype(dtype).tolist()
    for last in (np.array([7]), np.array([True]), strings(b"x"), np.array([3], ml_dtypes.int4)):
        other = np.zeros_like(last)
        assert tensor_io.averaged([{"w": other}, {"w": other}, {"w": last}])["w"].tolist() == last.tolist()


def test_equal_weights_average_to_themselves():
    """To the last bit, for any number of states and any values but NaN."""
    state = {"w": np.array([0.1, -0.0, 1e-45, 3.4e38, np.inf], np.float32)}
    for count in (1, 2, 3, 7):
        assert_same(tensor_io.averaged([state] * count), state)


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        (
            {"a": np.zeros(2, np.float32)},
            r"tensor b: expected float32 \[2\] as in the last checkpoint, got no such tensor",
        ),
        (
            {"a": np.zeros(2, np.float32), "b": np.zeros(3, np.float32)},
            r"tensor b: expected float32 \[2\] .* got float32 \[3\]",
        ),
        (
            {"a": np.zeros(2, np.float64), "b": np.zeros(2, np.float32)},
            r"tensor a: expected float32 \[2\] .* got float64 \[2\]",
        ),
        ({name: np.zeros(2, np.float32) for name in "abc"}, r"tensor c: expected no such tensor .* got float32 \[2\]"),
    ],
)
def test_different_tensors_are_not_averaged(other, problem):
    """The message names the first difference."""
    with pytest.raises(CheckpointError, match=problem):
        tensor_io.averaged([other, {"a": np.zeros(2, np.float32), "b": np.zeros(2, np.float32)}])


@pytest.mark.parametrize("ending", tensor_io.ARCHIVES)
def test_archives_are_read_as_they_were_written(tmp_path, ending):
    """To the last bit, for every dtype of the format and any names of tensors."""
    lacks = {".npz": "bfloat|float8", ".safetensors": "complex128|float8"}[ending].split("|")
    dtypes = [dtype for dtype in DTYPES if not np.dtype(dtype).name.startswith(tuple(lacks))]
    state = {**of_every_dtype(dtypes), **{name: np.full(3, number) for number, name in enumerate(NAMES)}}
    state["transposed"] = np.arange(6).reshape(2, 3).T
    path = tmp_path / "new" / f"größe.1{ending}"
    tensor_io.write_archive(path, state)
    assert_same(tensor_io.read_archive(path), state)
    assert list(path.parent.iterdir()) == [path]


def test_other_programs_read_the_archives(tmp_path):
    """numpy.load and safetensors.numpy.load_file read the same arrays."""
    state = {"layer1/weights": np.arange(6.0).reshape(2, 3), "step": np.array(3)}
    for ending, load in ((".npz", np.load), (".safetensors", safetensors.numpy.load_file)):
        tensor_io.write_archive(tmp_path / f"x{ending}", state)
        assert_same(dict(load(tmp_path / f"x{ending}")), state)


def test_archives_by_other_programs_are_read(tmp_path):
    """Those of numpy.savez, savez_compressed and safetensors.numpy.save_file."""
    state = {"layer1/weights": np.arange(6.0).reshape(2, 3), "step": np.array(3)}
    np.savez(tmp_path / "a.npz", **state)
    np.savez_compressed(tmp_path / "b.npz", **state)
    safetensors.numpy.save_file(state, tmp_path / "c.safetensors")
    for name in ("a.npz", "b.npz", "c.safetensors"):
        assert_same(tensor_io.read_archive(tmp_path / name), state)


@pytest.mark.parametrize(
    ("ending", "array", "problem", "hint"),
    [
        (".npz", np.zeros(1, ml_dtypes.bfloat16), "tensor b is bfloat16, which .npz cannot store", "use .safetensors"),
        (".npz", np.zeros(1, ml_dtypes.float8_e5m2), "tensor b is float8_e5m2, which .npz cannot store", None),
        (".npz", strings(b"x"), "tensor b is object, which .npz cannot store", None),
        (".safetensors", np.zeros(1, complex), "tensor b is complex128, which .safetensors cannot store", "use .npz"),
        (
            ".safetensors",
            np.zeros(1, ml_dtypes.float8_e4m3fn),
            "tensor b is float8_e4m3fn, which .safetensors cannot store",
            None,
        ),
        (
            ".safetensors",
            np.zeros(1, [("qint8", "i1")]),
            "tensor b is qint8, which .safetensors cannot store",
            "use .npz",
        ),
        (".npz", np.zeros(1, [("x", "i1")]), "tensor b is void8, which .npz cannot store", None),
        (".safetensors", strings(b"x"), "tensor b is object, which .safetensors cannot store", None),
    ],
)
def test_dtypes_that_a_format_lacks_are_refused(tmp_path, ending, array, problem, hint):
    """The message names the tensor and its dtype, the hint a format that has it; no file is left."""
    with pytest.raises(CheckpointError, match=problem) as caught:
        tensor_io.write_archive(tmp_path / f"x{ending}", {"a": np.zeros(1), "b": array})
    assert caught.value.hint == hint
    assert list(tmp_path.iterdir()) == []


def test_the_name_that_safetensors_reserves_is_refused(tmp_path):
    """The tensor would be lost."""
    with pytest.raises(CheckpointError, match=r"__metadata__ has a name that \.safetensors reserves"):
        tensor_io.write_archive(tmp_path / "x.safetensors", {"__metadata__": np.zeros(1)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", tensor_io.ARCHIVES)
def test_an_archive_is_not_overwritten(tmp_path, ending):
    """The existing file is unchanged."""
    path = tmp_path / f"x{ending}"
    path.write_bytes(b"something")
    with pytest.raises(CheckpointError, match="exists already; files are not overwritten"):
        tensor_io.write_archive(path, {"a": np.zeros(1)})
    assert path.read_bytes() == b"something"


@pytest.mark.parametrize("ending", tensor_io.ARCHIVES)
def test_an_archive_that_cannot_be_written_is_an_error(tmp_path, ending):
    """The message names it."""
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="could not be written"):
        tensor_io.write_archive(tmp_path / "file" / f"x{ending}", {"a": np.zeros(1)})


@pytest.mark.parametrize("ending", tensor_io.ARCHIVES)
@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"\x93NUMPY" + bytes(200), b"\xff" * 100, b"\x80\x04N.", b"\x08" + bytes(7) + b"[]"]
)
def test_other_files_are_not_archives(tmp_path, ending, content):
    """Any other content is an error that names the file, and so is a missing file."""
    path = tmp_path / f"x{ending}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"x{ending}: cannot be read as {ending}"):
        tensor_io.read_archive(path)
    with pytest.raises(CheckpointError, match="No such file or directory"):
        tensor_io.read_archive(tmp_path / f"missing{ending}")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [("a.npy", "a.npy"), ("a", "a.npy")])
def test_two_arrays_of_one_name_are_an_error(tmp_path, names):
    """One of them would be lost."""
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for name in names:
            with archive.open(name, "w") as file:
                np.lib.format.write_array(file, np.zeros(1))
    with pytest.raises(CheckpointError, match="expected one array for each name, got two called a"):
        tensor_io.read_archive(tmp_path / "x.npz")


def test_a_single_array_is_not_an_archive(tmp_path):
    """A .npy file with the suffix .npz is an error; numpy.load would read it."""
    np.save(tmp_path / "x.npy", np.zeros(3))
    path = (tmp_path / "x.npy").rename(tmp_path / "x.npz")
    with pytest.raises(CheckpointError, match=r"cannot be read as \.npz"):
        tensor_io.read_archive(path)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_damaged_npz_is_refused_or_reads_the_same(tmp_path, compressed):
    """With each byte changed in turn: never other arrays, and only CheckpointError."""
    path, state = tmp_path / "x.npz", {"a": np.arange(20, dtype=np.int16), "b": np.zeros(())}
    (np.savez_compressed if compressed else np.savez)(path, **state)
    content = path.read_bytes()
    refused = 0
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x41]) + content[position + 1 :])
        try:
            found = tensor_io.read_archive(path)
        except CheckpointError:
            refused += 1
        else:
            for name in found.keys() & state.keys():  # the directory at its end has no checksum of the names
                assert found[name].tolist() == state[name].tolist()
    assert refused > len(content) / 2


def test_a_truncated_safetensors_file_is_refused(tmp_path):
    """The format has no checksums, but has its length."""
    path = tmp_path / "x.safetensors"
    tensor_io.write_archive(path, {"a": np.arange(20)})
    cut_in_half(path)
    with pytest.raises(CheckpointError, match=r"cannot be read as \.safetensors"):
        tensor_io.read_archive(path)


def test_an_encrypted_npz_is_refused(tmp_path):
    """So is one with a compression that NumPy does not use."""
    path = tmp_path / "x.npz"
    np.savez(path, a=np.zeros(1))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    content[6] |= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"cannot be read as \.npz"):
        tensor_io.read_archive(path)
    with zipfile.ZipFile(tmp_path / "y.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.npy", b"no array")
    with pytest.raises(CheckpointError, match=r"cannot be read as \.npz"):
        tensor_io.read_archive(tmp_path / "y.npz")


def test_reading_needs_no_tensorflow():
    """Converting a checkpoint to an archive does not wait for its import."""
    code = "import sys; from checkpointing.format import tensor_io; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=programs.ROOT, check=False).returncode == 0


@pytest.mark.parametrize("ending", tensor_io.ARCHIVES)
def test_an_archive_that_is_a_fifo_is_an_error(tmp_path, ending):
    """It is not waited for."""
    os.mkfifo(tmp_path / f"x{ending}")
    with pytest.raises(CheckpointError, match="expected a regular file, got a FIFO"):
        tensor_io.read_archive(tmp_path / f"x{ending}")


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    """Before any memory is allocated for it."""
    monkeypatch.setattr(tensor_io, "_ANY_RATIO_BYTES", 1 << 20)
    np.savez_compressed(tmp_path / "x.npz", a=np.zeros(1 << 20), b=np.ones(3))
    with pytest.raises(CheckpointError, match=r"a.npy: expected at most 100 times its [\d,]+ bytes in the archive"):
        tensor_io.read_archive(tmp_path / "x.npz")
