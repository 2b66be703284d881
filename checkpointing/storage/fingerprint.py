"""Hashes by which bytes and weights are recognised."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from checkpointing.storage import durable

if TYPE_CHECKING:  # hashing files needs no NumPy, and must not wait for it
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import numpy as np


_PIECE = 2**18


def file_sha256(path: Path) -> str:
    """The hex sha256 of a regular file's bytes.

    Raises:
      OSError: it cannot be read; of a FIFO or a device nothing is.
    """
    with durable.open_to_read(path) as file:
        begin = file.read(_PIECE)
        if len(begin) < _PIECE:  # file_digest clears a buffer as large for each file
            return hashlib.sha256(begin).hexdigest()
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_sha256(files: Iterable[Path]) -> str:
    """The hex sha256 of these source files together: of a line of name and sha256 for each, in sorted order."""
    lines = sorted(f"{path.name} {file_sha256(path)}\n" for path in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def weights_sha256(weights: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """The hex sha256 of named arrays: equal if and only if all of them are, to the last bit.

    Taken name by name in sorted order over a line of name, dtype and shape, as in `layer1/biases float32 [10]`,
    then the little-endian bytes in C order.
    """
    digest = hashlib.sha256()
    for name, array in sorted(weights.items()):
        digest.update(f"{name} {array.dtype.name} {list(array.shape)}\n".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), order="C", copy=False).tobytes())
    return digest.hexdigest()
