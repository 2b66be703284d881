"""Accuracy of `python -m mnist.predict` on digits that do not come from MNIST: those of handwriting fonts.

    python -m benchmarks.fonts [--recipes=softmax,cnn_small,cnn_fast] [--sets=development,held_out,mnist]
        [--heights=40,120,400]

The fonts are installed with npm, and the recipes are trained, both once, below runs/benchmarks/fonts. Each set is a
directory of PNG files, read by `mnist.predict`'s own functions, once for all recipes. A picture counts as right if
exactly one digit is found in it, and its class is right.

development  half of the fonts: preprocessing is developed on these.
held_out     the other half: only measured.
mnist        1,000 digits of MNIST's test set, drawn by `python -m tests.drawing`.
"""

import collections
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import app, flags
from matplotlib.figure import Figure
from tabulate import tabulate

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # so that the file can also be run directly

from benchmarks import font_drawings, font_files, report
from benchmarks.font_drawings import Drawing
from checkpointing import cli
from checkpointing.errors import UserError
from checkpointing.tf_import import tensorflow_import
from mnist.errors import ImageError
from mnist.tools import digit_reader

_RECIPES = flags.DEFINE_list("recipes", ["softmax", "cnn_small", "cnn_fast"], "recipes to measure")
_SETS = flags.DEFINE_list("sets", [*font_files.HALVES, "mnist"], "sets of pictures")
_HEIGHTS = flags.DEFINE_list(
    "heights", list(map(str, font_drawings.HEIGHTS)), "heights of the fonts' digits in pixels; others are not drawn"
)
_DIRECTORY = flags.DEFINE_string("directory", str(report.DIRECTORY / "fonts"), "directory of fonts and runs")

_MNIST = "mnist"
_MNIST_DRAWINGS = 1000
_MOST_CONFUSIONS = 10

NO_DIGIT, SEVERAL = "no digit found", "several digits found"


class Answer(NamedTuple):
    """What was predicted for a picture.

    name: of the file; its first character is the digit that was drawn.
    read: the predicted digit, or `NO_DIGIT`, or `SEVERAL`.
    """

    name: str
    read: str

    @property
    def right(self) -> bool:
        """Whether it is the digit that was drawn."""
        return self.read == self.name[0]


# Set -> recipe -> answers.
Answers = Mapping[str, Mapping[str, Sequence[Answer]]]


def answers(predictions: Iterable[Mapping[str, Any]]) -> list[Answer]:
    """Return one answer for each file, from the records of `digit_reader.predict`, one for each digit."""
    read: dict[str, list[int | None]] = {}
    for record in predictions:
        read.setdefault(Path(record["file"]).name, []).append(record["digit"])
    return [
        Answer(name, SEVERAL if len(digits) > 1 else NO_DIGIT if digits[0] is None else str(digits[0]))
        for name, digits in read.items()
    ]


def accuracy(of: Sequence[Answer]) -> float:
    """Return the share of right answers, in percent; NaN if there are none."""
    return 100 * sum(each.right for each in of) / len(of) if of else float("nan")


def by(recipes: Mapping[str, Sequence[Answer]], key: Callable[[Drawing], object]) -> list[dict[str, Any]]:
    """Return the accuracy of each recipe in percent, by a property of the drawing: the rows of a table."""
    groups: dict[object, dict[str, list[Answer]]] = {}
    for recipe, found in recipes.items():
        for answer in found:
            group = groups.setdefault(key(Drawing.from_file_name(answer.name)), {})
            group.setdefault(recipe, []).append(answer)
    return [
        {"": group, "pictures": len(next(iter(found.values())))}
        | {recipe: accuracy(found[recipe]) for recipe in recipes}
        for group, found in groups.items()
    ]


def failures(recipes: Mapping[str, Sequence[Answer]]) -> list[dict[str, Any]]:
    """Count what was predicted in place of the right digit: the rows of a table, the most frequent one first."""
    counts = {
        recipe: collections.Counter(
            each.read if each.read in {NO_DIGIT, SEVERAL} else f"{each.name[0]} read as {each.read}"
            for each in found
            if not each.right
        )
        for recipe, found in recipes.items()
    }
    totals = sum(counts.values(), collections.Counter[str]())
    return [
        {"failure": failure, **{recipe: counts[recipe][failure] for recipe in recipes}}
        for failure, _ in totals.most_common(_MOST_CONFUSIONS)
    ]


