import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from checkpointing.errors import CheckpointError, DamagedError
from checkpointing.format.leveldb_table import _data_blocks
from checkpointing.format.tensor_bundle import Bundle

ROOT = Path(__file__).parents[3]

NUMBERS = (  # noqa: SIM905 - one a line would be a page
    "float16 float32 float64 bfloat16 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool complex64 complex128 "
    "float8_e5m2 float8_e4m3fn float8_e4m3fnuz float8_e4m3b11fnuz float8_e5m2fnuz float4_e2m1fn int4 uint4 int2 uint2"
).split()
QUANTIZED = {"qint8": "int8", "quint8": "uint8", "qint16": "int16", "quint16": "uint16", "qint32": "int32"}


def save(prefix, tensors, slices=None):
    """Write tensors with SaveV2, in eager mode, in any order."""
    names = [name.partition("#")[0] for name in tensors]
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=slices or [""] * len(names),
        tensors=[*tensors.values()],
    )


def save_variables(prefix):
    """Save the step, weights (one partitioned) and strings of a graph with Saver."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.train.create_global_step()
        weights = tf.reshape(tf.range(15, dtype=tf.float32), [5, 3])
        tf.compat.v1.get_variable("layer/weights", initializer=weights)
        with tf.compat.v1.variable_scope("parts", partitioner=tf.compat.v1.fixed_size_partitioner(3)):
            tf.compat.v1.get_variable("weights", [5, 3], initializer=tf.compat.v1.random_uniform_initializer(seed=1))
        tf.compat.v1.get_variable("words", initializer=tf.constant(["größe", "", "x" * 70_000]))
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver().save(session, str(prefix))


def save_sharded(prefix):
    """Save variables of two devices with a sharded Saver."""
    config = tf.compat.v1.ConfigProto(device_count={"CPU": 2})
    with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
        for device in (0, 1):
            with tf.device(f"/cpu:{device}"):
                tf.compat.v1.get_variable(f"on_{device}", initializer=tf.range(100 + device))
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(sharded=True).save(session, str(prefix))


def save_merged(prefix):
    """Merge three checkpoints into one, with a variable whose slices are in all of them."""
    prefixes = [f"{prefix}_part_{number}" for number in range(3)]
    for number, part in enumerate(prefixes):
        save(part, {f"tensor_{number}": tf.range(10 * number), "z": tf.ones([2, 3])}, ["", f"6 3 {2 * number},2:-"])
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=prefixes, destination_prefix=str(prefix))


def save_numbers(prefix):
    """Save a tensor, a scalar and an empty tensor of each numeric dtype, at unaligned offsets."""
    tensors = {"a": tf.constant(1, tf.int8)}
    for name in NUMBERS:
        value = np.array([[1, 0, 1]]).astype(tf.as_dtype(name).as_numpy_dtype)
        tensors |= {name: tf.constant(value), f"{name}_scalar": tf.constant(value[0, 0])}
        tensors |= {f"{name}_empty": tf.constant(np.empty([0, 3], value.dtype))}
    for name, plain in QUANTIZED.items():
        tensors[name] = tf.bitcast(tf.constant([1, 2, 3], plain), name)
    save(prefix, tensors)


def save_strings(prefix):
    """Save strings of many lengths and shapes."""
    words = [b"", b"a", b"\xff\x00" * 64, bytes(128), b"long" * 50_000, "größe".encode()]
    tensors = {"words": tf.constant([words, words]), "word": tf.constant("word"), "nothing": tf.constant([b"", b""])}
    save(prefix, tensors | {"none": tf.constant([], tf.string), "none_at_all": tf.zeros([0, 3], tf.string)})


def save_many(prefix):
    """Save tensors with long names, so that the index has several blocks, of 256 KB each."""
    save(prefix, {f"{number}{'/größe/数字' * 50}": tf.fill([number % 7], number) for number in range(500)})


def save_objects(prefix):
    """Save with tf.train.Checkpoint."""
    parts = {"a": tf.Variable([1.0, 2.0]), "b": tf.Variable("text"), "c": [tf.Variable(3), tf.Variable([[True]])]}
    tf.train.Checkpoint(**parts).write(str(prefix))


def save_model(prefix):
    """Save the variables of a SavedModel."""
    module = tf.Module()
    module.weights = tf.Variable([1.0, 2.0])
    tf.saved_model.save(module, str(prefix.parent / "saved_model"))
    for path in (prefix.parent / "saved_model/variables").iterdir():
        path.rename(prefix.parent / path.name.replace("variables", prefix.name))


def save_variants(prefix):
    """Save TensorLists, which are variants."""
    lists = [
        tf.raw_ops.TensorListFromTensor(tensor=tf.reshape(tf.range(6.0), [3, 2]) + number, element_shape=[2])
        for number in range(2)
    ]
    save(prefix, {"list": lists[0], "lists": tf.stack(lists), "z": tf.constant(1)})


SAVES = {
    "saver": save_variables,
    "sharded": save_sharded,
    "merged": save_merged,
    "numbers": save_numbers,
    "strings": save_strings,
    "many": save_many,
    "objects": save_objects,
    "model": save_model,
    "variants": save_variants,
    "nothing": lambda prefix: save(prefix, {"nothing": tf.zeros([0, 3])}),
    "one": lambda prefix: save(prefix, {"x": tf.constant([1.0, 2.0])}),
}
READ_BY_TENSORFLOW = sorted(SAVES.keys() - {"variants"})


@pytest.fixture(scope="module")
def prefixes(tmp_path_factory):
    """Write one checkpoint of each kind with TensorFlow."""
    result = {}
    for kind, make in SAVES.items():
        result[kind] = tmp_path_factory.mktemp(kind) / "model.ckpt-10"
        make(result[kind])
    return result


@pytest.fixture
def copy(tmp_path, prefixes):
    """Return a function that copies a checkpoint, so that a test can damage it."""

    def copy_of(kind):
        shutil.copytree(prefixes[kind].parent, tmp_path / kind)
        return tmp_path / kind / "model.ckpt-10"

    return copy_of


def files_of(prefix):
    """Return the index, then the data files."""
    return [prefix.with_name(f"{prefix.name}.index"), *sorted(prefix.parent.glob(f"{prefix.name}.data-*"))]


def damage(prefix):
    """Return the message of the DamagedError, which is one line."""
    with pytest.raises(DamagedError) as caught:
        Bundle(prefix).check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", READ_BY_TENSORFLOW)
def test_tensors_are_read_as_by_tensorflow(prefixes, kind):
    """Names, dtypes, shapes and values are TensorFlow's, in sorted order."""
    bundle, reader = Bundle(prefixes[kind]), tf.train.load_checkpoint(str(prefixes[kind]))
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    assert {name: list(entry.shape) for name, entry in bundle.entries.items()} == shapes
    assert {name: entry.dtype for name, entry in bundle.entries.items()} == {n: d.name for n, d in dtypes.items()}
    assert list(bundle.entries) == sorted(shapes)
    for name in shapes:
        # With dtype object, NumPy keeps the trailing zeros of strings.
        expected = np.asarray(reader.get_tensor(name), object if dtypes[name] == tf.string else None)
        found = bundle.tensor(name)
        assert (found.dtype, found.shape, found.tolist()) == (expected.dtype, expected.shape, expected.tolist()), name
        assert not found.flags.writeable


