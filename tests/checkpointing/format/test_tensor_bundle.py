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
from checkpointing.format.leveldb_table import _blocks
from checkpointing.format.tensor_bundle import Bundle

ROOT = Path(__file__).parents[3]

NUMBERS = (  # noqa: SIM905 - one a line would be a page
    "float16 float32 float64 bfloat16 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool complex64 complex128 "
    "float8_e5m2 float8_e4m3fn float8_e4m3fnuz float8_e4m3b11fnuz float8_e5m2fnuz float4_e2m1fn int4 uint4 int2 uint2"
).split()
QUANTIZED = {"qint8": "int8", "quint8": "uint8", "qint16": "int16", "quint16": "uint16", "qint32": "int32"}


def save(prefix, tensors, slices=None):
    """Writes tensors, in eager mode, in whichever order they come."""
    names = [name.partition("#")[0] for name in tensors]
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=slices or [""] * len(names),
        tensors=[*tensors.values()],
    )


def save_variables(prefix):
    """What a graph's Saver writes: the step, weights of which one is partitioned, words."""
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
    """What it writes where the variables live on two devices."""
    config = tf.compat.v1.ConfigProto(device_count={"CPU": 2})
    with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
        for device in (0, 1):
            with tf.device(f"/cpu:{device}"):
                tf.compat.v1.get_variable(f"on_{device}", initializer=tf.range(100 + device))
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(sharded=True).save(session, str(prefix))


def save_merged(prefix):
    """Three checkpoints made one, with a variable whose parts lie in two of them."""
    prefixes = [f"{prefix}_part_{number}" for number in range(3)]
    for number, part in enumerate(prefixes):
        save(part, {f"tensor_{number}": tf.range(10 * number), "z": tf.ones([2, 3])}, ["", f"6 3 {2 * number},2:-"])
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=prefixes, destination_prefix=str(prefix))


def save_numbers(prefix):
    """A tensor, a scalar and an empty tensor of each type of numbers, at offsets that are no multiples of its size."""
    tensors = {"a": tf.constant(1, tf.int8)}
    for name in NUMBERS:
        value = np.array([[1, 0, 1]]).astype(tf.as_dtype(name).as_numpy_dtype)
        tensors |= {name: tf.constant(value), f"{name}_scalar": tf.constant(value[0, 0])}
        tensors |= {f"{name}_empty": tf.constant(np.empty([0, 3], value.dtype))}
    for name, plain in QUANTIZED.items():
        tensors[name] = tf.bitcast(tf.constant([1, 2, 3], plain), name)
    save(prefix, tensors)


def save_strings(prefix):
    """Strings of all lengths and shapes."""
    words = [b"", b"a", b"\xff\x00" * 64, bytes(128), b"long" * 50_000, "größe".encode()]
    tensors = {"words": tf.constant([words, words]), "word": tf.constant("word"), "nothing": tf.constant([b"", b""])}
    save(prefix, tensors | {"none": tf.constant([], tf.string), "none_at_all": tf.zeros([0, 3], tf.string)})


def save_many(prefix):
    """Tensors with names so long that the index has several blocks, of 256 KB each."""
    save(prefix, {f"{number}{'/größe/数字' * 50}": tf.fill([number % 7], number) for number in range(500)})


def save_objects(prefix):
    """What tf.train.Checkpoint writes."""
    parts = {"a": tf.Variable([1.0, 2.0]), "b": tf.Variable("text"), "c": [tf.Variable(3), tf.Variable([[True]])]}
    tf.train.Checkpoint(**parts).write(str(prefix))


def save_model(prefix):
    """The variables of a SavedModel."""
    module = tf.Module()
    module.weights = tf.Variable([1.0, 2.0])
    tf.saved_model.save(module, str(prefix.parent / "saved_model"))
    for path in (prefix.parent / "saved_model/variables").iterdir():
        path.rename(prefix.parent / path.name.replace("variables", prefix.name))


def save_variants(prefix):
    """Lists of tensors, which are variants."""
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
    """Checkpoints as TensorFlow writes them, by kind."""
    result = {}
    for kind, make in SAVES.items():
        result[kind] = tmp_path_factory.mktemp(kind) / "model.ckpt-10"
        make(result[kind])
    return result


