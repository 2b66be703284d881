"""Read MNIST as Keras distributes it: `mnist.npz` with the arrays x_train, y_train, x_test and y_test.

Nothing is unpickled, and no memory is allocated for data that the archive does not hold.
"""

import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mnist.errors import DataError
from mnist.input import idx, npy_header, regular_file
from mnist.input.npy_header import Header
from mnist.input.splits import Split, check_counts, check_images, check_labels, checked, labels_to_bytes

NAME = "mnist.npz"

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_ZIP_MAGIC = b"PK\x03\x04"
_CHUNK_BYTES = 1 << 20
_NAMES_SHOWN = 10

# What zipfile and its decompressors raise for damaged archives, and for those with a password.
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, NotImplementedError, RuntimeError),
    *(struct.error, OverflowError),
)


def find(directory: Path) -> Path | None:
    """Return the path of `mnist.npz` in a directory, or None."""
    path = directory / NAME
    return path if path.is_file() else None


def is_archive(path: Path) -> bool:
    """Return whether a regular file begins like an .npz archive, or is named like one.

    Raises:
      OSError: it cannot be opened.
    """
    with regular_file.open_to_read(path) as file:
        return path.suffix == ".npz" or file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC


def read(path: Path) -> tuple[Split, Split]:
    """Read the train and test splits.

    Raises:
      DataError: the archive is damaged, or does not hold arrays in MNIST's form.
      OSError: it cannot be opened.
    """
    with _open(path) as archive:
        found = [name.removesuffix(".npy") for name in archive.namelist()]
        if not set(_ARRAYS) <= set(found):
            more = f" and {len(found) - _NAMES_SHOWN} more" if len(found) > _NAMES_SHOWN else ""
            names = ", ".join(f"{ascii(name)[1:-1]:.50}" for name in found[:_NAMES_SHOWN]) or "none"
            raise DataError(f"{path}: expected the arrays {', '.join(_ARRAYS)}, got {names}{more}")
        return _read_split(path, archive, "train"), _read_split(path, archive, "test")


@contextmanager
def _open(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive; errors of reading it become DataErrors."""
    try:
        with regular_file.open_to_read(path) as file, zipfile.ZipFile(file) as archive:
            yield archive
    except (OSError, *_ZIP_ERRORS) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not bzip2's
            raise
        raise DataError(
            f"{path}: the .npz archive is truncated or damaged ({error})", hint="replace the file with a good copy"
        ) from error


class _Member(NamedTuple):
    """An array of the archive, of which only the header has been read."""

    archive: zipfile.ZipFile
    info: zipfile.ZipInfo
    header: Header


def _read_split(path: Path, archive: zipfile.ZipFile, name: str) -> Split:
    images, labels = (_member(path, archive, f"{axis}_{name}") for axis in "xy")
    for_images, for_labels = f"{path}, array x_{name}", f"{path}, array y_{name}"
    shape = images.header.shape
    check_images(images.header.dtype, shape, for_images, channel=len(shape) == 4)  # noqa: PLR2004 - [N, 28, 28, 1]
    check_labels(labels.header.dtype, labels.header.shape, for_labels)
    source = f"{path}, arrays x_{name} and y_{name}"
    check_counts(shape[0], labels.header.shape[0], source)
    pixels = _read_array(images, for_images).reshape(shape[:3])
    return checked(Split(pixels, labels_to_bytes(_read_array(labels, for_labels), for_labels)), source)


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> _Member:
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as file:
        try:
            return _Member(archive, info, npy_header.read(file))
        except ValueError as error:
            raise DataError(f"{path}, array {name}: not an array that can be read ({error})") from error


def _read_array(member: _Member, source: str) -> np.ndarray[Any, np.dtype[Any]]:
    """Read the data behind a header, after comparing their sizes."""
    info, header = member.info, member.header
    expected, found = math.prod(header.shape) * header.dtype.itemsize, info.file_size - header.data_offset
    if expected != found:
        raise DataError(f"{source}: expected {expected:,} bytes of data, got {found:,} (the header says {header})")
    if expected > max(idx.ANY_RATIO_BYTES, idx.MOST_RATIO * info.compress_size):
        raise DataError(
            f"{source}: expected at most {idx.MOST_RATIO} times the {info.compress_size:,} bytes in the archive, "
            f"got {expected:,} bytes of data",
            hint="if this is right, save the arrays with numpy.savez, without compression",
        )
    content = np.empty(expected, np.uint8)
    filled = 0
    with member.archive.open(info) as file:
        file.read(header.data_offset)
        while chunk := file.read(_CHUNK_BYTES):  # the last read also verifies the checksum
            content[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
            filled += len(chunk)
    if filled != expected:
        raise DataError(f"{source}: expected {expected:,} bytes of data, got {filled:,}")
    array = content.view(header.dtype).reshape(header.shape, order="F" if header.fortran_order else "C")
    return np.ascontiguousarray(array)