@pytest.mark.parametrize("kind", SAVES)
def test_what_tensorflow_wrote_is_not_damaged(prefixes, kind):
    """A checkpoint by TensorFlow passes the check, and all of its files are known."""
    bundle = Bundle(prefixes[kind])
    bundle.check()
    assert [bundle.data_path(shard) for shard in range(bundle.num_shards)] == files_of(prefixes[kind])[1:]


def test_an_index_may_have_several_blocks(prefixes):
    """The index of `many` has several, so other tests read each of them."""
    assert len(_data_blocks(files_of(prefixes["many"])[0].read_bytes())) > 1


def test_an_entry_locates_the_bytes(prefixes):
    """By data file, offset and size; the checksum is that of the bytes."""
    bundle = Bundle(prefixes["sharded"])
    entry = bundle.entries["on_1"]
    content = bundle.data_path(entry.shard_id).read_bytes()[entry.offset : entry.offset + entry.size]
    assert content == np.arange(101, dtype=np.int32).tobytes()
    assert entry == ("on_1", "int32", (101,), 404, 1, 0, google_crc32c.value(content), 0)


def test_slices_are_not_listed(prefixes):
    """A partitioned variable is one entry, with the number of its slices."""
    entries = Bundle(prefixes["merged"]).entries
    assert {name: entry.slices for name, entry in entries.items()} == {
        "tensor_0": 0,
        "tensor_1": 0,
        "tensor_2": 0,
        "z": 3,
    }