@pytest.fixture
def copy(tmp_path, prefixes):
    """A way to copy a checkpoint to where it may be damaged."""

    def copy_of(kind):
        shutil.copytree(prefixes[kind].parent, tmp_path / kind)
        return tmp_path / kind / "model.ckpt-10"

    return copy_of


def files_of(prefix):
    """The index, then the data files."""
    return [prefix.with_name(f"{prefix.name}.index"), *sorted(prefix.parent.glob(f"{prefix.name}.data-*"))]


def complaint(prefix):
    """The one line with which a checkpoint is found damaged."""
    with pytest.raises(DamagedError) as found:
        Bundle(prefix).check()
    assert "\n" not in str(found.value)
    return str(found.value)


@pytest.mark.parametrize("kind", READ_BY_TENSORFLOW)
def test_tensors_are_those_that_tensorflow_reads(prefixes, kind):
    """Names, dtypes, shapes and values are TensorFlow's, in sorted order."""
    bundle, reader = Bundle(prefixes[kind]), tf.train.load_checkpoint(str(prefixes[kind]))
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    assert {name: list(entry.shape) for name, entry in bundle.entries.items()} == shapes
    assert {name: entry.dtype for name, entry in bundle.entries.items()} == {n: d.name for n, d in dtypes.items()}
    assert list(bundle.entries) == sorted(shapes)
    for name in shapes:
        # Told that they are objects, numpy keeps the zeros that strings end with.
        wanted = np.asarray(reader.get_tensor(name), object if dtypes[name] == tf.string else None)
        found = bundle.tensor(name)
        assert (found.dtype, found.shape, found.tolist()) == (wanted.dtype, wanted.shape, wanted.tolist()), name
        assert not found.flags.writeable


@pytest.mark.parametrize("kind", SAVES)
def test_what_tensorflow_wrote_is_whole(prefixes, kind):
    """No checkpoint of TensorFlow's making is found damaged, and all of its files are known."""
    bundle = Bundle(prefixes[kind])
    bundle.check()
    assert [bundle.data_path(shard) for shard in range(bundle.shards)] == files_of(prefixes[kind])[1:]


def test_an_index_may_have_several_blocks(prefixes):
    """So has the one of many tensors, by which the tests see to it that each of its blocks is read."""
    assert len(_blocks(files_of(prefixes["many"])[0].read_bytes())) > 1


def test_an_entry_says_where_the_bytes_lie(prefixes):
    """Bytes, shard and offset lead to a tensor's bytes, and the checksum is theirs."""
    bundle = Bundle(prefixes["sharded"])
    entry = bundle.entries["on_1"]
    content = bundle.data_path(entry.shard).read_bytes()[entry.offset : entry.offset + entry.bytes]
    assert content == np.arange(101, dtype=np.int32).tobytes()
    assert entry == ("on_1", "int32", (101,), 404, 1, 0, google_crc32c.value(content), 0)


def test_parts_are_not_listed(prefixes):
    """A variable stored in slices is one tensor, which says in how many."""
    entries = Bundle(prefixes["merged"]).entries
    assert {name: entry.slices for name, entry in entries.items()} == {
        "tensor_0": 0,
        "tensor_1": 0,
        "tensor_2": 0,
        "z": 3,
    }


@pytest.mark.parametrize("directory", ["run[1]", "star*?", "größe 数字"])
def test_directories_may_look_like_patterns(tmp_path, directory):
    """Whatever the directory is called, its tensors are read, those in slices too."""
    save_merged(tmp_path / "model.ckpt-10")
    (tmp_path / directory).mkdir()
    for path in files_of(tmp_path / "model.ckpt-10"):
        path.rename(tmp_path / directory / path.name)
    bundle = Bundle(tmp_path / directory / "model.ckpt-10")
    assert bundle.tensor("tensor_2").tolist() == list(range(20))
    assert bundle.tensor("z").tolist() == np.ones([6, 3]).tolist()


def test_what_is_not_there_is_a_key_error(prefixes):
    """A name that no tensor has is one that no dictionary has."""
    with pytest.raises(KeyError, match="absent"):
        Bundle(prefixes["one"]).tensor("absent")


def positions(size, most=120):
    """Bytes of a file: all of a small one's, of a large one's its beginning, its end and some between."""
    if size <= 2 * most:
        return range(size)
    between = np.random.default_rng(size).integers(0, size, most)
    return sorted({0, *range(size - 60, size), *between.tolist()})


