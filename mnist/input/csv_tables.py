"""Read MNIST as CSV: a table for training and one for the test, a row an image.

    label,pixel0,pixel1,...,pixel783
    7,0,0,...,0

The label comes first, then the 784 pixels, row by row, 0 to 255. The header is optional.
"""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mnist.errors import DataError
from mnist.input import file_kinds, regular_file
from mnist.input.idx import Bytes
from mnist.input.splits import IMAGE_SHAPE, Split, checked

# The tables for training and for the test, in order of precedence. Tables of two pairs are never combined: Kaggle's
# train.csv holds some of the test images of mnist_test.csv.
PAIRS = (
    ("mnist_train.csv", "mnist_test.csv"),
    ("fashion-mnist_train.csv", "fashion-mnist_test.csv"),
    ("train.csv", "test.csv"),
)

_PIXELS = IMAGE_SHAPE[0] * IMAGE_SHAPE[1]
_COLUMNS = 1 + _PIXELS
_MAX_LINE_BYTES = 16 * _COLUMNS
_ROWS_AT_ONCE = 2000
_NUMBER = re.compile(r"\s*\+?\d{1,20}\s*", re.ASCII)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_NO_LABELS_HINT = (
    "give tables with labels, such as mnist_train.csv and mnist_test.csv, or leave out --data_dir for MNIST"
)


def find(directory: Path) -> tuple[Path, Path] | None:
    """Return the two tables in a directory, or None if there is none.

    Raises:
      DataError: one of the two is missing.
    """
    pairs = [(directory / train, directory / test) for train, test in PAIRS]
    for train, test in pairs:
        if train.is_file() and test.is_file():
            return train, test
    for pair in pairs:
        for path, missing in (pair, pair[::-1]):
            if path.is_file():
                raise DataError(f"{missing}: not found; expected the tables of both splits, got {path.name} only")
    return None


def read(train: Path, test: Path) -> tuple[Split, Split]:
    """Read the two tables.

    Raises:
      DataError: a table is damaged, or has no labels.
      OSError: a table cannot be opened.
    """
    return _read_table(train), _read_table(test)


def _read_table(path: Path) -> Split:
    with regular_file.open_to_read(path) as file:
        lines = _lines(path, file)
        blocks = []
        while block := list(islice(lines, _ROWS_AT_ONCE)):
            blocks.append(_parse(path, block))
    table = np.concatenate(blocks) if blocks else np.empty((0, _COLUMNS), np.uint8)
    images = np.ascontiguousarray(table[:, 1:]).reshape(-1, *IMAGE_SHAPE)
    return checked(Split(images, table[:, 0].copy()), str(path))


def _lines(path: Path, file: BinaryIO) -> Iterator[tuple[int, str]]:
    """Yield number and text of each row, without the header and blank lines.

    Raises:
      DataError: the first line is not that of such a table, or a line is too long.
    """
    for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE_BYTES + 1), b""), start=1):
        text = line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
        if number == 1 and _is_header(path, file, text):
            continue
        if len(line) > _MAX_LINE_BYTES:
            raise DataError(f"{path}, line {number}: expected at most {_MAX_LINE_BYTES:,} bytes, got more")
        if text.strip():
            yield number, text.decode(errors="backslashreplace")


def _is_header(path: Path, file: BinaryIO, line: bytes) -> bool:
    """Return whether the first line is a header; check that the label comes first."""
    names = [name.strip(" \"'\r\n").lower() for name in line.decode(errors="backslashreplace").split(",")]
    is_header = not _NUMBER.fullmatch(names[0])
    if len(names) == _COLUMNS and (names[0] == "label" or not is_header):
        return is_header
    if len(names) == _PIXELS and "label" not in names:
        raise DataError(
            f"{path}: expected a label and {_PIXELS} pixels in each row, got {_PIXELS} pixels without labels, "
            "as in the test.csv of Kaggle's digit recognizer",
            hint=_NO_LABELS_HINT,
        )
    if len(names) < 3:  # noqa: PLR2004 - no table
        file.seek(0)
        found = file_kinds.name(file.read(file_kinds.START_BYTES))
        raise DataError(f"{path}: expected a CSV table, got {found.name}", hint=found.hint)
    raise DataError(
        f"{path}, line 1: expected {_COLUMNS} columns, the label first, got {len(names)}, {names[0]!a:.20} first"
    )


def _parse(path: Path, block: list[tuple[int, str]]) -> Bytes:
    """Convert lines to uint8 [N, 785]."""
    try:
        rows = np.loadtxt([text for _, text in block], np.uint8, delimiter=",", comments=None, ndmin=2)
    except ValueError as error:
        raise _bad_line(path, block, str(error)) from error
    if rows.shape != (len(block), _COLUMNS):
        raise _bad_line(path, block, f"got an array of {list(rows.shape)}")
    return rows


def _bad_line(path: Path, block: list[tuple[int, str]], reason: str) -> DataError:
    """Return the error for the first line that is no row of numbers; NumPy's does not know the line of the file."""
    for number, text in block:
        values = text.split(",")
        if len(values) != _COLUMNS:
            return DataError(f"{path}, line {number}: expected {_COLUMNS} columns, got {len(values)}")
        for column, value in enumerate(values, start=1):
            if not _NUMBER.fullmatch(value) or int(value) > np.iinfo(np.uint8).max:
                message = f"{path}, line {number}, column {column}: expected a whole number from 0 to 255"
                return DataError(f"{message}, got {value.strip()!a:.20}")
    return DataError(f"{path}: the table cannot be read ({reason})")