@pytest.mark.parametrize("directory", ["run[1]", "star*?", "größe 数字"])
def test_directories_may_look_like_patterns(tmp_path, directory):
    """Tensors in them are read, also those in slices."""
    save_merged(tmp_path / "model.ckpt-10")
    (tmp_path / directory).mkdir()
    for path in files_of(tmp_path / "model.ckpt-10"):
        path.rename(tmp_path / directory / path.name)
    bundle = Bundle(tmp_path / directory / "model.ckpt-10")
    assert bundle.tensor("tensor_2").tolist() == list(range(20))
    assert bundle.tensor("z").tolist() == np.ones([6, 3]).tolist()


def test_a_missing_tensor_is_a_key_error(prefixes):
    """As in a dictionary."""
    with pytest.raises(KeyError, match="absent"):
        Bundle(prefixes["one"]).tensor("absent")


def positions(size, count=120):
    """Return offsets in a file: all of a small one, of a large one the first, the last 60 and some between."""
    if size <= 2 * count:
        return range(size)
    between = np.random.default_rng(size).integers(0, size, count)
    return sorted({0, *range(size - 60, size), *between.tolist()})


def damage_at(bundle, path, position):
    """Return how the message about a damaged byte begins."""
    if path.suffix == ".index":
        return f"{path.name}: "
    slices = [entry for slices in bundle._slices.values() for entry in slices]  # noqa: SLF001
    (name,) = {
        entry.name
        for entry in [*bundle.entries.values(), *slices]
        if bundle.data_path(entry.shard_id) == path and entry.offset <= position < entry.offset + entry.size
    }
    return f"{path.name}: tensor {name}: "


@pytest.mark.parametrize("kind", SAVES)
def test_every_flipped_bit_is_found(copy, kind):
    """In any file; the message names the file, for a data file also the tensor."""
    prefix = copy(kind)
    intact = Bundle(prefix)
    for path in files_of(prefix):
        with path.open("r+b") as file:
            content = path.read_bytes()
            for position in positions(len(content), 20 if kind == "many" else 120):
                file.seek(position)
                file.write(bytes([content[position] ^ 1 << position % 8]))
                file.flush()
                assert damage(prefix).startswith(damage_at(intact, path, position)), position
                file.seek(position)
                file.write(content[position : position + 1])
    Bundle(prefix).check()


@pytest.mark.parametrize("kind", ["one", "merged", "strings", "variants"])
def test_every_truncation_is_found(copy, kind):
    """At any length; the message names the file, for a data file also its size."""
    prefix = copy(kind)
    for path in files_of(prefix):
        content = path.read_bytes()
        for length in positions(len(content)):
            path.write_bytes(content[:length])
            message = damage(prefix)
            assert message.startswith(f"{path.name}: ")
            assert path.suffix == ".index" or f"expected {len(content):,} bytes, got {length:,}" in message
        path.write_bytes(content)
    Bundle(prefix).check()


@pytest.mark.parametrize("kind", ["one", "sharded", "saver"])
@pytest.mark.parametrize("garbage", [b"\0", b"garbage", bytes(4096)], ids=["zero", "word", "page"])
def test_excess_bytes_are_found(copy, kind, garbage):
    """At the end of any file; TensorFlow does not notice them in a data file."""
    prefix = copy(kind)
    for path in files_of(prefix):
        content = path.read_bytes()
        path.write_bytes(content + garbage)
        message = damage(prefix)
        assert message.startswith(f"{path.name}: ")
        if path.suffix != ".index":
            assert f"expected {len(content):,} bytes, got {len(content) + len(garbage):,}" in message
            tf.train.load_checkpoint(str(prefix)).get_tensor(next(iter(Bundle(prefix).entries)))
        path.write_bytes(content)


