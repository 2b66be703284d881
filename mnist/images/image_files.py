"""Picture files of any kind to arrays of light: what a person has, before anything is made of it.

    for path in pictures.files_in(Path("photos")):
        for picture in pictures.read(path):
            picture.pixels

Pillow reads PNG, JPEG, GIF, BMP and WebP, of several frames the first; no other of its decoders runs, for some start
other programs. IDX and `.npy` hold many pictures in one file. What a file is, its content says, not its name.
"""

from __future__ import annotations

import io
import math
import os
import re
import struct
import sys
import textwrap
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mnist.errors import DataError, ImageError
from mnist.input import idx, regular_file

Pixels = np.ndarray[Any, Any]

# A telephone's photograph has up to 50 million pixels; a small file that unfolds into more is out for memory.
_MOST_PIXELS = 64_000_000
# So many pixels as BMP has them, uncompressed. Pillow looks for the parts of a GIF byte by byte: seconds for an eighth.
_MOST_FILE_BYTES = 256 << 20
_MOST_GIF_BYTES = 32 << 20
# Each scan of a progressive JPEG, of 100 bytes or more, goes over the whole picture; ten are usual.
_MOST_SCANS = 100
# All pictures of an IDX file are in memory at once: room for two million of MNIST's.
_MOST_BYTES = 1 << 31
_MOST_HEADER_BYTES = 16 << 10  # of a `.npy` file; NumPy itself refuses more than 10,000
# Strokes of a digit are seen as well in less, and the rest of the way takes no longer for a photograph than for a scan.
_LONGEST_SIDE = 800
_LONGEST_REASON = 150  # characters of a message that come from a file
_GREATEST_16_BIT = 65535
_BYTE = 255

_IDX_MAGIC, _GZIP_MAGIC, _NPY_MAGIC = b"\x00\x00\x08\x03", b"\x1f\x8b", b"\x93NUMPY"
_JPEG_MAGIC, _GIF_MAGIC = b"\xff\xd8", b"GIF8"
# A JPEG's next marker that is followed by a length, or its end; 0xff 0x00 is data, and the others stand in it alone.
_JPEG_MARKER = re.compile(rb"\xff+([\x02-\xcf\xd9-\xfe])", re.DOTALL)
_JPEG_SCAN, _JPEG_END = b"\xda", b"\xd9"
_CHANNELS = {3, 4}  # red, green, blue, and opacity

_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")
# The first bytes of other files that people take for pictures.
_OTHERS = {
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "EPS",
    b"%PDF": "PDF",
    b"<svg": "SVG",
    b"<?xml": "XML, maybe SVG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"PK\x03\x04": "a zip file, maybe .npz",
    b"\x80\x04": "a Python pickle",
}

# What Pillow's decoders raise for broken files, beside OSError.
_BROKEN = (
    *(OSError, ValueError, SyntaxError, EOFError, struct.error, OverflowError, IndexError, KeyError, TypeError),
    *(AttributeError, ZeroDivisionError, RuntimeError, AssertionError, NotImplementedError),
)
# What NumPy raises for a broken header of a `.npy` file.
_BROKEN_HEADER = (
    *(ValueError, SyntaxError, EOFError, OverflowError, LookupError, TypeError, AttributeError),
    *(RecursionError, MemoryError, tokenize.TokenError),
)


class Picture(NamedTuple):
    """One picture.

    name: its file; with its place in it, where that holds several.
    pixels: uint8 [H, W] of a grey picture; float32 [H, W, 3], red, green and blue from 0 to 1, of any other.
    """

    name: str
    pixels: Pixels


def files_in(path: Path) -> list[Path]:
    """A file as it is; of a directory all files in it and below, sorted, but for hidden ones.

    What is no regular file is among them, so that `read` says so.

    Raises:
      PictureError: there is nothing, or a directory cannot be read.
    """
    files: list[Path] = []
    try:
        if not path.is_dir():
            return [path]
        for directory, below, names in os.walk(path, onerror=_raise):
            below[:] = [name for name in below if not name.startswith(".")]
            files += [Path(directory, name) for name in names if not name.startswith(".")]
    except OSError as error:
        problem = regular_file.problem(error, "give a directory that can be read")
        raise ImageError(f"{error.filename or path}: {problem}.") from error
    if not files:
        raise ImageError(f"{path}: no file found in this directory, pictures wanted.")
    return sorted(files)


def _raise(error: OSError) -> None:
    raise error


def read(path: Path) -> Iterator[Picture]:
    """The pictures in a file, one after the other.

    Raises:
      PictureError: it cannot be read; the message says why.
    """
    try:
        with regular_file.open_to_read(path) as file:
            # Files of /proc have no size, and may have no end.
            start = file.read(len(_NPY_MAGIC)) if regular_file.size(file) else b""
            file.seek(0)
            if start.startswith((_IDX_MAGIC, _GZIP_MAGIC)):
                yield from _read_idx(path)
            elif start == _NPY_MAGIC:
                yield from _read_npy(path, file)
            else:
                yield Picture(str(path), _read_image(path, file))
    except OSError as error:
        raise ImageError(f"{path}: {regular_file.problem(error, 'give the path of a picture')}.") from error
    except MemoryError as error:
        message = f"{path}: not enough memory to read it; give smaller pictures, or use a machine with more."
        raise ImageError(message) from error


