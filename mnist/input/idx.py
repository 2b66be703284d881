"""IDX files, MNIST's own format: bytes on the disk to uint8 arrays, and every lie in a header is an error.

    images = idx.read(path, shape=(None, 28, 28))

An IDX file of unsigned bytes is two zero bytes, the type (8), the number of dimensions, each dimension as a
big-endian 32-bit integer, then the bytes themselves, last dimension fastest
(the format's source: "THE IDX FILE FORMAT" on the MNIST database's page by LeCun, Cortes and Burges).
"""

import hashlib
import math
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mnist.errors import DataError
from mnist.input import regular_file

Bytes = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
Shape = tuple[int | None, ...]

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_FORMAT = 16 + zlib.MAX_WBITS  # header, checksum and length included
_UNSIGNED_BYTE = 8
_PIECE = 1 << 20
# A gzip file's own bytes are read in smaller pieces: what follows a member is copied each time one ends.
_GZIP_PIECE = 1 << 14

# Deflate packs up to 1,032 bytes into one. MNIST's images are packed 4.7 : 1; no large data set of pictures comes near
# 100 : 1, but a small file that unpacks into all of the memory does. Data sets below the first figure may.
_ANY_RATIO_BYTES = 256 << 20
_MOST_RATIO = 100


def read(path: Path, shape: Shape, most_bytes: int | None = None) -> Bytes:
    """Reads one IDX file of unsigned bytes, plain or gzip (told by its content, not by its name).

    What the header says is compared with the shape and with the file's size before any memory is taken. A gzip file
    whose data are larger than 256 MiB and more than 100 times its own size is refused before it is unpacked.

    Args:
      path: the file.
      shape: the dimensions expected; None where any size from 0 up will do.
      most_bytes: of data; None for any.

    Returns:
      A read-only uint8 array of that shape.

    Raises:
      DataError: the file cannot be read, is no IDX file, holds fewer or more bytes than its header says, its header
        says more than most_bytes, or there is not enough memory for it.
    """
    with _opened(path) as file:
        stream, found = _read_header(path, file, shape)
        return _read_data(path, stream, found, most_bytes)


def read_shape(path: Path, shape: Shape) -> tuple[int, ...]:
    """Reads the dimensions in an IDX file's header, without its data.

    Args:
      path: the file.
      shape: the dimensions expected, as in `read`.

    Raises:
      DataError: as `read`, as far as the header tells.
    """
    with _opened(path) as file:
        return _read_header(path, file, shape)[1]


