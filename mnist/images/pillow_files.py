"""Read image files with Pillow: every frame of an animation, every page of a TIFF, every image of an MPO.

Only the decoders of PNG, JPEG, GIF, BMP, WebP and TIFF are used: some others run programs, as EPS runs Ghostscript.
"""

import itertools
import logging
import re
import struct
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError

from checkpointing.tf_import import silenced
from mnist.errors import ImageError
from mnist.images import other_formats, pixel_arrays, tiff_pages
from mnist.images.pixel_arrays import Pixels
from mnist.input import regular_file

_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
EXPECTED = "PNG, JPEG, GIF, BMP, WebP, TIFF, IDX or .npy"

# A scan of a hundred pages, or an animation of a minute.
_MAX_FRAMES = 1000
_MAX_PIXELS = 1_000_000_000

# BMP needs so many bytes for the largest image. Pillow searches GIF files byte by byte: seconds for an eighth of that.
_MAX_FILE_BYTES = 256 << 20
_MAX_GIF_BYTES = 32 << 20
# A scan of a progressive JPEG may be 100 bytes long, and is decoded for the whole image. Ten scans are usual.
_MAX_SCANS = 100

_JPEG_MAGIC, _GIF_MAGIC = b"\xff\xd8", b"GIF8"
# The next JPEG marker that has a length field, or the end marker. Other markers (0xff 0x00 is data) have no length.
_JPEG_MARKER = re.compile(rb"\xff+([\x02-\xcf\xd9-\xfe])", re.DOTALL)
_JPEG_SCAN, _JPEG_END = b"\xda", b"\xd9"

_MPO_ENTRIES = 0xB002

# What Pillow's decoders raise for damaged files, OSError included.
_DECODING_ERRORS = (
    *(OSError, ValueError, SyntaxError, EOFError, struct.error, OverflowError, IndexError, KeyError, TypeError),
    *(AttributeError, ZeroDivisionError, RuntimeError, AssertionError, NotImplementedError),
)

logging.getLogger("PIL").setLevel(logging.CRITICAL)  # its errors arrive as exceptions


def read(path: Path, file: BinaryIO) -> Iterator[tuple[str, Pixels | ImageError]]:
    """Read the images of a file, one after the other.

    Yields:
      Name and pixels of each image, as in `image_files.ImageArray`; in place of the pixels, an error.

    Raises:
      ImageError: no image can be read.
    """
    start = _check_file(path, file)
    pages = tiff_pages.find(path, file, _MAX_FRAMES) if start in tiff_pages.BYTE_ORDERS else []
    with _open(path, file) as image:
        with _decoding(str(path)):
            numbers, is_single = _numbers(image, pages)
        jpegs = _content(file) if image.format == "MPO" else b""
        pixels = 0
        for count, number in enumerate(numbers):
            name = str(path) if is_single else f"{path}[{number}]"
            try:
                with _decoding(name), _silenced(image):
                    if not _seek(image, number):
                        return
                    pixels += image.width * image.height
                    found = None if count == _MAX_FRAMES or pixels > _MAX_PIXELS else _decode(name, image, jpegs)
            except ImageError as error:
                if is_single or _is_independent(image, number):
                    yield name, error
                    continue
                yield name, ImageError(f"{error}; the images after it are not read", hint=error.hint)
                return
            if found is None:
                yield name, _too_many(name)
                return
            yield name, found


def _open(path: Path, file: BinaryIO) -> Image.Image:
    file.seek(0)
    try:
        with _decoding(str(path)):
            return Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError as error:
        file.seek(0)
        start = file.read(other_formats.FIRST_BYTES) if regular_file.size(file) else b""
        found, hint = other_formats.describe(start)
        raise ImageError(f"{path}: expected {EXPECTED}, got {found}", hint=hint) from error


