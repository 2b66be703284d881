"""Figures about arrays of any size, a piece at a time, so that memory does not grow with them."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

_PIECE = 2**20  # elements


class Summary(NamedTuple):
    """Figures of the elements of one array; those of numbers are None where it holds no finite ones.

    zeros: the share of the elements that are 0. nans, infinities: how many there are.
    """

    elements: int
    min: float | None
    mean: float | None
    max: float | None
    zeros: float | None
    nans: int
    infinities: int


class Difference(NamedTuple):
    """How far two arrays of one shape are apart, in double precision; NaN where either holds what is not finite.

    equal: to the last bit. largest, mean: of the absolute differences, None of arrays without elements.
    cosine: of the angle between the two as vectors; None where one is zero.
    """

    equal: bool
    largest: float | None
    mean: float | None
    cosine: float | None


def is_numeric(array: Array) -> bool:
    """Whether there are figures to give: not of strings and other objects."""
    return array.dtype != object and array.dtype.kind not in "SUO"


def summary(array: Array) -> Summary:
    """Looks at each element once; of complex ones at the absolute values."""
    count = zeros = nans = infinities = 0
    total, smallest, largest = 0.0, math.inf, -math.inf
    for piece in map(_magnitudes, _pieces(array)):
        nans += int(np.count_nonzero(np.isnan(piece)))
        infinities += int(np.count_nonzero(np.isinf(piece)))
        zeros += int(np.count_nonzero(piece == 0))
        finite = piece[np.isfinite(piece)]
        if finite.size:
            count += finite.size
            with np.errstate(over="ignore"):
                total += float(finite.sum())
            smallest, largest = min(smallest, float(finite.min())), max(largest, float(finite.max()))
    return Summary(
        elements=array.size,
        min=smallest if count else None,
        mean=total / count if count else None,
        max=largest if count else None,
        zeros=zeros / array.size if array.size else None,
        nans=nans,
        infinities=infinities,
    )


def histogram(array: Array, bins: int) -> list[tuple[float, float, int]]:
    """How the finite elements are spread: (from, to, how many) for each of so many bins of equal width.

    One bin where they are too close for so many, or too far apart for their distance to be a number.
    """
    found = summary(array)
    if found.min is None or found.max is None:
        return []
    with np.errstate(over="ignore", invalid="ignore"):
        edges = np.linspace(found.min, found.max, bins + 1)
        if not (np.diff(edges) > 0).all():
            edges = np.array([found.min, found.max])
    counts = np.zeros(len(edges) - 1, np.int64)
    for piece in map(_magnitudes, _pieces(array)):
        counts += np.histogram(piece[np.isfinite(piece)], edges)[0]
    return [(float(low), float(high), int(count)) for low, high, count in zip(edges, edges[1:], counts, strict=False)]


def difference(one: Array, other: Array) -> Difference:
    """Compares two arrays of the same shape; of complex ones the real and imaginary parts, each for itself."""
    equal, largest, total = one.dtype == other.dtype, 0.0, 0.0
    dot = squares_of_one = squares_of_other = 0.0
    for piece_of_one, piece_of_other in zip(_pieces(one), _pieces(other), strict=True):
        equal = equal and piece_of_one.tobytes() == piece_of_other.tobytes()
        a, b = _parts(piece_of_one), _parts(piece_of_other)
        # Infinity less infinity is no number, which is what is told.
        with np.errstate(invalid="ignore", over="ignore"):
            apart = np.abs(a - b)
            dot += float(a @ b)
            squares_of_one, squares_of_other = squares_of_one + float(a @ a), squares_of_other + float(b @ b)
            largest, total = float(np.maximum(largest, apart.max())), total + float(apart.sum())
    lengths = math.sqrt(squares_of_one) * math.sqrt(squares_of_other)
    parts = one.size * (2 if "c" in (one.dtype.kind, other.dtype.kind) else 1)
    return Difference(
        equal=equal,
        largest=largest if parts else None,
        mean=total / parts if parts else None,
        cosine=dot / lengths if lengths else None,
    )


def _pieces(array: Array) -> Iterator[Array]:
    flat = array.reshape(-1)
    for begin in range(0, flat.size, _PIECE):
        yield flat[begin : begin + _PIECE]


def _magnitudes(piece: Array) -> Array:
    """In double precision; of complex numbers the absolute values."""
    with np.errstate(over="ignore"):
        return np.abs(piece.astype(np.complex128)) if piece.dtype.kind == "c" else piece.astype(np.float64)


def _parts(piece: Array) -> Array:
    """In double precision; of complex numbers both parts."""
    return piece.astype(np.complex128).view(np.float64) if piece.dtype.kind == "c" else piece.astype(np.float64)
