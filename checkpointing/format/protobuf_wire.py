"""Decode varints, masked checksums and protocol buffer messages, as in TensorFlow's checkpoint files.

A field's number is looked up by its name in the .proto file: `numbers[BundleEntryProto.shard_id]`.

The formats' sources: the encoding guide of Protocol Buffers, and in TensorFlow tensor_bundle.proto,
tensor_shape.proto and versions.proto.
"""

import io
from collections import defaultdict
from typing import BinaryIO

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_MAX_INT64 = 2**63 - 1
_MASK_DELTA = 0xA282EAD8


class BundleHeaderProto:
    """Field numbers of tensor_bundle.proto."""

    num_shards, endianness, version = 1, 2, 3


class VersionDef:
    """Field numbers of versions.proto."""

    min_consumer = 2


class BundleEntryProto:
    """Field numbers of tensor_bundle.proto."""

    dtype, shape, shard_id, offset, size, crc32c, slices = range(1, 8)


class TensorShapeProto:
    """Field numbers of tensor_shape.proto; `size` is that of Dim."""

    dim = 2
    size = 1


def read_varint(stream: BinaryIO) -> int:
    """Read an integer stored in groups of 7 bits, the lowest first; all but the last have bit 8 set."""
    value = 0
    for shift in range(0, 64, 7):
        byte = stream.read(1)
        if not byte:
            raise ValueError("expected an integer, got a truncated one")
        value |= (byte[0] & 0x7F) << shift
        if not byte[0] & 0x80:
            return value % 2**64
    raise ValueError("expected an integer of at most 64 bits, got a longer one")


def read_exactly(stream: BinaryIO, size: int) -> bytes:
    """Read `size` bytes; fewer are a ValueError."""
    content = stream.read(min(size, _MAX_INT64))
    if len(content) < size:
        raise ValueError(f"expected {size:,} bytes, got {len(content):,}")
    return content


def unmask_crc(masked: int) -> int:
    """Return the crc32c that a masked one stands for. CRCs are masked as in LevelDB: rotated, and a constant added."""
    rotated = (masked - _MASK_DELTA) % 2**32
    return (rotated >> 17 | rotated << 15) % 2**32


def read_message(message: bytes) -> tuple[defaultdict[int, int], defaultdict[int, list[bytes]]]:
    """Decode a message without its .proto file.

    Returns:
      Two mappings by field number: the numbers (the last one of each field), and the strings and sub-messages (all).
    """
    numbers: defaultdict[int, int] = defaultdict(int)
    messages: defaultdict[int, list[bytes]] = defaultdict(list)
    stream = io.BytesIO(message)
    while stream.tell() < len(message):
        field, wire_type = divmod(read_varint(stream), 8)
        if wire_type == _VARINT:
            numbers[field] = read_varint(stream)
        elif wire_type in {_FIXED32, _FIXED64}:
            numbers[field] = int.from_bytes(read_exactly(stream, 4 if wire_type == _FIXED32 else 8), "little")
        elif wire_type == _BYTES:
            messages[field].append(read_exactly(stream, read_varint(stream)))
        else:
            raise ValueError(f"expected wire type 0, 1, 2 or 5, got {wire_type}")
    return numbers, messages
