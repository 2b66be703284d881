"""What programs read when a run has ended: `result.json`."""

import json
import os
import platform
from pathlib import Path
from types import NoneType
from typing import Any

from mnist.errors import ResultError
from mnist.input import regular_file
from mnist.training.stopwatch import Stopwatch

_MOST_BYTES = 1 << 20
_MOST = 10**18  # no step, seed or speed comes near

Types = dict[str, tuple[type, ...]]

_NUMBER = (int, float)
_OF_A_MEMBER: Types = {"seed": (int,), "test_accuracy": _NUMBER, "weights_sha256": (str,)}
# What every run writes, and of which types it may be.
_WRITTEN: Types = {
    **dict.fromkeys(("config", "weights_sha256", "checkpoint", "export_dir", "machine"), (str,)),
    **dict.fromkeys(("seed", "step", "train_images", "steps_redone", "restarts"), (int,)),
    **dict.fromkeys(("validation_accuracy", "images_per_second"), (*_NUMBER, NoneType)),
    "test_accuracy": _NUMBER,
    "resumed_from": (str, NoneType),
    "seconds": (dict,),
    "versions": (dict,),
}
NAMES = set(_WRITTEN)
_TIMED = ("import", "data", "restore", "train", "save_stall", "evaluate", "export")


def seconds(stopwatch: Stopwatch) -> dict[str, float]:
    """Where the time of this attempt went, in seconds; what never happened took 0."""
    spent = {name: stopwatch.seconds[name] for name in _TIMED} | {"total": stopwatch.total()}
    return {name: round(value, 4) for name, value in spent.items()}


def read(path: Path) -> dict[str, Any]:
    """What a run said that has ended.

    Raises:
      ResultError: the file holds nothing that a run writes.
      OSError: it cannot be read just now, which says nothing about what it holds.
    """
    what_to_do = "delete it, and run the same training command again: a run that has ended only evaluates"
    try:
        with regular_file.open_to_read(path) as file:
            size = regular_file.size(file)
            content = file.read(_MOST_BYTES) if 0 < size <= _MOST_BYTES else b""
    except OSError as error:
        if not regular_file.is_about_the_file(error):
            raise
        raise ResultError(f"{path}: {regular_file.problem(error, what_to_do)}.") from error
    if size > _MOST_BYTES:
        raise ResultError(f"{path}: expected at most {_MOST_BYTES:,} bytes, got {size:,}; {what_to_do}.")
    try:
        record: dict[str, Any] = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ResultError(f"{path}: expected JSON, got something else ({error}); {what_to_do}.") from error
    if not isinstance(record, dict) or not record.keys() >= NAMES:
        raise ResultError(f"{path}: expected the whole result of a run, got less; {what_to_do}.")
    problem = _problem(record)
    if problem:
        raise ResultError(f"{path}: {problem}; {what_to_do}.")
    return record


def _problem(record: dict[str, Any]) -> str | None:
    """What is not as a run writes it."""
    problem = _wrong_type(record, _WRITTEN)
    if problem:
        return problem
    seconds, members = record["seconds"], record.get("members", [])
    problem = _wrong_type(seconds, dict.fromkeys({"total", *seconds}, _NUMBER))
    if problem or not isinstance(members, list):
        return problem or f"expected a list as 'members', got {members!r:.50}"
    return next((problem for each in members if (problem := _wrong_type(each, _OF_A_MEMBER))), None)


def _wrong_type(record: object, types: Types) -> str | None:
    """The first value that is missing, of another type, or no finite number."""
    if not isinstance(record, dict):
        return f"expected an object, got {record!r:.50}"
    for name, expected in types.items():
        value = record.get(name)
        # A bool is an int to isinstance. Of NaN, no comparison is true.
        if type(value) not in expected or (isinstance(value, _NUMBER) and not -_MOST < value < _MOST):
            names = " or ".join(each.__name__ for each in expected)
            return f"expected {names} as {name!r}, got {value!r:.50}"
    return None


def machine() -> str:
    """The processor, its cores and the system, for whoever compares figures."""
    return f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def summary(result: dict[str, Any]) -> str:
    """What a person reads when a run has ended."""
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