def tensors_at(bundle, path, position):
    """How the complaint about a byte begins."""
    if path.suffix == ".index":
        return f"{path.name}: "
    parts = [part for parts in bundle._parts.values() for part in parts]  # noqa: SLF001
    (name,) = {
        entry.name
        for entry in [*bundle.entries.values(), *parts]
        if bundle.data_path(entry.shard) == path and entry.offset <= position < entry.offset + entry.bytes
    }
    return f"{path.name}: tensor {name}: "


@pytest.mark.parametrize("kind", SAVES)
def test_every_flipped_bit_is_found(copy, kind):
    """Whichever bit of whichever file has changed, the file is named; in a data file the tensor, too."""
    prefix = copy(kind)
    whole = Bundle(prefix)
    for path in files_of(prefix):
        with path.open("r+b") as file:
            content = path.read_bytes()
            for position in positions(len(content), 20 if kind == "many" else 120):
                file.seek(position)
                file.write(bytes([content[position] ^ 1 << position % 8]))
                file.flush()
                assert complaint(prefix).startswith(tensors_at(whole, path, position)), position
                file.seek(position)
                file.write(content[position : position + 1])
    Bundle(prefix).check()


@pytest.mark.parametrize("kind", ["one", "merged", "strings", "variants"])
def test_every_truncation_is_found(copy, kind):
    """However much of a file is missing, the file is named, and how much of a data file there was."""
    prefix = copy(kind)
    for path in files_of(prefix):
        content = path.read_bytes()
        for length in positions(len(content)):
            path.write_bytes(content[:length])
            said = complaint(prefix)
            assert said.startswith(f"{path.name}: ")
            assert path.suffix == ".index" or f"{length:,} bytes found, {len(content):,} wanted" in said
        path.write_bytes(content)
    Bundle(prefix).check()


@pytest.mark.parametrize("kind", ["one", "sharded", "saver"])
@pytest.mark.parametrize("garbage", [b"\0", b"garbage", bytes(4096)], ids=["zero", "word", "page"])
def test_bytes_too_many_are_found(copy, kind, garbage):
    """What comes after the end of a file is found, which TensorFlow does not notice in a data file."""
    prefix = copy(kind)
    for path in files_of(prefix):
        content = path.read_bytes()
        path.write_bytes(content + garbage)
        said = complaint(prefix)
        assert said.startswith(f"{path.name}: ")
        if path.suffix != ".index":
            assert f"{len(content) + len(garbage):,} bytes found, {len(content):,} wanted" in said
            tf.train.load_checkpoint(str(prefix)).get_tensor(next(iter(Bundle(prefix).entries)))
        path.write_bytes(content)


@pytest.mark.parametrize("kind", ["one", "sharded", "merged"])
def test_a_missing_file_is_told(copy, kind):
    """A file that is not there is named, with what it should have held."""
    prefix = copy(kind)
    for path in files_of(prefix):
        content = path.read_bytes()
        path.unlink()
        wanted = "an index" if path.suffix == ".index" else f"{len(content):,} bytes"
        assert complaint(prefix) == f"{path.name}: nothing found, {wanted} wanted"
        path.write_bytes(content)


def test_a_changed_byte_is_told_in_these_words(copy):
    """File, tensor, both checksums."""
    prefix = copy("one")
    wanted = Bundle(prefix).entries["x"].crc32c
    data = files_of(prefix)[1]
    data.write_bytes(bytes(8))
    assert complaint(prefix) == (
        f"model.ckpt-10.data-00000-of-00001: tensor x: its bytes have changed, "
        f"crc32c {google_crc32c.value(bytes(8)):08x} found, {wanted:08x} wanted"
    )


@pytest.mark.parametrize(("kind", "name"), [("strings", "words"), ("merged", "z")])
def test_what_is_copied_is_compared(copy, kind, name):
    """Strings and tensors stored in slices are not given with a changed byte."""
    prefix = copy(kind)
    path = files_of(prefix)[-1]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content.replace(b"long", b"lung", 1))
    with pytest.raises(DamagedError, match=f"tensor {name}.*: its bytes have changed"):
        Bundle(prefix).tensor(name)


