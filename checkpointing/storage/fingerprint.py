"""SHA-256 of files, source code and weights."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from checkpointing.storage import regular_file

if TYPE_CHECKING:  # hashing files must not wait for the import of NumPy
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import numpy as np

_CHUNK = 2**18


def file_sha256(path: Path) -> str:
    """Return the hex SHA-256 of a regular file's bytes.

    Raises:
      OSError: it cannot be read, or is not a regular file.
    """
    with regular_file.open_to_read(path) as file:
        begin = file.read(_CHUNK)
        if len(begin) < _CHUNK:  # faster for small files: file_digest allocates a buffer of this size
            return hashlib.sha256(begin).hexdigest()
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_sha256(files: Iterable[Path]) -> str:
    """Return the hex SHA-256 of source files: computed over one line per file, `NAME SHA256`, in sorted order."""
    lines = sorted(f"{path.name} {file_sha256(path)}\n" for path in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def weights_sha256(weights: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """Return the hex SHA-256 of arrays by name; any other name, dtype, shape or bit gives another hash.

    Computed over the arrays in sorted order of their names: for each a line with name, dtype and shape, as in
    `layer1/biases float32 [10]`, then its little-endian bytes in C order.
    """
    digest = hashlib.sha256()
    for name, array in sorted(weights.items()):
        digest.update(f"{name} {array.dtype.name} {list(array.shape)}\n".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), order="C", copy=False).tobytes())
    return digest.hexdigest()
