"""Digits of MNIST's test set as people photograph and crop them: tight crops, frames, desks, squared paper, shadows."""

from collections.abc import Callable

import numpy as np
from PIL import Image

Pixels = np.ndarray
PAPER, INK = 240.0, 30.0


def enlarged(digit: np.ndarray, side: int) -> Image.Image:
    """Enlarge a digit (uint8 [28, 28], bright on black) to this many pixels each way; its strokes have sharp edges."""
    ink = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    return ink.point(lambda value: max(0, min(255, int((value - 90) * 4))))


def cover(digit: np.ndarray, side: int = 280) -> np.ndarray:
    """Enlarge a digit (uint8 [28, 28]) and crop it to the box of its ink: [H, W] from 0 to 1."""
    ink = enlarged(digit, side)
    return np.asarray(ink.crop(ink.getbbox())).astype(float) / 255


def cropped(digit: np.ndarray, margin: int, paper: float = PAPER, ink: float = INK) -> Pixels:
    """Draw a digit with so many pixels of paper around it: uint8 [H, W]."""
    return (paper + (ink - paper) * np.pad(cover(digit), margin)).astype(np.uint8)


def framed(digit: np.ndarray, width: int) -> Pixels:
    """Draw a digit in a black frame at the edge of the picture."""
    return np.pad(cropped(digit, 40), width)


def _photo(page: np.ndarray, generator: np.random.Generator) -> Pixels:
    page = page if page.ndim == 3 else np.repeat(page[..., None], 3, axis=2)
    return (page + generator.normal(0, 3, page.shape)).clip(0, 255).astype(np.uint8)


def on_a_desk(digit: np.ndarray, generator: np.random.Generator) -> Pixels:
    """Draw a sheet of paper, slightly turned, on a dark brown desk."""
    drawn = np.pad(cover(digit, 200), int(generator.integers(20, 50)))
    room = generator.integers(20, 120, 4)
    around = ((room[0], room[1]), (room[2], room[3]))
    angle = generator.uniform(-8, 8)
    ink, sheet = (
        np.asarray(
            Image.fromarray((np.pad(each, around) * 255).astype(np.uint8)).rotate(angle, Image.Resampling.BICUBIC)
        )
        / 255
        for each in (drawn, np.ones_like(drawn))
    )
    desk = np.array([90.0, 60.0, 40.0]) * generator.uniform(0.5, 1.2)
    page = (PAPER + (INK - PAPER) * ink)[..., None]
    return _photo(desk * (1 - sheet[..., None]) + page * sheet[..., None], generator)


def at_the_desks_edge(digit: np.ndarray, generator: np.random.Generator) -> Pixels:
    """Draw paper that leaves a strip of a dark desk at one side of the picture, or at two."""
    page = PAPER + (INK - PAPER) * np.pad(cover(digit, 200), 60)
    strip = int(generator.integers(20, 60))
    sides = ((strip, 0), (0, 0)) if generator.uniform() < 0.5 else ((strip, 0), (strip, 0))
    return _photo(np.pad(page, sides, constant_values=60.0), generator)


def on_squared_paper(digit: np.ndarray, generator: np.random.Generator, line: float = 110.0) -> Pixels:
    """Draw a digit across dark lines."""
    ink = np.pad(cover(digit, 220), 60)
    page = np.full(ink.shape, PAPER)
    side, width = int(generator.integers(24, 45)), int(generator.integers(1, 4))
    start = int(generator.integers(0, side))
    for offset in range(width):
        page[start + offset :: side] = line
        page[:, start + offset :: side] = line
    return _photo(page + (INK - page) * ink, generator)


def in_a_shadow(digit: np.ndarray, generator: np.random.Generator) -> Pixels:
    """Draw a digit across the sharp edge of a shadow."""
    page = PAPER + (INK - PAPER) * np.pad(cover(digit, 220), int(generator.integers(30, 90)))
    rows, columns = (np.arange(size) - size / 2 for size in page.shape)
    angle = generator.uniform(0, 2 * np.pi)
    inside = np.cos(angle) * columns[None] + np.sin(angle) * rows[:, None]
    inside -= generator.uniform(-0.2, 0.2) * min(page.shape)
    return _photo(page * (1 - generator.uniform(0.35, 0.6) / (1 + np.exp(-inside / 2))), generator)


def cut(digit: np.ndarray, generator: np.random.Generator) -> Pixels:
    """Draw a digit of which 6 % are outside the picture."""
    ink = cover(digit)
    missing = 40 + int(0.06 * max(ink.shape))
    side = int(generator.integers(4))
    ink = np.rot90(np.rot90(np.pad(ink, 40), side)[missing:], -side)
    return (PAPER + (INK - PAPER) * ink).astype(np.uint8)


def touching(first: np.ndarray, second: np.ndarray, generator: np.random.Generator) -> Pixels:
    """Draw two digits side by side, so near that they touch or overlap by up to 7 pixels of about 110."""
    one, other = cover(first, 160), cover(second, 160)
    height = max(len(one), len(other))
    one, other = (
        np.pad(each, (((height - len(each)) // 2, height - len(each) - (height - len(each)) // 2), (0, 0)))
        for each in (one, other)
    )
    both = np.nonzero((one > 0.5).any(axis=1) & (other > 0.5).any(axis=1))[0]
    gap = min(int(np.argmax(one[row, ::-1] > 0.5) + np.argmax(other[row] > 0.5)) for row in both)
    left = max(0, one.shape[1] - gap - int(generator.integers(0, 8)))
    ink = np.zeros((height, max(left + other.shape[1], one.shape[1])))
    ink[:, : one.shape[1]] = one
    ink[:, left : left + other.shape[1]] = np.maximum(ink[:, left : left + other.shape[1]], other)
    return (PAPER + (INK - PAPER) * np.pad(ink, 50)).astype(np.uint8)


SCENES: dict[str, Callable[[np.ndarray, np.random.Generator], Pixels]] = {
    **{f"margin {size}": lambda digit, _, size=size: cropped(digit, size) for size in (0, 1, 2, 4, 8, 16, 32)},
    **{f"frame of {width}": lambda digit, _, width=width: framed(digit, width) for width in (1, 2, 4)},
    **{
        f"light on dark, margin {size}": lambda digit, _, size=size: cropped(digit, size, 15, 230) for size in (0, 2, 8)
    },
    "paper on a dark desk": on_a_desk,
    "desk at a side": at_the_desks_edge,
    "squared paper": on_squared_paper,
    "dark squared paper": lambda digit, generator: on_squared_paper(digit, generator, 60.0),
    "edge of a shadow": in_a_shadow,
    "6 % cut off": cut,
}
