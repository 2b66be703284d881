"""Split digits that touch each other."""

from typing import Any

import numpy as np
from scipy import ndimage

from mnist.images.ink import INK, Floats, Mask

# Wider ink than this, in heights, may be two digits.
_WIDE = 1.0
# They are cut between these parts of the width.
_FIRST, _LAST = 0.2, 0.8
# The cut crosses one stroke, with at most this many times its width of ink, and this part of the height.
_MAX_CROSSED, _MAX_HEIGHT_CROSSED = 1.3, 0.5
# The largest piece on both sides has this part of the height, and of the ink.
_PART_HEIGHT, _PART_AREA = 0.8, 0.15


def split(strength: Floats) -> list[Floats]:
    """Split the ink of digits side by side where one stroke connects them.

    Args:
      strength: of the ink, [H, W] from 0 to 1.

    Returns:
      Arrays like it, from left to right; only `strength` if it is as narrow as a digit, or there is no such place.
    """
    ink = strength > INK
    rows, columns = (slice(each.min(), each.max() + 1) for each in np.nonzero(ink))
    ink = ink[rows, columns]
    height, width = ink.shape
    if width <= _WIDE * height:
        return [strength]
    path = _cheapest_path(ink)
    crossed = ink[np.arange(height), path]
    distance = ndimage.distance_transform_edt(np.pad(ink, 1))[1:-1, 1:-1]
    stroke = 4 * float(distance[ink].mean())  # across a stroke, the mean distance is a quarter of its width
    if crossed.sum() > min(_MAX_CROSSED * stroke, _MAX_HEIGHT_CROSSED * height) or ndimage.label(crossed)[1] > 1:
        return [strength]
    left_side = np.zeros(strength.shape, bool)
    ends = np.pad(path, (rows.start, len(strength) - rows.stop), mode="edge") + columns.start
    left_side[:] = np.arange(strength.shape[1]) < ends[:, None]
    left, right = strength * left_side, strength * ~left_side
    if not all(_is_like_a_digit(part > INK, ink) for part in (left, right)):
        return [strength]
    return [*split(left), *split(right)]


def _is_like_a_digit(part: Mask, whole: Mask) -> bool:
    labels, count = ndimage.label(part, structure=np.ones((3, 3)))
    if not count:
        return False
    areas = np.bincount(labels.ravel())[1:]
    rows = ndimage.find_objects(labels)[int(np.argmax(areas))][0]
    return bool(rows.stop - rows.start >= _PART_HEIGHT * len(whole) and areas.max() >= _PART_AREA * whole.sum())


def _cheapest_path(ink: Mask) -> np.ndarray[Any, Any]:
    """Return the column in each row, int [H], of the path from top to bottom that crosses the least ink."""
    height, width = ink.shape
    first, last = int(_FIRST * width), int(_LAST * width)
    cost = ink[:, first:last].astype(np.float64)
    # Of paths that cross as much, the straightest.
    aside = 1e-3
    total = cost[0]
    steps = np.zeros(cost.shape, int)
    for row in range(1, height):
        padded = np.pad(total, 1, constant_values=np.inf)
        choices = np.stack([padded[:-2] + aside, padded[1:-1], padded[2:] + aside])
        steps[row] = np.argmin(choices, axis=0) - 1
        total = choices.min(axis=0) + cost[row]
    path = [int(np.argmin(total))]
    for row in range(height - 1, 0, -1):
        path.append(path[-1] + int(steps[row, path[-1]]))
    return np.array(path[::-1]) + first
