"""The outcome of a replay as text, as JSON, and as an error if some bits differ."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from checkpointing.errors import CheckpointError, UserError, listed
from checkpointing.storage import layout
from checkpointing.storage.jsonl import Record
from mnist.errors import ResultError
from mnist.reporting import results
from trainer.replay import conditions
from trainer.replay.conditions import Here
from trainer.replay.plan import Segment

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


class Outcome(NamedTuple):
    """A finished replay.

    records: of the segments (replayer.py), sorted by step, the last one of the newest checkpoint that was reached.
    differences: the conditions that are not the run's, which --anyway has let pass.
    recorded_weights: weights_sha256 in result.json, if that is of the same step.
    """

    train_dir: Path
    segments: Sequence[Segment]
    records: Sequence[Record]
    differences: Sequence[str]
    recorded_weights: str | None
    seconds: float

    @property
    def weights(self) -> str | None:
        """weights_sha256 of the last replayed state; None if it is not known."""
        return self.records[-1].get("weights_sha256")

    @property
    def is_proved(self) -> bool:
        """Whether every bit is equal, and result.json names these weights."""
        return all(each["bit_for_bit"] for each in self.records) and self.recorded_weights in {None, self.weights}


def recorded_weights(train_dir: Path, step: int) -> str | None:
    """Return weights_sha256 of result.json; None if there is no such file, or it is of another step.

    Raises:
      ResultError: it is damaged.
    """
    path = train_dir / layout.RESULT
    if not path.exists():
        return None
    record = results.read(path)
    return str(record["weights_sha256"]) if record["step"] == step else None


def summary(outcome: Outcome) -> str:
    """Return the last lines of a replay in which all bits are equal."""
    records = outcome.records
    steps = sum(record["steps"] for record in records)
    count = f"{len(records)} segments" if len(records) > 1 else "1 segment"
    source = ", as in result.json" if outcome.recorded_weights else ""
    return (
        f"proved: {count}, {steps:,} steps, every bit of every variable ({outcome.seconds:.1f} s)\n"
        f"weights sha256 of {Path(records[-1]['end']).name}: {outcome.weights}{source}"
    )


def as_record(outcome: Outcome) -> Record:
    """Return the object for --json."""
    return {
        "train_dir": str(outcome.train_dir),
        "proved": outcome.is_proved,
        "other_conditions": list(outcome.differences),
        "weights_sha256": outcome.weights,
        "recorded_weights_sha256": outcome.recorded_weights,
        "settings": outcome.segments[-1].saved.settings,
        "segments": list(outcome.records),
        "seconds": round(outcome.seconds, 3),
    }


def problem(outcome: Outcome, here: Here) -> UserError | None:
    """Return an error if some bits differ, or a segment could not be replayed; None if all are equal.

    Its hint names other reasons than a wrong checkpoint.
    """
    if outcome.is_proved:
        return None
    failed = {record["to"]: record for record in outcome.records if not record["bit_for_bit"]}
    if not failed:
        path, weights = outcome.train_dir / layout.RESULT, outcome.recorded_weights
        return ResultError(f"{path}: expected the replayed weights_sha256 {outcome.weights}, got {weights}")
    named = listed(_name(record) for record in failed.values())
    reasons = [_reason(each, here) for each in outcome.segments if each.saved.step in failed]
    hint = "the replay's conditions are not the run's: see the warnings" if outcome.differences else None
    message = f"{outcome.train_dir}: {len(failed)} of {len(outcome.records)} segments not proved: {named}"
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