@pytest.mark.parametrize("kind", ["one", "sharded", "merged"])
def test_a_missing_file_is_found(copy, kind):
    """The message names it, and for a data file its expected size."""
    prefix = copy(kind)
    for path in files_of(prefix):
        content = path.read_bytes()
        path.unlink()
        expected = "an index" if path.suffix == ".index" else f"{len(content):,} bytes"
        assert damage(prefix) == f"{path.name}: expected {expected}, got no file"
        path.write_bytes(content)


def test_the_message_about_a_changed_byte(copy):
    """It names file, tensor and both checksums."""
    prefix = copy("one")
    expected = Bundle(prefix).entries["x"].crc32c
    data = files_of(prefix)[1]
    data.write_bytes(bytes(8))
    assert damage(prefix) == (
        f"model.ckpt-10.data-00000-of-00001: tensor x: its bytes have changed: "
        f"expected crc32c {expected:08x}, got {google_crc32c.value(bytes(8)):08x}"
    )


@pytest.mark.parametrize(("kind", "name"), [("strings", "words"), ("merged", "z")])
def test_copied_tensors_are_compared(copy, kind, name):
    """Strings and partitioned variables are not returned with a changed byte."""
    prefix = copy(kind)
    path = files_of(prefix)[-1]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content.replace(b"long", b"lung", 1))
    with pytest.raises(DamagedError, match=f"tensor {name}.*: its bytes have changed"):
        Bundle(prefix).tensor(name)


@pytest.mark.parametrize("kind", READ_BY_TENSORFLOW)
def test_no_view_reaches_beyond_the_file(copy, kind):
    """A tensor with missing bytes is an error, not a SIGBUS."""
    prefix = copy(kind)
    bundle = Bundle(prefix)
    for path in files_of(prefix)[1:]:
        os.truncate(path, max(0, path.stat().st_size - 1))
    for shard in range(bundle.num_shards):
        last = max(
            (entry for entry in bundle.entries.values() if entry.shard_id == shard), key=lambda e: e.offset + e.size
        )
        if bundle.data_path(shard).stat().st_size < last.offset + last.size:
            with pytest.raises(DamagedError, match=r"expected .* bytes, got "):
                bundle.tensor(last.name)


def test_other_errors_of_the_disk_pass_through(copy):
    """A directory in place of the index is not a DamagedError."""
    prefix = copy("one")
    index = files_of(prefix)[0]
    index.unlink()
    index.mkdir()
    with pytest.raises(IsADirectoryError):
        Bundle(prefix)


def varint(number):
    """Encode an integer as a varint."""
    groups = []
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])


def masked(content):
    """Return the masked crc32c of bytes, as it is stored."""
    crc = google_crc32c.value(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32)


def block(records, restarts=b"\0\0\0\0\1\0\0\0"):
    """Encode a table's block, with every key in full."""
    encoded = [b"\0" + varint(len(key)) + varint(len(value)) + key + value for key, value in records]
    return b"".join(encoded) + restarts


def table(blocks, *, compression=b"\0", before=b"", after=b""):
    """Encode a table of these blocks, with valid checksums."""
    content, handles = before, []

    def add(body):
        nonlocal content
        handles.append(varint(len(content)) + varint(len(body)))
        content += body + compression + masked(body + compression)

    for body in [*blocks, block([])]:
        add(body)
    # Keys of the index block must not be smaller than the keys of their blocks; no tensor's name is larger than these.
    add(block([(b"\xff" * (number + 1), handle) for number, handle in enumerate(handles[:-1])]))
    return content + after + (handles[-2] + handles[-1]).ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def field(number, value):
    """Encode a field of a protocol buffer message."""
    return (
        varint(number << 3) + varint(value)
        if isinstance(value, int)
        else varint(number << 3 | 2) + varint(len(value)) + value
    )


