"""Run recipes over several seeds, and compare their results with the stated ones."""

import dataclasses
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import configs
from checkpointing.cli import print_line
from checkpointing.errors import CheckpointError, DamagedError, listed
from checkpointing.kernel_environment import AVX2
from checkpointing.protocol import run_identity
from checkpointing.protocol.manifest import Manifest
from checkpointing.runs import supervisor
from checkpointing.runs.preemption import STOPPED
from checkpointing.storage import durable, layout
from configs.expected import ExpectedResult
from configs.settings import CnnSettings
from mnist.reporting import results

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = ("softmax", "cnn")

# How far a mean may be from the stated one, in standard errors of their difference: 1 recipe in 300 is, by chance.
_MAX_STANDARD_ERRORS = 3

# The standard error of one accuracy of 99.9 % on 10,000 images. The spread of a few seeds may be smaller by chance.
_MIN_DEVIATION = 0.0003

_POLL_SECONDS = 0.02  # the fastest recipe saves every tenth of a second

Record = dict[str, Any]


class StoppedError(Exception):
    """A run was stopped by a signal."""


class Recipe(NamedTuple):
    """A recipe, the program that runs it, and the instruction set that it is run with."""

    name: str
    program: str
    instruction_set: str = AVX2

    @property
    def expected(self) -> ExpectedResult:
        """The stated result."""
        return configs.expected_result(self.name)

    @property
    def member_recipe(self) -> str | None:
        """The recipe of an ensemble's members, or the ensemble's own name if there is none. None for other recipes."""
        settings = configs.load(self.name)
        if not isinstance(settings, CnnSettings) or settings.members == 1:
            return None
        member = dataclasses.replace(settings, members=1)
        return next((name for name in configs.names(self.program) if configs.load(name) == member), self.name)


def reproduce(recipes: Sequence[Recipe], directory: Path, *, seeds: int | None, killed: bool) -> list[Record]:
    """Run each recipe with each seed, unless it has been run; write `<directory>/results.json` after each recipe.

    Args:
      recipes: to run.
      directory: of the runs.
      seeds: how many, from 0 on; None: as many as the recipe states.
      killed: also kill and resume a run of each recipe.

    Returns:
      A row for each recipe, as from `summarize`; with `killed` also killed_and_resumed.

    Raises:
      StoppedError: a run was stopped by a signal.
      CheckpointError: a run failed, or it was made with other settings.
      ResultError: a result.json is damaged.
    """
    rows = []
    for recipe in recipes:
        if recipe.member_recipe:  # so it finds the finished runs of its members' recipe in its train_dir
            results_of_seeds = [_run(recipe, 0, directory / recipe.member_recipe)]
        else:
            count = seeds or recipe.expected.seeds
            results_of_seeds = [_run(recipe, seed, directory / recipe.name / f"seed-{seed}") for seed in range(count)]
        row = summarize(recipe, results_of_seeds)
        if killed and not recipe.member_recipe:
            resumed = _run_killed(recipe, directory / recipe.name / "killed")
            row["killed_and_resumed"] = resumed["weights_sha256"] == results_of_seeds[0]["weights_sha256"]
            row["as_stated"] = row["as_stated"] and row["killed_and_resumed"]
        rows.append(row)
        durable.atomic_write_json(directory / "results.json", {"recipes": rows})
        print_line(f"{recipe.name}: {row['verdict']}")
    return rows


def _command(recipe: Recipe, seed: int, train_dir: Path) -> list[str]:
    program = str(ROOT / f"train_{recipe.program}.py")
    flags = [f"--config={recipe.name}", f"--seed={seed}", f"--train_dir={train_dir}", "--noreport"]
    flags.append(f"--instruction_set={recipe.instruction_set}")
    return [sys.executable, program, *flags]


def _run(recipe: Recipe, seed: int, train_dir: Path) -> Record:
    """Run or resume one run to its end, unless it has ended; return its result.json."""
    path = train_dir / layout.RESULT
    if not path.exists():
        print_line(f"{recipe.name}, seed {seed}: {train_dir}")
        status = supervisor.run_each([_command(recipe, seed, train_dir)])
        if status == STOPPED:
            raise StoppedError
        if status:
            raise CheckpointError(f"{train_dir}: the run ended with exit status {status}", hint="see its error above")
    record = results.read(path)
    problem = _problem(recipe, seed, layout.prefix(train_dir, record["step"]))
    if problem:
        what = "everything in it except the seed-* directories" if recipe.member_recipe else "the directory"
        raise CheckpointError(f"{train_dir}: {problem}", hint=f"delete {what} and run the same command again")
    return record


