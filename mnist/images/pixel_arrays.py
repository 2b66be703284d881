"""Convert images of any mode and dtype to uint8 [H, W] if they are grey, else to float32 [H, W, 3] from 0 to 1."""

from typing import Any

import numpy as np
from PIL import Image

from mnist.errors import ImageError

Pixels = np.ndarray[Any, Any]

# Images are scaled down to this: it is enough for the strokes of a digit, and a photograph takes no longer than a scan.
MAX_SIDE = 800

_MAX_PIXELS = 64_000_000  # a telephone's photograph has up to 50 million
_MAX_16_BIT = 65535
_MAX_BYTE = 255


def check_size(name: str, width: int, height: int) -> None:
    """Raise ImageError for an image without pixels or with too many; a small file can decompress to a huge image."""
    if not 0 < width * height <= _MAX_PIXELS:
        raise ImageError(f"{name}: expected 1 to {_MAX_PIXELS:,} pixels, got {width} x {height}")


def from_array(name: str, array: Pixels) -> Pixels:
    """Convert an array, [H, W] or with 3 or 4 channels.

    The range is 0 to 255 for any dtype if no number is larger, 0 to the dtype's maximum for larger integers, and 0 to 1
    for floats if no number is larger than 1.

    Raises:
      ImageError: it is too large, or holds numbers that are not finite.
    """
    check_size(name, array.shape[1], array.shape[0])
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which is an error below
        values = array.astype(np.float32)
    if not np.isfinite(values).all():
        raise ImageError(f"{name}: expected finite numbers, got NaN or infinity")
    highest = values.max(initial=0)
    if array.dtype.kind in "ui" or highest > 1:
        values /= _MAX_BYTE if highest <= _MAX_BYTE or array.dtype.kind == "f" else np.iinfo(array.dtype).max
    return from_pillow(Image.fromarray((values.clip(0, 1) * _MAX_BYTE).round().astype(np.uint8)))


def from_pillow(image: Image.Image) -> Pixels:
    """Convert a Pillow image of any mode, scaled down to at most `MAX_SIDE`; transparent parts become paper."""
    if image.mode in {"1", "L"} and "transparency" not in image.info and max(image.size) <= MAX_SIDE:
        return np.asarray(image.convert("L"))
    if image.mode.startswith(("I", "F")):  # 16 bits and more per pixel
        values = np.asarray(image).astype(np.float32)
        grey = values / (_MAX_16_BIT if image.mode.startswith("I") else max(float(np.nanmax(values)), 1.0))
        image = Image.fromarray((np.nan_to_num(grey).clip(0, 1) * _MAX_BYTE).round().astype(np.uint8))
    transparent = image.mode in {"LA", "La", "PA", "RGBA", "RGBa"} or "transparency" in image.info
    image = image.convert("RGBA" if transparent else "RGB")
    image.thumbnail((MAX_SIDE, MAX_SIDE), reducing_gap=3.0)
    channels = np.asarray(image)
    opaque = not transparent or bool((channels[..., 3] == _MAX_BYTE).all())
    if opaque and (channels[..., :3] == channels[..., :1]).all():
        return channels[..., 0]  # grey in colour mode: bytes are exact
    return _on_paper(channels.astype(np.float32) / _MAX_BYTE)


def _on_paper(image: Pixels) -> Pixels:
    """Blend float32 [H, W, 3 or 4] onto paper, white below dark ink and black below light ink: [H, W, 3]."""
    if image.shape[2] == 3:  # noqa: PLR2004 - no opacity
        return image
    colours, opacity = image[..., :3], image[..., 3:]
    weight = float(opacity.sum())
    brightness = float((colours * opacity).sum()) / (3 * weight) if weight else 0.0
    paper = 1.0 if brightness < 0.5 else 0.0  # noqa: PLR2004 - half of the range
    return np.asarray(colours * opacity + paper * (1 - opacity), np.float32)
