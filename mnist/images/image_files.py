"""Read image files into arrays.

    for path in image_files.files_in(Path("photos")):
        for image in image_files.read(path):
            image.pixels

PNG, JPEG, GIF, BMP, WebP and TIFF files are read by Pillow. A TIFF, an animation, a JPEG with several images (MPO), an
IDX or a `.npy` file may hold several images, which are numbered from 0. The format is recognised by the file's content.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mnist.errors import DataError, ImageError
from mnist.images import npy_files, pillow_files, pixel_arrays
from mnist.images.pixel_arrays import Pixels
from mnist.input import idx, npy_header, regular_file

# All images of an IDX file are in memory at once: two million of MNIST's size.
_MAX_IDX_BYTES = 1 << 31

_IDX_MAGIC, _GZIP_MAGIC = b"\x00\x00\x08\x03", b"\x1f\x8b"


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


def _raise(error: OSError | ImageError) -> None:
    raise error


def read(path: Path, report: Callable[[ImageError], object] = _raise) -> Iterator[ImageArray]:
    """Read the images of a file, one after the other.

    Args:
      path: the file.
      report: called with an error for each damaged image of a file with several; the others are read. By default the
        first error is raised.

    Raises:
      ImageError: the file cannot be read, or is damaged or too large.
    """
    try:
        with regular_file.open_to_read(path) as file:
            for name, found in _images(path, file):
                if isinstance(found, ImageError):
                    report(found)
                else:
                    yield ImageArray(name, found)
    except OSError as error:
        raise regular_file.unreadable(ImageError, path, error, "give the path of an image file") from error
    except MemoryError as error:
        hint = "give smaller images, or use a machine with more memory"
        raise ImageError(f"{path}: not enough memory to read it", hint=hint) from error


def _images(path: Path, file: BinaryIO) -> Iterator[tuple[str, Pixels | ImageError]]:
    # Files in /proc have size 0, and may be endless.
    start = file.read(len(npy_header.MAGIC)) if regular_file.size(file) else b""
    file.seek(0)
    if start.startswith((_IDX_MAGIC, _GZIP_MAGIC)):
        return ((name, _converted(name, image)) for name, image in _read_idx(path))
    if start == npy_header.MAGIC:
        return ((name, _converted(name, array)) for name, array in npy_files.read(path, file))
    return pillow_files.read(path, file)


def _read_idx(path: Path) -> Iterator[tuple[str, Pixels]]:
    try:
        images = idx.read(path, (None, None, None), _MAX_IDX_BYTES)
    except DataError as error:
        raise ImageError(str(error), hint=error.hint) from error
    if not images.size:
        raise ImageError(f"{path}: no images found in it")
    yield from ((f"{path}[{number}]", image) for number, image in enumerate(images))


def _converted(name: str, array: Pixels) -> Pixels | ImageError:
    try:
        return pixel_arrays.from_array(name, array)
    except ImageError as error:
        return error