@pytest.mark.parametrize("kind", READ_BY_TENSORFLOW)
def test_no_view_reaches_beyond_the_file(copy, kind):
    """Where a tensor's bytes are not there, there is an error, and no signal that kills."""
    prefix = copy(kind)
    bundle = Bundle(prefix)
    for path in files_of(prefix)[1:]:
        os.truncate(path, max(0, path.stat().st_size - 1))
    for shard in range(bundle.shards):
        last = max(
            (entry for entry in bundle.entries.values() if entry.shard == shard), key=lambda e: e.offset + e.bytes
        )
        if bundle.data_path(shard).stat().st_size < last.offset + last.bytes:
            with pytest.raises(DamagedError, match=r"bytes found, .* wanted"):
                bundle.tensor(last.name)


def test_other_errors_of_the_disk_pass_through(copy):
    """What is no file is not called damaged."""
    prefix = copy("one")
    index = files_of(prefix)[0]
    index.unlink()
    index.mkdir()
    with pytest.raises(IsADirectoryError):
        Bundle(prefix)


def varint(number):
    """A number as protocol buffers and tables spell it."""
    groups = []
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])


def masked(content):
    """The crc32c of bytes as it is stored."""
    crc = google_crc32c.value(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32)


def block(records, restarts=b"\0\0\0\0\1\0\0\0"):
    """A table's block, with every key in full."""
    spelled = [b"\0" + varint(len(key)) + varint(len(value)) + key + value for key, value in records]
    return b"".join(spelled) + restarts


def table(blocks, *, kind=b"\0", before=b"", after=b""):
    """An index of these blocks, with the right checksums, whatever the blocks say."""
    content, handles = before, []

    def add(body):
        nonlocal content
        handles.append(varint(len(content)) + varint(len(body)))
        content += body + kind + masked(body + kind)

    for body in [*blocks, block([])]:
        add(body)
    # Names that no tensor's comes after: each would do for the last of its block.
    add(block([(b"\xff" * (number + 1), handle) for number, handle in enumerate(handles[:-1])]))
    return content + after + (handles[-2] + handles[-1]).ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def field(number, value):
    """A field of a protocol buffer message."""
    return (
        varint(number << 3) + varint(value)
        if isinstance(value, int)
        else varint(number << 3 | 2) + varint(len(value)) + value
    )


HEADER = field(1, 1) + field(3, field(1, 1))


