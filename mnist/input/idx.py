"""Read IDX files, the format of MNIST, into uint8 arrays.

    images = idx.read(path, shape=(None, 28, 28))

An IDX file of unsigned bytes is: two zero bytes, the type (8), the number of dimensions, each dimension as a big-endian
32-bit integer, then the data, last dimension fastest (source: "THE IDX FILE FORMAT" on the page of the MNIST database
by LeCun, Cortes and Burges). Data that contradict the header are an error. 32-bit integers, type 12, are read for
QMNIST, whose labels have eight columns of them.
"""

import hashlib
import math
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mnist.errors import DataError
from mnist.input import file_kinds, regular_file

Bytes = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
Integers = np.ndarray[tuple[int, ...], np.dtype[np.int32]]
Shape = tuple[int | None, ...]

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_FORMAT = 16 + zlib.MAX_WBITS  # with gzip header, checksum and length
_UNSIGNED_BYTE, _INT32 = 0x08, 0x0C
_CHUNK_BYTES = 1 << 20
# Compressed bytes are read in smaller chunks, because the rest of a chunk is copied whenever a gzip member ends.
_GZIP_CHUNK_BYTES = 1 << 14

# Protection against decompression bombs. Deflate compresses up to 1,032 : 1; MNIST's images are compressed 4.7 : 1.
# Data below the first limit may have any ratio.
ANY_RATIO_BYTES = 256 << 20
MOST_RATIO = 100


def read(path: Path, shape: Shape, most_bytes: int | None = None) -> Bytes:
    """Read an IDX file of unsigned bytes, plain or gzip (detected by content, not by name).

    The header is compared with `shape` and with the size of the file before memory is allocated. A gzip file is not
    unpacked if its data are larger than 256 MiB and more than 100 times its own size.

    Args:
      path: the file.
      shape: the expected dimensions; None for any size, 0 included.
      most_bytes: upper limit of the data's size; None for no limit.

    Returns:
      A read-only uint8 array of that shape.

    Raises:
      DataError: the file cannot be read, is not an IDX file, its data contradict its header, its header exceeds
        most_bytes, or memory is insufficient.
    """
    with _open(path) as file:
        stream, found = _read_header(path, file, shape, _UNSIGNED_BYTE)
        return _read_data(path, stream, found, np.dtype(np.uint8), most_bytes)


def read_int32(path: Path, shape: Shape) -> Integers:
    """Read an IDX file of 32-bit integers; otherwise as `read`."""
    with _open(path) as file:
        stream, found = _read_header(path, file, shape, _INT32)
        return _read_data(path, stream, found, np.dtype(">i4"))


def is_int32(path: Path, dimensions: int) -> bool:
    """Return whether a file begins like an IDX file of 32-bit integers with so many dimensions.

    Raises:
      DataError: the file cannot be read.
    """
    with _open(path) as file:
        return _read_up_to(_stream(file), 4) == bytes([0, 0, _INT32, dimensions])


def read_shape(path: Path, shape: Shape, *, int32: bool = False) -> tuple[int, ...]:
    """Read the dimensions in the header of an IDX file, not its data.

    Args:
      path: the file.
      shape: the expected dimensions, as in `read`.
      int32: whether the file holds 32-bit integers; else unsigned bytes.

    Raises:
      DataError: the file cannot be read, or its header is not that of an IDX file of this type and shape.
    """
    with _open(path) as file:
        return _read_header(path, file, shape, _INT32 if int32 else _UNSIGNED_BYTE)[1]


class _Plain:
    """An uncompressed file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.file_bytes = regular_file.size(file)

    def read(self, size: int) -> bytes:
        """Read at most `size` bytes; b"" at the end."""
        return self._file.read(size) if self.file_bytes else b""  # files in /proc have size 0 and may be endless

    def size_error(self, header_bytes: int, expected: int) -> str | None:
        """Return a message if the file cannot have `expected` bytes of data after the header, else None."""
        found = self.file_bytes - header_bytes
        return None if found == expected else f"expected {expected:,} bytes of data, got {found:,}"


class _Gzip:
    """The decompressed contents of all members of a gzip file, in memory that does not depend on their size."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._file_bytes = regular_file.size(file)
        self._inflate = zlib.decompressobj(_GZIP_FORMAT)
        self._input = b""

    def read(self, size: int) -> bytes:
        """Read at most `size` bytes; b"" at the end, after checksum and length are verified."""
        while True:
            self._input = self._input or self._file.read(_GZIP_CHUNK_BYTES)
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

    def size_error(self, header_bytes: int, expected: int) -> str | None:
        """Return a message if `expected` bytes of data are implausible for this file, else None."""
        del header_bytes  # not known in compressed bytes
        if expected <= max(ANY_RATIO_BYTES, MOST_RATIO * self._file_bytes):
            return None
        return (
            f"expected at most {MOST_RATIO} times the {self._file_bytes:,} bytes of the gzip file, "
            f"got {expected:,} bytes of data"
        )


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    """Open a file; errors of reading it become DataErrors."""
    try:
        with regular_file.open_to_read(path) as file:
            yield file
    except (EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: the gzip data is truncated or corrupt ({error})", hint="replace the file with a good copy"
        ) from error
    except OSError as error:
        raise regular_file.unreadable(DataError, path, error, "put a readable IDX file there") from error


