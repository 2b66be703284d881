"""A picture of handwriting to digits as MNIST has them: bright on black, fitted to 20 x 20, centred in 28 x 28.

    for digit in handwriting.digits(picture.pixels):
        digit.image      # uint8 [28, 28]

As the database was made (LeCun, Cortes and Burges, "The MNIST database": size-normalized to 20 x 20 with the aspect
ratio kept, grey levels from the anti-aliasing, centre of mass in the middle of 28 x 28). What lies before that, finding
the ink, is for photographs of paper as much as for drawings:

1. The paper is a smooth surface, brighter here than there: a polynomial of the second degree in each colour.
2. Ink is what differs from it, in one direction among the colours, and the rarer side of that direction.
3. Pieces of ink that belong together are a digit; digits are read line by line, from left to right.
"""

from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from mnist.input.dataset import IMAGE_SHAPE
from mnist.input.idx import Bytes

_SIDE = IMAGE_SHAPE[0]
_FITTED = 20
_BYTE = 255

# MNIST's own images: the centre of mass half a pixel from row and column 14 at most, as all 70,000 have it, and black
# all around.
_MIDDLE = _SIDE / 2
_OFF_CENTRE = 0.55
_BLACK_AROUND = 0.9

# Ink that is less than so far from its paper, of the whole way from black to white, is none.
_FAINTEST = 0.08
# And it must stand out from what the paper itself does.
_DEVIATIONS = 4.0
# From so much of the ink's usual strength on, a pixel is drawn; from so much on, fully.
_BEGINS, _FULL = 0.25, 0.85
_DRAWN = 0.5

# Pieces are specks where they are so much lower than the highest and so much smaller than the largest.
_SPECK_HEIGHT, _SPECK_AREA = 0.2, 0.04
# Pieces one above the other are one digit where so much of the narrower lies above or below the wider one.
_ABOVE = 0.5
_GAP = 0.35
# A five's bar, a four's stroke: a piece that small beside a larger one belongs to it, when it is near.
_SMALL_PIECE, _NEAR = 0.6, 0.12
_AS_HIGH_AS_A_DIGIT = 0.6
# More pieces than any page of digits has: noise.
_MOST_PIECES = 200
# A box so full of ink is no digit, unless it is as narrow as a one.
_FULL_BOX, _NARROW = 0.85, 0.5

_PAPER_ROUNDS = 6
_SAMPLES = 96

Floats = np.ndarray[Any, np.dtype[np.float32]]
Box = tuple[slice, slice]


class Digit(NamedTuple):
    """A digit as a model wants it.

    image: uint8 [28, 28], bright on black.
    ink: how it was found: `as in MNIST`, `light on dark`, `dark on light`.
    warnings: what speaks against its being a digit.
    """

    image: Bytes
    ink: str
    warnings: tuple[str, ...] = ()


def digits(pixels: np.ndarray[Any, Any]) -> list[Digit]:
    """The digits in a picture, in reading order.

    Args:
      pixels: uint8 [H, W], or float32 [H, W, 3] from 0 to 1. A picture of 28 x 28 that is as MNIST's are, bright on
        black or the other way round, is taken as it is, bit for bit.

    Returns:
      One or more; none where there is no ink in the picture, or nothing but noise.
    """
    if pixels.ndim == 2 and pixels.dtype == np.uint8:  # noqa: PLR2004 - [H, W]
        for image, ink in ((pixels, "as in MNIST"), (_BYTE - pixels, "dark on light")):
            if is_as_in_mnist(image):
                return [Digit(image, ink)]
        pixels = np.repeat(pixels[..., None].astype(np.float32) / _BYTE, 3, axis=2)
    strength, ink = _ink(pixels)
    if strength is None:
        return []
    return [Digit(_as_mnist_has_it(each), ink, _doubts(each)) for each in _pieces(strength)]


def is_as_in_mnist(image: Bytes) -> bool:
    """Whether a picture needs nothing done: 28 x 28, black around, its centre of mass in the middle."""
    if image.shape != IMAGE_SHAPE or not image.any():
        return False
    around = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    off = np.abs(np.array(ndimage.center_of_mass(image)) - _MIDDLE)
    return bool((around == 0).mean() >= _BLACK_AROUND and off.max() <= _OFF_CENTRE)


