"""Split digits that touch each other, and recognise ink that may be several digits."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from mnist.images.ink import INK, Floats, Mask, box_of, scaled

# Ink that is wider than this, in heights, may be several digits: 3 in 100 of MNIST's are.
_WIDE = 1.2
# So may narrower ink if one stroke connects two parts of this height. It is split if it is wider and both parts higher.
# Of 2,000 of MNIST's digits 7 are as in the first row, none as in the second.
_DOUBTFUL_WIDTH, _DOUBTFUL_HEIGHT = 1.0, 0.8
_SPLIT_WIDTH, _SPLIT_HEIGHT = 1.2, 0.95
# Both parts have this part of the ink.
_PART_AREA = 0.15
# The cut is between these parts of the width.
_MIDDLE = (0.2, 0.8)
# It crosses one stroke, with at most this many times its width of ink, and this part of the height.
_MAX_CROSSED, _MAX_HEIGHT_CROSSED = 1.3, 0.5

# Where ink of any width may consist of two digits: the cheapest cut in each of these parts of the width.
_STRIPS = tuple((first / 100, (first + 15) / 100) for first in range(5, 85, 10))
# Both halves are as high as this, with this part of the ink.
_HALF_HEIGHT, _HALF_AREA = 0.75, 0.1
_HALVED_SIDE = 50  # pixels; higher ones find no more
_MIN_WIDTH = 5


class _Cut(NamedTuple):
    """A place where one stroke connects two parts.

    path: column in each row, int [H].
    height: of the lower part, in heights of both.
    """

    path: np.ndarray[Any, Any]
    height: float


def split(strength: Floats) -> list[Floats]:
    """Split the ink of digits side by side where one stroke connects them.

    Args:
      strength: of the ink, [H, W] from 0 to 1.

    Returns:
      Arrays like it, from left to right; only `strength` if there is no place that is certain.
    """
    cut = _find_cut(strength)
    if cut is None or cut.height < _SPLIT_HEIGHT or _width(strength) <= _SPLIT_WIDTH:
        return [strength]
    left = np.arange(strength.shape[1]) < cut.path[:, None]
    return [*split(strength * left), *split(strength * ~left)]


def may_be_several(strength: Floats) -> bool:
    """Whether ink, [H, W] from 0 to 1, may be several digits that touch."""
    return _width(strength) > _WIDE or _find_cut(strength) is not None


def _width(strength: Floats) -> float:
    """Return the width of ink in heights."""
    rows, columns = np.nonzero(strength > INK)
    return float((np.ptp(columns) + 1) / (np.ptp(rows) + 1)) if rows.size else 0.0


def _find_cut(strength: Floats) -> _Cut | None:
    if _width(strength) <= _DOUBTFUL_WIDTH:
        return None
    rows, columns = box_of(strength > INK)
    ink = strength[rows, columns] > INK
    (path,) = _cheapest_paths(ink, [_MIDDLE])
    crossed = ink[np.arange(len(ink)), path]
    distance = ndimage.distance_transform_edt(np.pad(ink, 1))[1:-1, 1:-1]
    stroke = 4 * float(distance[ink].mean())  # across a stroke, the mean distance is a quarter of its width
    most = min(_MAX_CROSSED * stroke, _MAX_HEIGHT_CROSSED * len(ink))
    if crossed.sum() > most or ndimage.label(crossed)[1] > 1:
        return None
    _, lower, smaller = _cut_in_two(ink, path)
    height = lower / len(ink)
    if height < _DOUBTFUL_HEIGHT or smaller < _PART_AREA * ink.sum():
        return None
    return _Cut(np.pad(path, (rows.start, len(strength) - rows.stop), mode="edge") + columns.start, height)


def _cut_in_two(ink: Mask, path: np.ndarray[Any, Any]) -> tuple[Mask, int, int]:
    """Cut ink along a path.

    Returns:
      A mask of what is left of the path; of the largest components of both parts, the smaller height and the smaller
      area, in pixels.
    """
    left = np.arange(ink.shape[1]) < path[:, None]
    heights, areas = zip(*(_largest_component(part) for part in (ink & left, ink & ~left)), strict=True)
    return left, min(heights), min(areas)


def _largest_component(ink: Mask) -> tuple[int, int]:
    """Return the height and the area of the largest connected component."""
    labels, count = ndimage.label(ink, structure=np.ones((3, 3)))
    if not count:
        return 0, 0
    areas = np.bincount(labels.ravel())[1:]
    rows = ndimage.find_objects(labels)[int(np.argmax(areas))][0]
    return rows.stop - rows.start, int(areas.max())


def halves(strength: Floats) -> Iterator[tuple[Floats, Floats]]:
    """Cut ink in two at several places, each time along the path that crosses the least ink.

    Only a model can decide which of these are digits.

    Args:
      strength: of the ink, [H, W] from 0 to 1.

    Yields:
      Left and right half, at most 50 pixels high and wide, where both have almost the height of the whole.
    """
    strength = strength[box_of(strength > INK)]
    strength = scaled(strength, min(1, _HALVED_SIDE / max(strength.shape)))
    height, width = strength.shape
    if width < _MIN_WIDTH:
        return
    ink = strength > INK
    for path in _cheapest_paths(ink, _STRIPS):
        left, lower, smaller = _cut_in_two(ink, path)
        if lower >= _HALF_HEIGHT * height and smaller >= _HALF_AREA * ink.sum():
            yield strength * left, strength * ~left


def _cheapest_paths(ink: Mask, strips: Sequence[tuple[float, float]]) -> np.ndarray[Any, Any]:
    """Find the path from top to bottom that crosses the least ink, in each of N strips.

    Args:
      ink: bool [H, W].
      strips: the first and last column of each, in widths.

    Returns:
      The column in each row, int [N, H].
    """
    height, width = ink.shape
    columns = np.arange(width)
    inside = np.stack([(columns >= int(first * width)) & (columns < int(last * width)) for first, last in strips])
    inside = inside[inside.any(axis=1)]  # a narrow image has fewer strips
    outside = np.where(inside, 0, np.inf)  # [N, W]
    # Of paths that cross as much, the straightest.
    aside = 1e-3
    total = outside + ink[0]
    steps = np.zeros((height, *total.shape), int)
    for row in range(1, height):
        padded = np.pad(total, ((0, 0), (1, 1)), constant_values=np.inf)
        choices = np.stack([padded[:, :-2] + aside, padded[:, 1:-1], padded[:, 2:] + aside])
        steps[row] = np.argmin(choices, axis=0) - 1
        total = choices.min(axis=0) + outside + ink[row]
    path = [np.argmin(total, axis=1)]
    for row in range(height - 1, 0, -1):
        path.append(path[-1] + steps[row, np.arange(len(total)), path[-1]])
    return np.stack(path[::-1], axis=1)
