"""Separate ink from paper, in photographs as well as in drawings.

Paper is a smooth surface, lighter in some places than in others: a polynomial of the second degree in each colour. Ink
differs from it in one direction of the colour space; of the two sides in this direction, ink is the rarer one.

The fit starts from the rim. If that holds too much ink, it starts from the larger class of the outermost pixels. Where
a shadow with a sharp edge lies on the paper, there is no smooth surface: paper is then what a morphological closing of
the image leaves.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

Floats = np.ndarray[Any, np.dtype[np.float32]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]
Box = tuple[slice, slice]  # rows and columns

# Strengths are from 0 (paper) to 1 (ink); a pixel above this is ink.
INK = 0.5
# At this fraction of the ink's usual contrast, the strength begins to rise from 0; at the second, it is 1.
RISE_BEGINS, RISE_ENDS = 0.25, 0.85

# The least contrast between ink and paper, where 1 is that between black and white.
_MIN_CONTRAST = 0.08
# The least contrast in units of the paper's own deviation from its surface.
_MIN_DEVIATIONS = 4.0

# A closing removes what is narrower than this fraction of the image: strokes, but not shadows.
_CLOSED = 1 / 3
_BLACK = 0.02  # less light than this is no measure of the shade

_FIT_ROUNDS = 6
_MAX_SAMPLES = 96  # rows and columns that the surface is fitted to


def ink_strengths(image: Floats) -> Iterator[tuple[Floats, str]]:
    """Yield how much ink there is at each pixel, by one method after the other, the most precise one first.

    Args:
      image: float32 [H, W, 3], 0 to 1.

    Yields:
      float32 [H, W] from 0 to 1, and "light on dark" or "dark on light". A method that finds no ink yields nothing.
    """
    for start in (_rim, _class_of_outermost_pixels):
        residual, deviation = subtract_background(image, start)  # [H, W, 3]
        along = residual @ _main_direction(residual)  # [H, W]
        along *= 1.0 if float((along.astype(np.float64) ** 3).sum()) >= 0 else -1.0  # the rarer side is farther away
        strength = _strength(along, deviation)
        if strength is not None:
            yield strength, _polarity(residual.mean(axis=2)[strength > INK])
    brightness = image.mean(axis=2)
    for light, polarity in ((brightness, "dark on light"), (1 - brightness, "light on dark")):
        shade = _shade(light)
        strength = _strength(shade, 1.5 * float(np.median(shade)))
        if strength is not None:
            yield strength, polarity


def thickness(ink: Mask) -> float:
    """Return the thickness of ink, a mask [H, W], in pixels: the diameter of the largest circle in it, roughly."""
    return 2 * float(ndimage.distance_transform_edt(np.pad(ink, 1)).max())


def box_of(mask: Mask) -> Box:
    """Return the rows and columns between the first and the last true value; there must be one."""
    box: Box = ndimage.find_objects(mask.astype(np.int8))[0]
    return box


def scaled(strength: Floats, scale: float) -> Floats:
    """Scale the strengths of ink, [H, W], by this factor; each side has one pixel at least."""
    height, width = (max(1, round(scale * side)) for side in strength.shape)
    return np.asarray(Image.fromarray(strength).resize((width, height), Image.Resampling.BILINEAR))


def _main_direction(colours: Floats) -> Floats:
    """Return the direction of most variance of colours [H, W, 3] around 0: [3]."""
    _, directions = np.linalg.eigh(np.einsum("hwc,hwd->cd", colours, colours))
    return np.asarray(directions[:, -1], np.float32)


def _strength(along: Floats, deviation: float) -> Floats | None:
    """Map distances from paper, [H, W], to 0 (paper) to 1 (ink); None if there is no ink."""
    inside = along > _otsu_threshold(along)
    if not inside.any():
        return None
    contrast = float(np.median(along[inside]))
    if contrast < max(_MIN_CONTRAST, _MIN_DEVIATIONS * deviation):
        return None
    begins = max(RISE_BEGINS * contrast, min(2 * deviation, INK * contrast))
    return np.asarray(((along - begins) / (RISE_ENDS * contrast - begins)).clip(0, 1), np.float32)


def _polarity(brightness: Floats) -> str:
    return "light on dark" if brightness.size and float(brightness.mean()) > 0 else "dark on light"


def _shade(light: Floats) -> Floats:
    """Return which part of the paper's light is missing at each pixel, [H, W] from 0 to 1."""
    size = max(3, round(_CLOSED * max(light.shape)))
    smooth = np.pad(ndimage.median_filter(light, 3), size, mode="edge")  # noise would make the closing too bright
    paper = ndimage.grey_closing(smooth, (size, size))[size:-size, size:-size]
    return np.asarray(1 - light / paper.clip(_BLACK), np.float32).clip(0, 1)


