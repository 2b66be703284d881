"""Report measurements: medians and ratios as a table, a JSON file and a plot."""

import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from tabulate import tabulate

from checkpointing.protocol import manifest
from mnist.reporting import results

_MOST_PARTS = 8
DIRECTORY = Path(__file__).parent.parent / "runs" / "benchmarks"


def write(
    name: str,
    unit: str,
    rounds: Mapping[str, Sequence[float]],
    notes: Mapping[str, Any],
    parts: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Print a table of the peers, and write `runs/benchmarks/<name>.json` and `.png`.

    Args:
      name: name of the benchmark.
      unit: unit of the values.
      rounds: peer -> one value per round. The first peer is ours; ratios to it are computed round by round.
      notes: further values to record.
      parts: peer -> further columns, already medians; their names contain the unit.
    """
    ours = next(iter(rounds.values()))
    rows = [
        {
            "peer": peer,
            f"median {unit}": statistics.median(figures),
            "lowest": min(figures),
            "highest": max(figures),
            "ours / it": statistics.median(mine / other for mine, other in zip(ours, figures, strict=True)),
            **(parts or {}).get(peer, {}),
        }
        for peer, figures in rounds.items()
    ]
    print(f"\n{name}, {len(ours)} rounds, {results.machine()}")
    print(tabulate(rows, headers="keys", floatfmt=("", ",.4g", ",.4g", ",.4g", ".2f", *[",.4g"] * _MOST_PARTS)))
    for note, figure in notes.items():
        print(f"{note}: {figure}")
    _write(name, {"unit": unit, "rounds": dict(rounds), "table": rows, "notes": dict(notes)}, _plot(name, unit, rounds))


def write_tables(name: str, tables: Mapping[str, Any], figure: Figure) -> None:
    """Write `runs/benchmarks/<name>.json` and `.png` for a benchmark without peers.

    Args:
      name: name of the benchmark.
      tables: name -> measurements, JSON-serializable.
      figure: the plot.
    """
    _write(name, {"tables": tables}, figure)


def _write(name: str, record: Mapping[str, Any], figure: Figure) -> None:
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    where = {"machine": results.machine(), "versions": manifest.versions() | {"system": platform.platform()}}
    (DIRECTORY / f"{name}.json").write_text(json.dumps({**record, **where}, indent=2) + "\n")
    figure.savefig(DIRECTORY / f"{name}.png", dpi=120)


def _plot(name: str, unit: str, rounds: Mapping[str, Sequence[float]]) -> Figure:
    """Plot one row per peer, with one dot per round."""
    figure = Figure(figsize=(7, 0.8 + 0.6 * len(rounds)), layout="constrained")
    axes = figure.subplots()
    for row, figures in enumerate(rounds.values()):
        axes.plot(figures, [row] * len(figures), "o", alpha=0.6)
    axes.set_yticks(range(len(rounds)), list(rounds))
    axes.invert_yaxis()
    axes.margins(y=0.3)
    axes.set_xlim(left=0)
    axes.set_xlabel(unit)
    axes.set_title(name)
    return figure
