"""Of which kind a value read from a JSON file is: what a file says need not be what this package wrote.

A hash that is right says that nothing has changed since a record was written, not that the record is sound.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

_LARGEST = 2**63  # no number of ours is so large
_LONGEST_SHOWN = 60
_LONGEST_NAME = 255  # bytes, on the file systems of Linux and macOS


# A test of a value, and the words for what passes it.
Kind = tuple[Callable[[object], bool], str]


def check_kinds(record: Mapping[str, object], kinds: Mapping[str, Kind]) -> None:
    """Raises ValueError where a field is missing, or not of its kind; the message names it."""
    for name, (is_right, words) in kinds.items():
        if name not in record:
            raise ValueError(f"{name}: expected {words}, got nothing")
        if not is_right(record[name]):
            raise ValueError(f"{name}: expected {words}, got {shown(record[name])}")


def is_count(value: object) -> bool:
    """Whether it is 0 or a positive integer; true and false are not."""
    return type(value) is int and 0 <= value < _LARGEST


def is_finite(value: object) -> bool:
    """Whether it is a number; NaN and the infinities, which Python reads from JSON, are not."""
    if type(value) is int:
        return -_LARGEST < value < _LARGEST
    return type(value) is float and math.isfinite(value)


def is_path(value: object) -> bool:
    """Whether it is a string that can name a file."""
    try:
        return isinstance(value, str) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def are_texts(value: object) -> bool:
    """Whether it is an object whose values are strings."""
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())


def are_files(value: object) -> bool:
    """Whether it is what `manifest.describe_files` gives, with no name that leads out of the directory."""
    return isinstance(value, dict) and all(_is_below(name) and _is_file(file) for name, file in value.items())


def _is_below(name: str) -> bool:
    if "/" not in name:  # as all are in a manifest of a checkpoint
        return name not in {"", ".", ".."} and "\0" not in name
    path = PurePosixPath(name)
    short = all(len(os.fsencode(part)) <= _LONGEST_NAME for part in path.parts) if is_path(name) else False
    return short and bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _is_file(value: object) -> bool:
    if not (isinstance(value, Mapping) and set(value) == {"bytes", "sha256"}):
        return False
    return is_count(value["bytes"]) and isinstance(value["sha256"], str)


def shown(value: object) -> str:
    """A value for a message, no longer than a line."""
    text = json.dumps(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


COUNT: Kind = (is_count, "0 or a positive integer")
TEXT: Kind = (lambda value: isinstance(value, str), "a string")
PATH: Kind = (is_path, "a path")
TEXT_OR_NULL: Kind = (lambda value: value is None or isinstance(value, str), "a string or null")
FILES: Kind = (are_files, "sizes and hashes by the names of files in the directory")
