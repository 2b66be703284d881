"""TensorFlow's checkpoint files (its format V2, the tensor bundle), read at once and without TensorFlow.

    bundle = Bundle(prefix)
    bundle.check()
    weights = bundle.tensor("layer1/weights")

PREFIX.data-00000-of-00001 holds the bytes of tensors, one after another. PREFIX.index says whose they are. It is a
table (table.py): under the first key, which is empty, a BundleHeaderProto; under each tensor's name a BundleEntryProto,
with the crc32c of its bytes.

The format's sources, all in TensorFlow: tensor_bundle.cc and naming.cc of tensorflow/core/util/tensor_bundle,
tensorflow/core/protobuf/tensor_bundle.proto and tensorflow/core/util/saved_tensor_slice_util.cc.
"""

import math
import re
import stat
from collections import defaultdict
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import google_crc32c
import numpy as np

from checkpointing.errors import CheckpointError, DamagedError, OddFileError, reason
from checkpointing.format import leveldb_table, protobuf_wire
from checkpointing.storage import durable, layout, tf_path

Array = np.ndarray[Any, Any]

_PART = b"\0"  # what the key of a partitioned variable's part begins with; its name ends as follows
_END_OF_NAME = b"\0\x01"

_VERSION = 1
_MOST_DIMENSIONS = 254
_LARGEST = 2**63 - 1
_PIECE = 1 << 20
_MOST_INDEX_BYTES = 1 << 30  # an entry takes some fifty

# TensorFlow's DataType, from 0 on.
_DTYPES = (  # noqa: SIM905 - one a line would be a page
    "invalid float32 float64 int32 uint8 int16 int8 string complex64 int64 bool qint8 quint8 qint32 bfloat16 qint16 "
    "quint16 uint16 complex128 float16 resource variant uint32 uint64 float8_e5m2 float8_e4m3fn float8_e4m3fnuz "
    "float8_e4m3b11fnuz float8_e5m2fnuz int4 uint4 int2 uint2 float4_e2m1fn"
).split()


class Entry(NamedTuple):
    """What the index says of one tensor."""

    name: str
    dtype: str  # as TensorFlow names it: "float32", "string", "bfloat16" ...
    shape: tuple[int, ...]
    bytes: int  # on the disk; this and the next three are 0 where the tensor is stored in slices
    shard: int  # the data file that they lie in
    offset: int  # where they begin in it
    crc32c: int  # theirs; that of strings and variants is taken by rules of their own
    slices: int  # 0: whole; otherwise the number of parts that a partitioned variable is stored in


