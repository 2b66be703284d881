"""Read image files into arrays.

    for path in image_files.files_in(Path("photos")):
        for image in image_files.read(path):
            image.pixels

PNG, JPEG, GIF, BMP and WebP are read by Pillow, the first frame only. Its other decoders are never used: some of them
run other programs. IDX and `.npy` files may hold several images. The format is recognised by the file's content.
"""

import os
import re
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image, ImageOps, UnidentifiedImageError

from mnist.errors import DataError, ImageError
from mnist.images import npy_files, pixel_arrays
from mnist.images.pixel_arrays import Pixels
from mnist.input import idx, npy_header, regular_file

# BMP needs so many bytes for the largest image. Pillow searches GIF files byte by byte: seconds for an eighth of that.
_MAX_FILE_BYTES = 256 << 20
_MAX_GIF_BYTES = 32 << 20
# A scan of a progressive JPEG may be 100 bytes long, and is decoded for the whole image. Ten scans are usual.
_MAX_SCANS = 100
# All images of an IDX file are in memory at once: two million of MNIST's size.
_MAX_IDX_BYTES = 1 << 31

_IDX_MAGIC, _GZIP_MAGIC = b"\x00\x00\x08\x03", b"\x1f\x8b"
_JPEG_MAGIC, _GIF_MAGIC = b"\xff\xd8", b"GIF8"
# The next JPEG marker that has a length field, or the end marker. Other markers (0xff 0x00 is data) have no length.
_JPEG_MARKER = re.compile(rb"\xff+([\x02-\xcf\xd9-\xfe])", re.DOTALL)
_JPEG_SCAN, _JPEG_END = b"\xda", b"\xd9"

_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")
# First bytes of formats that are not read, for the error message.
_OTHER_FORMATS = {
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

# What Pillow's decoders raise for damaged files, OSError included.
_DECODING_ERRORS = (
    *(OSError, ValueError, SyntaxError, EOFError, struct.error, OverflowError, IndexError, KeyError, TypeError),
    *(AttributeError, ZeroDivisionError, RuntimeError, AssertionError, NotImplementedError),
)


class ImageArray(NamedTuple):
    """An image.

    name: of its file, with the image's number if the file holds several.
    pixels: uint8 [H, W] if the image is grey, else float32 [H, W, 3]: red, green and blue from 0 to 1.
    """

    name: str
    pixels: Pixels


def files_in(path: Path) -> list[Path]:
    """Return a file itself, or all files in a directory and below, sorted, except hidden ones.

    FIFOs, devices and the like are included, so that `read` raises an error for them.

    Raises:
      ImageError: the directory is empty or cannot be read.
    """
    files: list[Path] = []
    try:
        if not path.is_dir():
            return [path]
        for directory, below, names in os.walk(path, onerror=_raise):
            below[:] = [name for name in below if not name.startswith(".")]
            files += [Path(directory, name) for name in names if not name.startswith(".")]
    except OSError as error:
        hint = "give a directory that can be read"
        raise regular_file.unreadable(ImageError, error.filename or path, error, hint) from error
    if not files:
        raise ImageError(f"{path}: no files found in this directory")
    return sorted(files)


def _raise(error: OSError) -> None:
    raise error


def read(path: Path) -> Iterator[ImageArray]:
    """Read the images of a file, one after the other.

    Raises:
      ImageError: the file cannot be read, or is damaged or too large.
    """
    try:
        with regular_file.open_to_read(path) as file:
            # Files in /proc have size 0, and may be endless.
            start = file.read(len(npy_header.MAGIC)) if regular_file.size(file) else b""
            file.seek(0)
            if start.startswith((_IDX_MAGIC, _GZIP_MAGIC)):
                yield from _read_idx(path)
            elif start == npy_header.MAGIC:
                yield from (ImageArray(*image) for image in npy_files.read(path, file))
            else:
                yield ImageArray(str(path), _decode(path, file))
    except OSError as error:
        raise regular_file.unreadable(ImageError, path, error, "give the path of an image file") from error
    except MemoryError as error:
        hint = "give smaller images, or use a machine with more memory"
        raise ImageError(f"{path}: not enough memory to read it", hint=hint) from error


def _read_idx(path: Path) -> Iterator[ImageArray]:
    try:
        images = idx.read(path, (None, None, None), _MAX_IDX_BYTES)
    except DataError as error:
        raise ImageError(str(error), hint=error.hint) from error
    if not images.size:
        raise ImageError(f"{path}: no images found in it")
    for number, image in enumerate(images):
        name = f"{path}[{number}]"
        yield ImageArray(name, pixel_arrays.from_array(name, image))


def _decode(path: Path, file: BinaryIO) -> Pixels:
    """Decode an image with Pillow."""
    _check_file(path, file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about flaws that it tolerates
            with Image.open(file, formats=_FORMATS) as image:
                pixel_arrays.check_size(str(path), *image.size)
                side = pixel_arrays.MAX_SIDE
                image.draft("RGB", (side, side))  # decodes a JPEG at 1/2, 1/4 or 1/8 of its size
                return pixel_arrays.from_pillow(ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        raise _unknown_format(path, file) from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: the image is too large ({error})") from error
    except _DECODING_ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not Pillow's
            raise
        raise ImageError(f"{path}: the image is damaged ({error})", hint="put a good copy in its place") from error


def _check_file(path: Path, file: BinaryIO) -> None:
    """Raise ImageError for files that Pillow's decoders would take minutes for."""
    size = regular_file.size(file)
    start = file.read(len(_GIF_MAGIC)) if size else b""
    limit = _MAX_GIF_BYTES if start == _GIF_MAGIC else _MAX_FILE_BYTES
    if size > limit:
        message = f"{path}: expected an image file of at most {limit:,} bytes, got {size:,}"
        raise ImageError(message, hint="scale the image down")
    file.seek(0)
    if start.startswith(_JPEG_MAGIC) and _count_scans(file.read()) > _MAX_SCANS:
        message = f"{path}: expected a JPEG of at most {_MAX_SCANS} scans, got more"
        raise ImageError(message, hint="save it as a baseline JPEG or a PNG")
    file.seek(0)


def _count_scans(jpeg: bytes) -> int:
    scans, position = 0, len(_JPEG_MAGIC)
    while (marker := _JPEG_MARKER.search(jpeg, position)) and marker[1] != _JPEG_END:
        scans += marker[1] == _JPEG_SCAN
        position = marker.end() + int.from_bytes(jpeg[marker.end() : marker.end() + 2], "big")
    return scans


def _unknown_format(path: Path, file: BinaryIO) -> ImageError:
    file.seek(0)
    start = file.read(12) if regular_file.size(file) else b""
    found = next(
        (name for magic, name in _OTHER_FORMATS.items() if start.startswith(magic)), "another format or a damaged file"
    )
    if start[4:8] == b"ftyp":
        found = "HEIC, AVIF or a video"
    message = f"{path}: expected PNG, JPEG, GIF, BMP, WebP, IDX or .npy, got {found}"
    return ImageError(message, hint="convert it to one of these formats")