def entry(content, offset, *, sizes=None, dtype=1, shard=0, size=None):
    """What the index says of a tensor, which may be a lie."""
    sizes = [len(content) // 4] if sizes is None else sizes
    shape = b"".join(field(2, field(1, size)) for size in sizes)
    place = field(3, shard) + field(4, offset) + field(5, len(content) if size is None else size)
    return field(1, dtype) + field(2, shape) + place + varint(6 << 3 | 5) + masked(content)


def write(directory, index, data=b""):
    """A checkpoint of these bytes."""
    prefix = directory / "model.ckpt-1"
    prefix.with_name("model.ckpt-1.index").write_bytes(index)
    prefix.with_name("model.ckpt-1.data-00000-of-00001").write_bytes(data)
    return prefix


ONES, TWOS = np.ones(3, np.float32).tobytes(), np.full(2, 2, np.float32).tobytes()


def test_gaps_between_tensors_are_legal(tmp_path):
    """Bytes between tensors, by which a writer aligns them, belong to none, and may be anything."""
    records = [(b"", HEADER), (b"a", entry(ONES, 0)), (b"b", entry(TWOS, 64))]
    prefix = write(tmp_path, table([block(records)]), ONES.ljust(64, b"?") + TWOS)
    Bundle(prefix).check()
    reader = tf.train.load_checkpoint(str(prefix))
    for name in "ab":
        np.testing.assert_array_equal(Bundle(prefix).tensor(name), reader.get_tensor(name), strict=True)


def test_a_checkpoint_without_tensors_is_whole(tmp_path):
    """Nothing is no damage."""
    bundle = Bundle(write(tmp_path, table([block([(b"", HEADER)])])))
    bundle.check()
    assert bundle.entries == {}


def with_header(*records):
    """An index of one block, with a header."""
    return table([block([(b"", HEADER), *records])])


def of(content, offset=0, **lies):
    """An index of one tensor."""
    return with_header((b"a", entry(content, offset, **lies)))


LENGTH = varint(3) + masked(struct.pack("<I", 3))  # of a string
NOTHING = varint(0) + masked(bytes(8))  # a variant

LIES = {
    "no records": (table([block([])]), b"", "index: 0 data files found"),
    "no header": (table([block([(b"a", entry(ONES, 0))])]), ONES, "index: tensor a found first, the header wanted"),
    "no shards": (table([block([(b"", field(1, 0))])]), b"", "index: 0 data files found"),
    "negative shards": (table([block([(b"", field(1, 2**64 - 1))])]), b"", "index: 18,446,744,073,709,551,615 data"),
    "many shards": (table([block([(b"", field(1, 2**31 - 1))])]), b"", "data-00000-of-2147483647: nothing found"),
    "no such shard": (of(ONES, shard=1), ONES, "index: tensor a: byte 0 of data file 1 found, none there"),
    "disorder": (
        with_header((b"b", entry(TWOS, 12)), (b"a", entry(ONES, 0))),
        ONES + TWOS,
        "index: tensor a: found after tensor b, before it wanted",
    ),
    "a name twice": (with_header(*[(b"a", entry(ONES, 0))] * 2), ONES, "index: tensor a: found after tensor a"),
    "a tensor on another": (
        with_header((b"a", entry(ONES, 0)), (b"b", entry(ONES, 0))),
        ONES,
        "index: tensor b: lies at byte 0, where tensor a does",
    ),
    "beyond the end": (of(ONES, 16), bytes(16), "data-00000-of-00001: 16 bytes found, 28 wanted"),
    "offset of exabytes": (of(ONES, 2**63 - 1), ONES, "index: tensor a: byte 9,223,372,036,854,775,807 of data file 0"),
    "negative offset": (of(ONES, 2**64 - 4), ONES, "index: tensor a: byte 18,446,744,073,709,551,612 of data file 0"),
    "size of exabytes": (of(ONES, sizes=[2**60], size=2**62), ONES, "index: tensor a: shape (1152921504606846976,)"),
    "another shape": (of(ONES, sizes=[4]), ONES, "index: tensor a: 12 bytes found for 4 of float32"),
    "shape of exabytes": (of(b"", sizes=[0, 2**60]), b"", "index: tensor a: shape (0, 1152921504606846976) found"),
    "dimensions without end": (of(b"", sizes=[2**62] * 10**5), b"", "index: tensor a: 100,000 dimensions found"),
    "too many strings": (of(ONES, sizes=[2**50], dtype=7), ONES, "index: tensor a: 12 bytes found for 1,125,899,906"),
    "no strings": (of(ONES, sizes=[2], dtype=7), ONES, "data-00000-of-00001: tensor a: its bytes have changed"),
    "strings too short": (of(LENGTH + b"four", sizes=[1], dtype=7), LENGTH + b"four", "a: strings of 3 bytes found, 4"),
    "strings too long": (of(LENGTH + b"in", sizes=[1], dtype=7), LENGTH + b"in", "a: strings of 3 bytes found, 2"),
    "no variants": (of(ONES, sizes=[2], dtype=21), ONES, "data-00000-of-00001: tensor a: its bytes have changed"),
    "variants too short": (of(NOTHING + b"?", sizes=[1], dtype=21), NOTHING + b"?", "variants of 5 bytes found, 6"),
    "a part of nothing": (
        with_header((b"\0a\0\1\1", entry(ONES, 0))),
        ONES,
        "index: tensor a: 1 parts found, 0 wanted",
    ),
    "no parts": (with_header((b"a", entry(ONES, 0) + field(7, b""))), b"", "index: tensor a: 0 parts found, 1 wanted"),
    "no message": (with_header((b"a", b"\x0f")), b"", "index: a field of kind 7 found"),
    "a field cut off": (
        with_header((b"a", b"\x12" + varint(2**64 - 1))),
        b"",
        "index: 0 bytes found, 18,446,744,073,7",
    ),
    "an integer cut off": (with_header((b"a", b"\x08\x80")), b"", "index: an integer that is cut off found"),
    "an endless integer": (with_header((b"a", b"\x80" * 50)), b"", "index: an integer of more than 64 bits found"),
    "too many shortcuts": (
        table([block([(b"", HEADER)], restarts=b"\xff" * 4)]),
        b"",
        "index: a block of 0 bytes found",
    ),
    "an empty block": (table([b""]), b"", "index: a block of 0 bytes found, -4 wanted"),
    "like nothing": (table([b"\5\0\0" + block([])]), b"", "index: a name found that shares 5 bytes with one of 0"),
    "names of gigabytes": (
        table(
            [
                block([(b"", HEADER), (b"a" * 2**20, b"")], restarts=b"")
                + b"".join(varint(2**20 + number) + b"\1\0a" for number in range(20_000))
                + b"\0\0\0\0\1\0\0\0"
            ]
        ),
        b"",
        "index: a name found that shares",
    ),
    "bytes before": (
        table([block([(b"", HEADER)])], before=b"?"),
        b"",
        "index: a block at byte 1 found, at byte 0 wanted",
    ),
    "bytes after": (table([block([(b"", HEADER)])], after=b"?"), b"", "index: 103 bytes found, 102 wanted"),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_index_that_lies_is_found_out_at_once(tmp_path, lie):
    """Whatever an index with the right checksums promises, it is told apart from the truth in a moment."""
    index, data, words = LIES[lie]
    prefix = write(tmp_path, index, data)
    started = time.process_time()
    said = complaint(prefix)
    assert said.startswith("model.ckpt-1.")
    assert words in said
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (table([block([(b"", HEADER)])], kind=b"\1"), "compressed blocks found, plain ones wanted"),
        (table([block([(b"", field(1, 1) + field(2, 1))])]), "highest byte first found, with the lowest first wanted"),
        (
            table([block([(b"", field(1, 1) + field(3, field(1, 9) + field(2, 9)))])]),
            "version 9 found, 1 at most wanted",
        ),
    ],
    ids=["compressed", "big-endian", "later version"],
)
def test_what_only_tensorflow_reads_is_not_called_damaged(tmp_path, index, words):
    """An index that is whole, but of another kind, is an error that says where to turn."""
    with pytest.raises(CheckpointError, match=f"{words}; read it with tf.train.load_checkpoint") as refused:
        Bundle(write(tmp_path, index))
    assert not isinstance(refused.value, DamagedError)


