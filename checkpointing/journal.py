"""A file of one JSON object a line that survives being cut off in the middle of a line.

    metrics = Journal(path)
    metrics.rewind(lambda record: record["step"] <= 100)   # what a crash left beyond the checkpoint is redone
    metrics.append({"step": 200, "loss": 0.5})

Reading drops what is no whole record; appending never rewrites what is there.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from checkpointing import durable

Record = dict[str, Any]


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

    def records(self) -> list[Record]:
        """The whole records, in order."""
        if not self.path.exists():
            return []
        found = [_parsed(line) for line in self.path.read_bytes().split(b"\n")]
        return [record for record in found if record is not None and self._is_whole(record)]

    def rewind(self, keep: Callable[[Record], bool] = lambda _: True, add: Sequence[Record] = ()) -> list[Record]:
        """Drops lines cut short and the records that `keep` refuses, and adds others, in one atomic step.

        Returns:
          The whole records that were dropped.
        """
        records = self.records()
        kept = [record for record in records if keep(record)]
        content = b"".join(_line(record) for record in [*kept, *add])
        if self.path.exists() and self.path.read_bytes() != content:
            durable.replace(self.path, content)
        return [record for record in records if not keep(record)]

    def append(self, record: Record) -> None:
        """Adds a record, as durable.append."""
        durable.append(self.path, _line(record))

    def sync(self) -> None:
        """Waits until all records are on the disk."""
        if self.path.exists():
            durable.sync(self.path)


def _line(record: Record) -> bytes:
    return json.dumps(record).encode() + b"\n"


def _parsed(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # bytes that are no JSON, or no UTF-8
        return None
    return record if isinstance(record, dict) else None
