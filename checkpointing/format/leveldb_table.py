"""Read LevelDB tables, the format of a checkpoint's index: sorted records of key and value, with checksums.

    data blocks       the records
    metaindex block   empty
    index block       offset and size of each data block
    footer            offset and size of metaindex and index block, zeros up to 40 bytes, 8 bytes of magic number

Each block is followed by a byte for its compression, and the masked crc32c of both. Source: doc/table_format.md of
LevelDB. TensorFlow does not compress the blocks.
"""

import io
from collections.abc import Iterator
from typing import BinaryIO

import google_crc32c

from checkpointing.format.protobuf_wire import read_exactly, read_varint, unmask_crc

_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER = 40 + len(_MAGIC)
_TRAILER = 1 + 4
# A key shares a prefix with the one before, except for every 16th in TensorFlow's files. So the keys of a block have
# at most 16 times the block's bytes; a file that claims more is refused before it fills the memory.
_RESTART_INTERVAL = 16


def records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a table, sorted by key.

    Raises:
      ValueError: the table is damaged.
      NotImplementedError: it is compressed.
    """
    previous = None
    for block in _data_blocks(content):
        for key, value in _records(block):
            if previous is not None and key <= previous:
                raise ValueError(f"expected sorted names, got tensor {key_text(key)} after tensor {key_text(previous)}")
            yield key, value
            previous = key


def _data_blocks(content: bytes) -> list[bytes]:
    """Return the data blocks. Every byte of the table is compared with a checksum or a known value."""
    footer = io.BytesIO(content[-_FOOTER:])
    if len(content) < _FOOTER or not content.endswith(_MAGIC):
        found = content[-len(_MAGIC) :].hex(" ")
        raise ValueError(f"expected [{_MAGIC.hex(' ')}] at the end, got [{found}]: truncated, or not an index")
    metaindex, index = _handle(footer), _handle(footer)
    if any(footer.read()[: -len(_MAGIC)]):
        raise ValueError("expected zeros at the end of its footer, got other bytes")
    handles = [_handle(io.BytesIO(value)) for _, value in _records(_block(content, *index))]
    # The blocks are contiguous, so that none is read twice.
    end = 0
    for offset, size in [*handles, metaindex, index]:
        if offset != end:
            raise ValueError(f"expected a block at byte {end:,}, got one at byte {offset:,}")
        end += size + _TRAILER
    if end + _FOOTER != len(content):
        raise ValueError(f"expected {end + _FOOTER:,} bytes, got {len(content):,}")
    return [_block(content, *handle) for handle in [*handles, metaindex]][:-1]


def _handle(stream: BinaryIO) -> tuple[int, int]:
    """Read the offset and size of a block."""
    return read_varint(stream), read_varint(stream)


def _block(content: bytes, offset: int, size: int) -> bytes:
    """Return the bytes of a block, after a comparison with their checksum."""
    stored = content[offset : offset + size + _TRAILER]
    if len(stored) < size + _TRAILER:
        raise ValueError(f"expected a block of {size:,} bytes at byte {offset:,}, got a file of {len(content):,} bytes")
    found, expected = google_crc32c.value(stored[:-4]), unmask_crc(int.from_bytes(stored[-4:], "little"))
    if found != expected:
        span = f"bytes {offset:,} to {offset + size:,}"
        raise ValueError(f"{span} have changed: expected crc32c {expected:08x}, got {found:08x}")
    if stored[size]:
        raise NotImplementedError("expected uncompressed blocks, got compressed ones")
    return stored[:size]


def _records(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a block. The offsets of the keys stored in full (restarts) follow the records."""
    num_restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (num_restarts + 1)
    stream, key, key_bytes = io.BytesIO(block), b"", 0
    while stream.tell() < end:
        shared, unshared, value_size = read_varint(stream), read_varint(stream), read_varint(stream)
        if shared > len(key):
            raise ValueError(f"expected a key that shares at most {len(key):,} bytes with the last, got {shared:,}")
        key_bytes += shared + unshared
        if key_bytes > _RESTART_INTERVAL * len(block):
            raise ValueError(f"expected keys of at most {_RESTART_INTERVAL * len(block):,} bytes in a block, got more")
        key = key[:shared] + read_exactly(stream, unshared)
        yield key, read_exactly(stream, value_size)
    position = stream.tell()
    if position != end:
        raise ValueError(f"expected records of {end:,} bytes in a block, got {position:,}")


def key_text(key: bytes) -> str:
    """Return a key for a message."""
    return key.decode(errors="backslashreplace")