def subtract_background(image: Floats, start: Callable[[Floats], Mask]) -> tuple[Floats, float]:
    """Fit a smooth surface to the paper, and subtract it.

    Args:
      image: float32 [H, W, 3].
      start: returns a mask of the pixels that are most likely paper.

    Returns:
      The difference, float32 [H, W, 3], and the deviation of paper from the surface.
    """
    height, width = image.shape[:2]
    rows, columns = (np.linspace(-1, 1, size, dtype=np.float32) for size in (height, width))
    surface = _polynomial_terms(*np.meshgrid(rows, columns, indexing="ij"))  # [H, W, 6]
    every_row, every_column = (slice(None, None, max(1, size // _MAX_SAMPLES)) for size in (height, width))
    terms, colours = surface[every_row, every_column], image[every_row, every_column]
    # Only a plane is fitted at the start: the rim does not show how paper bends in the middle.
    paper, used = start(colours), 3
    deviation = 0.0
    for _round in range(_FIT_ROUNDS):
        coefficients, *_ = np.linalg.lstsq(terms[paper][:, :used], colours[paper], rcond=None)
        distance = np.abs(colours - terms[..., :used] @ coefficients).max(axis=2)
        # The median: at least half of what is assumed to be paper is paper.
        deviation = 1.5 * float(np.median(distance[paper]))
        paper = distance <= max(3 * deviation, _MIN_CONTRAST / 2)
        used = terms.shape[2] if paper.mean() > INK else 3
    difference = image - surface[..., : coefficients.shape[0]] @ coefficients
    return np.asarray(difference, np.float32), deviation


def _rim(colours: Floats) -> Mask:
    """Return a mask of the outer tenth on each side."""
    rim = np.ones(colours.shape[:2], bool)
    rows, columns = (slice(max(1, size // 10), -max(1, size // 10)) for size in rim.shape)
    rim[rows, columns] = False
    return rim


def _class_of_outermost_pixels(colours: Floats) -> Mask:
    """Split colours into two classes; return a mask of the one with more of the outermost pixels.

    Even a digit that fills its image reaches fewer of these than its paper does.
    """
    centred = colours - colours.mean(axis=(0, 1))
    along = centred @ _main_direction(centred)
    above = along > _otsu_threshold(along)
    outermost = np.concatenate([above[0], above[-1], above[:, 0], above[:, -1]])
    return np.asarray(above if outermost.mean() > INK else ~above, bool)


def _polynomial_terms(rows: Floats, columns: Floats) -> Floats:
    return np.stack([np.ones_like(rows), rows, columns, rows * rows, rows * columns, columns * columns], axis=-1)


def _otsu_threshold(values: Floats) -> float:
    """Return the threshold with the largest variance between both classes (Otsu, 1979); infinity if there is none."""
    counts, edges = np.histogram(values, 256)
    centres = (edges[:-1] + edges[1:]) / 2
    below, sums = np.cumsum(counts), np.cumsum(counts * centres)
    above = below[-1] - below
    both = (below > 0) & (above > 0)
    if not both.any():
        return float("inf")
    between = (sums[-1] * below[both] / below[-1] - sums[both]) ** 2 / (below[both] * above[both])
    return float(edges[1:][both][np.argmax(between)])
