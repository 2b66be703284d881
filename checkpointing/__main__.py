"""What a train_dir tells, and what can be done with its checkpoints, from the command line.

    python -m checkpointing history DIR          the attempts of a run, and how much of their time was useful
    python -m checkpointing pin PREFIX...        keep these checkpoints, whatever rotation says
    python -m checkpointing unpin PREFIX...      leave them to rotation again

Exit status: 0 done; 1 an error, in one sentence; 2 wrong usage. TensorFlow is not needed.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from checkpointing import durable, history, layout
from checkpointing.errors import CheckpointError, reason


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what the command line says; gives the exit status."""
    parser = argparse.ArgumentParser("python -m checkpointing", description=(__doc__ or "").split("\n", 1)[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    tell = commands.add_parser("history", help="the attempts of a run, and how much of their time was useful")
    tell.add_argument("directory", type=Path, metavar="DIR", help="a train_dir")
    tell.add_argument("--json", action="store_true", help="one object, for programs")
    tell.set_defaults(do=lambda given: show_history(given.directory, as_json=given.json))
    for name, action, meaning in (
        ("pin", pin, "keep these checkpoints, whatever rotation says"),
        ("unpin", unpin, "leave them to rotation again"),
    ):
        command = commands.add_parser(name, help=meaning)
        command.add_argument("prefixes", type=Path, nargs="+", metavar="PREFIX", help="as in DIR/model.ckpt-100")
        command.set_defaults(do=lambda given, action=action: [action(prefix) for prefix in given.prefixes])
    given = parser.parse_args(arguments)
    try:
        given.do(given)
    except (CheckpointError, OSError) as error:
        print(f"error: {error if isinstance(error, CheckpointError) else reason(error)}", file=sys.stderr)
        return 1
    return 0


def pin(prefix: Path) -> None:
    """Marks a checkpoint as one to keep.

    Raises:
      CheckpointError: there is no such checkpoint, or rotation was faster.
    """
    _check_is_ours(prefix)
    durable.write(layout.pinned_path(prefix), b"")
    durable.sync(prefix.parent)
    try:
        _check_is_ours(prefix)
    except CheckpointError:
        durable.delete([layout.pinned_path(prefix)])
        raise


def unpin(prefix: Path) -> None:
    """Takes the mark away; the run that owns the train_dir rotates the checkpoint when it saves the next one.

    Raises:
      CheckpointError: there is no such checkpoint.
    """
    _check_is_ours(prefix)
    durable.delete([layout.pinned_path(prefix)])


def _check_is_ours(prefix: Path) -> None:
    going = layout.incomplete_path(prefix).exists()  # being deleted by the run
    if layout.step_of(prefix.name + ".index") is not None and layout.manifest_path(prefix).exists() and not going:
        return
    there = layout.steps_with(prefix.parent, "manifest.json") if prefix.parent.is_dir() else []
    listed = ", ".join(layout.prefix(prefix.parent, step).name for step in there) or "none"
    message = f"{prefix}: no checkpoint of this program's found; in {prefix.parent} there are {listed}."
    raise CheckpointError(message)


def show_history(directory: Path, *, as_json: bool) -> None:
    """Prints a run's attempts, one a line, and what they add up to."""
    attempts = history.read(directory)
    if not attempts:
        raise CheckpointError(f"{directory}: no {layout.HISTORY} found; give the train_dir of a run.")
    summary = history.summary(attempts)
    if as_json:
        print(json.dumps({"attempts": attempts, **summary}, indent=2))
        return
    rows = [
        {
            "started": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(attempt["started_at"])),
            "resumed from": attempt["resumed_from"] or "-",
            "to step": attempt["to_step"],
            "done": attempt["steps_done"],
            "redone": attempt["steps_redone"],
            **{name: attempt["seconds"].get(name, 0.0) for name in ("train", "saving", "stalled", "restoring")},
            "ended": attempt["ended"] or "under way",
        }
        for attempt in attempts
    ]
    print(tabulate(rows, headers="keys", floatfmt=",.2f"))
    share = summary["useful_share"]
    useful = "" if share is None else f": {share:.1%} of {summary['seconds']:,.1f} s was useful work"
    print(f"{len(attempts)} attempts, {summary['steps_redone']} steps made twice{useful}")


if __name__ == "__main__":
    sys.exit(main())
