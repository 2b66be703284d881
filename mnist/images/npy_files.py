"""Read images from `.npy` files without trusting their headers: no pickle, no memory for bytes that are not there."""

import io
import math
import sys
import textwrap
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from mnist.errors import ImageError
from mnist.images import pixel_arrays
from mnist.images.pixel_arrays import Pixels
from mnist.input import regular_file

MAGIC = b"\x93NUMPY"

_MAX_HEADER_BYTES = 16 << 10  # NumPy itself refuses more than 10,000
_MAX_FORTRAN_BYTES = 1 << 31  # such an array is in memory as a whole
_MAX_REASON = 150  # characters of a message that come from the file
_COLOUR_CHANNELS = {3, 4}  # red, green, blue, and opacity

# What NumPy raises for a damaged header.
_HEADER_ERRORS = (
    *(ValueError, SyntaxError, EOFError, OverflowError, LookupError, TypeError, AttributeError),
    *(RecursionError, MemoryError, tokenize.TokenError),
)

_HINT = "save an array with numpy.save"


class _Header(NamedTuple):
    """What a header says about the array."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return textwrap.shorten(f"{self.dtype} {list(self.shape)}", _MAX_REASON)


def read(path: Path, file: BinaryIO) -> Iterator[tuple[str, Pixels]]:
    """Read the images of an array of shape [H, W] or [N, H, W], or either with 1, 3 or 4 channels at the end.

    Yields:
      Name and pixels of each image, as in `image_files.ImageArray`. In C order, one image is in memory at a time.

    Raises:
      ImageError: the array is damaged, too large, or of another shape or dtype.
    """
    header = _read_header(path, file)
    _check(path, header)
    count, shape = _images_in(path, header.shape)
    expected, found = math.prod(header.shape) * header.dtype.itemsize, regular_file.size(file) - file.tell()
    if found < expected:
        message = f"{path}: expected {expected:,} bytes of data, got {found:,} (the header says {header})"
        raise ImageError(message, hint="put a good copy in its place")
    pixel_arrays.check_size(str(path), shape[1], shape[0])
    if header.fortran_order and expected > _MAX_FORTRAN_BYTES:
        message = f"{path}: expected at most {_MAX_FORTRAN_BYTES:,} bytes of data in Fortran order, got {expected:,}"
        raise ImageError(message, hint="save the array in C order")
    for number, array in enumerate(_arrays(file, (count or 1, *shape), header)):
        name = str(path) if count is None else f"{path}[{number}]"
        yield name, pixel_arrays.from_array(name, array)


def _read_header(path: Path, file: BinaryIO) -> _Header:
    """Read the header; the file's position is then at the data."""
    start = io.BytesIO(file.read(_MAX_HEADER_BYTES))  # for any length that the header claims
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        version = np.lib.format.read_magic(start)
        if version not in readers:
            raise ValueError(f"version {version[0]}.{version[1]} of the format")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's, about files that Python 2 wrote
            shape, fortran_order, dtype = readers[version](start)
    except _HEADER_ERRORS as error:
        reason = textwrap.shorten(str(error) or type(error).__name__, _MAX_REASON)
        raise ImageError(f"{path}: not an array that can be read ({reason})", hint=_HINT) from error
    file.seek(start.tell())
    return _Header(tuple(int(size) for size in shape), fortran_order, dtype)


def _check(path: Path, header: _Header) -> None:
    shape, dtype = header.shape, header.dtype
    if math.prod(abs(size) or 1 for size in shape) > sys.maxsize:  # such numbers are too long to print
        raise ImageError(f"{path}: the dimensions in the header are too large", hint=_HINT)
    if dtype.hasobject:
        message = f"{path}: expected numbers, got Python objects, which are never unpickled"
        raise ImageError(message, hint="save numbers with numpy.save")
    if dtype.kind not in "buif" or len(shape) not in {2, 3, 4}:
        expected = "expected numbers [H, W], [N, H, W], or these with 1, 3 or 4 channels"
        raise ImageError(f"{path}: {expected}, got {header}")
    if min(shape) <= 0:
        raise ImageError(f"{path}: no images found in it: the header says {header}")


def _images_in(path: Path, shape: tuple[int, ...]) -> tuple[int | None, tuple[int, ...]]:
    """Split a shape into the number of images, None for a single one, and the shape of each, [H, W] or [H, W, C]."""
    if len(shape) > 2 and shape[-1] == 1:  # noqa: PLR2004 - grey images as in Keras
        shape = shape[:-1]
    coloured = len(shape) > 2 and shape[-1] in _COLOUR_CHANNELS  # noqa: PLR2004 - the dimensions of a grey image
    if len(shape) == 4 and not coloured:  # noqa: PLR2004 - [N, H, W, C]
        raise ImageError(f"{path}: expected 1, 3 or 4 channels, got {shape[-1]}")
    if len(shape) == (3 if coloured else 2):
        return None, shape
    return shape[0], shape[1:]


def _arrays(file: BinaryIO, shape: tuple[int, ...], header: _Header) -> Iterator[Pixels]:
    count, *each = shape
    if header.fortran_order:
        content = file.read(math.prod(shape) * header.dtype.itemsize)
        yield from np.frombuffer(content, header.dtype).reshape(shape, order="F")
        return
    for _ in range(count):
        content = file.read(math.prod(each) * header.dtype.itemsize)
        yield np.frombuffer(content, header.dtype).reshape(each)
