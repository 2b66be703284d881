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
    """Bytes of every value, NaNs with their payload among them, as scalars, vectors, and nothing at all."""
    state = {}
    for dtype in map(np.dtype, dtypes):
        content = bytes(range(256)) if dtype.name != "bool" else bytes([0, 1] * 128)
        array = np.frombuffer(content, dtype)
        state |= {f"{dtype.name}/vector": array, f"{dtype.name}/scalar": array[3], f"{dtype.name}/nothing": array[:0]}
        state[f"{dtype.name}/matrix"] = array.reshape(2, -1)
    return {name: np.asarray(array) for name, array in state.items()}


def assert_same(found, wanted):
    """The same names, dtypes, shapes and bits."""
    assert sorted(found) == sorted(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        assert found[name].tolist() == array.tolist() if array.dtype == object else True, name
        assert array.dtype == object or found[name].tobytes() == array.tobytes(), name


def strings(*values):
    """A vector of strings."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


@pytest.mark.parametrize("name", AWKWARD[:-1])
def test_what_is_written_is_read(tmp_path, name):
    """By us and by TensorFlow, to the last bit, whatever the directory and the tensors are called."""
    state = {**of_every_dtype(), **{each: np.arange(3) for each in NAMES}}
    state |= {"strings": strings(b"", b"\0\xff", b"x" * 300), "no strings": strings()}
    tensor_io.write(tmp_path / name / "all", state)
    assert_same(tensor_io.read(tmp_path / name / "all"), state)
    theirs = (tmp_path / name).rename(tmp_path / "x")  # TensorFlow's own reader does not find what is in "run[1]"
    reader = tf.train.load_checkpoint(str(theirs / "all"))
    assert sorted(reader.get_variable_to_shape_map()) == sorted(state)
    assert reader.get_tensor("float32/matrix").tobytes() == state["float32/matrix"].tobytes()
    assert sorted(path.name for path in theirs.iterdir()) == ["all.data-00000-of-00001", "all.index"]


def test_a_checkpoint_can_be_written_while_a_graph_is_built(tmp_path):
    """Who works in graph mode need not leave it."""
    with tf.Graph().as_default() as graph:
        tensor_io.write(tmp_path / "new", {"a": np.arange(3)})
        assert not graph.get_operations()
    assert tensor_io.read(tmp_path / "new")["a"].tolist() == [0, 1, 2]


def test_a_graph_comes_along(tmp_path):
    """The .meta file beside it is the one that was given."""
    (tmp_path / "graph").write_bytes(b"a graph")
    tensor_io.write(tmp_path / "new", {"a": np.arange(3)}, tmp_path / "graph")
    assert (tmp_path / "new.meta").read_bytes() == b"a graph"


def test_nothing_is_written_over(tmp_path):
    """Any file of a checkpoint of that name is in the way, and stays."""
    tensor_io.write(tmp_path / "new", {"a": np.arange(3)})
    before = tree(tmp_path)
    with pytest.raises(CheckpointError, match="new: exists already"):
        tensor_io.write(tmp_path / "new", {"a": np.arange(4)})
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["model.ckpt-7", "model.ckpt-0"])
def test_the_names_of_a_runs_own_are_refused(tmp_path, name):
    """A run would go on from it, or delete it."""
    with pytest.raises(CheckpointError, match="the name of a run's own checkpoint"):
        tensor_io.write(tmp_path / name, {"a": np.arange(3)})
    assert list(tmp_path.iterdir()) == []


def test_killed_anywhere_it_is_whole_or_not_there(tmp_path):
    """Without its index a checkpoint is none; what a kill leaves while it is written does not block the name."""
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


def test_what_was_left_is_not_taken_for_ours(tmp_path, monkeypatch):
    """Shards of a killed attempt do not get into the next one."""
    with monkeypatch.context() as patched:
        patched.setattr(durable, "move", lambda *_: (_ for _ in ()).throw(Killed))
        patched.setattr(durable, "delete_tree", lambda _: None)
        with pytest.raises(Killed):
            tensor_io.write(tmp_path / "new", {"a": np.arange(3)}, meta=programs.ROOT / "README.md")
    assert (tmp_path / "new_temp" / "new.meta").exists()
    tensor_io.write(tmp_path / "new", {"a": np.arange(3)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.data-00000-of-00001", "new.index"]


def test_what_is_somebody_elses_stays(tmp_path):
    """Also where it lies in the directory that would be written to first."""
    (tmp_path / "new_temp").mkdir()
    (tmp_path / "new_temp" / "notes.txt").touch()
    with pytest.raises(CheckpointError, match="new: exists already"):
        tensor_io.write(tmp_path / "new", {"a": np.arange(3)})
    assert (tmp_path / "new_temp" / "notes.txt").exists()


def test_what_tensorflow_has_no_dtype_for_is_told(tmp_path):
    """An archive may hold dates, or records."""
    for array in (np.zeros(2, "M8[s]"), np.zeros(2, [("x", int)])):
        with pytest.raises(CheckpointError, match="new: could not be written"):
            tensor_io.write(tmp_path / "new", {"a": array})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["file/new", "file/deeper/new"])
def test_a_place_that_cannot_be_made_is_told(tmp_path, path):
    """In a sentence that names the checkpoint."""
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"new: could not be written \(.*\)"):
        tensor_io.write(tmp_path / path, {"a": np.arange(3)})


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    """Neither half a checkpoint nor the directory that it was made in."""

    def refuse(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(durable, "fsync", refuse)
    monkeypatch.setattr(durable, "make_directory", lambda path: path.mkdir(exist_ok=True))
    with pytest.raises(CheckpointError, match=r"new: could not be written \(No space left on device\)"):
        tensor_io.write(tmp_path / "new", {"a": np.arange(3)})
    assert list(tmp_path.iterdir()) == []


def test_damage_is_found_before_anything_is_used(tmp_path):
    """Reading checks every byte first, and names the file."""
    tensor_io.write(tmp_path / "new", {"a": np.arange(300)})
    flip_a_bit(tmp_path / "new.data-00000-of-00001")
    with pytest.raises(DamagedError, match=r"new\.data-00000-of-00001: tensor a"):
        tensor_io.read(tmp_path / "new")


@pytest.mark.parametrize(
    ("names", "wanted"),
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
def test_tensors_and_scopes_get_other_names(names, wanted):
    """A scope takes all below it along, its like (layer10) stays; the longest name that fits counts; two may swap."""
    state = {name: np.array(name) for name in ("layer1", "layer1/biases", "layer1/weights", "layer10/weights")}
    state["layer2/weights"] = np.array("other")
    found = tensor_io.renamed(state, names)
    assert list(found) == wanted
    assert len({str(array) for array in found.values()}) == len(state)


def test_a_name_that_nobody_has_is_told():
    """With those that there are."""
    with pytest.raises(CheckpointError, match="tensor or scope layer wanted; there are layer1/weights, step"):
        tensor_io.renamed({"layer1/weights": np.zeros(1), "step": np.zeros(1)}, {"layer": "x"})


def test_no_two_tensors_get_one_name():
    """One of them would be lost."""
    with pytest.raises(CheckpointError, match="two tensors would be called b: give"):
        tensor_io.renamed({"a": np.zeros(1), "b": np.ones(1)}, {"a": "b"})


def test_the_mean_is_taken_in_double_precision():
    """Of floats of any size, and of complex numbers; everything else is the last one's."""
    rows = [[1.0, 3.0], [2.0, 60000.0], [4.5, 60000.0]]
    for name in ("float16", "float32", "float64", "bfloat16", "complex64"):
        dtype = np.dtype(getattr(ml_dtypes, name, None) or name)
        mean = tensor_io.averaged([{"w": np.array(row, dtype)} for row in rows])["w"]
        exact = np.mean([np.array(row, dtype).astype(np.complex128) for row in rows], axis=0)
        assert mean.dtype == dtype
        assert mean.tolist() == (exact if name == "complex64" else exact.real).astype(dtype).tolist()
    for last in (np.array([7]), np.array([True]), strings(b"x"), np.array([3], ml_dtypes.int4)):
        before = np.zeros_like(last)
        assert tensor_io.averaged([{"w": before}, {"w": before}, {"w": last}])["w"].tolist() == last.tolist()


def test_equal_weights_average_to_themselves():
    """To the last bit, however many there are, whatever their values but NaN."""
    state = {"w": np.array([0.1, -0.0, 1e-45, 3.4e38, np.inf], np.float32)}
    for count in (1, 2, 3, 7):
        assert_same(tensor_io.averaged([state] * count), state)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"a": np.zeros(2, np.float32)}, r"tensor b: no such tensor found, float32 \[2\] wanted"),
        ({"a": np.zeros(2, np.float32), "b": np.zeros(3, np.float32)}, r"tensor b: float32 \[3\] found"),
        ({"a": np.zeros(2, np.float64), "b": np.zeros(2, np.float32)}, r"tensor a: float64 \[2\] found"),
        ({name: np.zeros(2, np.float32) for name in "abc"}, r"tensor c: float32 \[2\] found, no such tensor wanted"),
    ],
)
def test_other_variables_are_not_averaged(other, told):
    """The first that differs is named, with found and wanted."""
    with pytest.raises(CheckpointError, match=told):
        tensor_io.averaged([other, {"a": np.zeros(2, np.float32), "b": np.zeros(2, np.float32)}])


