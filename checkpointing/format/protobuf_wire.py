"""The small coin of TensorFlow's files: varints, masked checksums, protocol buffers without their descriptions."""

import io
from collections import defaultdict
from typing import BinaryIO

# What follows a field's number in a protocol buffer message: a varint, so many bytes, or a length and the bytes.
_VARINT, _FIXED, _BYTES = 0, {1: 8, 5: 4}, 2
_LARGEST = 2**63 - 1


def varint(stream: BinaryIO) -> int:
    """An integer in groups of seven bits, the lowest first; all groups but the last have their eighth bit set."""
    value = 0
    for shift in range(0, 64, 7):
        byte = stream.read(1)
        if not byte:
            raise ValueError("an integer that is cut off found")
        value |= (byte[0] & 0x7F) << shift
        if not byte[0] & 0x80:
            return value % 2**64
    raise ValueError("an integer of more than 64 bits found")


def take(stream: BinaryIO, size: int) -> bytes:
    """So many bytes, all of them."""
    taken = stream.read(min(size, _LARGEST))
    if len(taken) < size:
        raise ValueError(f"{len(taken):,} bytes found, {size:,} wanted")
    return taken


def unmask(masked: int) -> int:
    """Checksums are stored turned and raised, lest the crc32c of bytes that hold their own be always the same."""
    turned = (masked - 0xA282EAD8) % 2**32
    return (turned >> 17 | turned << 15) % 2**32


def message_fields(message: bytes) -> tuple[defaultdict[int, int], defaultdict[int, list[bytes]]]:
    """The fields of a protocol buffer message by number: the last integer of each, and all that is no integer."""
    numbers: defaultdict[int, int] = defaultdict(int)
    messages: defaultdict[int, list[bytes]] = defaultdict(list)
    stream = io.BytesIO(message)
    while stream.tell() < len(message):
        field, kind = divmod(varint(stream), 8)
        if kind == _VARINT:
            numbers[field] = varint(stream)
        elif kind in _FIXED:
            numbers[field] = int.from_bytes(take(stream, _FIXED[kind]), "little")
        elif kind == _BYTES:
            messages[field].append(take(stream, varint(stream)))
        else:
            raise ValueError(f"a field of kind {kind} found, kinds 0, 1, 2 and 5 wanted")
    return numbers, messages