def _read_idx(path: Path) -> Iterator[Picture]:
    try:
        images = idx.read(path, (None, None, None), _MOST_BYTES)
    except DataError as error:
        raise ImageError(str(error), hint=error.hint) from error
    if not images.size:
        raise ImageError(f"{path}: no pictures found in it.")
    for number, image in enumerate(images):
        name = f"{path}[{number}]"
        yield Picture(name, _from_array(name, image))


def _read_npy(path: Path, file: BinaryIO) -> Iterator[Picture]:
    """[H, W], [N, H, W], or either with 1, 3 or 4 channels at the end."""
    shape, fortran_order, dtype = _read_npy_header(path, file)
    if math.prod(abs(size) or 1 for size in shape) > sys.maxsize:  # such numbers are not even printed
        raise ImageError(
            f"{path}: expected dimensions that an array can have, got larger ones; save one by numpy.save."
        )
    says = textwrap.shorten(f"{dtype} {list(shape)}", _LONGEST_REASON)
    if dtype.hasobject:
        message = (
            f"{path}: expected numbers, got Python objects, which are never unpickled; save numbers by numpy.save."
        )
        raise ImageError(message)
    if dtype.kind not in "buif" or len(shape) not in {2, 3, 4}:
        raise ImageError(f"{path}: expected numbers [H, W], [N, H, W], or these with 1, 3 or 4 channels, got {says}.")
    if min(shape) <= 0:
        raise ImageError(f"{path}: no pictures found in it: the header says {says}.")
    expected, found = math.prod(shape) * dtype.itemsize, regular_file.size(file) - file.tell()
    if found < expected:
        message = f"{path}: expected {expected:,} bytes of data, got {found:,} (the header says {says})"
        raise ImageError(f"{message}; put a good copy in its place.")
    if len(shape) > 2 and shape[-1] == 1:  # noqa: PLR2004 - as Keras has grey pictures
        shape = shape[:-1]
    coloured = len(shape) > 2 and shape[-1] in _CHANNELS  # noqa: PLR2004 - the dimensions of a grey picture
    if len(shape) == 4 and not coloured:  # noqa: PLR2004 - [N, H, W, C]
        raise ImageError(f"{path}: expected 1, 3 or 4 channels, got {shape[-1]}.")
    single = len(shape) == (3 if coloured else 2)
    count, *each = (1, *shape) if single else shape
    _check_size(str(path), each[1], each[0])
    if fortran_order and expected > _MOST_BYTES:
        message = f"{path}: expected at most {_MOST_BYTES:,} bytes of data in Fortran order, got {expected:,}"
        raise ImageError(f"{message}; save the array in C order.")
    for number, array in enumerate(_arrays(file, (count, *each), dtype, fortran_order=fortran_order)):
        name = str(path) if single else f"{path}[{number}]"
        yield Picture(name, _from_array(name, array))