@pytest.mark.parametrize("ending", tensor_io.ARCHIVES)
def test_archives_give_back_what_they_got(tmp_path, ending):
    """To the last bit, every dtype that the format has, whatever the tensors are called."""
    lacks = {".npz": "bfloat|float8", ".safetensors": "complex128|float8"}[ending].split("|")
    dtypes = [dtype for dtype in DTYPES if not np.dtype(dtype).name.startswith(tuple(lacks))]
    state = {**of_every_dtype(dtypes), **{name: np.full(3, number) for number, name in enumerate(NAMES)}}
    state["transposed"] = np.arange(6).reshape(2, 3).T
    path = tmp_path / "new" / f"größe.1{ending}"
    tensor_io.write_archive(path, state)
    assert_same(tensor_io.read_archive(path), state)
    assert list(path.parent.iterdir()) == [path]


def test_others_read_the_archives(tmp_path):
    """numpy.load and safetensors.numpy.load_file give the same arrays."""
    state = {"layer1/weights": np.arange(6.0).reshape(2, 3), "step": np.array(3)}
    for ending, load in ((".npz", np.load), (".safetensors", safetensors.numpy.load_file)):
        tensor_io.write_archive(tmp_path / f"x{ending}", state)
        assert_same(dict(load(tmp_path / f"x{ending}")), state)


