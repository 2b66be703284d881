"""The result of a run for programs: read and check `result.json`, and summarize it for people."""

import json
import os
import platform
from pathlib import Path
from types import NoneType
from typing import Any

from checkpointing import processor
from mnist.errors import ResultError
from mnist.input import regular_file
from mnist.training.stopwatch import Stopwatch

_MAX_BYTES = 1 << 20
_MAX_NUMBER = 10**18  # far above any step, seed or speed

Types = dict[str, tuple[type, ...]]

_NUMBER = (int, float)
_MEMBER_TYPES: Types = {"seed": (int,), "test_accuracy": _NUMBER, "weights_sha256": (str,)}
# The keys that every run writes.
_TYPES: Types = {
    **dict.fromkeys(("config", "weights_sha256", "checkpoint", "export_dir", "machine"), (str,)),
    **dict.fromkeys(("seed", "step", "train_images", "steps_redone", "restarts"), (int,)),
    **dict.fromkeys(("validation_accuracy", "images_per_second"), (*_NUMBER, NoneType)),
    "test_accuracy": _NUMBER,
    "resumed_from": (str, NoneType),
    "seconds": (dict,),
    "versions": (dict,),
}
NAMES = set(_TYPES)
_HINT = "delete it and run the same training command again: a finished run is only evaluated"
_TIMED = ("import", "data", "restore", "train", "save_stall", "evaluate", "export")


def seconds(stopwatch: Stopwatch) -> dict[str, float]:
    """Return the seconds that each part of this attempt took; 0 for parts that did not happen."""
    spent = {name: stopwatch.seconds[name] for name in _TIMED} | {"total": stopwatch.total()}
    return {name: round(value, 4) for name, value in spent.items()}


def read(path: Path) -> dict[str, Any]:
    """Read the result of a run, and check its types.

    Raises:
      ResultError: the file is not the result of a run.
      OSError: the file cannot be read now, for a reason that may pass.
    """
    try:
        with regular_file.open_to_read(path) as file:
            size = regular_file.size(file)
            content = file.read(_MAX_BYTES) if 0 < size <= _MAX_BYTES else b""
    except OSError as error:
        if not regular_file.is_about_the_file(error):
            raise
        raise regular_file.unreadable(ResultError, path, error, _HINT) from error
    if size > _MAX_BYTES:
        raise ResultError(f"{path}: expected at most {_MAX_BYTES:,} bytes, got {size:,}", hint=_HINT)
    try:
        record: dict[str, Any] = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ResultError(f"{path}: expected JSON, got something else ({error})", hint=_HINT) from error
    if not isinstance(record, dict) or not record.keys() >= NAMES:
        raise ResultError(f"{path}: expected the result of a run, but keys are missing", hint=_HINT)
    problem = _problem(record)
    if problem:
        raise ResultError(f"{path}: {problem}", hint=_HINT)
    return record


def _problem(record: dict[str, Any]) -> str | None:
    """Return the first value that no run writes."""
    problem = _wrong_type(record, _TYPES)
    if problem:
        return problem
    seconds, members = record["seconds"], record.get("members", [])
    problem = _wrong_type(seconds, dict.fromkeys({"total", *seconds}, _NUMBER))
    if problem or not isinstance(members, list):
        return problem or f"expected a list as 'members', got {members!r:.50}"
    return next((problem for each in members if (problem := _wrong_type(each, _MEMBER_TYPES))), None)


def _wrong_type(record: object, types: Types) -> str | None:
    """Return the first value that is missing, has another type, or is not a finite number."""
    if not isinstance(record, dict):
        return f"expected an object, got {record!r:.50}"
    for name, expected in types.items():
        value = record.get(name)
        # A bool is an int to isinstance. Of NaN, no comparison is true.
        if type(value) not in expected or (isinstance(value, _NUMBER) and not -_MAX_NUMBER < value < _MAX_NUMBER):
            names = " or ".join(each.__name__ for each in expected)
            return f"expected {names} as {name!r}, got {value!r:.50}"
    return None


def machine() -> str:
    """Return processor, number of cores and system: what speeds depend on."""
    return f"{processor.name()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def summary(result: dict[str, Any]) -> str:
    """Return the lines that a run prints at its end."""
    validation = result["validation_accuracy"]
    rate = result["images_per_second"]
    return "\n".join(
        [
            f"step                 {result['step']}",
            *([f"validation accuracy  {validation:.4f}"] if validation is not None else []),
            f"test accuracy        {result['test_accuracy']:.4f}",
            *([f"images/s             {rate:,.0f}"] if rate is not None else []),
            f"weights sha256       {result['weights_sha256']}",
            f"checkpoint           {result['checkpoint']}",
            f"exported model       {result['export_dir']}",
        ]
    )