def _numbers(image: Image.Image, pages: list[int]) -> tuple[Iterable[int], bool]:
    """Return the numbers of the images to read, and whether the file holds a single one."""
    if image.format == "TIFF":
        return pages, len(pages) == 1
    if image.format == "MPO":
        entries = image.mpinfo[_MPO_ENTRIES]  # type: ignore[attr-defined]
        # A camera's large thumbnail shows the same picture again.
        shown = [n for n, each in enumerate(entries) if not each["Attribute"]["MPType"].startswith("Large Thumbnail")]
        return shown, len(shown) == 1
    if not _is_animated(image):
        return [0], True
    # The other headers state how many frames there are; for a GIF, the whole file would have to be read.
    return itertools.count() if image.format == "GIF" else range(image.n_frames), False  # type: ignore[attr-defined]


def _is_animated(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except _DECODING_ERRORS:  # a GIF's second frame is damaged
        return True


def _seek(image: Image.Image, number: int) -> bool:
    """Go to an image; return whether it exists."""
    try:
        image.seek(number)
    except EOFError:
        if image.format != "GIF" or number == 1:  # a GIF of one frame is not animated
            raise
        return False
    return True


def _is_independent(image: Image.Image, number: int) -> bool:
    """Return whether images after a damaged one can be read. The frames of an animation build on each other."""
    return image.format == "MPO" or (image.format == "TIFF" and image.tell() == number)


def _decode(name: str, image: Image.Image, jpegs: bytes) -> Pixels:
    pixel_arrays.check_size(name, *image.size)
    if jpegs:
        _check_scans(name, jpegs, image.offset)  # type: ignore[attr-defined]
    side = pixel_arrays.MAX_SIDE
    image.draft("RGB", (side, side))  # decodes a JPEG at 1/2, 1/4 or 1/8 of its size
    return pixel_arrays.from_pillow(ImageOps.exif_transpose(image))


def _too_many(name: str) -> ImageError:
    message = f"{name}: expected at most {_MAX_FRAMES:,} images of {_MAX_PIXELS:,} pixels together in a file, got more"
    return ImageError(message, hint="split the file; the images from this one on are not read")


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Raise ImageError for what Pillow raises for damaged files; hide its warnings about flaws that it tolerates."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UnidentifiedImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: the image is too large ({error})") from error
    except _DECODING_ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not Pillow's
            raise
        raise ImageError(f"{name}: the image is damaged ({error})", hint="put a good copy in its place") from error


def _silenced(image: Image.Image) -> AbstractContextManager[None]:
    """Hide what libtiff writes to standard error."""
    return silenced(shown_if_raised=False) if image.format == "TIFF" else nullcontext()


def _check_file(path: Path, file: BinaryIO) -> bytes:
    """Raise ImageError for files that Pillow's decoders would take minutes for; return the first four bytes."""
    size = regular_file.size(file)
    start = file.read(4) if size else b""
    limit = _MAX_GIF_BYTES if start == _GIF_MAGIC else _MAX_FILE_BYTES
    if size > limit:
        message = f"{path}: expected an image file of at most {limit:,} bytes, got {size:,}"
        raise ImageError(message, hint="scale the image down")
    if start.startswith(_JPEG_MAGIC):
        _check_scans(str(path), _content(file), 0)
    return start


def _content(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def _check_scans(name: str, jpegs: bytes, position: int) -> None:
    """Raise ImageError if the JPEG at a position has too many scans."""
    scans, position = 0, position + len(_JPEG_MAGIC)
    while (marker := _JPEG_MARKER.search(jpegs, position)) and marker[1] != _JPEG_END:
        scans += marker[1] == _JPEG_SCAN
        position = marker.end() + int.from_bytes(jpegs[marker.end() : marker.end() + 2], "big")
    if scans > _MAX_SCANS:
        message = f"{name}: expected a JPEG of at most {_MAX_SCANS} scans, got more"
        raise ImageError(message, hint="save it as a baseline JPEG or a PNG")
