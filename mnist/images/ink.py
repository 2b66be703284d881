"""Separate ink from paper, in photographs as well as in drawings.

Paper is a smooth surface, lighter in some places than in others: a polynomial of the second degree in each colour. Ink
differs from it in one direction of the colour space; of the two sides in this direction, ink is the rarer one.
"""

from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float32]]

# Strengths are from 0 (paper) to 1 (ink); a pixel above this is ink.
INK = 0.5
# At this fraction of the ink's usual contrast, the strength begins to rise from 0; at the second, it is 1.
RISE_BEGINS, RISE_ENDS = 0.25, 0.85

# The least contrast between ink and paper, where 1 is that between black and white.
_MIN_CONTRAST = 0.08
# The least contrast in units of the paper's own deviation from its surface.
_MIN_DEVIATIONS = 4.0

_FIT_ROUNDS = 6
_MAX_SAMPLES = 96  # rows and columns that the surface is fitted to


def ink_strength(image: Floats) -> tuple[Floats | None, str]:
    """Return how much ink there is at each pixel.

    Args:
      image: float32 [H, W, 3], 0 to 1.

    Returns:
      float32 [H, W] from 0 to 1, or None if there is no ink; and "light on dark" or "dark on light".
    """
    residual, deviation = subtract_background(image)  # [H, W, 3]
    _, directions = np.linalg.eigh(np.einsum("hwc,hwd->cd", residual, residual))
    along = residual @ directions[:, -1]  # [H, W], in the direction of most variance
    side = 1.0 if float((along.astype(np.float64) ** 3).sum()) >= 0 else -1.0  # the rarer side is farther away
    along *= side
    inside = along > _otsu_threshold(along)
    brightness = (residual.mean(axis=2)[inside]).mean() if inside.any() else 0.0
    polarity = "light on dark" if brightness > 0 else "dark on light"
    if not inside.any():
        return None, polarity
    contrast = float(np.median(along[inside]))
    if contrast < max(_MIN_CONTRAST, _MIN_DEVIATIONS * deviation):
        return None, polarity
    begins = max(RISE_BEGINS * contrast, min(2 * deviation, INK * contrast))
    return ((along - begins) / (RISE_ENDS * contrast - begins)).clip(0, 1).astype(np.float32), polarity


def subtract_background(image: Floats) -> tuple[Floats, float]:
    """Fit a smooth surface to the paper, and subtract it.

    Args:
      image: float32 [H, W, 3].

    Returns:
      The difference, float32 [H, W, 3], and the deviation of paper from the surface.
    """
    height, width = image.shape[:2]
    rows, columns = (np.linspace(-1, 1, size, dtype=np.float32) for size in (height, width))
    surface = _polynomial_terms(*np.meshgrid(rows, columns, indexing="ij"))  # [H, W, 6]
    every_row, every_column = (slice(None, None, max(1, size // _MAX_SAMPLES)) for size in (height, width))
    terms, colours = surface[every_row, every_column], image[every_row, every_column]
    # The rim is most likely paper. Only a plane is fitted to it: the rim does not show how paper bends in the middle.
    paper, used = _rim(terms.shape[:2]), 3
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


def _rim(shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return a mask of the outer tenth on each side."""
    rim = np.ones(shape, bool)
    rows, columns = (slice(max(1, size // 10), -max(1, size // 10)) for size in shape)
    rim[rows, columns] = False
    return rim


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
