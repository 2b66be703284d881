"""Streaming statistics of arrays: computed chunk by chunk, so that memory use does not grow with the array."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

_CHUNK = 2**20  # elements


class Summary(NamedTuple):
    """Statistics of one array.

    min, mean, max: of the finite elements; None if there are none. zeros: fraction of the elements that are 0; None for
    an empty array. nans, infinities: counts.
    """

    elements: int
    min: float | None
    mean: float | None
    max: float | None
    zeros: float | None
    nans: int
    infinities: int


class Difference(NamedTuple):
    """Difference of two arrays of the same shape, in double precision; NaN if either has non-finite elements.

    equal: same dtype and bits. largest, mean: of the absolute differences; None for empty arrays.
    cosine: cosine similarity of the flattened arrays; None if one is zero.
    """

    equal: bool
    largest: float | None
    mean: float | None
    cosine: float | None


def is_numeric(array: Array) -> bool:
    """Whether an array has statistics; strings and objects have none."""
    return array.dtype != object and array.dtype.kind not in "SUO"


def summary(array: Array) -> Summary:
    """Compute the statistics of an array in one pass; of complex numbers those of the absolute values."""
    count = zeros = nans = infinities = 0
    total, smallest, largest = 0.0, math.inf, -math.inf
    for chunk in map(_magnitudes, _chunks(array)):
        nans += int(np.count_nonzero(np.isnan(chunk)))
        infinities += int(np.count_nonzero(np.isinf(chunk)))
        zeros += int(np.count_nonzero(chunk == 0))
        finite = chunk[np.isfinite(chunk)]
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
    """Compute a histogram of the finite elements.

    Returns:
      (from, to, count) of each bin, all of equal width. One bin alone if the range is too small to be divided, or too
      large for a float; none without finite elements.
    """
    found = summary(array)
    if found.min is None or found.max is None:
        return []
    with np.errstate(over="ignore", invalid="ignore"):
        edges = np.linspace(found.min, found.max, bins + 1)
        if not (np.diff(edges) > 0).all():
            edges = np.array([found.min, found.max])
    counts = np.zeros(len(edges) - 1, np.int64)
    for chunk in map(_magnitudes, _chunks(array)):
        counts += np.histogram(chunk[np.isfinite(chunk)], edges)[0]
    return [(float(low), float(high), int(count)) for low, high, count in zip(edges, edges[1:], counts, strict=False)]


def difference(one: Array, other: Array) -> Difference:
    """Compare two arrays of the same shape; real and imaginary parts of complex numbers are separate elements."""
    equal, largest, total = one.dtype == other.dtype, 0.0, 0.0
    dot = one_squares = other_squares = 0.0
    for one_chunk, other_chunk in zip(_chunks(one), _chunks(other), strict=True):
        equal = equal and one_chunk.tobytes() == other_chunk.tobytes()
        a, b = _parts(one_chunk), _parts(other_chunk)
        # Infinity minus infinity is NaN, as documented.
        with np.errstate(invalid="ignore", over="ignore"):
            distance = np.abs(a - b)
            dot += float(a @ b)
            one_squares, other_squares = one_squares + float(a @ a), other_squares + float(b @ b)
            largest, total = float(np.maximum(largest, distance.max())), total + float(distance.sum())
    lengths = math.sqrt(one_squares) * math.sqrt(other_squares)
    parts = one.size * (2 if "c" in (one.dtype.kind, other.dtype.kind) else 1)
    return Difference(
        equal=equal,
        largest=largest if parts else None,
        mean=total / parts if parts else None,
        cosine=dot / lengths if lengths else None,
    )


def _chunks(array: Array) -> Iterator[Array]:
    flat = array.reshape(-1)
    for begin in range(0, flat.size, _CHUNK):
        yield flat[begin : begin + _CHUNK]


def _magnitudes(chunk: Array) -> Array:
    """Convert to double precision; complex numbers to their absolute values."""
    with np.errstate(over="ignore"):
        return np.abs(chunk.astype(np.complex128)) if chunk.dtype.kind == "c" else chunk.astype(np.float64)


def _parts(chunk: Array) -> Array:
    """Convert to double precision; complex numbers to pairs of real and imaginary parts."""
    return chunk.astype(np.complex128).view(np.float64) if chunk.dtype.kind == "c" else chunk.astype(np.float64)
