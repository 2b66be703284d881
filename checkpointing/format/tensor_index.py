"""Parse a checkpoint's index, PREFIX.index, into one entry per tensor.

The index is a LevelDB table. Under the empty key it has a BundleHeaderProto, under each tensor's name a
BundleEntryProto. A partitioned variable is stored in slices: it has an entry without bytes, and one for each slice.

The format's sources, all in TensorFlow: tensor_bundle.cc and naming.cc of tensorflow/core/util/tensor_bundle,
tensorflow/core/protobuf/tensor_bundle.proto and tensorflow/core/util/saved_tensor_slice_util.cc.
"""

import math
import re
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np

from checkpointing.format.leveldb_table import key_text, records
from checkpointing.format.protobuf_wire import (
    BundleEntryProto,
    BundleHeaderProto,
    TensorShapeProto,
    VersionDef,
    read_message,
    unmask_crc,
)

# The key of a slice: this byte, the variable's name, these two bytes, the slice's place in the variable.
_SLICE = b"\0"
_END_OF_NAME = b"\0\x01"

_VERSION = 1
_MAX_DIMENSIONS = 254
_MAX_INT64 = 2**63 - 1
_MAX_ELEMENTS = _MAX_INT64 // 16  # the largest element, a complex128, has 16 bytes

# TensorFlow's DataType, from 0 on.
_DTYPES = (  # noqa: SIM905 - one a line would be a page
    "invalid float32 float64 int32 uint8 int16 int8 string complex64 int64 bool qint8 quint8 qint32 bfloat16 qint16 "
    "quint16 uint16 complex128 float16 resource variant uint32 uint64 float8_e5m2 float8_e4m3fn float8_e4m3fnuz "
    "float8_e4m3b11fnuz float8_e5m2fnuz int4 uint4 int2 uint2 float4_e2m1fn"
).split()
_AT_LEAST_A_BYTE_EACH = {"string", "variant"}
_QUANTIZED = {"qint8", "quint8", "qint16", "quint16", "qint32"}


class Entry(NamedTuple):
    """One tensor in the index, as in BundleEntryProto."""

    name: str
    dtype: str  # TensorFlow's name: "float32", "string", "bfloat16" ...
    shape: tuple[int, ...]
    size: int  # bytes on the disk; this and the next three are 0 if the tensor is stored in slices
    shard_id: int  # number of the data file
    offset: int  # of the first byte in the data file
    crc32c: int  # of the bytes; strings and variants have rules of their own
    slices: int  # number of slices of a partitioned variable; 0 if the tensor is stored in one piece


class Index(NamedTuple):
    """A parsed index.

    num_shards: number of data files. entries: tensors by name, sorted. slices: entries of the slices by tensor name.
    """

    num_shards: int
    entries: dict[str, Entry]
    slices: dict[str, list[Entry]]


def parse(content: bytes) -> Index:
    """Parse the bytes of an index, and check each of them.

    Raises:
      ValueError: the index is damaged.
      NotImplementedError: only TensorFlow can read it.
    """
    found = records(content)
    num_shards = _parse_header(*next(found, (b"", b"")))
    entries: dict[str, Entry] = {}
    slices: defaultdict[str, list[Entry]] = defaultdict(list)
    for key, value in found:
        name = key_text(key.removeprefix(_SLICE).split(_END_OF_NAME)[0])
        if key.startswith(_SLICE):
            slices[name].append(_parse_entry(f"{name}, slice {len(slices[name]) + 1}", value, num_shards))
        else:
            entries[name] = _parse_entry(name, value, num_shards)
    for name in slices | entries:
        expected = entries[name].slices if name in entries else 0
        if len(slices.get(name, [])) != expected:
            raise ValueError(f"tensor {name}: expected {expected} slices, got {len(slices.get(name, []))}")
    return Index(num_shards, entries, slices)


def name_problem(name: str) -> str | None:
    """Return why no tensor of a checkpoint can have a name; None if it can.

    TensorFlow's writer ends the process (CHECK) if a name is empty. NUL separates the parts of a slice's key.
    """
    if not name:
        return "expected a name for each tensor, got an empty one"
    if "\0" in name:
        return f"expected tensors' names without NUL, got {name!r}"
    try:
        name.encode()
    except UnicodeEncodeError:
        return f"expected tensors' names in UTF-8, got {name!r}"
    return None