def _train(recipe: str) -> Path:
    """Train a recipe with seed 0, unless it has been trained; return its train_dir."""
    train_dir = Path(_DIRECTORY.value) / "runs" / recipe
    if not (train_dir / "result.json").is_file():
        program = str(ROOT / f"train_{recipe.split('_', maxsplit=1)[0]}.py")
        print(f"training {recipe}", flush=True)
        _run([program, f"--config={recipe}", f"--train_dir={train_dir}", "--noreport"])
    return train_dir


def _draw(name: str, directory: Path) -> None:
    """Write the pictures of a set."""
    if name == _MNIST:
        _run(["-m", "tests.drawing", str(directory), str(_MNIST_DRAWINGS)])
        return
    fonts = [font for font in font_files.FONTS if font_files.half(font.name) == name]
    installed = font_files.install(Path(_DIRECTORY.value))
    font_drawings.write(
        directory,
        {font.name: {weight: font_files.path(installed, font, weight) for weight in font.weights} for font in fonts},
        [int(height) for height in _HEIGHTS.value],
    )


def _predict(directory: Path, train_dirs: Mapping[str, Path]) -> dict[str, list[Answer]]:
    problems: list[ImageError] = []
    found = list(digit_reader.find_digits([directory], problems.append))
    if len({each.name for each in found}) != len(list(directory.iterdir())):
        raise problems[0]  # a file that cannot be read; one without a digit is in `found`
    with tensorflow_import():
        from checkpointing.graphs import predictor  # noqa: PLC0415 - needs TensorFlow
    recipes = {}
    for recipe, train_dir in train_dirs.items():
        with predictor.open_predictor(train_dir, {"images"}, {"classes", "probabilities"}, trusted=False) as model:
            recipes[recipe] = answers(record for _, record in digit_reader.predict(model.predict, found))
    return recipes


def _run(arguments: Sequence[str]) -> None:
    process = subprocess.run([sys.executable, *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    if process.returncode:
        message = f"{arguments[0]}: exit status {process.returncode}"
        raise UserError(message, hint=(process.stderr.strip().splitlines() or ["no message"])[-1])


def _print(found: Answers) -> dict[str, list[dict[str, Any]]]:
    """Print the tables and return them."""
    tables = {
        "accuracy, %": [
            {"set": name, "pictures": len(next(iter(recipes.values())))}
            | {recipe: accuracy(recipes[recipe]) for recipe in recipes}
            for name, recipes in found.items()
        ]
    }
    for name, recipes in found.items():
        if name != _MNIST:
            tables[f"{name}, by paper, %"] = by(recipes, lambda drawing: drawing.paper)
            tables[f"{name}, by height in pixels, %"] = by(recipes, lambda drawing: drawing.height)
            tables[f"{name}, by digit, %"] = by(recipes, lambda drawing: drawing.digit)
            tables[f"{name}, by font, %"] = by(recipes, lambda drawing: drawing.font)
        tables[f"{name}, most frequent failures"] = failures(recipes)
    for title, rows in tables.items():
        print(f"\n{title}\n{tabulate(rows, headers='keys', floatfmt='.1f')}")
    return tables


def _plot(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Plot the accuracy by font: one row for each font, one dot for each recipe."""
    halves = [half for half in font_files.HALVES if f"{half}, by font, %" in tables]
    figure = Figure(figsize=(6 * max(1, len(halves)), 7), layout="constrained")
    for axes, half in zip(figure.subplots(1, max(1, len(halves)), squeeze=False)[0], halves, strict=False):
        rows = tables[f"{half}, by font, %"]
        for recipe in [column for column in rows[0] if column not in {"", "pictures"}]:
            axes.plot([row[recipe] for row in rows], range(len(rows)), "o", alpha=0.6, label=recipe)
        axes.set_yticks(range(len(rows)), [row[""] for row in rows])
        axes.invert_yaxis()
        axes.set_xlabel("accuracy, %")
        axes.set_title(half)
        axes.legend()
    return figure


def _measure() -> int:
    found: dict[str, dict[str, list[Answer]]] = {}
    train_dirs = {recipe: _train(recipe) for recipe in _RECIPES.value}
    for name in _SETS.value:
        with tempfile.TemporaryDirectory() as scratch:
            directory = Path(scratch) / "pictures"
            _draw(name, directory)
            found[name] = _predict(directory, train_dirs)
    tables = _print(found)
    report.write_tables("fonts", tables, _plot(tables))
    return cli.OK


def main(argv: list[str]) -> None:
    """Measure and print."""
    del argv
    cli.silence_tensorflow()
    sys.exit(cli.report_errors(_measure))


if __name__ == "__main__":
    app.run(main)
