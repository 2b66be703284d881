"""Find the paper in an image, and remove what is printed on it: frames and the lines of squared paper."""

from typing import Any

import numpy as np
from scipy import ndimage

from mnist.images.ink import INK, Box, Floats, Mask, thickness

# Something that stands out is a sheet of paper if it has at least this part of the image, fills this part of the
# smallest rectangle around it, most of it is not holes, and one hole has at least this part of its height.
_SHEET_AREA, _SHEET_FILL, _SHEET_INK, _HOLE_HEIGHT = 0.08, 0.88, 0.5, 0.15
_ANGLES = np.deg2rad(np.arange(-45, 45, 3))
# The edge of a sheet is blurred by this many pixels.
_EDGE = 3

# A component is a frame, or the desk, if it covers this part of one side of the image, or surrounds others.
_SIDE_COVERED = 0.9
# Something else is left, with at least this part of the largest component's longer side.
_LEFT = 0.2
_MAX_COMPONENTS = 200

# Strokes that reach a corner of the image are thinner than this, compared with the component's longer side.
_MAX_THICKNESS = 0.3

# Pixels above this strength may be of a line.
_LINE = 0.2
# Lines cross this part of the image, are thinner than this part of it, and at least three.
_LINE_LENGTH, _LINE_WIDTH, _MIN_LINES = 0.7, 0.035, 3


def find_sheet(strength: Floats) -> Mask | None:
    """Return a mask of the sheet of paper that stands out from a desk, without its edge; None if there is none."""
    labels, count = ndimage.label(strength > INK)
    if not count:
        return None
    areas = np.bincount(labels.ravel())[1:]
    sheet = labels == int(np.argmax(areas)) + 1
    filled = ndimage.binary_fill_holes(sheet)
    if filled.sum() < _SHEET_AREA * filled.size or areas.max() < _SHEET_INK * filled.sum():
        return None
    holes = ndimage.find_objects(ndimage.label(filled & ~sheet)[0])
    height = np.ptp(np.nonzero(filled)[0]) + 1
    if not any(box[0].stop - box[0].start >= _HOLE_HEIGHT * height for box in holes):
        return None
    inside = ndimage.binary_erosion(filled, iterations=_EDGE, border_value=1)
    return inside if _rectangle_fill(filled) >= _SHEET_FILL and inside.any() else None


def _rectangle_fill(mask: Mask) -> float:
    """Return which part of the smallest rectangle around a mask it fills."""
    rows, columns = np.nonzero(mask & ~ndimage.binary_erosion(mask))
    areas = [
        (np.ptp(np.cos(angle) * rows + np.sin(angle) * columns) + 1)
        * (np.ptp(np.cos(angle) * columns - np.sin(angle) * rows) + 1)
        for angle in _ANGLES
    ]
    return float(mask.sum() / min(areas))


def cut_sheet(image: Floats, sheet: Mask) -> Floats:
    """Cut a sheet out of an image, [H, W, 3]; pixels outside the sheet get the colour of its nearest pixel."""
    box = ndimage.find_objects(sheet.astype(np.int8))[0]
    nearest = ndimage.distance_transform_edt(~sheet[box], return_distances=False, return_indices=True)
    return np.asarray(image[box][tuple(nearest)])


def has_shadow(strength: Floats) -> bool:
    """Whether ink that is thick, compared with its size, reaches a corner of the image."""
    labels, _ = ndimage.label(strength > INK)
    boxes = ndimage.find_objects(labels)
    for number in set(labels[:: len(labels) - 1 or 1, :: labels.shape[1] - 1 or 1].ravel().tolist()) - {0}:
        ink = labels[boxes[number - 1]] == number
        if thickness(ink) > _MAX_THICKNESS * max(ink.shape):
            return True
    return False


def without_frames(strength: Floats) -> Floats:
    """Remove frames, and parts of a desk at the side, if other ink is left."""
    labels, _ = ndimage.label(strength > INK, structure=np.ones((3, 3)))
    boxes: list[Box] = ndimage.find_objects(labels)
    sizes = {number: max(side.stop - side.start for side in box) for number, box in enumerate(boxes, 1)}
    remaining = [number for number, size in sizes.items() if size >= _LEFT * max(sizes.values())]
    if len(remaining) > _MAX_COMPONENTS:
        return strength
    frames = []
    for number in sorted(remaining, key=sizes.__getitem__, reverse=True):
        others = [each for each in remaining if each != number]
        if others and (_covers_a_side(labels == number) or _surrounds(labels, number, others, boxes)):
            frames.append(number)
            remaining = others
    if not frames:
        return strength
    frame = np.isin(labels, frames)
    return np.where(ndimage.binary_dilation(frame, iterations=2) & ((labels == 0) | frame), np.float32(0), strength)


def _covers_a_side(component: Mask) -> bool:
    sides = (component[0], component[-1], component[:, 0], component[:, -1])
    return any(side.mean() >= _SIDE_COVERED for side in sides)


def _encloses(outer: Box, inner: Box) -> bool:
    return all(one.start < other.start and other.stop < one.stop for one, other in zip(outer, inner, strict=True))


def _surrounds(labels: np.ndarray[Any, Any], number: int, others: list[int], boxes: list[Box]) -> bool:
    inner = [each for each in others if _encloses(boxes[number - 1], boxes[each - 1])]
    if not inner:
        return False
    inside = ndimage.binary_fill_holes(labels == number)
    return any(bool(inside[labels == each].all()) for each in inner)


def without_lines(strength: Floats) -> Floats:
    """Remove the lines of ruled or squared paper; strokes that cross a line stay."""
    ink = strength > _LINE
    bands = [_bands(ink), _bands(ink.T)]
    if sum(map(len, bands)) < _MIN_LINES:
        return strength
    strength = strength.copy()
    for lines, cleaned in zip(bands, (strength, strength.T), strict=True):
        ink = cleaned > _LINE  # in the second direction, without the lines of the first
        for start, stop in lines:
            crossed = np.zeros(ink.shape[1], bool)
            for row in (start - 2, stop + 1):
                if 0 <= row < len(ink):
                    crossed |= ink[row]
            cleaned[max(0, start - 1) : stop + 1, ~crossed] = 0
    return strength


def _bands(ink: Mask) -> list[tuple[int, int]]:
    """Return the first row, and the row after the last, of each thin horizontal line across the image."""
    labels, _ = ndimage.label(ink.mean(axis=1) >= _LINE_LENGTH)
    bands = [(rows.start, rows.stop) for (rows,) in ndimage.find_objects(labels)]
    return [band for band in bands if band[1] - band[0] <= max(1, _LINE_WIDTH * len(ink))]
