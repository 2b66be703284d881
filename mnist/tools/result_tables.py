"""Tables of the recipes' results: on the terminal, in README.md and in docs/results.md."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

import configs
from checkpointing.kernel_environment import AVX2
from checkpointing.storage import durable
from mnist.tools.reproduction import PROGRAMS, ROOT

Row = dict[str, Any]

_BEGIN, _END = "<!-- results: python -m mnist.reproduce --write_docs -->", "<!-- end of results -->"


def plain(rows: Sequence[Row]) -> str:
    """Return the table for a terminal."""
    return str(tabulate([_cells(row) for row in rows], headers="keys", disable_numparse=True))


def markdown(rows: Sequence[Row]) -> str:
    """Return the table of README.md and docs/results.md."""
    return str(tabulate([_cells(row) for row in rows], headers="keys", tablefmt="github", disable_numparse=True))


def _cells(row: Row) -> dict[str, str]:
    return {
        "recipe": row["config"],
        "seeds": str(row["seeds"]),
        "mean": f"{row['mean']:.5f}",
        "sd": f"{row['standard_deviation']:.5f}",
        "lowest": f"{row['lowest']:.4f}",
        "highest": f"{row['highest']:.4f}",
        "goal": f"{row['goal']:.4f}",
        "training, s": f"{row['train_seconds']:.1f}",
        "whole, s": f"{row['total_seconds']:.1f}",
        "images/s": f"{row['images_per_second']:,.0f}" if row["images_per_second"] else "-",
    }


def write_docs(rows: Sequence[Row]) -> None:
    """Write docs/results.json, docs/results.md and README.md's table. Recipes that were not run keep their rows."""
    path = ROOT / "docs" / "results.json"
    before = json.loads(path.read_text(encoding="utf-8"))["recipes"] if path.exists() else []
    merged = {row["config"]: row for row in [*before, *rows]}
    order = [name for program in PROGRAMS for name in configs.names(program)]
    rows = [merged[name] for name in order if name in merged]
    durable.atomic_write_json(path, {"recipes": rows})
    durable.atomic_write(ROOT / "docs" / "results.md", _page(rows).encode())
    _replace_table(ROOT / "README.md", markdown(rows))


def _page(rows: Sequence[Row]) -> str:
    machines: dict[str, list[str]] = {}
    for row in rows:
        versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
        machines.setdefault(f"{row['machine']}; {versions}", []).append(row["config"])
    lines = [
        "# Results",
        "",
        "Test accuracy with the weights of the last step, over seeds from 0 on. Each run reads the test set once;",
        "settings were chosen on the validation split ([recipes.md](recipes.md)). Seconds and images/s are medians.",
        "Written by `make reproduce`.",
        "",
        markdown(rows),
        "",
        *[f"- {', '.join(names)}: {machine}." for machine, names in machines.items()],
        *_weights(rows),
        "",
    ]
    return "\n".join(lines)


def _weights(rows: Sequence[Row]) -> list[str]:
    """Return lines with the beginnings of the weights' hashes, which other machines can compare."""
    lines = [
        f"- {row['config']}: {', '.join(each[:16] for each in row['weights_sha256'])}"
        for row in rows
        if row.get("instruction_set") == AVX2
    ]
    title = (
        "sha256 of the weights with `--instruction_set=avx2`, seed 0 first; in full in [results.json](results.json):"
    )
    return ["", title, "", *lines] if lines else []


def _replace_table(path: Path, table: str) -> None:
    """Replace the table between the two marks in a file, if they are there."""
    head, _, rest = path.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    if end:
        durable.atomic_write(path, f"{head}{_BEGIN}\n\n{table}\n\n{_END}{tail}".encode())