def _read_npy_header(path: Path, file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it is in Fortran order, and type of the array that begins where the file then stands."""
    start = io.BytesIO(file.read(_MOST_HEADER_BYTES))  # of a length in the header, no more is believed
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        version = np.lib.format.read_magic(start)
        if version not in readers:
            raise ValueError(f"version {version[0]}.{version[1]} of the format")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of NumPy, about files that Python 2 has written
            shape, fortran_order, dtype = readers[version](start)
    except _BROKEN_HEADER as error:
        reason = textwrap.shorten(str(error) or type(error).__name__, _LONGEST_REASON)
        raise ImageError(f"{path}: not an array that can be read ({reason}); save one by numpy.save.") from error
    file.seek(start.tell())
    return tuple(int(size) for size in shape), fortran_order, dtype


def _arrays(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any], *, fortran_order: bool) -> Iterator[Pixels]:
    """The pictures of one array; in C order, only one of them is in memory at a time."""
    count, *each = shape
    if fortran_order:
        content = file.read(math.prod(shape) * dtype.itemsize)
        yield from np.frombuffer(content, dtype).reshape(shape, order="F")
        return
    for _ in range(count):
        content = file.read(math.prod(each) * dtype.itemsize)
        yield np.frombuffer(content, dtype).reshape(each)


def _from_array(name: str, array: Pixels) -> Pixels:
    """Numbers of any range: of 0 to 255, whatever their type; other integers by their greatest; floats of 0 to 1."""
    _check_size(name, array.shape[1], array.shape[0])
    with np.errstate(over="ignore"):  # what is too large for a float32 becomes infinite, and is named below
        values = array.astype(np.float32)
    if not np.isfinite(values).all():
        raise ImageError(f"{name}: numbers that are not finite found in it.")
    highest = values.max(initial=0)
    if array.dtype.kind in "ui" or highest > 1:
        values /= _BYTE if highest <= _BYTE or array.dtype.kind == "f" else np.iinfo(array.dtype).max
    image = Image.fromarray((values.clip(0, 1) * _BYTE).round().astype(np.uint8))
    return _pixels(image)


def _read_image(path: Path, file: BinaryIO) -> Pixels:
    """Uint8 [H, W] of a grey picture, float32 [H, W, 3] of any other."""
    _check_file(path, file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about what it could make sense of all the same
            with Image.open(file, formats=_FORMATS) as image:
                _check_size(str(path), *image.size)
                image.draft("RGB", (_LONGEST_SIDE, _LONGEST_SIDE))  # a JPEG can be read at a half, a quarter, an eighth
                return _pixels(ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: {_not_a_picture(file)}.") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: too large a picture ({error}).") from error
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not Pillow's
            raise
        raise ImageError(f"{path}: a damaged picture ({error}); put a good copy in its place.") from error


def _check_file(path: Path, file: BinaryIO) -> None:
    """Refuses files that would keep Pillow's decoders busy for minutes."""
    size = regular_file.size(file)
    start = file.read(len(_GIF_MAGIC)) if size else b""
    most = _MOST_GIF_BYTES if start == _GIF_MAGIC else _MOST_FILE_BYTES
    if size > most:
        raise ImageError(f"{path}: expected a picture file of at most {most:,} bytes, got {size:,}; scale it down.")
    file.seek(0)
    if start.startswith(_JPEG_MAGIC) and _count_scans(file.read()) > _MOST_SCANS:
        message = (
            f"{path}: expected a JPEG of at most {_MOST_SCANS} scans, got more; save it as a baseline JPEG or a PNG."
        )
        raise ImageError(message)
    file.seek(0)


def _count_scans(jpeg: bytes) -> int:
    scans, at = 0, len(_JPEG_MAGIC)
    while (marker := _JPEG_MARKER.search(jpeg, at)) and marker[1] != _JPEG_END:
        scans += marker[1] == _JPEG_SCAN
        at = marker.end() + int.from_bytes(jpeg[marker.end() : marker.end() + 2], "big")
    return scans


def _not_a_picture(file: BinaryIO) -> str:
    file.seek(0)
    start = file.read(12) if regular_file.size(file) else b""
    kind = next((kind for magic, kind in _OTHERS.items() if start.startswith(magic)), None)
    if start[4:8] == b"ftyp":
        kind = "HEIC, AVIF or a video"
    if kind is None:
        return "not a picture, nor IDX, nor .npy; give a PNG, JPEG, GIF, BMP or WebP file"
    return f"expected PNG, JPEG, GIF, BMP, WebP, IDX or .npy, got {kind}; convert it to one of these"


def _check_size(name: str, width: int, height: int) -> None:
    if not 0 < width * height <= _MOST_PIXELS:
        raise ImageError(f"{name}: {width} x {height} pixels found, 1 to {_MOST_PIXELS:,} in all wanted.")


def _pixels(image: Image.Image) -> Pixels:
    """What Pillow has read, whatever its mode."""
    if image.mode in {"1", "L"} and "transparency" not in image.info and max(image.size) <= _LONGEST_SIDE:
        return np.asarray(image.convert("L"))
    if image.mode.startswith(("I", "F")):  # 16 bits and more a pixel
        values = np.asarray(image).astype(np.float32)
        grey = values / (_GREATEST_16_BIT if image.mode.startswith("I") else max(float(np.nanmax(values)), 1.0))
        image = Image.fromarray((np.nan_to_num(grey).clip(0, 1) * _BYTE).round().astype(np.uint8))
    transparent = image.mode in {"LA", "La", "PA", "RGBA", "RGBa"} or "transparency" in image.info
    image = image.convert("RGBA" if transparent else "RGB")
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), reducing_gap=3.0)
    channels = np.asarray(image)
    opaque = not transparent or bool((channels[..., 3] == _BYTE).all())
    if opaque and (channels[..., :3] == channels[..., :1]).all():
        return channels[..., 0]  # grey after all, and bytes are exact
    return _on_paper(channels.astype(np.float32) / _BYTE)


def _on_paper(image: Pixels) -> Pixels:
    """Float32 [H, W, 3 or 4] to [H, W, 3]: what is transparent shows paper, which is bright below dark ink."""
    if image.shape[2] == 3:  # noqa: PLR2004 - no opacity
        return image
    colours, opacity = image[..., :3], image[..., 3:]
    weight = float(opacity.sum())
    brightness = float((colours * opacity).sum()) / (3 * weight) if weight else 0.0
    paper = 1.0 if brightness < 0.5 else 0.0  # noqa: PLR2004 - half as bright as can be
    return np.asarray(colours * opacity + paper * (1 - opacity), np.float32)