class Bundle:
    """The files of a checkpoint.

    Attributes:
      prefix: what they share.
      shards: the number of data files.
      entries: the tensors by name, in sorted order.
    """

    def __init__(self, prefix: Path) -> None:
        """Reads the index, and checks each byte of it.

        Raises:
          DamagedError: the index is missing or damaged.
          CheckpointError: it is neither, but of a kind that only TensorFlow reads.
        """
        self.prefix = prefix
        path = layout.index_path(prefix)
        try:
            self.shards, self.entries, self._parts = _parse_index(durable.read(path, _MOST_INDEX_BYTES))
        except FileNotFoundError as error:
            raise DamagedError(f"{path.name}: nothing found, an index wanted") from error
        except OddFileError as error:
            raise DamagedError(f"{path.name}: {reason(error)}") from error
        except ValueError as error:
            raise DamagedError(f"{path.name}: {error}") from error
        except NotImplementedError as error:
            raise CheckpointError(f"{path}: {error} wanted; read it with tf.train.load_checkpoint.") from error

    def data_path(self, shard: int) -> Path:
        """The file in which the bytes of a shard lie."""
        return layout.data_path(self.prefix, shard, self.shards)

    def check(self) -> None:
        """Compares every byte of every data file with the index, in pieces of a megabyte.

        Raises:
          DamagedError: names the first file and tensor that are not as the index says.
        """
        stored = self._stored()
        for shard in range(self.shards):
            wanted = max((entry.offset + entry.bytes for entry in stored[shard]), default=0)
            path, found = self._data_file(shard, wanted)
            # TensorFlow's own readers take no notice of what comes after the last tensor.
            if found != wanted:
                raise DamagedError(f"{path.name}: {found:,} bytes found, {wanted:,} wanted")
            for entry in stored[shard]:
                self._check_tensor(entry)

    def _stored(self) -> defaultdict[int, list[Entry]]:
        """Of each shard what is stored in it, in the order of the bytes, each of which is stored once."""
        shards: defaultdict[int, list[Entry]] = defaultdict(list)
        whole = [entry for entry in self.entries.values() if not entry.slices]
        parts = [part for parts in self._parts.values() for part in parts]
        for entry in sorted(whole + parts, key=attrgetter("offset", "bytes")):
            before = shards[entry.shard][-1:]
            if before and entry.offset < before[0].offset + before[0].bytes:
                message = f"tensor {entry.name}: lies at byte {entry.offset:,}, where tensor {before[0].name} does"
                raise DamagedError(f"{layout.index_path(self.prefix).name}: {message}")
            shards[entry.shard].append(entry)
        return shards

    def tensor(self, name: str) -> Array:
        """A tensor's value, read-only.

        It is a view of the file: nothing is read before it is looked at, and nothing compared with the index. Only
        strings and what is stored in slices are copied, and then compared.

        Raises:
          DamagedError: its bytes are missing or, where they are copied, have changed.
          KeyError: there is no such tensor.
        """
        entry = self.entries[name]
        dtype = _numpy_dtype(entry.dtype)
        if dtype and not entry.slices:
            return self._view(entry, dtype)
        for part in self._parts[name] if entry.slices else [entry]:
            self._check_tensor(part)
        return self._strings(entry) if entry.dtype == "string" and not entry.slices else self._through_tensorflow(name)

    def _view(self, entry: Entry, dtype: np.dtype[Any]) -> Array:
        path, _ = self._data_file(entry.shard, entry.offset + entry.bytes)
        if not entry.bytes:  # an empty stretch of a file cannot be mapped
            return _frozen(np.empty(entry.shape, dtype))
        return np.memmap(path, dtype, "r", entry.offset, entry.shape)

    def _strings(self, entry: Entry) -> Array:
        array = np.empty(math.prod(entry.shape), object)
        with self.data_path(entry.shard).open("rb") as file:
            file.seek(entry.offset)
            lengths = [protobuf_wire.varint(file) for _ in array]
            protobuf_wire.take(file, 4)
            array[:] = [protobuf_wire.take(file, length) for length in lengths]
        return _frozen(array.reshape(entry.shape))

    def _through_tensorflow(self, name: str) -> Array:
        import tensorflow as tf  # noqa: PLC0415 - takes seconds, and is seldom needed

        with tf_path.without_pattern(self.prefix) as prefix:
            return _frozen(np.asarray(tf.train.load_checkpoint(str(prefix)).get_tensor(name)))

    def _check_tensor(self, entry: Entry) -> None:
        path, _ = self._data_file(entry.shard, entry.offset + entry.bytes)
        with path.open("rb") as file:
            file.seek(entry.offset)
            try:
                _compare(_RULES.get(entry.dtype, _hash_plain)(file, entry), entry.crc32c)
            except ValueError as error:
                raise DamagedError(f"{path.name}: tensor {entry.name}: {error}") from error

    def _data_file(self, shard: int, wanted: int) -> tuple[Path, int]:
        """A data file, and its size, which is no less than what is wanted."""
        path = self.data_path(shard)
        try:
            status = path.stat()
        except FileNotFoundError as error:
            raise DamagedError(f"{path.name}: nothing found, {wanted:,} bytes wanted") from error
        if not stat.S_ISREG(status.st_mode):
            raise DamagedError(f"{path.name}: no file found, {wanted:,} bytes wanted")
        found = status.st_size
        if found < wanted:
            raise DamagedError(f"{path.name}: {found:,} bytes found, {wanted:,} wanted")
        return path, found


