"""Picture files of any kind to arrays of light: what a person has, before anything is made of it.

    for path in pictures.files_in(Path("photos")):
        for picture in pictures.read(path):
            picture.pixels

Pillow reads PNG, JPEG, GIF, BMP, WebP and whatever else it knows; IDX and `.npy` hold many pictures in one file. What a
file is, its content says, not its name.
"""

from __future__ import annotations

import struct
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mnist import idx
from mnist.errors import DataError, PictureError

Pixels = np.ndarray[Any, Any]

# A telephone's photograph has up to 50 million pixels; a small file that unfolds into more is out for memory.
_MOST_PIXELS = 64_000_000
# All pictures of an IDX file are in memory at once: room for two million of MNIST's.
_MOST_BYTES = 1 << 31
# Strokes of a digit are seen as well in less, and the rest of the way takes no longer for a photograph than for a scan.
_LONGEST_SIDE = 800
_GREATEST_16_BIT = 65535
_BYTE = 255

_IDX_MAGIC, _GZIP_MAGIC, _NPY_MAGIC = b"\x00\x00\x08\x03", b"\x1f\x8b", b"\x93NUMPY"
_CHANNELS = {3, 4}  # red, green, blue, and opacity

# What Pillow's decoders raise for broken files, beside OSError.
_BROKEN = (
    *(OSError, ValueError, SyntaxError, EOFError, struct.error, OverflowError, IndexError, KeyError, TypeError),
    *(AttributeError, ZeroDivisionError, RuntimeError, AssertionError, NotImplementedError),
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

    Raises:
      PictureError: there is nothing.
    """
    if not path.is_dir():
        return [path]
    below = (each for each in path.rglob("*") if each.is_file())
    files = sorted(each for each in below if not any(part.startswith(".") for part in each.relative_to(path).parts))
    if not files:
        raise PictureError(f"{path}: no file found in this directory, pictures wanted.")
    return files


def read(path: Path) -> Iterator[Picture]:
    """The pictures in a file, one after the other.

    Raises:
      PictureError: it cannot be read; the message says why.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(_NPY_MAGIC))
    except OSError as error:
        raise PictureError(f"{path}: cannot be read ({error.strerror or error}).") from error
    if start.startswith((_IDX_MAGIC, _GZIP_MAGIC)):
        yield from _read_idx(path)
    elif start == _NPY_MAGIC:
        yield from _read_npy(path)
    else:
        yield Picture(str(path), _read_image(path))


def _read_idx(path: Path) -> Iterator[Picture]:
    try:
        images = idx.read(path, (None, None, None), _MOST_BYTES)
    except DataError as error:
        raise PictureError(str(error)) from error
    return _each(path, images)


def _read_npy(path: Path) -> Iterator[Picture]:
    """[H, W], [N, H, W], or either with 1, 3 or 4 channels at the end."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, MemoryError, tokenize.TokenError) as error:
        raise PictureError(f"{path}: not an array that can be read ({error}); save one by numpy.save.") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif" or array.ndim not in {2, 3, 4}:
        found = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else "several arrays"
        raise PictureError(
            f"{path}: {found} found, numbers [H, W], [N, H, W], or these with 1, 3 or 4 channels wanted."
        )
    if array.ndim > 2 and array.shape[-1] == 1:  # noqa: PLR2004 - as Keras has grey pictures
        array = array[..., 0]
    coloured = array.ndim > 2 and array.shape[-1] in _CHANNELS  # noqa: PLR2004 - the dimensions of a grey picture
    if array.ndim == 4 and not coloured:  # noqa: PLR2004 - [N, H, W, C]
        raise PictureError(f"{path}: {array.shape[-1]} channels found, 1, 3 or 4 wanted.")
    one = array.ndim == (3 if coloured else 2)
    return _each(path, array[None] if one else array, single=one)


def _each(path: Path, arrays: Pixels, *, single: bool = False) -> Iterator[Picture]:
    if not len(arrays):
        raise PictureError(f"{path}: no pictures found in it.")
    for number, array in enumerate(arrays):
        name = str(path) if single else f"{path}[{number}]"
        yield Picture(name, _from_array(name, np.asarray(array)))


def _from_array(name: str, array: Pixels) -> Pixels:
    """Numbers of any range: of 0 to 255, whatever their type; other integers by their greatest; floats of 0 to 1."""
    _check_size(name, array.shape[1], array.shape[0])
    values = array.astype(np.float32)
    if not np.isfinite(values).all():
        raise PictureError(f"{name}: numbers that are not finite found in it.")
    highest = values.max(initial=0)
    if array.dtype.kind in "ui" or highest > 1:
        values /= _BYTE if highest <= _BYTE or array.dtype.kind == "f" else np.iinfo(array.dtype).max
    image = Image.fromarray((values.clip(0, 1) * _BYTE).round().astype(np.uint8))
    return _pixels(image)


def _read_image(path: Path) -> Pixels:
    """Uint8 [H, W] of a grey picture, float32 [H, W, 3] of any other."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about what it could make sense of all the same
            with Image.open(path) as image:
                _check_size(str(path), *image.size)
                image.draft("RGB", (_LONGEST_SIDE, _LONGEST_SIDE))  # a JPEG can be read at a half, a quarter, an eighth
                return _pixels(ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        message = f"{path}: not a picture, nor IDX, nor .npy; give a PNG, JPEG, GIF, BMP or WebP file."
        raise PictureError(message) from error
    except (Image.DecompressionBombError, MemoryError) as error:
        raise PictureError(f"{path}: too large a picture ({error}).") from error
    except _BROKEN as error:
        raise PictureError(f"{path}: a damaged picture ({error}); put a good copy in its place.") from error


def _check_size(name: str, width: int, height: int) -> None:
    if not 0 < width * height <= _MOST_PIXELS:
        raise PictureError(f"{name}: {width} x {height} pixels found, 1 to {_MOST_PIXELS:,} in all wanted.")


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
