"""Runs recipes over seeds, and says whether they reach what they state.

    python -m mnist.reproduce [--configs=softmax,cnn_fast,...] [--seeds=N] [--directory=DIR] [--killed] [--write_docs]

Each run is a run of train_softmax.py or train_cnn.py, in DIR/<config>/seed-<seed> (DIR is runs/reproduce); an ensemble
is made of the runs of its members' recipe, once, whatever --seeds says. Stopped or killed, the same command goes on
where it was: what has ended is read from its result.json, what has not goes on from its newest checkpoint. To begin
anew, or after a recipe or a network has changed, delete DIR.

A recipe reaches what it states where the mean over the seeds is at least its goal, and within the spread of the mean
that it states. With --killed, the first seed is run once more and killed with SIGKILL after its first checkpoint; the
same command, given again, must end with the same weights. What comes out is printed, and written to DIR/results.json;
with --write_docs also to docs/results.json, docs/results.md, and README.md's table.

Exit status: 0 all as stated; 1 not, or an error; 2 wrong usage; 75 stopped, run the same command again.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate

import configs
from checkpointing.errors import CheckpointError, DamagedError
from checkpointing.protocol.manifest import Manifest
from checkpointing.runs import supervisor
from checkpointing.runs.preemption import STOPPED
from checkpointing.storage import durable, layout
from configs.expected import ExpectedResult
from configs.settings import CnnSettings
from mnist.errors import ResultError
from mnist.reporting import results

ROOT = Path(__file__).parent.parent
PROGRAMS = ("softmax", "cnn")
_BEGIN, _END = "<!-- results: python -m mnist.reproduce --write_docs -->", "<!-- end of results -->"

# How far a mean may be from the stated one, in standard errors of their difference; one recipe in 300 is by chance.
_STANDARD_ERRORS = 3

# The standard error of one accuracy of 99 % on 10,000 images: where few seeds agree by chance, the spread is not less.
_LEAST_DEVIATION = 0.0003

_SECONDS_BETWEEN_LOOKS = 0.02  # a checkpoint of the fastest recipe is followed by the next after a tenth of a second

Record = dict[str, Any]


class StoppedError(Exception):
    """A signal asked to stop."""


class Recipe(NamedTuple):
    """A recipe and the program that runs it."""

    name: str
    program: str

    @property
    def expected(self) -> ExpectedResult:
        """What it states."""
        return configs.expected_result(self.name)

    @property
    def member_recipe(self) -> str | None:
        """Of an ensemble, the recipe of its members, or its own name where there is none; None for all others."""
        settings = configs.load(self.name)
        if not isinstance(settings, CnnSettings) or settings.members == 1:
            return None
        member = dataclasses.replace(settings, members=1)
        return next((name for name in configs.names(self.program) if configs.load(name) == member), self.name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what the command line says; gives the exit status."""
    parser = argparse.ArgumentParser(
        "python -m mnist.reproduce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    known = {name: Recipe(name, program) for program in PROGRAMS for name in configs.names(program)}
    parser.add_argument("--configs", metavar="NAME,...", default=",".join(known), help="which recipes (all)")
    parser.add_argument("--seeds", type=int, metavar="N", help="so many, from 0 on (as many as the recipe states)")
    parser.add_argument("--directory", type=Path, default=Path("runs/reproduce"), help="of the runs (runs/reproduce)")
    parser.add_argument("--killed", action="store_true", help="kill one run of each recipe, and run it again")
    parser.add_argument("--write_docs", action="store_true", help="write docs/results.* and README.md's table")
    given = parser.parse_args(arguments)
    names = given.configs.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"--configs: {', '.join(unknown)} found, some of {', '.join(known)} wanted")
    if given.seeds is not None and given.seeds < 1:
        parser.error(f"--seeds={given.seeds}: 1 or more wanted")
    try:
        rows = _reproduce([known[name] for name in names], given)
    except StoppedError:
        print("stopped: run the same command again to go on", flush=True)
        return STOPPED
    except (CheckpointError, ResultError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if given.write_docs:
        _write_docs(rows)
    print(_table(rows))
    return 0 if all(row["as_stated"] for row in rows) else 1


def _reproduce(recipes: Sequence[Recipe], given: argparse.Namespace) -> list[Record]:
    """Runs what has not been run; gives a row a recipe, each written down as soon as it is there."""
    rows = []
    for recipe in recipes:
        if recipe.member_recipe:  # members are looked for below the train_dir, and there those of their recipe are
            results = [_run(recipe, 0, given.directory / recipe.member_recipe)]
        else:
            seeds = range(given.seeds or recipe.expected.seeds)
            results = [_run(recipe, seed, given.directory / recipe.name / f"seed-{seed}") for seed in seeds]
        row = summarize(recipe, results)
        if given.killed and not recipe.member_recipe:
            again = _run_killed(recipe, given.directory / recipe.name / "killed")
            row["killed_and_resumed"] = again["weights_sha256"] == results[0]["weights_sha256"]
            row["as_stated"] = row["as_stated"] and row["killed_and_resumed"]
        rows.append(row)
        durable.atomic_write_json(given.directory / "results.json", {"recipes": rows})
        print(f"{recipe.name}: {row['verdict']}", flush=True)
    return rows


def _command(recipe: Recipe, seed: int, train_dir: Path) -> list[str]:
    program = str(ROOT / f"train_{recipe.program}.py")
    flags = [f"--config={recipe.name}", f"--seed={seed}", f"--train_dir={train_dir}", "--noreport"]
    return [sys.executable, program, *flags]


def _run(recipe: Recipe, seed: int, train_dir: Path) -> Record:
    """Brings one run to its end; gives its result.json.

    Raises:
      StoppedError: a signal asked to stop. ResultError: result.json is damaged.
      CheckpointError: the run failed; or one is there that was made with other settings than the recipe's.
    """
    path = train_dir / layout.RESULT
    if not path.exists():
        print(f"{recipe.name}, seed {seed}: {train_dir}", flush=True)
        status = supervisor.run_each([_command(recipe, seed, train_dir)])
        if status == STOPPED:
            raise StoppedError
        if status:
            raise CheckpointError(f"{train_dir}: the run ended with status {status}; its own message says why.")
    record = results.read(path)
    problem = _problem(recipe, seed, layout.prefix(train_dir, record["step"]))
    if problem:
        what = "all in it but the seed-* directories" if recipe.member_recipe else "the directory"
        raise CheckpointError(f"{train_dir}: {problem}; delete {what}, and run the same command again.")
    return record


def _problem(recipe: Recipe, seed: int, prefix: Path) -> str | None:
    """Why this last checkpoint of a run is not the recipe's, if it is not."""
    manifest_path = layout.manifest_path(prefix)
    if not manifest_path.exists():
        return f"no {prefix.name} found, of which result.json tells"
    try:
        made = Manifest.read(manifest_path).settings
    except DamagedError as error:
        return str(error)
    settings = dataclasses.replace(configs.load(recipe.name), seed=seed)
    # A setting that did not exist yet was what is its default now.
    made = {field.name: field.default for field in dataclasses.fields(settings)} | made
    wanted = settings.run_identity()
    changed = [f"{name} {made[name]} (now {value})" for name, value in wanted.items() if made[name] != value]
    return f"{recipe.name} has changed since it was run: {', '.join(changed)}" if changed else None


def _run_killed(recipe: Recipe, train_dir: Path) -> Record:
    """The run of seed 0, killed after its first checkpoint and run again; gives its result.json."""

    def has_saved() -> bool:
        return train_dir.is_dir() and bool(layout.steps_with(train_dir, "manifest.json"))

    if not has_saved():
        print(f"{recipe.name}, to be killed: {train_dir}", flush=True)
        with subprocess.Popen(_command(recipe, 0, train_dir)) as process:  # noqa: S603 - our own program
            while process.poll() is None and not has_saved():
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            process.kill()
    return _run(recipe, 0, train_dir)


def summarize(recipe: Recipe, results: Sequence[Record]) -> Record:
    """A row of the table: what the seeds gave, and the verdict against what the recipe states.

    Args:
      recipe: its statement.
      results: of each seed, the contents of result.json.
    """
    expected = recipe.expected
    accuracies = [each["test_accuracy"] for each in results]
    mean = statistics.mean(accuracies)
    deviation = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    variance = max(expected.standard_deviation, _LEAST_DEVIATION) ** 2
    tolerance = _STANDARD_ERRORS * (variance / len(accuracies) + variance / expected.seeds) ** 0.5
    reached, near = mean >= expected.goal, abs(mean - expected.mean) <= tolerance
    verdict = "as stated" if reached and near else "goal missed" if near else "other than stated"
    told = f"{mean:.4f}, {expected.mean:.4f} +- {tolerance:.4f} stated, goal {expected.goal:.4f}"
    # A run that had ended, and was asked again, only evaluated: the seconds of training are gone.
    timed = [each for each in results if each["images_per_second"]]
    rates = [each["images_per_second"] for each in timed]
    return {
        "config": recipe.name,
        "seeds": len(results),
        "mean": mean,
        "standard_deviation": deviation,
        "lowest": min(accuracies),
        "highest": max(accuracies),
        "goal": expected.goal,
        "train_seconds": statistics.median(each["seconds"]["train"] for each in timed or results),
        "total_seconds": statistics.median(each["seconds"]["total"] for each in timed or results),
        "images_per_second": statistics.median(rates) if rates else None,
        "weights_sha256": [each["weights_sha256"] for each in results],
        "machine": results[0]["machine"],
        "versions": results[0]["versions"],
        "as_stated": reached and near,
        "verdict": f"{verdict}: {told}",
    }


def _table(rows: Sequence[Record]) -> str:
    """For people, on a terminal."""
    return str(tabulate([_cells(row) for row in rows], headers="keys", disable_numparse=True))


def _cells(row: Record) -> dict[str, str]:
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


def markdown(rows: Sequence[Record]) -> str:
    """The table of README.md and docs/results.md."""
    return str(tabulate([_cells(row) for row in rows], headers="keys", tablefmt="github", disable_numparse=True))


def _write_docs(rows: Sequence[Record]) -> None:
    """Writes docs/results.json (recipes that were not run keep their rows), docs/results.md, and README.md's table."""
    path = ROOT / "docs" / "results.json"
    before = json.loads(path.read_text(encoding="utf-8"))["recipes"] if path.exists() else []
    merged = {row["config"]: row for row in [*before, *rows]}
    order = [name for program in PROGRAMS for name in configs.names(program)]
    kept = [merged[name] for name in order if name in merged]
    durable.atomic_write_json(path, {"recipes": kept})
    machines: dict[str, list[str]] = {}
    for row in kept:
        machines.setdefault(f"{row['machine']}; {_versions(row)}", []).append(row["config"])
    lines = [
        "# Results",
        "",
        "Test accuracy with the last step's weights, over seeds from 0 on; the test set read once a run; settings",
        "chosen on the validation split ([recipes.md](recipes.md)). Seconds and images/s are medians. Written by",
        "`make reproduce`.",
        "",
        markdown(kept),
        "",
        *[f"- {', '.join(names)}: {machine}." for machine, names in machines.items()],
        "",
    ]
    durable.atomic_write(ROOT / "docs" / "results.md", "\n".join(lines).encode())
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    head, _, rest = text.partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    if end:
        durable.atomic_write(readme, f"{head}{_BEGIN}\n\n{markdown(kept)}\n\n{_END}{tail}".encode())


def _versions(row: Record) -> str:
    return ", ".join(f"{name} {version}" for name, version in row["versions"].items())


if __name__ == "__main__":
    sys.exit(main())