def _element_bytes(dtype: str) -> int | None:
    """How many bytes each element takes on the disk, one at least; None where that differs."""
    bits = re.search(r"\d+", dtype)
    return max(1, int(bits[0]) // 8) if bits else {"bool": 1}.get(dtype)


def _numpy_dtype(dtype: str) -> np.dtype[Any] | None:
    """What numpy makes of elements of one size: quantized integers are integers."""
    name = dtype.removeprefix("q")
    if _element_bytes(dtype) is None:
        return None
    if hasattr(np, name):
        return np.dtype(f"<{np.dtype(name).str[1:]}")
    import ml_dtypes  # noqa: PLC0415 - seldom needed

    dtype_of: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
    return dtype_of


def _frozen(array: Array) -> Array:
    array.flags.writeable = False
    return array


def _hash_plain(file: BinaryIO, entry: Entry) -> int:
    return _extend(0, file, entry.bytes)


def _hash_strings(file: BinaryIO, entry: Entry) -> int:
    """Lengths as varints, the masked crc32c of the lengths as integers, the bytes; the crc32c goes on over all."""
    crc = total = 0
    for _ in range(math.prod(entry.shape)):
        length = protobuf_wire.varint(file)
        total += length
        crc = google_crc32c.extend(crc, length.to_bytes(4 if length < 2**32 else 8, "little"))
    crc = _past_checksum(crc, file)
    left = entry.offset + entry.bytes - file.tell()
    if total != left:
        raise ValueError(f"strings of {total:,} bytes found, {left:,} wanted")
    return _extend(crc, file, total)


def _hash_variants(file: BinaryIO, entry: Entry) -> int:
    """Of each its length, its bytes, and a masked crc32c of all so far."""
    crc = 0
    for _ in range(math.prod(entry.shape)):
        length = protobuf_wire.varint(file)
        crc = _extend(google_crc32c.extend(crc, length.to_bytes(8, "little")), file, length)
        crc = _past_checksum(crc, file)
    found = file.tell() - entry.offset
    if found != entry.bytes:
        raise ValueError(f"variants of {found:,} bytes found, {entry.bytes:,} wanted")
    return crc


_RULES = {"string": _hash_strings, "variant": _hash_variants}


def _extend(crc: int, file: BinaryIO, count: int) -> int:
    # Read rather than mapped: where a disk fails under a map, there is no error but a signal.
    while count:
        piece = protobuf_wire.take(file, min(count, _PIECE))
        crc = google_crc32c.extend(crc, piece)
        count -= len(piece)
    return crc


def _past_checksum(crc: int, file: BinaryIO) -> int:
    masked = protobuf_wire.take(file, 4)
    _compare(crc, protobuf_wire.unmask(int.from_bytes(masked, "little")))
    extended: int = google_crc32c.extend(crc, masked)
    return extended


def _compare(found: int, wanted: int) -> None:
    if found != wanted:
        raise ValueError(f"its bytes have changed, crc32c {found:08x} found, {wanted:08x} wanted")


def _parse_index(content: bytes) -> tuple[int, dict[str, Entry], dict[str, list[Entry]]]:
    """The number of shards, the tensors by name, and what is stored of those that are stored in slices."""
    records = leveldb_table.records(content)
    shards = _parse_header(*next(records, (b"", b"")))
    entries: dict[str, Entry] = {}
    parts: defaultdict[str, list[Entry]] = defaultdict(list)
    for key, value in records:
        name = leveldb_table.text(key.removeprefix(_PART).split(_END_OF_NAME)[0])
        if key.startswith(_PART):
            parts[name].append(_parse_entry(f"{name}, part {len(parts[name]) + 1}", value, shards))
        else:
            entries[name] = _parse_entry(name, value, shards)
    wanted = {name: entry.slices for name, entry in entries.items() if entry.slices}
    found = {name: len(stored) for name, stored in parts.items()}
    for name in found | wanted:
        if found.get(name) != wanted.get(name):
            raise ValueError(f"tensor {name}: {found.get(name, 0)} parts found, {wanted.get(name, 0)} wanted")
    return shards, entries, parts


def _parse_header(key: bytes, value: bytes) -> int:
    if key:
        raise ValueError(f"tensor {leveldb_table.text(key)} found first, the header wanted")
    numbers, messages = protobuf_wire.message_fields(value)
    shards = numbers[1]
    if not 0 < shards < 2**31:
        raise ValueError(f"{shards:,} data files found in its header, 1 or more wanted")
    if numbers[2]:
        raise NotImplementedError("numbers with the highest byte first found, with the lowest first")
    oldest_reader = max((protobuf_wire.message_fields(version)[0][2] for version in messages[3]), default=0)
    if oldest_reader > _VERSION:
        raise NotImplementedError(f"version {oldest_reader} found, {_VERSION} at most")
    return shards


def _parse_entry(name: str, value: bytes, shards: int) -> Entry:
    numbers, messages = protobuf_wire.message_fields(value)
    dtype = _DTYPES[numbers[1]] if numbers[1] < len(_DTYPES) else "unknown"
    dimensions = [dimension for shape in messages[2] for dimension in protobuf_wire.message_fields(shape)[1][2]]
    if len(dimensions) > _MOST_DIMENSIONS:
        raise ValueError(f"tensor {name}: {len(dimensions):,} dimensions found, {_MOST_DIMENSIONS} at most wanted")
    shape = tuple(protobuf_wire.message_fields(dimension)[0][1] for dimension in dimensions)
    slices = len(messages[7])
    place = (0, 0, 0, 0) if slices else (numbers[5], numbers[3], numbers[4], protobuf_wire.unmask(numbers[6]))
    entry = Entry(name, dtype, shape, *place, slices)
    _check_numbers(entry, shards)
    return entry


def _check_numbers(entry: Entry, shards: int) -> None:
    # Where one dimension is 0, numpy wants the others to be possible all the same.
    if math.prod(size or 1 for size in entry.shape) > _LARGEST // 16:
        raise ValueError(f"tensor {entry.name}: shape {entry.shape} found, which no tensor has")
    if entry.shard >= shards or entry.offset + entry.bytes > _LARGEST:
        raise ValueError(f"tensor {entry.name}: byte {entry.offset:,} of data file {entry.shard:,} found, none there")
    elements, size = math.prod(entry.shape), _element_bytes(entry.dtype)
    wrong = entry.bytes != elements * size if size else entry.dtype in _RULES and entry.bytes < elements
    if wrong and not entry.slices:
        raise ValueError(f"tensor {entry.name}: {entry.bytes:,} bytes found for {elements:,} of {entry.dtype}")