class _Plain:
    """A plain file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.file_bytes = regular_file.size(file)

    def read(self, size: int) -> bytes:
        """At most so many bytes; none at the end."""
        return self._file.read(size) if self.file_bytes else b""  # files of /proc have no size, and may have no end

    def problem(self, header_bytes: int, expected: int) -> str | None:
        """Why there cannot be so many bytes after the header."""
        found = self.file_bytes - header_bytes
        return None if found == expected else f"expected {expected:,} bytes of data, got {found:,}"


class _Gzip:
    """The contents of a gzip file, of all its members; memory does not depend on what they unpack into."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._file_bytes = regular_file.size(file)
        self._inflate = zlib.decompressobj(_GZIP_FORMAT)
        self._input = b""

    def read(self, size: int) -> bytes:
        """At most so many bytes; none at the end, where checksum and length have been compared."""
        while True:
            self._input = self._input or self._file.read(_GZIP_PIECE)
            if self._inflate.eof:
                if not self._input:
                    return b""
                self._inflate = zlib.decompressobj(_GZIP_FORMAT)
            at_end = not self._input
            content = self._inflate.decompress(self._input, size)
            self._input = self._inflate.unused_data or self._inflate.unconsumed_tail
            if content:
                return content
            if at_end and not self._inflate.eof:
                raise EOFError("Compressed file ended before the end-of-stream marker was reached")

    def problem(self, header_bytes: int, expected: int) -> str | None:
        """Why a file of its size is not unpacked into so many bytes after the header."""
        del header_bytes
        if expected <= max(_ANY_RATIO_BYTES, _MOST_RATIO * self._file_bytes):
            return None
        return (
            f"expected at most {_MOST_RATIO} times the {self._file_bytes:,} bytes of the gzip file, "
            f"got {expected:,} bytes of data by its header; unpack it with gunzip if that is right"
        )


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file, for a block in which what goes wrong with reading becomes one sentence."""
    try:
        with regular_file.open_to_read(path) as file:
            yield file
    except (EOFError, zlib.error) as error:
        message = f"{path}: the gzip data is truncated or corrupt ({error}); replace the file with a good copy."
        raise DataError(message) from error
    except OSError as error:
        raise DataError(f"{path}: {regular_file.problem(error, 'put a readable IDX file there')}.") from error


def _read_header(path: Path, file: BinaryIO, shape: Shape) -> tuple[_Plain | _Gzip, tuple[int, ...]]:
    """The dimensions in the header, and the stream of the data behind it."""
    plain = _Plain(file)
    compressed = plain.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    file.seek(0)
    stream = _Gzip(file) if compressed else plain
    magic = bytes([0, 0, _UNSIGNED_BYTE, len(shape)])
    start = _read_up_to(stream, len(magic))
    if start != magic:
        message = (
            f"{path}: expected the first bytes [{magic.hex(' ')}], got [{start.hex(' ')}]: "
            f"this is not an IDX file of unsigned bytes with {len(shape)} dimension(s)."
        )
        raise DataError(message)
    sizes = _read_up_to(stream, 4 * len(shape))
    if len(sizes) < 4 * len(shape):
        message = f"{path}: ends inside its header, after {len(magic) + len(sizes)} bytes."
        raise DataError(message)
    found = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    if any(expected is not None and expected != size for expected, size in zip(shape, found, strict=True)):
        raise DataError(f"{path}: expected dimensions {_times(shape)}, got {_times(found)}.")
    return stream, found


def _read_data(path: Path, stream: _Plain | _Gzip, found: tuple[int, ...], most_bytes: int | None) -> Bytes:
    expected = math.prod(found)
    header_says = f"(the header says {_times(found)})"
    if math.prod(size or 1 for size in found) > sys.maxsize:  # NumPy's limit, whether or not a 0 is among them
        raise DataError(f"{path}: expected dimensions that an array can have, got {_times(found)} in the header.")
    if most_bytes is not None and expected > most_bytes:
        raise DataError(
            f"{path}: expected at most {most_bytes:,} bytes of data, got more {header_says}; split the file."
        )
    if problem := stream.problem(4 + 4 * len(found), expected):
        raise DataError(f"{path}: {problem} {header_says}.")
    try:
        array = np.empty(expected, np.uint8)
        filled = _fill(array, stream)
    except MemoryError as error:
        message = f"{path}: not enough memory for {expected:,} bytes of data {header_says}"
        raise DataError(f"{message}; use a machine with more, or fewer images.") from error
    if filled != expected:
        got = "more" if filled > expected else f"{filled:,}"
        raise DataError(f"{path}: expected {expected:,} bytes of data, got {got} {header_says}.")
    array = array.reshape(found)
    array.flags.writeable = False
    return array


def _fill(array: Bytes, stream: _Plain | _Gzip) -> int:
    """How many bytes came out of the stream; one more than the array has is as many as are read."""
    filled = 0
    while filled < len(array):
        piece = stream.read(min(_PIECE, len(array) - filled))
        if not piece:
            return filled
        array[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
        filled += len(piece)
    # This read also reaches the end of a gzip stream, where its checksum is compared.
    return filled + len(stream.read(1))


def _read_up_to(stream: _Plain | _Gzip, size: int) -> bytes:
    content = b""
    while len(content) < size and (piece := stream.read(size - len(content))):
        content += piece
    return content


def header(array: Bytes) -> bytes:
    """The header of the IDX file that holds this array."""
    return bytes([0, 0, _UNSIGNED_BYTE, array.ndim]) + np.array(array.shape, ">u4").tobytes()


def sha256(array: Bytes) -> str:
    """The hex sha256 of the plain IDX file that holds this array, wherever the array came from."""
    digest = hashlib.sha256(header(array))
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _times(sizes: Shape) -> str:
    return " x ".join("any" if size is None else str(size) for size in sizes)
