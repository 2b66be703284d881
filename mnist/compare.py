"""Runs side by side: what each of them reached, and in which settings they differ.

    python -m mnist.compare RUN RUN... [--json]

A RUN is a train_dir, of a run that has ended or that is still going on. Settings that are the same everywhere are left
out. Nothing is written, and TensorFlow is not needed.
Exit status: 0 done; 1 an error, in one sentence; 2 wrong usage.
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

_HASH = 12


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what the command line says; gives the exit status."""
    given = _parser().parse_args(arguments)
    return cli.run_tool(lambda: _compare(given), debug=given.debug)


def _compare(given: argparse.Namespace) -> int:
    runs = {str(directory): described(directory) for directory in given.runs}
    print(json.dumps(runs, indent=2) if given.json else _table(runs))
    return cli.OK


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("python -m mnist.compare", __doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a train_dir")
    parser.add_argument("--json", action="store_true", help="one object, for programs")
    return parser


def described(train_dir: Path) -> Record:
    """What is known of a run.

    Returns:
      step, and whatever of these there is: validation_accuracy and loss, as last recorded; test_accuracy,
      images_per_second and weights_sha256, where it has ended; seconds, of all attempts; restarts; machine; settings.

    Raises:
      CheckpointError: there is no complete checkpoint of one of this project's runs. ResultError: its result.json is
        damaged.
    """
    _, recorded = lookup.newest_of_run(train_dir)
    ended = train_dir / layout.RESULT
    told = results.read(ended) if ended.exists() else {}
    attempts = history.read(train_dir)
    metrics = history.metrics(train_dir)
    last: Record = {name: each[name] for each in metrics for name in ("loss", "validation_accuracy") if name in each}
    of_the_end = ("test_accuracy", "images_per_second", "weights_sha256", "machine")
    return {
        "step": recorded.step,
        **last,
        **{name: told[name] for name in of_the_end if told.get("step") == recorded.step and name in told},
        "seconds": round(sum(each["seconds"].get("total", 0.0) for each in attempts), 1),
        "restarts": max(0, len(attempts) - 1),
        "settings": recorded.settings,
    }


def _table(runs: dict[str, Record]) -> str:
    """A column a run; first what they reached, then in what they differ."""
    names = list(dict.fromkeys(name for run in runs.values() for name in run if name != "settings"))
    rows = [[name, *(_shown(run.get(name)) for run in runs.values())] for name in names]
    settings = [run["settings"] for run in runs.values()]
    for name in dict.fromkeys(name for each in settings for name in each):
        values = [each.get(name) for each in settings]
        if any(value != values[0] for value in values):
            rows.append([name, *map(_shown, values)])
    return str(tabulate(rows, headers=["", *runs], disable_numparse=True))


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.1f}" if value >= 100 else f"{value:.4g}"  # noqa: PLR2004 - then no digits behind matter
    text = str(value)
    return text[:_HASH] if len(text) == 64 else text  # noqa: PLR2004 - the digits of a sha256


if __name__ == "__main__":
    sys.exit(main())
