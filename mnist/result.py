"""What programs read when a run has ended: `result.json`."""

import json
import os
import platform
from pathlib import Path
from typing import Any

from mnist.errors import ResultError
from mnist.stopwatch import Stopwatch

# What every run tells.
NAMES = {
    *("config", "seed", "step", "train_images", "validation_accuracy", "test_accuracy", "weights_sha256"),
    *("checkpoint", "export_dir", "resumed_from", "images_per_second", "seconds", "steps_redone", "restarts"),
    *("versions", "machine"),
}
_TIMED = ("import", "data", "restore", "train", "save_stall", "evaluate", "export")


def seconds(stopwatch: Stopwatch) -> dict[str, float]:
    """Where the time of this attempt went, in seconds; what never happened took 0."""
    spent = {name: stopwatch.seconds[name] for name in _TIMED} | {"total": stopwatch.total()}
    return {name: round(value, 4) for name, value in spent.items()}


def read(path: Path) -> dict[str, Any]:
    """What a run said that has ended.

    Raises:
      ResultError: the file holds nothing that a run writes.
    """
    what_to_do = "delete it, and run the same training command again: a run that has ended only evaluates"
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ResultError(f"{path}: no JSON found ({error}); {what_to_do}.") from error
    if not isinstance(record, dict) or not record.keys() >= NAMES:
        raise ResultError(f"{path}: no whole result of a run found; {what_to_do}.")
    return record


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
