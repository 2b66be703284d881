"""Results of commands, and their formatting as text and as JSON."""

import json
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate


class CommandResult(NamedTuple):
    """What a command found or did.

    record: JSON-ready, printed with `--json`.
    text: the same as text, printed otherwise.
    status: the exit status: 0, or 1 if something is damaged or different.
    """

    record: Any
    text: str
    status: int = 0


def table(rows: Iterable[Mapping[str, Any]], **options: Any) -> str:  # noqa: ANN401 - tabulate's own options
    """Rows as a table with their keys as headers; numbers that are strings stay as they are."""
    return str(tabulate(list(rows), headers="keys", **{"disable_numparse": True, **options}))


def figure(value: object) -> object:
    """A table's cell: floats with four significant digits, None as nothing."""
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else value


def size(number: float) -> str:
    """A number of bytes with three significant digits and a unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:  # noqa: PLR2004 - larger numbers round to four digits
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.3g} TB"


def counted(number: int, noun: str) -> str:
    """A number with a noun in singular or plural."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def ago(then: float, now: float) -> str:
    """The age of a time in one unit; both in seconds since 1970. Times in the future count as now."""
    seconds = max(0.0, now - then)
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def moment(then: float) -> str:
    """A time in seconds since 1970 as local date and time; times outside the calendar stay seconds."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(then))
    except (OverflowError, ValueError, OSError):
        return f"{then:.0f} s after 1970"


def as_json(record: object) -> str:
    """A record as JSON; numbers that are not finite become null, because JSON has none."""
    return json.dumps(_plain(record), indent=2, allow_nan=False)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
