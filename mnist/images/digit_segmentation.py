"""Find the digits in an image, and preprocess each the way MNIST was: bright on black, 20 x 20, centred in 28 x 28.

    for digit in digit_segmentation.digits(image.pixels):
        digit.image      # uint8 [28, 28]

Steps: separate ink from paper (`ink`), find the sheet of paper on a desk and remove frames and lines (`page`), group
connected components of ink into digits, sort these in reading order, split digits that touch (`touching`), then scale
each to 20 x 20 with its aspect ratio kept and place its centre of mass in the middle of 28 x 28 (LeCun, Cortes, Burges,
"The MNIST database of handwritten digits").
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from mnist.images import page, touching
from mnist.images.ink import INK, RISE_BEGINS, Box, Floats, box_of, ink_strengths, scaled, thickness
from mnist.input.dataset import IMAGE_SHAPE
from mnist.input.idx import Bytes

_SIDE = IMAGE_SHAPE[0]
_SCALED_SIDE = 20
_MAX_BYTE = 255

# All 70,000 images of MNIST have their centre of mass within half a pixel of row and column 14, and a black rim.
_MIDDLE = _SIDE / 2
_MAX_OFF_CENTRE = 0.55
_MIN_BLACK_RIM = 0.9

# Components with less of the greatest height and of the largest area are specks.
_SPECK_HEIGHT, _SPECK_AREA = 0.2, 0.04
# Components belong together if this part of the narrower one is above or below the wider one, with at most this gap.
_ABOVE, _MAX_GAP = 0.5, 0.35
# So do a small component, like the bar of a 5, and a large one that is near.
_SMALL_AREA, _NEAR = 0.6, 0.12
# A component of this fraction of the greatest height may be a digit of another line.
_DIGIT_HEIGHT = 0.6
# Strokes are thinner than this, compared with the digit's longer side.
_MAX_THICKNESS = 0.5
# An image with more components is noise.
_MAX_COMPONENTS = 200
# A box with more ink is hardly a digit, unless it is as narrow as a one.
_FULL_BOX, _NARROW = 0.85, 0.5
_SPLIT = "cut from a digit that it touches"


class Digit(NamedTuple):
    """A digit as the model's input.

    image: uint8 [28, 28], bright on black.
    ink: "as in MNIST", "light on dark" or "dark on light".
    warnings: why it may not be a digit.
    halves: pairs of images like it, of which it may consist. Where a model reads both of a pair with more certainty
      than the whole, these are probably two digits that touch.
    """

    image: Bytes
    ink: str
    warnings: tuple[str, ...] = ()
    halves: tuple[tuple[Bytes, Bytes], ...] = ()


def digits(pixels: np.ndarray[Any, Any]) -> list[Digit]:
    """Find the digits in an image.

    Args:
      pixels: uint8 [H, W], or float32 [H, W, 3] from 0 to 1. A 28 x 28 image in MNIST's format, or its negative, is
        used unchanged.

    Returns:
      The digits in reading order; none if there is no ink, or nothing but noise.
    """
    if pixels.ndim == 2 and pixels.dtype == np.uint8:  # noqa: PLR2004 - [H, W]
        for image, ink in ((pixels, "as in MNIST"), (_MAX_BYTE - pixels, "dark on light")):
            if is_as_in_mnist(image):
                return [Digit(image, ink)]
        pixels = np.repeat(pixels[..., None].astype(np.float32) / _MAX_BYTE, 3, axis=2)
    cuts, ink = _find_ink(pixels)
    found = []
    for cut in cuts:
        parts = touching.split(cut)
        split = (_SPLIT,) if len(parts) > 1 else ()
        for part in parts:
            warnings = split + _warnings(part)
            halves = (
                () if warnings else tuple((_normalize(one), _normalize(other)) for one, other in touching.halves(part))
            )
            found.append(Digit(_normalize(part), ink, warnings, halves))
    return found


def _find_ink(image: Floats, *, cropped: bool = False) -> tuple[list[Floats], str]:
    """Cut out the ink of each digit by the first method that finds strokes; else by the first that finds ink."""
    found: tuple[list[Floats], str] = [], ""
    for strength, ink in ink_strengths(image):
        sheet = None if cropped else page.find_sheet(strength)
        if sheet is not None:  # what stands out is not ink, but paper on a desk
            return _find_ink(page.cut_sheet(image, sheet), cropped=True)
        cleaned = page.without_frames(page.without_lines(strength))
        cuts = connected_components(cleaned)
        if cuts and _is_stroke(max(cuts, key=np.sum)) and not page.has_shadow(strength):
            return cuts, ink
        if not found[0]:
            found = cuts, ink
    return found


def _is_stroke(strength: Floats) -> bool:
    """Whether ink is thin, compared with its size."""
    ink = strength[box_of(strength > RISE_BEGINS)] > INK
    return thickness(ink) < float(_MAX_THICKNESS * max(ink.shape))


def is_as_in_mnist(image: Bytes) -> bool:
    """Whether an image needs no preprocessing: 28 x 28, a black rim, the centre of mass in the middle."""
    if image.shape != IMAGE_SHAPE or not image.any():
        return False
    rim = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    off_centre = np.abs(np.array(ndimage.center_of_mass(image)) - _MIDDLE)
    return bool((rim == 0).mean() >= _MIN_BLACK_RIM and off_centre.max() <= _MAX_OFF_CENTRE)


def connected_components(strength: Floats) -> list[Floats]:
    """Cut out the ink of each digit, which may have several components.

    Args:
      strength: of the ink, float32 [H, W] from 0 to 1.

    Returns:
      Arrays like it, one for each digit, in reading order.
    """
    labels, count = ndimage.label(strength > INK, structure=np.ones((3, 3)))
    if not count:
        return []
    boxes: list[Box] = ndimage.find_objects(labels)
    areas = ndimage.sum_labels(labels > 0, labels, range(1, count + 1))
    max_height = max(_height(box) for box in boxes)
    components = [
        _Group([number], boxes[number], float(areas[number]))
        for number in range(count)
        if _height(boxes[number]) >= _SPECK_HEIGHT * max_height or areas[number] >= _SPECK_AREA * areas.max()
    ]
    if len(components) > _MAX_COMPONENTS:
        return []
    cuts = []
    for group in _group(components, max_height):
        rows, columns = (slice(max(0, side.start - 2), side.stop + 2) for side in group.box)
        own = np.isin(labels[rows, columns], [number + 1 for number in group.numbers])
        # The soft rim of the stroke is included, but not the ink of a neighbour.
        cut = strength[rows, columns] * ndimage.binary_dilation(own, iterations=2)
        cuts.append((group.box, cut))
    return [cut for _, cut in _in_reading_order(cuts)]


def _height(box: Box) -> int:
    return int(box[0].stop - box[0].start)


def _union(boxes: list[Box]) -> Box:
    rows, columns = zip(*boxes, strict=True)
    return tuple(  # type: ignore[return-value]
        slice(min(side.start for side in sides), max(side.stop for side in sides)) for sides in (rows, columns)
    )


class _Group(NamedTuple):
    """Components of one digit. numbers: of the components. area: of their ink, in pixels."""

    numbers: list[int]
    box: Box
    area: float


def _group(groups: list[_Group], max_height: int) -> list[_Group]:
    """Join the groups that belong to one digit, until no two of them do."""
    count = 0
    while count != len(groups):  # a group that has grown may touch others
        count = len(groups)
        joined: list[_Group] = []
        for group in groups:
            same_digit = [each for each in joined if _belong_together(each, group, max_height)]
            joined = [*(each for each in joined if each not in same_digit), _join([*same_digit, group])]
        groups = joined
    return groups


def _join(groups: list[_Group]) -> _Group:
    numbers = [number for group in groups for number in group.numbers]
    return _Group(numbers, _union([group.box for group in groups]), sum(group.area for group in groups))


def _belong_together(one: _Group, other: _Group, max_height: int) -> bool:
    (rows, columns), (other_rows, other_columns) = one.box, other.box
    shared_columns, row_gap = _overlap(columns, other_columns), -_overlap(rows, other_rows)
    narrower = min(side.stop - side.start for side in (columns, other_columns))
    if shared_columns >= _ABOVE * narrower and row_gap <= _MAX_GAP * max_height:
        # Digits of two lines are above each other, too; but then both have the height of a digit.
        both_high = min(_height(one.box), _height(other.box)) > _DIGIT_HEIGHT * max_height
        return not (both_high and row_gap >= 0)
    small = min(one.area, other.area) <= _SMALL_AREA * max(one.area, other.area)
    low = min(_height(one.box), _height(other.box)) <= _DIGIT_HEIGHT * max_height
    return small and low and max(-shared_columns, row_gap) <= _NEAR * max_height


def _overlap(one: slice, other: slice) -> int:
    """Return the length of the intersection; if it is empty, minus the length of the gap."""
    return int(min(one.stop, other.stop) - max(one.start, other.start))


def _in_reading_order(cuts: list[tuple[Box, Floats]]) -> list[tuple[Box, Floats]]:
    """Sort by line, then from left to right."""
    lines: list[list[tuple[Box, Floats]]] = []
    for cut in sorted(cuts, key=lambda each: each[0][0].start + each[0][0].stop):
        middle = (cut[0][0].start + cut[0][0].stop) / 2
        for line in lines:
            rows = _union([box for box, _ in line])[0]
            if rows.start <= middle < rows.stop:
                line.append(cut)
                break
        else:
            lines.append([cut])
    return [cut for line in lines for cut in sorted(line, key=lambda each: each[0][1].start)]


def _normalize(strength: Floats) -> Bytes:
    """Scale ink, [H, W] from 0 to 1, to 20 x 20 with its aspect ratio kept, and centre it by mass: uint8 [28, 28]."""
    cut = strength[box_of(strength > RISE_BEGINS)]
    digit = scaled(cut, _SCALED_SIDE / max(cut.shape))
    # Scaling makes a thin stroke pale; the middle of MNIST's strokes is bright.
    digit = (digit / max(float(np.percentile(digit[digit > 0], 90)), 1e-3)).clip(0, 1)
    centre = ndimage.center_of_mass(digit)
    image = np.zeros(IMAGE_SHAPE, np.uint8)
    top, left = (
        int(np.clip(round(_MIDDLE - middle), 0, _SIDE - size)) for middle, size in zip(centre, digit.shape, strict=True)
    )
    height, width = digit.shape
    image[top : top + height, left : left + width] = (digit * _MAX_BYTE).round().astype(np.uint8)
    return image


def _warnings(strength: Floats) -> tuple[str, ...]:
    cut = strength[box_of(strength > RISE_BEGINS)]
    full, narrow = float((cut > INK).mean()), cut.shape[1] < _NARROW * cut.shape[0]
    if full > _FULL_BOX and not narrow:
        return (f"hardly a digit: ink fills {full:.0%} of its box",)
    if touching.may_be_several(cut):
        return ("it may be several digits that touch",)
    return ()
