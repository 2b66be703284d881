"""The commands that read a directory of checkpoints: list, verify, history, watch. They change nothing."""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from checkpointing.errors import CheckpointError
from checkpointing.protocol import lookup, verification
from checkpointing.runs import history
from checkpointing.storage import layout, lock
from checkpointing.tools import inspection
from checkpointing.tools.inspection import CheckpointInfo
from checkpointing.tools.output import CommandResult, ago, counted, figure, moment, size, table

_SHORTEST, _LONGEST = 0.1, 3600.0  # seconds between two screens of `watch`


def list_checkpoints(args: argparse.Namespace) -> CommandResult:
    """List a directory's checkpoints: age, size, completeness, score, and why each is kept."""
    is_model = lookup.is_saved_model(args.directory)
    listed = inspection.list_checkpoints(args.directory / "variables" if is_model else args.directory)
    if not (listed and is_model):
        lookup.resolve_checkpoint(args.directory)  # if there is none, the error says what is there instead
    record = [each._asdict() | {"prefix": each.prefix.name} for each in listed]
    problems = [each.problem for each in listed if each.problem]
    damaged = any(each.problem and not each.unfinished for each in listed)
    return CommandResult(record, "\n".join([_table_of(listed), *problems]), status=1 if damaged else 0)


def _table_of(listed: list[CheckpointInfo]) -> str:
    now = time.time()
    return table(
        {
            "checkpoint": each.prefix.name,
            "step": each.step,
            "saved": ago(each.saved_at, now),
            "size": size(each.bytes),
            "complete": _completeness(each),
            "score": "" if each.score is None else f"{each.score:.4f}",
            "why kept": each.why_kept,
        }
        for each in listed
    )


def _completeness(checkpoint: CheckpointInfo) -> str:
    if checkpoint.complete is None:
        return "unknown" if checkpoint.problem else "not verified"
    return "yes" if checkpoint.complete else "no"


def verify(args: argparse.Namespace) -> CommandResult:
    """Read every byte of a checkpoint, of a directory's newest, or with --all of each."""
    if args.all and not args.path.is_dir():
        raise CheckpointError(f"{args.path}: expected a directory with --all, got a prefix")
    verified = _verify_all(args.path) if args.all else [_verify_one(args.path)]
    text = table(
        {"checkpoint": each["name"], "result": each["problem"] or f"complete: {each['compared_with']}"}
        for each in verified
    )
    damaged = [each for each in verified if each["problem"]]
    return CommandResult(verified, text, status=1 if damaged else 0)


def _verify_all(directory: Path) -> list[dict[str, Any]]:
    if lookup.is_saved_model(directory):
        return [_verify_one(directory)]
    verified = inspection.verify_all(directory)
    if not verified:
        return [_verify_one(directory)]
    return [
        {"name": prefix.name, "problem": problem, "compared_with": compared_with}
        for prefix, compared_with, problem in verified
    ]


def _verify_one(path: Path) -> dict[str, Any]:
    """Verify a SavedModel or a checkpoint; of a directory the newest, or its successor if it is deleted meanwhile."""
    if lookup.is_saved_model(path):
        return _result_of(path, verification.verify_saved_model)
    prefix = lookup.resolve_checkpoint(path)
    for _ in range(verification.ATTEMPTS - 1):
        result = _result_of(prefix, verification.verify)
        if result["problem"] is None or (newer := lookup.resolve_checkpoint(path)) == prefix:
            return result
        prefix = newer
    return _result_of(prefix, verification.verify)


def _result_of(path: Path, check: Callable[[Path], str]) -> dict[str, Any]:
    try:
        return {"name": path.name, "problem": None, "compared_with": check(path)}
    except CheckpointError as error:
        return {"name": path.name, "problem": str(error), "compared_with": None}


def show_history(args: argparse.Namespace) -> CommandResult:
    """List a run's attempts, and how much of their time was useful work."""
    attempts = history.read(args.directory)
    if not attempts:
        raise CheckpointError(f"{args.directory}: no {layout.HISTORY} found", hint="use the train_dir of a run")
    summary = history.summary(attempts)
    rows = (
        {
            "started": moment(attempt["started_at"]),
            "resumed from": attempt["resumed_from"] or "-",
            "to step": attempt["to_step"],
            "done": attempt["steps_done"],
            "redone": attempt["steps_redone"],
            **{name: attempt["seconds"].get(name, 0.0) for name in ("train", "saving", "stalled", "restoring")},
            "ended": _in_words(_state(args.directory, attempt)),
        }
        for attempt in attempts
    )
    share = summary["useful_share"]
    useful = "" if share is None else f": {share:.1%} of {summary['seconds']:,.1f} s was useful work"
    end = f"{counted(len(attempts), 'attempt')}, {counted(summary['steps_redone'], 'step')} redone{useful}"
    text = table(rows, floatfmt=",.2f", disable_numparse=False)
    return CommandResult({"attempts": attempts, **summary}, f"{text}\n{end}")


def watch(args: argparse.Namespace) -> CommandResult:
    """Show a run's state: on a terminal again and again until Ctrl-C, otherwise once."""
    if args.json or not sys.stdout.isatty():
        return _status(args.directory)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start background jobs with SIGINT ignored
    try:
        while True:
            text = _status(args.directory).text
            sys.stdout.write(f"\x1b[H\x1b[J{text}\n")  # from the upper left corner, on a cleared screen
            sys.stdout.flush()
            time.sleep(min(max(_SHORTEST, args.seconds), _LONGEST))
    except KeyboardInterrupt:
        return CommandResult(None, "")


def _status(directory: Path) -> CommandResult:
    """A run's state, from its files; takes no lock and reads no tensor."""
    listed = inspection.list_checkpoints(directory, check=False)
    attempts = history.read(directory)
    attempt = attempts[-1] if attempts else None
    newest = history.metrics(directory).last()
    record = {
        "state": _state(directory, attempt),
        "attempt": attempt,
        "attempts": len(attempts),
        "newest_record": newest,
        "checkpoints": [each._asdict() | {"prefix": each.prefix.name} for each in listed],
    }
    lines = [f"{directory}: {_in_words(_state(directory, attempt))}"]
    if attempt:
        age = ago(attempt["last_seen_at"], time.time())
        lines.append(f"step {attempt['to_step']}, seen {age}, attempt {len(attempts)}")
    if newest:
        lines.append("  ".join(f"{name} {figure(value)}" for name, value in newest.items()))
    return CommandResult(record, "\n".join([*lines, "", _table_of(listed)]))


def _state(directory: Path, attempt: Mapping[str, Any] | None) -> str:
    """How an attempt ended; of one without an end, whether its process still holds the lock."""
    if attempt is None:
        return "no attempt has been noted yet"
    if attempt["ended"]:
        return str(attempt["ended"])
    return "under way" if lock.owner_lives(directory) else "killed"


def _in_words(state: str) -> str:
    """A state as the text output has it; the records of `--json` keep the values of earlier releases."""
    return {"under way": "running", "no attempt has been noted yet": "no attempt recorded yet"}.get(state, state)
