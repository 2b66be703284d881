"""Compare runs: their results side by side, and the settings in which they differ.

    python -m mnist.compare RUN RUN... [--json]

A RUN is the train_dir of a finished run or of one in progress. Equal settings are left out. No file is written, and
TensorFlow is not needed.
Exit status: 0 done; 1 an error; 2 a usage error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from checkpointing import cli
from checkpointing.protocol import lookup
from checkpointing.runs import history
from checkpointing.storage import layout
from mnist.reporting import results

Record = dict[str, Any]

_HASH_DIGITS = 12  # of a sha256 in the table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = _parser().parse_args(arguments)
    return cli.run_tool(lambda: _compare(args), debug=args.debug)


def _compare(args: argparse.Namespace) -> int:
    runs = {str(directory): _summary(directory) for directory in args.runs}
    cli.print_result(json.dumps(runs, indent=2) if args.json else _table(runs))
    return cli.OK


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("python -m mnist.compare", __doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a train_dir")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _summary(train_dir: Path) -> Record:
    """Return what is recorded about a run.

    Returns:
      step, seconds of all attempts, restarts and settings; the last recorded validation_accuracy and loss, if any; of a
      finished run also test_accuracy, images_per_second, weights_sha256 and machine.

    Raises:
      CheckpointError: the directory has no complete checkpoint of a run.
      ResultError: its result.json is damaged.
    """
    _, manifest = lookup.newest_of_run(train_dir)
    path = train_dir / layout.RESULT
    result = results.read(path) if path.exists() else {}
    attempts = history.read(train_dir)
    metrics = history.metrics(train_dir)
    last: Record = {name: each[name] for each in metrics for name in ("loss", "validation_accuracy") if name in each}
    names = ("test_accuracy", "images_per_second", "weights_sha256", "machine")
    finished = result.get("step") == manifest.step
    return {
        "step": manifest.step,
        **last,
        **{name: result[name] for name in names if finished and name in result},
        "seconds": round(sum(each["seconds"].get("total", 0.0) for each in attempts), 1),
        "restarts": max(0, len(attempts) - 1),
        "settings": manifest.settings,
    }


def _table(runs: dict[str, Record]) -> str:
    """Return a table with a column for each run: results first, then the settings that differ."""
    names = list(dict.fromkeys(name for run in runs.values() for name in run if name != "settings"))
    rows = [[name, *(_cell(run.get(name)) for run in runs.values())] for name in names]
    settings = [run["settings"] for run in runs.values()]
    for name in dict.fromkeys(name for each in settings for name in each):
        values = [each.get(name) for each in settings]
        if any(value != values[0] for value in values):
            rows.append([name, *map(_cell, values)])
    return str(tabulate(rows, headers=["", *runs], disable_numparse=True))


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.1f}" if value >= 100 else f"{value:.4g}"  # noqa: PLR2004 - large numbers need no more digits
    text = str(value)
    return text[:_HASH_DIGITS] if len(text) == 64 else text  # noqa: PLR2004 - a sha256


if __name__ == "__main__":
    sys.exit(main())
