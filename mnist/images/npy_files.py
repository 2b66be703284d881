"""Read images from `.npy` files without trusting their headers: no pickle, no memory for bytes that are not there."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mnist.errors import ImageError
from mnist.images import pixel_arrays
from mnist.images.pixel_arrays import Pixels
from mnist.input import npy_header, regular_file
from mnist.input.npy_header import Header

_MAX_FORTRAN_BYTES = 1 << 31  # such an array is in memory as a whole
_COLOUR_CHANNELS = {3, 4}  # red, green, blue, and opacity

_HINT = "save an array with numpy.save"


def read(path: Path, file: BinaryIO) -> Iterator[tuple[str, Pixels]]:
    """Read the images of an array of shape [H, W] or [N, H, W], or either with 1, 3 or 4 channels at the end.

    Yields:
      Name and array of each image. In C order, one image is in memory at a time.

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
        yield name, array


def _read_header(path: Path, file: BinaryIO) -> Header:
    """Read the header; the file's position is then at the data."""
    try:
        header = npy_header.read(file)
    except ValueError as error:
        raise ImageError(f"{path}: not an array that can be read ({error})", hint=_HINT) from error
    file.seek(header.data_offset)
    return header


def _check(path: Path, header: Header) -> None:
    shape, dtype = header.shape, header.dtype
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


def _arrays(file: BinaryIO, shape: tuple[int, ...], header: Header) -> Iterator[Pixels]:
    count, *each = shape
    if header.fortran_order:
        content = file.read(math.prod(shape) * header.dtype.itemsize)
        yield from np.frombuffer(content, header.dtype).reshape(shape, order="F")
        return
    for _ in range(count):
        content = file.read(math.prod(each) * header.dtype.itemsize)
        yield np.frombuffer(content, header.dtype).reshape(each)