def _problem(recipe: Recipe, seed: int, prefix: Path) -> str | None:
    """Return why the last checkpoint of a run was not made by this recipe; None if it was."""
    manifest_path = layout.manifest_path(prefix)
    if not manifest_path.exists():
        return f"{layout.RESULT} names {prefix.name}, which does not exist"
    try:
        recorded = Manifest.read(manifest_path).settings
    except DamagedError as error:
        return str(error)
    settings = dataclasses.replace(configs.load(recipe.name), seed=seed, instruction_set=recipe.instruction_set)
    current = {name: recorded.get(name) for name in ("model", "data")} | settings.run_identity()
    changed = run_identity.diff(recorded, current, defaults=settings.identity_defaults())
    return f"{recipe.name} has changed since the run: {listed(changed)}" if changed else None


def _run_killed(recipe: Recipe, train_dir: Path) -> Record:
    """Run seed 0, kill it after its first checkpoint, and resume it to its end; return its result.json."""

    def has_saved() -> bool:
        return train_dir.is_dir() and bool(layout.steps_with(train_dir, "manifest.json"))

    if not has_saved():
        print_line(f"{recipe.name}, to be killed: {train_dir}")
        with subprocess.Popen(_command(recipe, 0, train_dir)) as process:  # noqa: S603 - our own program
            while process.poll() is None and not has_saved():
                time.sleep(_POLL_SECONDS)
            process.kill()
    return _run(recipe, 0, train_dir)


def summarize(recipe: Recipe, results: Sequence[Record]) -> Record:
    """Summarize a recipe's results over its seeds, and compare them with the stated result.

    Args:
      recipe: with its stated result.
      results: the contents of each run's result.json.

    Returns:
      A row of results.json.
    """
    accuracies = [each["test_accuracy"] for each in results]
    # If a finished run was started again, it only evaluated: the speed of its training is not known.
    timed = [each for each in results if each["images_per_second"]]
    rates = [each["images_per_second"] for each in timed]
    return {
        "config": recipe.name,
        "seeds": len(results),
        "mean": statistics.mean(accuracies),
        "standard_deviation": statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0,
        "lowest": min(accuracies),
        "highest": max(accuracies),
        "goal": recipe.expected.goal,
        "train_seconds": statistics.median(each["seconds"]["train"] for each in timed or results),
        "total_seconds": statistics.median(each["seconds"]["total"] for each in timed or results),
        "images_per_second": statistics.median(rates) if rates else None,
        "weights_sha256": [each["weights_sha256"] for each in results],
        "machine": results[0]["machine"],
        "versions": results[0]["versions"],
        "instruction_set": recipe.instruction_set,
        **_verdict(recipe, [each["weights_sha256"] for each in results], statistics.mean(accuracies)),
    }


def _verdict(recipe: Recipe, weights: Sequence[str], mean: float) -> Record:
    expected, seeds = recipe.expected, len(weights)
    variance = max(expected.standard_deviation, _MIN_DEVIATION) ** 2
    tolerance = _MAX_STANDARD_ERRORS * (variance / seeds + variance / expected.seeds) ** 0.5
    reached, near = mean >= expected.goal, abs(mean - expected.mean) <= tolerance
    verdict = "as stated" if reached and near else "goal missed" if near else "differs from the stated result"
    numbers = f"{mean:.4f}; stated: {expected.mean:.4f} +- {tolerance:.4f}, goal {expected.goal:.4f}"
    bits = _compare_weights(weights, expected.weights_sha256) if recipe.instruction_set == AVX2 else None
    return {"as_stated": reached and near, "verdict": f"{verdict}: {numbers}" + (f"; {bits}" if bits else "")}


def _compare_weights(weights: Sequence[str], stated: Sequence[str]) -> str | None:
    """Compare each seed's hash with the stated one; None if none is stated."""
    pairs = list(zip(weights, stated, strict=False))
    different = [str(seed) for seed, (found, expected) in enumerate(pairs) if found != expected]
    if not pairs:
        return None
    if different:
        return f"weights differ from the stated ones: seed {listed(different)}"
    return f"weights bit for bit as stated ({len(pairs)} of {len(weights)} seeds are stated)"