def listed(prefix):
    """What the index says; where it is found damaged, how that is told."""
    try:
        return Bundle(prefix).entries
    except DamagedError as error:
        return str(error).partition(" ")[0]


INDEX = table([block([(b"", HEADER), (b"a", entry(ONES, 0))]), block([(b"b", entry(TWOS, 12))])])


@given(data=st.data())
@settings(max_examples=500, deadline=None)
def test_a_mutated_index_is_refused_or_says_the_same(tmp_path_factory, data):
    """Whatever happens to an index's bytes, nobody is told a thing that was not written."""
    content = bytearray(INDEX)
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(content)))
        end = data.draw(st.sampled_from([begin, begin + 1, begin + 4, len(content)]))
        content[begin:end] = data.draw(st.binary(max_size=6))
    directory = tmp_path_factory.getbasetemp()
    wanted = listed(write(directory, INDEX))
    assert list(wanted) == ["a", "b"]
    assert listed(write(directory, content)) in ("model.ckpt-1.index:", wanted)


@given(header=st.binary(max_size=20), key=st.binary(max_size=5), body=st.binary(max_size=80))
@example(header=HEADER, key=b"a", body=entry(ONES, 0)[:-3])
@settings(max_examples=500, deadline=None)
def test_any_bytes_under_right_checksums_are_read_or_refused(tmp_path_factory, header, key, body):
    """Whatever an index's messages are made of, there is an answer or a CheckpointError."""
    for content in (block([(b"", header), (key, body)]), block([(b"", HEADER), (key, body)]), body):
        prefix = write(tmp_path_factory.getbasetemp(), table([content]), ONES)
        try:
            Bundle(prefix).check()
        except CheckpointError as error:
            assert "model.ckpt-1." in str(error)  # noqa: PT017 - some are refused, some are not


def run(code, *arguments):
    """Runs Python in a process of its own, and gives what it prints."""
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return ended.stdout.strip()


def test_tensorflow_is_not_imported(prefixes):
    """Listing, checking and viewing need none of it."""
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


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="tells the memory of a process on Linux")
def test_memory_does_not_grow_with_the_file(tmp_path):
    """Of 400 MB, a view takes what is looked at, and the check a few pieces."""
    content = bytes(25 * 2**21)
    records = [(b"t%d" % n, entry(content, n * len(content), sizes=[25, 2**19])) for n in range(8)]
    prefix = write(tmp_path, table([block([(b"", HEADER), *records])]))
    os.truncate(files_of(prefix)[1], 8 * len(content))
    viewed, checked = map(float, run(MEMORY, str(prefix)).split())
    assert viewed < 4
    assert checked < 8
