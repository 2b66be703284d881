"""Compare two states bit for bit, and describe the variables that differ."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from checkpointing.format.tensor_bundle import Bundle
from checkpointing.storage.jsonl import Record

Array = np.ndarray[Any, Any]


def differing_variables(found: Mapping[str, Array], kept: Bundle) -> list[Record]:
    """Compare a state with a checkpoint whose files have been verified.

    Args:
      found: values by name.
      kept: the checkpoint.

    Returns:
      A record for each variable that differs, sorted by name: see `compare`. One that only one side has, or that has
      another dtype or shape, has the keys `variable` and `problem`.
    """
    return [*_records(found, kept)]


def _records(found: Mapping[str, Array], kept: Bundle) -> Iterable[Record]:
    for name in sorted({*found, *kept.entries}):
        if name not in kept.entries:
            yield {"variable": name, "problem": "not in the checkpoint"}
        elif name not in found:
            yield {"variable": name, "problem": "not in the replayed graph"}
        elif record := compare(found[name], kept.tensor(name)):
            yield {"variable": name, **record}


def compare(found: Array, kept: Array) -> Record | None:
    """Compare two arrays bit for bit; so -0.0 and 0.0 differ, and NaN equals only a NaN of the same bits.

    Returns:
      None if they are equal. Otherwise `dtype`, `shape`, `elements`; `different`, the number of elements that differ;
      `largest_difference`, the largest finite absolute difference, None if there is none; and `not_finite`, the number
      of elements whose difference is infinite or NaN. Of arrays that cannot be compared, only `problem`.
    """
    found, kept = np.asarray(found), np.array(kept)  # a copy: a disk error under a memory map is a signal
    if (found.dtype, found.shape) != (kept.dtype, kept.shape):
        return {"problem": f"replayed as {_describe(found)}, kept as {_describe(kept)}"}
    different = (_bytes(found) != _bytes(kept)).any(axis=1)
    if not different.any():
        return None
    distances = _distances(found.reshape(-1)[different], kept.reshape(-1)[different])
    finite = distances[np.isfinite(distances)]
    return {
        "dtype": found.dtype.name,
        "shape": list(found.shape),
        "elements": found.size,
        "different": int(different.sum()),
        "largest_difference": float(finite.max()) if finite.size else None,
        "not_finite": int(distances.size - finite.size),
    }


def _bytes(array: Array) -> Array:
    """Return the bytes, uint8 [elements, bytes of an element]."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(array.size, array.dtype.itemsize)


def _distances(found: Array, kept: Array) -> Array:
    """Return absolute differences as float64 [N]. Integers are subtracted as such: they may be of 64 bits."""
    if found.dtype.kind in "iub":
        return np.array([abs(int(one) - int(other)) for one, other in zip(found, kept, strict=True)], np.float64)
    with np.errstate(all="ignore"):
        return np.abs(found.astype(np.float64) - kept.astype(np.float64))


def _describe(array: Array) -> str:
    return f"{array.dtype.name} {list(array.shape)}"
