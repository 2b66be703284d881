"""IDX files, MNIST's own format: bytes on the disk to uint8 arrays, and every lie in a header is an error.

    images = idx.read(path, shape=(None, 28, 28))

An IDX file of unsigned bytes is two zero bytes, the type (8), the number of dimensions, each dimension as a
big-endian 32-bit integer, then the bytes themselves, last dimension fastest
(the format's source: "THE IDX FILE FORMAT" on the MNIST database's page by LeCun, Cortes and Burges).
"""

import gzip
import hashlib
import io
import math
import zlib
from pathlib import Path

import numpy as np

from mnist.errors import DataError

Bytes = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTE = 8
# Read in pieces: a header that promises terabytes must not make us allocate them.
_PIECE = 1 << 20


def read(path: Path, shape: tuple[int | None, ...], most_bytes: int | None = None) -> Bytes:
    """Reads one IDX file of unsigned bytes, plain or gzip (told by its content, not by its name).

    Args:
      path: the file.
      shape: the dimensions wanted; None where any size from 0 up will do.
      most_bytes: of data; a small gzip file can unfold into more than memory holds. None for any.

    Returns:
      A read-only uint8 array of that shape.

    Raises:
      DataError: the file cannot be read, is no IDX file, holds fewer or more bytes than its header says, or its header
        says more than most_bytes.
    """
    try:
        with path.open("rb") as file:
            compressed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
            file.seek(0)
            stream = gzip.GzipFile(fileobj=file) if compressed else file
            return _read(path, stream, shape, most_bytes)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        message = f"{path}: the gzip data is truncated or corrupt ({error}); replace the file with a good copy."
        raise DataError(message) from error
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror or error}); make it a readable IDX file."
        raise DataError(message) from error


def _read(
    path: Path, stream: io.BufferedIOBase | gzip.GzipFile, shape: tuple[int | None, ...], most_bytes: int | None
) -> Bytes:
    found = _read_header(path, stream, dimensions=len(shape))
    if any(want is not None and want != have for want, have in zip(shape, found, strict=True)):
        wanted = " x ".join("any" if size is None else str(size) for size in shape)
        message = f"{path}: dimensions {_times(found)} found, {wanted} wanted."
        raise DataError(message)
    expected = math.prod(found)
    if most_bytes is not None and expected > most_bytes:
        message = f"{path}: the header says {_times(found)}, {most_bytes:,} bytes at most wanted; split the file."
        raise DataError(message)
    content = _read_up_to(stream, expected)
    if len(content) < expected:
        message = f"{path}: {len(content)} bytes of data found, {expected} wanted: the header says {_times(found)}."
        raise DataError(message)
    # This read also reaches the end of a gzip stream, where its checksum is compared.
    if stream.read(1):
        message = f"{path}: more than the {expected} bytes of data found that the header's {_times(found)} allow."
        raise DataError(message)
    array = np.frombuffer(content, np.uint8).reshape(found)
    array.flags.writeable = False
    return array


def _read_header(path: Path, stream: io.BufferedIOBase | gzip.GzipFile, dimensions: int) -> tuple[int, ...]:
    magic = bytes([0, 0, _UNSIGNED_BYTE, dimensions])
    start = stream.read(len(magic))
    if start != magic:
        message = (
            f"{path}: starts with the bytes [{start.hex(' ')}], [{magic.hex(' ')}] wanted: "
            f"this is not an IDX file of unsigned bytes with {dimensions} dimension(s)."
        )
        raise DataError(message)
    sizes = stream.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        message = f"{path}: ends inside its header, after {len(magic) + len(sizes)} bytes."
        raise DataError(message)
    return tuple(int(size) for size in np.frombuffer(sizes, ">u4"))


def _read_up_to(stream: io.BufferedIOBase | gzip.GzipFile, size: int) -> bytearray:
    content = bytearray()
    while len(content) < size:
        piece = stream.read(min(_PIECE, size - len(content)))
        if not piece:
            break
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


def _times(sizes: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in sizes)
