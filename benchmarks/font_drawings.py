"""Draw the digits of fonts on different papers: pictures that do not come from MNIST.

Every digit of every font is drawn once on each paper; the three heights take turns, so that each occurs equally often
with each paper and digit. The drawing's weight is chosen at random, with a fixed seed.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

HEIGHTS = (40, 120, 400)  # of the font's tallest digit, in pixels
DIGITS = "0123456789"
_MEASURED_AT = 200  # font size at which the digits are measured
_MARGIN = 0.3  # around the digit, as a part of the height

Colour = tuple[int, int, int]


class Paper(NamedTuple):
    """A kind of picture.

    ink, paper: red, green, blue.
    noise: standard deviation, of 255.
    shadow: the part of the light that is missing in the darkest corner.
    margin: whether there is paper around the digit; otherwise the picture ends where the ink ends.
    """

    ink: Colour
    paper: Colour
    noise: float = 0.0
    shadow: float = 0.0
    margin: bool = True


PAPERS = {
    "white": Paper((20, 20, 20), (255, 255, 255)),
    "yellowish": Paper((40, 50, 130), (240, 225, 180), noise=3),
    "dark": Paper((235, 235, 235), (25, 25, 25)),
    "shaded": Paper((30, 30, 30), (245, 245, 245), noise=4, shadow=0.45),
    "tight": Paper((20, 20, 20), (255, 255, 255), margin=False),
}


class Drawing(NamedTuple):
    """What a picture shows; its file name states it."""

    digit: str
    font: str
    weight: int
    paper: str
    height: int

    @property
    def file_name(self) -> str:
        """The name of the picture's file."""
        return ".".join(map(str, [*self, "png"]))

    @classmethod
    def from_file_name(cls, name: str) -> "Drawing":
        """Parse the name of a picture's file."""
        digit, font, weight, paper, height, _ = name.split(".")
        return cls(digit, font, int(weight), paper, int(height))


def drawings(font: str, weights: Sequence[int]) -> Iterable[Drawing]:
    """List the drawings of a font: each digit on each paper."""
    generator = np.random.default_rng(zlib.crc32(font.encode()))
    first = int(generator.integers(len(HEIGHTS)))
    for number, digit in enumerate(DIGITS):
        for turn, paper in enumerate(PAPERS):
            height = HEIGHTS[(first + number + turn) % len(HEIGHTS)]
            yield Drawing(digit, font, int(generator.choice(weights)), paper, height)


def draw(font_file: Path, drawing: Drawing) -> Image.Image:
    """Draw a digit; equal arguments give equal pixels."""
    paper = PAPERS[drawing.paper]
    cover = _cover(font_file, drawing.digit, drawing.height, round(_MARGIN * drawing.height) if paper.margin else 0)
    generator = np.random.default_rng(zlib.crc32(drawing.file_name.encode()))
    page = np.broadcast_to(np.asarray(paper.paper, np.float32), (*cover.shape, 3))
    if paper.shadow:
        rows, columns = (np.linspace(0, 1, size, dtype=np.float32) for size in cover.shape)
        down, right = generator.uniform(size=2)
        page = page * (1 - paper.shadow * (down * rows[:, None] + right * columns**2))[..., None]
    mixed = page + (np.asarray(paper.ink, np.float32) - page) * cover[..., None]
    if paper.noise:
        mixed = mixed + paper.noise * generator.standard_normal(mixed.shape, np.float32)
    return Image.fromarray(mixed.clip(0, 255).round().astype(np.uint8))


def _cover(font_file: Path, digit: str, height: int, margin: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return how much of each pixel ink covers, [H, W] from 0 to 1, anti-aliased by FreeType."""
    measured = ImageFont.truetype(font_file, _MEASURED_AT)
    boxes = [measured.getbbox(each) for each in DIGITS]
    tallest = max(bottom - top for _, top, _, bottom in boxes)
    font = ImageFont.truetype(font_file, max(1, round(_MEASURED_AT * height / tallest)))
    left, top, right, bottom = font.getbbox(digit)
    image = Image.new("L", (round(right - left), round(bottom - top)))
    ImageDraw.Draw(image).text((-left, -top), digit, fill=255, font=font)
    return np.pad(np.asarray(image.crop(image.getbbox()), np.float32) / 255, margin)


def write(directory: Path, files: Mapping[str, Mapping[int, Path]], heights: Sequence[int] = HEIGHTS) -> int:
    """Draw all digits of fonts as PNG files; return their number.

    Args:
      directory: is created.
      files: font -> weight -> file.
      heights: drawings of other heights are left out.
    """
    directory.mkdir(parents=True)
    every = [
        each for font, weights in files.items() for each in drawings(font, list(weights)) if each.height in heights
    ]
    for each in every:
        draw(files[each.font][each.weight], each).save(directory / each.file_name, compress_level=1)
    return len(every)