def _parse_header(key: bytes, value: bytes) -> int:
    """Return the number of data files."""
    if key:
        raise ValueError(f"expected the header first, got tensor {key_text(key)}")
    numbers, messages = read_message(value)
    num_shards = numbers[BundleHeaderProto.num_shards]
    if not 0 < num_shards < 2**31:
        raise ValueError(f"expected 1 or more data files in its header, got {num_shards:,}")
    if numbers[BundleHeaderProto.endianness]:
        raise NotImplementedError("expected little-endian numbers, got big-endian ones")
    versions = [read_message(version)[0] for version in messages[BundleHeaderProto.version]]
    min_consumer = max((version[VersionDef.min_consumer] for version in versions), default=0)
    if min_consumer > _VERSION:
        raise NotImplementedError(f"expected version {_VERSION} at most, got {min_consumer}")
    return num_shards


def _parse_entry(name: str, value: bytes, num_shards: int) -> Entry:
    numbers, messages = read_message(value)
    number = numbers[BundleEntryProto.dtype]
    slices = len(messages[BundleEntryProto.slices])
    entry = Entry(
        name,
        dtype=_DTYPES[number] if number < len(_DTYPES) else "unknown",
        shape=_parse_shape(name, messages[BundleEntryProto.shape]),
        size=0 if slices else numbers[BundleEntryProto.size],
        shard_id=0 if slices else numbers[BundleEntryProto.shard_id],
        offset=0 if slices else numbers[BundleEntryProto.offset],
        crc32c=0 if slices else unmask_crc(numbers[BundleEntryProto.crc32c]),
        slices=slices,
    )
    _check_place(entry, num_shards)
    if not slices:
        _check_size(entry)
    return entry


def _parse_shape(name: str, messages: list[bytes]) -> tuple[int, ...]:
    dimensions = [dim for shape in messages for dim in read_message(shape)[1][TensorShapeProto.dim]]
    if len(dimensions) > _MAX_DIMENSIONS:
        raise ValueError(f"tensor {name}: expected at most {_MAX_DIMENSIONS} dimensions, got {len(dimensions):,}")
    shape = tuple(read_message(dim)[0][TensorShapeProto.size] for dim in dimensions)
    # NumPy limits the other dimensions also if one is 0.
    if math.prod(size or 1 for size in shape) > _MAX_ELEMENTS:
        raise ValueError(f"tensor {name}: expected at most {_MAX_ELEMENTS:,} elements, got shape {shape}")
    return shape


def _check_place(entry: Entry, num_shards: int) -> None:
    if entry.shard_id >= num_shards:
        raise ValueError(
            f"tensor {entry.name}: expected one of {num_shards:,} data files, got number {entry.shard_id:,}"
        )
    if entry.offset + entry.size > _MAX_INT64:
        raise ValueError(f"tensor {entry.name}: expected an offset of less than 2**63, got {entry.offset:,}")


def _check_size(entry: Entry) -> None:
    elements, element_size = math.prod(entry.shape), element_bytes(entry.dtype)
    problem = f"for {elements:,} of {entry.dtype}, got {entry.size:,}"
    if element_size is not None and entry.size != elements * element_size:
        raise ValueError(f"tensor {entry.name}: expected {elements * element_size:,} bytes {problem}")
    if entry.dtype in _AT_LEAST_A_BYTE_EACH and entry.size < elements:
        raise ValueError(f"tensor {entry.name}: expected at least {elements:,} bytes {problem}")


def element_bytes(dtype: str) -> int | None:
    """Return the bytes of each element on the disk, at least 1; None if elements differ in size."""
    bits = re.search(r"\d+", dtype)
    return max(1, int(bits[0]) // 8) if bits else {"bool": 1}.get(dtype)


def numpy_dtype(dtype: str) -> np.dtype[Any] | None:
    """Return the little-endian NumPy dtype, integers for quantized ones; None if elements differ in size."""
    name = dtype.removeprefix("q")
    if element_bytes(dtype) is None:
        return None
    if hasattr(np, name):
        return np.dtype(f"<{np.dtype(name).str[1:]}")
    import ml_dtypes  # noqa: PLC0415 - seldom needed

    extended: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
    return extended


def quantized_dtype(dtype: str) -> np.dtype[Any] | None:
    """Return TensorFlow's NumPy dtype for a quantized one, with one field of its name; None for others."""
    number = numpy_dtype(dtype) if dtype in _QUANTIZED else None
    return np.dtype([(dtype, number)]) if number is not None else None


def dtype_name(dtype: np.dtype[Any]) -> str:
    """Return TensorFlow's name of a NumPy dtype; NumPy's, if TensorFlow has no such dtype."""
    return dtype.names[0] if is_quantized(dtype) and dtype.names else dtype.name


def is_quantized(dtype: np.dtype[Any]) -> bool:
    """Return whether an array holds the numbers of a quantized tensor, as `quantized_dtype` describes them."""
    return dtype.names is not None and dtype == quantized_dtype(dtype.names[0])
