"""A file of one JSON object a line that survives being cut off in the middle of a line.

    metrics = Journal(path)
    metrics.rewind(lambda record: record["step"] <= 100)   # what a crash left beyond the checkpoint is redone
    metrics.append({"step": 200, "loss": 0.5})

Reading drops what is no whole record; appending never rewrites what is there. The file is read a line at a time, so
memory does not grow with it.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from checkpointing.errors import OddFileError
from checkpointing.storage import durable

Record = dict[str, Any]

_MOST_BYTES_A_LINE = 2**20  # a record takes some hundred
_MOST_BYTES = 2**32  # of a file: a run of twenty million logged steps
_PIECE = 2**16

_log = logging.getLogger(__name__)


class Journal:
    """Appends records to a file; a line that a crash cut short is no record."""

    def __init__(self, path: Path, is_whole: Callable[[Record], bool] = lambda _: True) -> None:
        """The file is made by the first append.

        Args:
          path: the file.
          is_whole: whether an object is a record; one that a flipped bit has changed may not be.
        """
        self.path = path
        self._is_whole = is_whole

    def __iter__(self) -> Iterator[Record]:
        """The whole records, in order, one at a time.

        Raises:
          OSError: the file cannot be read, or is no regular file; a missing one has no records.
        """
        with suppress(FileNotFoundError), self._opened() as file:
            for _, line in _lines(file):
                record = self._parsed(line)
                if record is not None:
                    yield record

    def _opened(self) -> BufferedReader:
        file = durable.open_to_read(self.path)
        size = os.fstat(file.fileno()).st_size
        if size > _MOST_BYTES:
            file.close()
            raise OddFileError(self.path, f"expected at most {_MOST_BYTES:,} bytes, got {size:,}")
        return file

    def records(self) -> list[Record]:
        """All of them at once."""
        return list(self)

    def last(self) -> Record | None:
        """The last whole record; None where there is none. Only the end of the file is read.

        Raises:
          OSError: as for all records.
        """
        with suppress(FileNotFoundError), self._opened() as file:
            for line in _lines_backwards(file):
                record = self._parsed(line)
                if record is not None:
                    return record
        return None

    def rewind(self, keep: Callable[[Record], bool] = lambda _: True, add: Sequence[Record] = ()) -> Record | None:
        """Drops lines that are no records and the records that `keep` refuses, and adds others, in one atomic step.

        Where nothing is dropped or added, nothing is written.

        Returns:
          The last of the records that were there and stay; None where none does.

        Raises:
          OSError: the file cannot be read or replaced; it is as it was.
        """
        if not self.path.exists():
            if add:
                durable.atomic_write(self.path, b"".join(map(_line, add)))
            return None
        with self._opened() as file:
            last, unchanged = self._skip_unchanged(file, keep)
            if unchanged == os.fstat(file.fileno()).st_size and not add:
                return last
            damaged = 0

            def pieces() -> Iterator[bytes]:
                nonlocal last, damaged
                yield from _beginning(file, unchanged)
                for _, line in _lines(file):
                    record = self._parsed(line)
                    if record is not None and keep(record):
                        last = record
                        yield line.removesuffix(b"\n") + b"\n"
                    elif record is None and line.endswith(b"\n"):  # a crash cuts off the last line only
                        damaged += 1
                yield from map(_line, add)

            durable.atomic_write_pieces(self.path, pieces())
        if damaged:
            _log.warning("%s: %d damaged line%s dropped", self.path, damaged, "s" * (damaged != 1))
        return last

    def _skip_unchanged(self, file: BufferedReader, keep: Callable[[Record], bool]) -> tuple[Record | None, int]:
        """Reads up to the first line that does not stay as it is; gives the record before it, and where it begins."""
        last, offset = None, 0
        for size, line in _lines(file):
            record = self._parsed(line)
            if record is None or not line.endswith(b"\n") or not keep(record):
                break
            last, offset = record, offset + size
        return last, offset

    def append(self, record: Record) -> None:
        """Adds a record, as durable.append."""
        durable.append(self.path, _line(record))

    def sync(self) -> None:
        """Waits until all records are on the disk."""
        if self.path.exists():
            durable.fsync(self.path)

    def _parsed(self, line: bytes) -> Record | None:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # bytes that are no JSON, or no UTF-8
            return None
        return record if isinstance(record, dict) and self._is_whole(record) else None


def _line(record: Record) -> bytes:
    return json.dumps(record).encode() + b"\n"


def _lines(file: BufferedReader) -> Iterator[tuple[int, bytes]]:
    """From where the file is: the length of each line and the line; of one too long for a record, its end alone."""
    while line := file.readline(_MOST_BYTES_A_LINE):
        size = len(line)
        while size >= _MOST_BYTES_A_LINE and line and not line.endswith(b"\n"):
            line = file.readline(_MOST_BYTES_A_LINE)
            size += len(line)
        yield size, line if size <= _MOST_BYTES_A_LINE else line[-1:]


def _lines_backwards(file: BufferedReader) -> Iterator[bytes]:
    """The lines, the last one first; those too long for a record are left out."""
    begin, rest = file.seek(0, os.SEEK_END), b""
    while begin:
        end, begin = begin, max(0, begin - _PIECE)
        file.seek(begin)
        rest, *lines = (file.read(end - begin) + rest).split(b"\n")
        yield from (line for line in reversed(lines) if len(line) <= _MOST_BYTES_A_LINE)
        rest = rest[-_MOST_BYTES_A_LINE - 1 :]  # whatever comes before it, it stays too long
    if len(rest) <= _MOST_BYTES_A_LINE:
        yield rest


def _beginning(file: BufferedReader, size: int) -> Iterator[bytes]:
    """So many bytes of a file, a piece at a time; the file is left behind them."""
    file.seek(0)
    while size and (piece := file.read(min(size, _PIECE))):
        size -= len(piece)
        yield piece
