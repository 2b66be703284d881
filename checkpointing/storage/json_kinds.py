"""Validate the fields of JSON records read from disk.

A matching hash shows that a record has not changed since it was written, not that its values are valid.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

_MAX_NUMBER = 2**63  # larger than any number that this package writes
_MAX_SHOWN = 60
_MAX_NAME_BYTES = 255  # on the file systems of Linux and macOS


# A test of a value, and the description of what passes it.
Kind = tuple[Callable[[object], bool], str]


def check_kinds(record: Mapping[str, object], kinds: Mapping[str, Kind]) -> None:
    """Check that a record has each of these fields, with a valid value.

    Raises:
      ValueError: names the first missing or invalid field.
    """
    for name, (is_valid, description) in kinds.items():
        if name not in record:
            raise ValueError(f"{name}: expected {description}, got nothing")
        if not is_valid(record[name]):
            raise ValueError(f"{name}: expected {description}, got {shown(record[name])}")


def is_count(value: object) -> bool:
    """Whether a value is 0 or a positive integer, and not a bool."""
    return type(value) is int and 0 <= value < _MAX_NUMBER


def is_finite(value: object) -> bool:
    """Whether a value is a finite number. Python's JSON reader accepts NaN and Infinity."""
    if type(value) is int:
        return -_MAX_NUMBER < value < _MAX_NUMBER
    return type(value) is float and math.isfinite(value)


def is_path(value: object) -> bool:
    """Whether a value is a string that can be a path."""
    try:
        return isinstance(value, str) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def are_texts(value: object) -> bool:
    """Whether a value is an object whose values are strings."""
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())


def are_files(value: object) -> bool:
    """Whether a value is like `manifest.describe_files`' result, without a path that leads out of the directory."""
    return isinstance(value, dict) and all(_is_below(name) and _is_file(file) for name, file in value.items())


def _is_below(name: str) -> bool:
    if "/" not in name:  # all names in a checkpoint's manifest
        return name not in {"", ".", ".."} and "\0" not in name
    path = PurePosixPath(name)
    short = all(len(os.fsencode(part)) <= _MAX_NAME_BYTES for part in path.parts) if is_path(name) else False
    return short and bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _is_file(value: object) -> bool:
    if not (isinstance(value, Mapping) and set(value) == {"bytes", "sha256"}):
        return False
    return is_count(value["bytes"]) and isinstance(value["sha256"], str)


def shown(value: object) -> str:
    """Return a value as JSON for a message, cut off after 60 characters."""
    text = json.dumps(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


COUNT: Kind = (is_count, "0 or a positive integer")
TEXT: Kind = (lambda value: isinstance(value, str), "a string")
PATH: Kind = (is_path, "a path")
TEXT_OR_NULL: Kind = (lambda value: value is None or isinstance(value, str), "a string or null")
FILES: Kind = (are_files, "bytes and sha256 by name of file in the directory")
