"""Results of a replay as text, as JSON, and as an error if some bits differ."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from checkpointing.errors import CheckpointError, listed
from trainer.replay import conditions
from trainer.replay.conditions import Here
from trainer.replay.plan import Segment

Record = dict[str, Any]

_MOST_SHOWN = 10  # variables of a segment, as text


def segment_text(record: Record) -> str:
    """Return the record of a segment as text: one line, and one for each variable that differs."""
    name = _name(record)
    if "error" in record:
        return f"{name}: not replayed: {record['error']}"
    if record["bit_for_bit"]:
        return f"{name}: {record['steps']:,} steps, bit for bit"
    differing = record["differing"]
    lines = [f"{name}: {record['steps']:,} steps, {len(differing)} of {record['variables']} variables differ"]
    lines += [f"  {variable_text(each)}" for each in differing[:_MOST_SHOWN]]
    if len(differing) > _MOST_SHOWN:
        lines.append(f"  and {len(differing) - _MOST_SHOWN} more: --json lists all")
    return "\n".join(lines)


def variable_text(record: Record) -> str:
    """Return the record of a variable that differs (comparison.py) as a line of text."""
    if "problem" in record:
        return f"{record['variable']}: {record['problem']}"
    parts = [f"{record['different']:,} of {record['elements']:,} elements"]
    largest = record["largest_difference"]
    if largest == 0:
        parts.append("equal values, other bits")
    elif largest is not None:
        parts.append(f"largest absolute difference {largest:.3g}")
    if record["not_finite"]:
        parts.append(f"{record['not_finite']:,} with NaN or infinity")
    return f"{record['variable']}, {record['dtype']} {record['shape']}: {', '.join(parts)}"


def _name(record: Record) -> str:
    end = Path(record["end"])
    if record["start"] is None:
        return f"step {record['from']} -> {end.name}"
    start = Path(record["start"])
    return f"{start.name if start.parent == end.parent else start} -> {end.name}"


def summary(records: Sequence[Record], seconds: float) -> str:
    """Return the last line of a replay in which all bits are equal."""
    steps = sum(record["steps"] for record in records)
    count = f"{len(records)} segments" if len(records) > 1 else "1 segment"
    return f"proved: {count}, {steps:,} steps, every bit of every variable ({seconds:.1f} s)"


def as_record(train_dir: Path, records: Sequence[Record], differences: Sequence[str], seconds: float) -> Record:
    """Return the object for --json. other_conditions: what --anyway has let pass."""
    return {
        "train_dir": str(train_dir),
        "proved": all(record["bit_for_bit"] for record in records),
        "other_conditions": list(differences),
        "segments": list(records),
        "seconds": round(seconds, 3),
    }


def problem(
    train_dir: Path, segments: Sequence[Segment], records: Sequence[Record], differences: Sequence[str], here: Here
) -> CheckpointError | None:
    """Return an error if some bits differ, or a segment could not be replayed; None if all are equal.

    Its hint names other reasons than a wrong checkpoint.
    """
    failed = {record["to"]: record for record in records if not record["bit_for_bit"]}
    if not failed:
        return None
    named = listed(_name(record) for record in failed.values())
    reasons = [_reason(each, here) for each in segments if each.saved.step in failed]
    hint = "the replay's conditions are not the run's: see the warnings" if differences else None
    message = f"{train_dir}: {len(failed)} of {len(records)} segments not proved: {named}"
    return CheckpointError(message, hint=hint or next(filter(None, reasons), None))


def _reason(segment: Segment, here: Here) -> str | None:
    """Return what may have made a difference, although the conditions that are compared are the same."""
    changes = conditions.changes_within(segment.start.saved, segment.saved)
    if changes:
        return f"{segment}: the run was resumed within these steps, with another {listed(changes)}"
    before, now = (each.get("processor") for each in (segment.saved.environment or {}, here.environment))
    if before != now:
        return f"{segment}: was made on {before}, replayed on {now}"
    return None