HEADER = field(1, 1) + field(3, field(1, 1))


def entry(content, offset, *, sizes=None, dtype=1, shard=0, size=None):
    """Encode a BundleEntryProto, which may be wrong."""
    sizes = [len(content) // 4] if sizes is None else sizes
    shape = b"".join(field(2, field(1, size)) for size in sizes)
    location = field(3, shard) + field(4, offset) + field(5, len(content) if size is None else size)
    return field(1, dtype) + field(2, shape) + location + varint(6 << 3 | 5) + masked(content)


def write(directory, index, data=b""):
    """Write a checkpoint of these bytes; return its prefix."""
    prefix = directory / "model.ckpt-1"
    prefix.with_name("model.ckpt-1.index").write_bytes(index)
    prefix.with_name("model.ckpt-1.data-00000-of-00001").write_bytes(data)
    return prefix


ONES, TWOS = np.ones(3, np.float32).tobytes(), np.full(2, 2, np.float32).tobytes()


def test_gaps_between_tensors_are_legal(tmp_path):
    """Padding between tensors may have any content."""
    records = [(b"", HEADER), (b"a", entry(ONES, 0)), (b"b", entry(TWOS, 64))]
    prefix = write(tmp_path, table([block(records)]), ONES.ljust(64, b"?") + TWOS)
    Bundle(prefix).check()
    reader = tf.train.load_checkpoint(str(prefix))
    for name in "ab":
        np.testing.assert_array_equal(Bundle(prefix).tensor(name), reader.get_tensor(name), strict=True)


def test_a_checkpoint_without_tensors_is_valid(tmp_path):
    """It is not damaged."""
    bundle = Bundle(write(tmp_path, table([block([(b"", HEADER)])])))
    bundle.check()
    assert bundle.entries == {}


def with_header(*records):
    """Encode an index of one block, with a header."""
    return table([block([(b"", HEADER), *records])])


def of(content, offset=0, **errors):
    """Encode an index of one tensor."""
    return with_header((b"a", entry(content, offset, **errors)))


LENGTH = varint(3) + masked(struct.pack("<I", 3))  # of a string
NOTHING = varint(0) + masked(bytes(8))  # an empty variant

WRONG = {
    "no records": (table([block([])]), b"", "index: expected 1 or more data files in its header, got 0"),
    "no header": (table([block([(b"a", entry(ONES, 0))])]), ONES, "index: expected the header first, got tensor a"),
    "no shards": (
        table([block([(b"", field(1, 0))])]),
        b"",
        "index: expected 1 or more data files in its header, got 0",
    ),
    "negative shards": (table([block([(b"", field(1, 2**64 - 1))])]), b"", "header, got 18,446,744,073,709,551,615"),
    "many shards": (
        table([block([(b"", field(1, 2**31 - 1))])]),
        b"",
        "data-00000-of-2147483647: expected 0 bytes, got no file",
    ),
    "no such shard": (of(ONES, shard=1), ONES, "index: tensor a: expected one of 1 data files, got number 1"),
    "disorder": (
        with_header((b"b", entry(TWOS, 12)), (b"a", entry(ONES, 0))),
        ONES + TWOS,
        "index: expected sorted names, got tensor a after tensor b",
    ),
    "a name twice": (
        with_header(*[(b"a", entry(ONES, 0))] * 2),
        ONES,
        "index: expected sorted names, got tensor a after tensor a",
    ),
    "a tensor on another": (
        with_header((b"a", entry(ONES, 0)), (b"b", entry(ONES, 0))),
        ONES,
        "index: tensor b: overlaps tensor a at byte 0",
    ),
    "beyond the end": (of(ONES, 16), bytes(16), "data-00000-of-00001: expected 28 bytes, got 16"),
    "offset of exabytes": (
        of(ONES, 2**63 - 1),
        ONES,
        "index: tensor a: expected an offset of less than 2**63, got 9,223,372,036,854,775,807",
    ),
    "negative offset": (
        of(ONES, 2**64 - 4),
        ONES,
        "index: tensor a: expected an offset of less than 2**63, got 18,446,744,073,709,551,612",
    ),
    "size of exabytes": (of(ONES, sizes=[2**60], size=2**62), ONES, "elements, got shape (1152921504606846976,)"),
    "another shape": (of(ONES, sizes=[4]), ONES, "index: tensor a: expected 16 bytes for 4 of float32, got 12"),
    "shape of exabytes": (of(b"", sizes=[0, 2**60]), b"", "elements, got shape (0, 1152921504606846976)"),
    "dimensions without end": (
        of(b"", sizes=[2**62] * 10**5),
        b"",
        "index: tensor a: expected at most 254 dimensions, got 100,000",
    ),
    "too many strings": (of(ONES, sizes=[2**50], dtype=7), ONES, "bytes for 1,125,899,906,842,624 of string, got 12"),
    "no strings": (of(ONES, sizes=[2], dtype=7), ONES, "data-00000-of-00001: tensor a: its bytes have changed"),
    "strings too short": (
        of(LENGTH + b"four", sizes=[1], dtype=7),
        LENGTH + b"four",
        "a: expected strings of 4 bytes, got 3",
    ),
    "strings too long": (
        of(LENGTH + b"in", sizes=[1], dtype=7),
        LENGTH + b"in",
        "a: expected strings of 2 bytes, got 3",
    ),
    "no variants": (of(ONES, sizes=[2], dtype=21), ONES, "data-00000-of-00001: tensor a: its bytes have changed"),
    "variants too short": (
        of(NOTHING + b"?", sizes=[1], dtype=21),
        NOTHING + b"?",
        "expected variants of 6 bytes, got 5",
    ),
    "a slice of nothing": (
        with_header((b"\0a\0\1\1", entry(ONES, 0))),
        ONES,
        "index: tensor a: expected 0 slices, got 1",
    ),
    "no slices": (
        with_header((b"a", entry(ONES, 0) + field(7, b""))),
        b"",
        "index: tensor a: expected 1 slices, got 0",
    ),
    "no message": (with_header((b"a", b"\x0f")), b"", "index: expected wire type 0, 1, 2 or 5, got 7"),
    "a field cut off": (
        with_header((b"a", b"\x12" + varint(2**64 - 1))),
        b"",
        "index: expected 18,446,744,073,709,551,615 bytes, got 0",
    ),
    "an integer cut off": (with_header((b"a", b"\x08\x80")), b"", "index: expected an integer, got a truncated one"),
    "an endless integer": (
        with_header((b"a", b"\x80" * 50)),
        b"",
        "index: expected an integer of at most 64 bits, got a longer one",
    ),
    "too many restarts": (
        table([block([(b"", HEADER)], restarts=b"\xff" * 4)]),
        b"",
        "bytes in a block, got 0",
    ),
    "an empty block": (table([b""]), b"", "index: expected records of -4 bytes in a block, got 0"),
    "a shared prefix of nothing": (
        table([b"\5\0\0" + block([])]),
        b"",
        "index: expected a key that shares at most 0 bytes with the last, got 5",
    ),
    "names of gigabytes": (
        table(
            [
                block([(b"", HEADER), (b"a" * 2**20, b"")], restarts=b"")
                + b"".join(varint(2**20 + number) + b"\1\0a" for number in range(20_000))
                + b"\0\0\0\0\1\0\0\0"
            ]
        ),
        b"",
        "bytes in a block, got more",
    ),
    "bytes before": (
        table([block([(b"", HEADER)])], before=b"?"),
        b"",
        "index: expected a block at byte 0, got one at byte 1",
    ),
    "bytes after": (table([block([(b"", HEADER)])], after=b"?"), b"", "index: expected 102 bytes, got 103"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_index_with_valid_checksums_is_refused(tmp_path, kind):
    """Within two seconds, whatever sizes it claims."""
    index, data, fragment = WRONG[kind]
    prefix = write(tmp_path, index, data)
    started = time.process_time()
    message = damage(prefix)
    assert message.startswith("model.ckpt-1.")
    assert fragment in message
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        (table([block([(b"", HEADER)])], compression=b"\1"), "expected uncompressed blocks, got compressed ones"),
        (table([block([(b"", field(1, 1) + field(2, 1))])]), "expected little-endian numbers, got big-endian ones"),
        (
            table([block([(b"", field(1, 1) + field(3, field(1, 9) + field(2, 9)))])]),
            "expected version 1 at most, got 9",
        ),
    ],
    ids=["compressed", "big-endian", "later version"],
)
def test_an_index_that_only_tensorflow_reads_is_not_damaged(tmp_path, index, problem):
    """The error's hint names TensorFlow's reader."""
    with pytest.raises(CheckpointError, match=problem) as caught:
        Bundle(write(tmp_path, index))
    assert not isinstance(caught.value, DamagedError)
    assert caught.value.hint == "read it with tf.train.load_checkpoint"


def listed(prefix):
    """Return the entries of the index or, if it is damaged, the first word of the message."""
    try:
        return Bundle(prefix).entries
    except DamagedError as error:
        return str(error).partition(" ")[0]


INDEX = table([block([(b"", HEADER), (b"a", entry(ONES, 0))]), block([(b"b", entry(TWOS, 12))])])


@given(data=st.data())
@settings(max_examples=500, deadline=None)
def test_a_mutated_index_is_refused_or_reads_the_same(tmp_path_factory, data):
    """No change of an index's bytes gives other entries."""
    content = bytearray(INDEX)
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(content)))
        end = data.draw(st.sampled_from([begin, begin + 1, begin + 4, len(content)]))
        content[begin:end] = data.draw(st.binary(max_size=6))
    directory = tmp_path_factory.getbasetemp()
    expected = listed(write(directory, INDEX))
    assert list(expected) == ["a", "b"]
    assert listed(write(directory, content)) in ("model.ckpt-1.index:", expected)


