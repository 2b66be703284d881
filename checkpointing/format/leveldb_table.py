"""LevelDB's tables, in which TensorFlow keeps a checkpoint's index: sorted records of key and value, under checksums.

    data blocks       the records
    metaindex block   no records
    index block       where each data block lies
    footer            where the last two lie, zeros up to 40 bytes, the 8 bytes that all tables end with

After each block come a byte that tells its compression, and the crc32c of both. The format's source: LevelDB's
doc/table_format.md; TensorFlow writes its blocks uncompressed.
"""

import io
from collections.abc import Iterator
from typing import BinaryIO

import google_crc32c

from checkpointing.format import protobuf_wire

_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER = 40 + len(_MAGIC)
_TRAILER = 1 + 4
# A key states what differs from the key before it, but TensorFlow writes every sixteenth in full: a block can spell
# sixteen times as many bytes as it has, and no more are given room.
_KEYS_IN_A_RUN = 16


def records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a LevelDB table."""
    last = None
    for block in _blocks(content):
        for key, value in _records(block):
            if last is not None and key <= last:
                raise ValueError(f"tensor {text(key)}: found after tensor {text(last)}, before it wanted")
            yield key, value
            last = key


def _blocks(content: bytes) -> list[bytes]:
    """The data blocks of a LevelDB table, every byte of which is under a checksum, or is known."""
    footer = io.BytesIO(content[-_FOOTER:])
    if len(content) < _FOOTER or not content.endswith(_MAGIC):
        raise ValueError(
            f"ends with the bytes [{content[-8:].hex(' ')}], [{_MAGIC.hex(' ')}] wanted: it is cut off, or no index"
        )
    metaindex, index = _handle(footer), _handle(footer)
    if any(footer.read()[: -len(_MAGIC)]):
        raise ValueError("some of its footer's bytes have changed, zeros wanted")
    handles = [_handle(io.BytesIO(value)) for _, value in _records(_block(content, *index))]
    # The blocks lie end to end, so that none is read twice.
    end = 0
    for offset, size in [*handles, metaindex, index]:
        if offset != end:
            raise ValueError(f"a block at byte {offset:,} found, at byte {end:,} wanted")
        end += size + _TRAILER
    if end + _FOOTER != len(content):
        raise ValueError(f"{len(content):,} bytes found, {end + _FOOTER:,} wanted")
    return [_block(content, *handle) for handle in [*handles, metaindex]][:-1]


def _handle(stream: BinaryIO) -> tuple[int, int]:
    return protobuf_wire.varint(stream), protobuf_wire.varint(stream)


def _block(content: bytes, offset: int, size: int) -> bytes:
    """The bytes of a block, with their checksum compared."""
    stored = content[offset : offset + size + _TRAILER]
    if len(stored) < size + _TRAILER:
        raise ValueError(f"a block of {size:,} bytes at byte {offset:,} found, in a file of {len(content):,}")
    crc, wanted = google_crc32c.value(stored[:-4]), protobuf_wire.unmask(int.from_bytes(stored[-4:], "little"))
    if crc != wanted:
        raise ValueError(
            f"bytes {offset:,} to {offset + size:,} have changed, crc32c {crc:08x} found, {wanted:08x} wanted"
        )
    if stored[size]:
        raise NotImplementedError("compressed blocks found, plain ones")
    return stored[:size]


def _records(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block; a key states what differs from the one before it. Shortcuts to some keys end it."""
    end = len(block) - 4 * (int.from_bytes(block[-4:], "little") + 1)
    stream, key, spelled = io.BytesIO(block), b"", 0
    while stream.tell() < end:
        shared, rest, size = protobuf_wire.varint(stream), protobuf_wire.varint(stream), protobuf_wire.varint(stream)
        spelled += shared + rest
        if shared > len(key) or spelled > _KEYS_IN_A_RUN * len(block):
            raise ValueError(f"a name found that shares {shared:,} bytes with one of {len(key):,}, which none does")
        key = key[:shared] + protobuf_wire.take(stream, rest)
        yield key, protobuf_wire.take(stream, size)
    if stream.tell() != end:
        raise ValueError(f"a block of {stream.tell():,} bytes found, {end:,} wanted")


def text(name: bytes) -> str:
    """A key for people."""
    return name.decode(errors="backslashreplace")