def _stream(file: BinaryIO) -> _Plain | _Gzip:
    """Return the contents of an open file, unpacked if it is gzip."""
    plain = _Plain(file)
    compressed = plain.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    file.seek(0)
    return _Gzip(file) if compressed else plain


def _read_header(path: Path, file: BinaryIO, shape: Shape, type_: int) -> tuple[_Plain | _Gzip, tuple[int, ...]]:
    """Return the file as a stream positioned after the IDX header, and the dimensions in the header."""
    stream = _stream(file)
    magic = bytes([0, 0, type_, len(shape)])
    start = _read_up_to(stream, len(magic))
    if start != magic:
        raise _other_format(path, stream, start, file_kinds.idx_name(type_, len(shape)))
    sizes = _read_up_to(stream, 4 * len(shape))
    if len(sizes) < 4 * len(shape):
        raise DataError(f"{path}: ends inside its header, after {len(magic) + len(sizes)} bytes")
    found = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    if any(expected is not None and expected != size for expected, size in zip(shape, found, strict=True)):
        raise DataError(f"{path}: expected dimensions {_times(shape)}, got {_times(found)}")
    return stream, found


def _other_format(path: Path, stream: _Plain | _Gzip, start: bytes, expected: str) -> DataError:
    """Return the error for a file that is not the expected IDX file; it names what the file holds."""
    found = file_kinds.name(start + _read_up_to(stream, file_kinds.START_BYTES - len(start)))
    packed = ", packed with gzip" if isinstance(stream, _Gzip) else ""
    return DataError(f"{path}: expected {expected}, got {found.name}{packed}", hint=found.hint)


def _read_data(
    path: Path,
    stream: _Plain | _Gzip,
    found: tuple[int, ...],
    dtype: np.dtype[Any],
    most_bytes: int | None = None,
) -> np.ndarray[tuple[int, ...], np.dtype[Any]]:
    """Read the data behind the header, whose dimensions are `found`."""
    expected = math.prod(found) * dtype.itemsize
    header_says = f"(the header says {_times(found)})"
    # NumPy's limit, also for arrays of size 0.
    if math.prod(size or 1 for size in found) * dtype.itemsize > sys.maxsize:
        raise DataError(f"{path}: expected dimensions that an array can have, got {_times(found)} in the header")
    if most_bytes is not None and expected > most_bytes:
        raise DataError(
            f"{path}: expected at most {most_bytes:,} bytes of data, got {expected:,} {header_says}",
            hint="split the file",
        )
    if size_error := stream.size_error(4 + 4 * len(found), expected):
        hint = "if the header is right, unpack the file with gunzip" if isinstance(stream, _Gzip) else None
        raise DataError(f"{path}: {size_error} {header_says}", hint=hint)
    try:
        array = np.empty(expected, np.uint8)
        filled = _fill(array, stream)
    except MemoryError as error:
        raise DataError(
            f"{path}: not enough memory for {expected:,} bytes of data {header_says}",
            hint="use a machine with more memory, or fewer images",
        ) from error
    if filled != expected:
        got = "more" if filled > expected else f"{filled:,}"
        raise DataError(f"{path}: expected {expected:,} bytes of data, got {got} {header_says}")
    array = array.view(dtype).reshape(found)
    array.flags.writeable = False
    return array


def _fill(array: Bytes, stream: _Plain | _Gzip) -> int:
    """Fill the array from the stream; return the number of bytes read, at most one more than the array's size."""
    filled = 0
    while filled < len(array):
        chunk = stream.read(min(_CHUNK_BYTES, len(array) - filled))
        if not chunk:
            return filled
        array[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
        filled += len(chunk)
    # This read also reaches the end of a gzip stream, where the checksum is verified.
    return filled + len(stream.read(1))


def _read_up_to(stream: _Plain | _Gzip, size: int) -> bytes:
    content = b""
    while len(content) < size and (chunk := stream.read(size - len(content))):
        content += chunk
    return content


def header(array: Bytes) -> bytes:
    """Return the header of the IDX file for a uint8 array."""
    return bytes([0, 0, _UNSIGNED_BYTE, array.ndim]) + np.array(array.shape, ">u4").tobytes()


def sha256(array: Bytes) -> str:
    """Return the hex sha256 of the uncompressed IDX file for a uint8 array."""
    digest = hashlib.sha256(header(array))
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _times(sizes: Shape) -> str:
    """Format dimensions, as in "any x 28 x 28"."""
    return " x ".join("any" if size is None else str(size) for size in sizes)