@given(header=st.binary(max_size=20), key=st.binary(max_size=5), body=st.binary(max_size=80))
@example(header=HEADER, key=b"a", body=entry(ONES, 0)[:-3])
@settings(max_examples=500, deadline=None)
def test_any_bytes_with_valid_checksums_are_read_or_refused(tmp_path_factory, header, key, body):
    """Any messages in an index are read, or are a CheckpointError."""
    for content in (block([(b"", header), (key, body)]), block([(b"", HEADER), (key, body)]), body):
        prefix = write(tmp_path_factory.getbasetemp(), table([content]), ONES)
        try:
            Bundle(prefix).check()
        except CheckpointError as error:
            assert "model.ckpt-1." in str(error)  # noqa: PT017 - some are refused, some are not


def run(code, *arguments):
    """Run Python in a new process, and return what it prints."""
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return ended.stdout.strip()


def test_tensorflow_is_not_imported(prefixes):
    """Not for listing, checking and viewing tensors."""
    code = (
        "import sys, pathlib; from checkpointing.format.tensor_bundle import Bundle; "
        "bundle = Bundle(pathlib.Path(sys.argv[1])); "
        "bundle.check(); bundle.tensor('float32').sum(); bundle.tensor('bfloat16').sum(); "
        "print('tensorflow' in sys.modules)"
    )
    assert run(code, str(prefixes["numbers"])) == "False"


MEMORY = """
import pathlib, re, sys
from checkpointing.format.tensor_bundle import Bundle

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1024

bundle = Bundle(pathlib.Path(sys.argv[1]))
before = peak()
assert bundle.tensor("t3").shape == (25, 2**19) and bundle.tensor("t3")[20, 5] == 0
viewed = peak()
bundle.check()
print(viewed - before, peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory through /proc")
def test_memory_does_not_grow_with_the_file(tmp_path):
    """Of 400 MB, a view takes what is read, and the check a few megabytes."""
    content = bytes(25 * 2**21)
    records = [(b"t%d" % n, entry(content, n * len(content), sizes=[25, 2**19])) for n in range(8)]
    prefix = write(tmp_path, table([block([(b"", HEADER), *records])]))
    os.truncate(files_of(prefix)[1], 8 * len(content))
    viewed, checked = map(float, run(MEMORY, str(prefix)).split())
    assert viewed < 4
    assert checked < 8
