"""What a command answers, to people and to programs."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class CommandResult(NamedTuple):
    """What a command found or did.

    record: JSON-ready, for `--json`.
    text: the same for people.
    status: 0; or 1 where the question has a no for an answer: damaged, different.
    """

    record: Any
    text: str
    status: int = 0


def size(number: float) -> str:
    """So many bytes, in three figures."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:  # noqa: PLR2004 - the next unit has three figures, too
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.3g} TB"


def counted(number: int, what: str) -> str:
    """So many of these."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def ago(then: float, now: float) -> str:
    """How long ago that was, in seconds since 1970."""
    seconds = max(0.0, now - then)
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def moment(then: float) -> str:
    """A time of day, here, of seconds since 1970; in seconds where the calendar has no such day."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(then))
    except (OverflowError, ValueError, OSError):
        return f"{then:.0f} s after 1970"


def as_json(record: object) -> str:
    """A record for programs; numbers that are not finite become null, for JSON has none."""
    return json.dumps(_plain(record), indent=2, allow_nan=False)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