def test_the_archives_of_others_are_read(tmp_path):
    """Those of numpy.savez, savez_compressed and safetensors.numpy.save_file."""
    state = {"layer1/weights": np.arange(6.0).reshape(2, 3), "step": np.array(3)}
    np.savez(tmp_path / "a.npz", **state)
    np.savez_compressed(tmp_path / "b.npz", **state)
    safetensors.numpy.save_file(state, tmp_path / "c.safetensors")
    for name in ("a.npz", "b.npz", "c.safetensors"):
        assert_same(tensor_io.read_archive(tmp_path / name), state)


@pytest.mark.parametrize(
    ("ending", "array", "told"),
    [
        (".npz", np.zeros(1, ml_dtypes.bfloat16), "tensor b is bfloat16, which .npz lacks: use .safetensors"),
        (".npz", np.zeros(1, ml_dtypes.float8_e5m2), r"tensor b is float8_e5m2, which .npz lacks\."),
        (".npz", strings(b"x"), r"tensor b is object, which .npz lacks\."),
        (".safetensors", np.zeros(1, complex), "tensor b is complex128, which .safetensors lacks: use .npz"),
        (".safetensors", np.zeros(1, ml_dtypes.float8_e4m3fn), "tensor b is float8_e4m3fn, which .safetensors lacks"),
        (".safetensors", strings(b"x"), "tensor b is object, which .safetensors lacks"),
    ],
)
def test_what_a_format_lacks_is_refused(tmp_path, ending, array, told):
    """In a sentence that names the tensor and its dtype; no file is left."""
    with pytest.raises(CheckpointError, match=told):
        tensor_io.write_archive(tmp_path / f"x{ending}", {"a": np.zeros(1), "b": array})
    assert list(tmp_path.iterdir()) == []


