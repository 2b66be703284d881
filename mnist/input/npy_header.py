"""Read the header of a `.npy` array without trusting it."""

import io
import math
import sys
import textwrap
import tokenize
import warnings
from typing import IO, Any, NamedTuple

import numpy as np

MAGIC = b"\x93NUMPY"

_MAX_HEADER_BYTES = 16 << 10  # NumPy itself refuses more than 10,000
_MAX_REASON = 150  # characters of a message that come from the file

# What NumPy raises for a damaged header.
_HEADER_ERRORS = (
    *(ValueError, SyntaxError, EOFError, OverflowError, LookupError, TypeError, AttributeError),
    *(RecursionError, MemoryError, tokenize.TokenError),
)


class Header(NamedTuple):
    """What a header says about the array.

    data_offset: position of the data, from the beginning of the header.
    """

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]
    data_offset: int

    def __str__(self) -> str:
        """Format dtype and shape, as in "uint8 [10, 28, 28]"."""
        return textwrap.shorten(f"{self.dtype} {list(self.shape)}", _MAX_REASON)


def read(file: IO[bytes]) -> Header:
    """Read the header at the beginning of a file; the position in the file is then anywhere.

    Raises:
      ValueError: the header is damaged, or has dimensions that no array can have.
    """
    start = io.BytesIO(file.read(_MAX_HEADER_BYTES))  # for any length that the header claims
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        version = np.lib.format.read_magic(start)
        if version not in readers:
            raise ValueError(f"version {version[0]}.{version[1]} of the format")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's, about files that Python 2 wrote
            shape, fortran_order, dtype = readers[version](start)
    except _HEADER_ERRORS as error:
        raise ValueError(textwrap.shorten(str(error) or type(error).__name__, _MAX_REASON)) from error
    if math.prod(abs(size) or 1 for size in shape) > sys.maxsize:  # such numbers are too long to print
        raise ValueError("the dimensions in the header are too large")
    return Header(tuple(int(size) for size in shape), fortran_order, dtype, start.tell())
