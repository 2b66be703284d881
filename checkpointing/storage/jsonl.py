"""JSON Lines files (one JSON object per line) that survive a crash.

    metrics = Journal(path)
    metrics.rewind(lambda record: record["step"] <= 100)   # the steps after the restored checkpoint are run again
    metrics.append({"step": 200, "loss": 0.5})

Reading skips lines that are incomplete or damaged. Appending never rewrites earlier lines. The file is read line by
line, so memory use does not grow with its size.
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
from checkpointing.storage import durable, regular_file

Record = dict[str, Any]

_MAX_LINE_BYTES = 2**20  # a record has a few hundred
_MAX_FILE_BYTES = 2**32  # twenty million logged steps
_CHUNK = 2**16

_log = logging.getLogger(__name__)


class Journal:
    """A JSON Lines file of records."""

    def __init__(self, path: Path, is_valid: Callable[[Record], bool] = lambda _: True) -> None:
        """The file is made by the first append.

        Args:
          path: the file.
          is_valid: whether an object is a record of this file; others are treated as damaged lines.
        """
        self.path = path
        self._is_valid = is_valid

    def __iter__(self) -> Iterator[Record]:
        """Yield the valid records in order; none if the file is missing.

        Raises:
          OSError: the file cannot be read, is not a regular file, or is too large.
        """
        with suppress(FileNotFoundError), self._open() as file:
            for _, line in _lines(file):
                record = self._parse(line)
                if record is not None:
                    yield record

    def _open(self) -> BufferedReader:
        file = regular_file.open_to_read(self.path)
        size = os.fstat(file.fileno()).st_size
        if size > _MAX_FILE_BYTES:
            file.close()
            raise OddFileError(self.path, f"expected at most {_MAX_FILE_BYTES:,} bytes, got {size:,}")
        return file

    def records(self) -> list[Record]:
        """Return all valid records."""
        return list(self)

    def last(self) -> Record | None:
        """Return the last valid record, or None. Only the end of the file is read.

        Raises:
          OSError: as for `__iter__`.
        """
        with suppress(FileNotFoundError), self._open() as file:
            for line in _lines_backwards(file):
                record = self._parse(line)
                if record is not None:
                    return record
        return None

    def rewind(self, keep: Callable[[Record], bool] = lambda _: True, add: Sequence[Record] = ()) -> Record | None:
        """Drop damaged lines and the records for which `keep` is false, and add others, in one atomic replacement.

        If nothing is dropped or added, nothing is written.

        Returns:
          The last record that was kept, or None.

        Raises:
          OSError: the file cannot be read or replaced; it is unchanged.
        """
        if not self.path.exists():
            if add:
                durable.atomic_write(self.path, b"".join(map(_line, add)))
            return None
        with self._open() as file:
            last, unchanged = self._skip_unchanged(file, keep)
            if unchanged == os.fstat(file.fileno()).st_size and not add:
                return last
            damaged = 0

            def chunks() -> Iterator[bytes]:
                nonlocal last, damaged
                yield from _head(file, unchanged)
                for _, line in _lines(file):
                    record = self._parse(line)
                    if record is not None and keep(record):
                        last = record
                        yield line.removesuffix(b"\n") + b"\n"
                    elif record is None and line.endswith(b"\n"):  # an incomplete last line is normal after a crash
                        damaged += 1
                yield from map(_line, add)

            durable.atomic_write_chunks(self.path, chunks())
        if damaged:
            _log.warning("%s: %d damaged line%s dropped", self.path, damaged, "s" * (damaged != 1))
        return last

    def _skip_unchanged(self, file: BufferedReader, keep: Callable[[Record], bool]) -> tuple[Record | None, int]:
        """Read up to the first line to change; return the record before it and its byte offset."""
        last, offset = None, 0
        for size, line in _lines(file):
            record = self._parse(line)
            if record is None or not line.endswith(b"\n") or not keep(record):
                break
            last, offset = record, offset + size
        return last, offset

    def append(self, record: Record) -> None:
        """Append a record, as `durable.append`."""
        durable.append(self.path, _line(record))

    def sync(self) -> None:
        """Wait until all records are on the disk."""
        if self.path.exists():
            durable.fsync(self.path)

    def _parse(self, line: bytes) -> Record | None:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # not JSON, or not UTF-8
            return None
        return record if isinstance(record, dict) and self._is_valid(record) else None


def _line(record: Record) -> bytes:
    return json.dumps(record).encode() + b"\n"


def _lines(file: BufferedReader) -> Iterator[tuple[int, bytes]]:
    """Yield the length of each line and the line, from the current position; of a too long line its last byte."""
    while line := file.readline(_MAX_LINE_BYTES):
        size = len(line)
        while size >= _MAX_LINE_BYTES and line and not line.endswith(b"\n"):
            line = file.readline(_MAX_LINE_BYTES)
            size += len(line)
        yield size, line if size <= _MAX_LINE_BYTES else line[-1:]


def _lines_backwards(file: BufferedReader) -> Iterator[bytes]:
    """Yield the lines from the last to the first; those too long for a record are left out."""
    begin, rest = file.seek(0, os.SEEK_END), b""
    while begin:
        end, begin = begin, max(0, begin - _CHUNK)
        file.seek(begin)
        rest, *lines = (file.read(end - begin) + rest).split(b"\n")
        yield from (line for line in reversed(lines) if len(line) <= _MAX_LINE_BYTES)
        rest = rest[-_MAX_LINE_BYTES - 1 :]  # already too long; the whole line need not be kept
    if len(rest) <= _MAX_LINE_BYTES:
        yield rest


def _head(file: BufferedReader, size: int) -> Iterator[bytes]:
    """Yield the first `size` bytes of a file in chunks, and leave the position after them."""
    file.seek(0)
    while size and (chunk := file.read(min(size, _CHUNK))):
        size -= len(chunk)
        yield chunk