def test_the_one_name_that_safetensors_keeps_for_itself_is_refused(tmp_path):
    """Rather than lost."""
    with pytest.raises(CheckpointError, match="__metadata__"):
        tensor_io.write_archive(tmp_path / "x.safetensors", {"__metadata__": np.zeros(1)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", tensor_io.ARCHIVES)
def test_an_archive_is_not_written_over(tmp_path, ending):
    """What is there stays."""
    path = tmp_path / f"x{ending}"
    path.write_bytes(b"something")
    with pytest.raises(CheckpointError, match="exists already, and is not overwritten"):
        tensor_io.write_archive(path, {"a": np.zeros(1)})
    assert path.read_bytes() == b"something"


@pytest.mark.parametrize("ending", tensor_io.ARCHIVES)
def test_an_archive_that_cannot_be_made_is_told(tmp_path, ending):
    """In a sentence that names it."""
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="could not be written"):
        tensor_io.write_archive(tmp_path / "file" / f"x{ending}", {"a": np.zeros(1)})


@pytest.mark.parametrize("ending", tensor_io.ARCHIVES)
@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"\x93NUMPY" + bytes(200), b"\xff" * 100, b"\x80\x04N.", b"\x08" + bytes(7) + b"[]"]
)
def test_what_is_no_archive_is_told(tmp_path, ending, content):
    """Whatever is in a file, the sentence names it."""
    path = tmp_path / f"x{ending}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"x{ending}: cannot be read as {ending}"):
        tensor_io.read_archive(path)
    with pytest.raises(CheckpointError, match="No such file or directory"):
        tensor_io.read_archive(tmp_path / f"missing{ending}")


def test_one_array_is_no_archive(tmp_path):
    """numpy.load takes a .npy file under any name."""
    np.save(tmp_path / "x.npy", np.zeros(3))
    path = (tmp_path / "x.npy").rename(tmp_path / "x.npz")
    with pytest.raises(CheckpointError, match=r"cannot be read as \.npz"):
        tensor_io.read_archive(path)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_damaged_npz_is_refused_or_says_the_same(tmp_path, compressed):
    """Each byte changed in turn: never other arrays, never another error than ours."""
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


def test_a_safetensors_file_that_is_cut_off_is_refused(tmp_path):
    """It has no checksums, but knows its length."""
    path = tmp_path / "x.safetensors"
    tensor_io.write_archive(path, {"a": np.arange(20)})
    cut_in_half(path)
    with pytest.raises(CheckpointError, match=r"cannot be read as \.safetensors"):
        tensor_io.read_archive(path)


def test_an_encrypted_npz_is_told(tmp_path):
    """So is what is compressed in another way than numpy's."""
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
    """Who only converts a checkpoint to an archive does not wait for it."""
    code = "import sys; from checkpointing.format import tensor_io; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=programs.ROOT, check=False).returncode == 0


@pytest.mark.parametrize("ending", tensor_io.ARCHIVES)
def test_an_archive_that_is_no_file_is_not_waited_for(tmp_path, ending):
    """A FIFO has no end, and perhaps no beginning."""
    os.mkfifo(tmp_path / f"x{ending}")
    with pytest.raises(CheckpointError, match="expected a regular file, got a FIFO"):
        tensor_io.read_archive(tmp_path / f"x{ending}")


def test_an_archive_that_unpacks_into_much_more_is_refused(tmp_path, monkeypatch):
    """Before any memory is taken for it."""
    monkeypatch.setattr(tensor_io, "_ANY_RATIO_BYTES", 1 << 20)
    np.savez_compressed(tmp_path / "x.npz", a=np.zeros(1 << 20), b=np.ones(3))
    with pytest.raises(CheckpointError, match=r"a.npy: expected at most 100 times its [\d,]+ bytes in the archive"):
        tensor_io.read_archive(tmp_path / "x.npz")