def _ink(image: Floats) -> tuple[Floats | None, str]:
    """From [H, W, 3] to how much ink there is at each pixel, 0 to 1, [H, W]; and which way round it is."""
    residual, deviation = _without_paper(image)  # [H, W, 3]
    _, directions = np.linalg.eigh(np.einsum("hwc,hwd->cd", residual, residual))
    along = residual @ directions[:, -1]  # [H, W], in the direction in which most happens
    side = 1.0 if float((along.astype(np.float64) ** 3).sum()) >= 0 else -1.0  # the rarer side is the farther one
    along *= side
    threshold = _otsu(along)
    inside = along > threshold
    brightness = (residual.mean(axis=2)[inside]).mean() if inside.any() else 0.0
    told = "light on dark" if brightness > 0 else "dark on light"
    if not inside.any():
        return None, told
    usual = float(np.median(along[inside]))
    if usual < max(_FAINTEST, _DEVIATIONS * deviation):
        return None, told
    begins = max(_BEGINS * usual, min(2 * deviation, _DRAWN * usual))
    return ((along - begins) / (_FULL * usual - begins)).clip(0, 1).astype(np.float32), told


def _without_paper(image: Floats) -> tuple[Floats, float]:
    """Takes the paper off: what is left [H, W, 3], and how far paper alone strays from its surface."""
    height, width = image.shape[:2]
    rows, columns = (np.linspace(-1, 1, size, dtype=np.float32) for size in (height, width))
    surface = _terms(*np.meshgrid(rows, columns, indexing="ij"))  # [H, W, 6]
    steps = (slice(None, None, max(1, size // _SAMPLES)) for size in (height, width))
    step_rows, step_columns = steps
    terms, colours = surface[step_rows, step_columns], image[step_rows, step_columns]
    # The rim is most likely paper; a plane is fitted to it, for it says little of how paper bends in the middle.
    shape = terms.shape[:2]
    rim = np.ones(shape, bool)
    rim[max(1, shape[0] // 10) : -max(1, shape[0] // 10), max(1, shape[1] // 10) : -max(1, shape[1] // 10)] = False
    paper, used = rim, 3
    deviation = 0.0
    for _round in range(_PAPER_ROUNDS):
        fitted, *_ = np.linalg.lstsq(terms[paper][:, :used], colours[paper], rcond=None)
        strays = np.abs(colours - terms[..., :used] @ fitted).max(axis=2)
        # Half of what was taken for paper surely is.
        deviation = 1.5 * float(np.median(strays[paper]))
        paper = strays <= max(3 * deviation, _FAINTEST / 2)
        used = terms.shape[2] if paper.mean() > _DRAWN else 3
    return np.asarray(image - surface[..., : fitted.shape[0]] @ fitted, np.float32), deviation


def _terms(rows: Floats, columns: Floats) -> Floats:
    return np.stack([np.ones_like(rows), rows, columns, rows * rows, rows * columns, columns * columns], axis=-1)


def _otsu(values: Floats) -> float:
    """The threshold that parts values best in two, by the largest variance between them (Otsu, 1979); or infinity."""
    counts, edges = np.histogram(values, 256)
    centres = (edges[:-1] + edges[1:]) / 2
    below, sums = np.cumsum(counts), np.cumsum(counts * centres)
    above = below[-1] - below
    both = (below > 0) & (above > 0)
    if not both.any():
        return float("inf")
    between = (sums[-1] * below[both] / below[-1] - sums[both]) ** 2 / (below[both] * above[both])
    return float(edges[1:][both][np.argmax(between)])


def _pieces(strength: Floats) -> list[Floats]:
    """The ink of each digit, cut out, in reading order."""
    labels, count = ndimage.label(strength > _DRAWN, structure=np.ones((3, 3)))
    if not count:
        return []
    boxes: list[Box] = ndimage.find_objects(labels)
    areas = ndimage.sum_labels(labels > 0, labels, range(1, count + 1))
    highest = max(_height(box) for box in boxes)
    pieces = [
        number
        for number in range(count)
        if _height(boxes[number]) >= _SPECK_HEIGHT * highest or areas[number] >= _SPECK_AREA * areas.max()
    ]
    if len(pieces) > _MOST_PIECES:
        return []
    cuts = []
    for group in _together([_Group([number], boxes[number], float(areas[number])) for number in pieces], highest):
        rows, columns = (slice(max(0, side.start - 2), side.stop + 2) for side in group.box)
        own = np.isin(labels[rows, columns], [number + 1 for number in group.numbers])
        # The soft rim of a stroke is its own, too, but not the neighbour's stroke.
        cuts.append((group.box, strength[rows, columns] * ndimage.binary_dilation(own, iterations=2)))
    return [cut for _, cut in _in_reading_order(cuts)]


def _height(box: Box) -> int:
    return int(box[0].stop - box[0].start)


def _union(boxes: list[Box]) -> Box:
    rows, columns = zip(*boxes, strict=True)
    return tuple(  # type: ignore[return-value]
        slice(min(side.start for side in sides), max(side.stop for side in sides)) for sides in (rows, columns)
    )


class _Group(NamedTuple):
    """Pieces that make a digit, as far as they have been found. numbers: which. area: of their ink, in pixels."""

    numbers: list[int]
    box: Box
    area: float


def _together(groups: list[_Group], highest: int) -> list[_Group]:
    """The same pieces, those of one digit in one group."""
    count = 0
    while count != len(groups):  # a group that has grown may reach others
        count = len(groups)
        joined: list[_Group] = []
        for group in groups:
            friends = [each for each in joined if _belong(each, group, highest)]
            joined = [*(each for each in joined if each not in friends), _joined([*friends, group])]
        groups = joined
    return groups


def _joined(groups: list[_Group]) -> _Group:
    numbers = [number for group in groups for number in group.numbers]
    return _Group(numbers, _union([group.box for group in groups]), sum(group.area for group in groups))


def _belong(one: _Group, other: _Group, highest: int) -> bool:
    (rows, columns), (other_rows, other_columns) = one.box, other.box
    shared, row_gap = _overlap(columns, other_columns), -_overlap(rows, other_rows)
    narrower = min(side.stop - side.start for side in (columns, other_columns))
    if shared >= _ABOVE * narrower and row_gap <= _GAP * highest:
        # Two lines of writing lie one above the other as well: then both are as high as a digit.
        both_high = min(_height(one.box), _height(other.box)) > _AS_HIGH_AS_A_DIGIT * highest
        return not (both_high and row_gap >= 0)
    small = min(one.area, other.area) <= _SMALL_PIECE * max(one.area, other.area)
    low = min(_height(one.box), _height(other.box)) <= _AS_HIGH_AS_A_DIGIT * highest
    return small and low and max(-shared, row_gap) <= _NEAR * highest


def _overlap(one: slice, other: slice) -> int:
    """How much two stretches share; the gap between them, negative, where they share nothing."""
    return int(min(one.stop, other.stop) - max(one.start, other.start))


def _in_reading_order(cuts: list[tuple[Box, Floats]]) -> list[tuple[Box, Floats]]:
    """Line by line, from left to right."""
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


def _as_mnist_has_it(strength: Floats) -> Bytes:
    """Ink from 0 to 1 [H, W] to uint8 [28, 28]: fitted to 20 x 20, its proportions kept, the centre of mass centred."""
    rows, columns = _box(strength)
    cut = strength[rows, columns]
    scale = _FITTED / max(cut.shape)
    height, width = (max(1, round(scale * side)) for side in cut.shape)
    fitted = np.asarray(Image.fromarray(cut).resize((width, height), Image.Resampling.BILINEAR))
    # A thin stroke is pale once it is small; MNIST's have bright middles.
    fitted = (fitted / max(float(np.percentile(fitted[fitted > 0], 90)), 1e-3)).clip(0, 1)
    centre = ndimage.center_of_mass(fitted)
    image = np.zeros(IMAGE_SHAPE, np.uint8)
    top, left = (
        int(np.clip(round(_MIDDLE - middle), 0, _SIDE - size))
        for middle, size in zip(centre, fitted.shape, strict=True)
    )
    image[top : top + height, left : left + width] = (fitted * _BYTE).round().astype(np.uint8)
    return image


def _box(strength: Floats) -> Box:
    box: Box = ndimage.find_objects((strength > _BEGINS).astype(np.int8))[0]
    return box


def _doubts(strength: Floats) -> tuple[str, ...]:
    cut = strength[_box(strength)]
    full, narrow = float((cut > _DRAWN).mean()), cut.shape[1] < _NARROW * cut.shape[0]
    if full > _FULL_BOX and not narrow:
        return (f"hardly a digit: ink fills {full:.0%} of its box",)
    return ()
