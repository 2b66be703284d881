"""Draw digits of MNIST's test set as scans and photos show them: larger, rotated, in other colours, on paper.

python -m tests.drawing DIRECTORY COUNT     # writes COUNT images of all kinds in turn; their names begin with the label
python -m tests.drawing SAVED_MODEL         # prints how many of 200 digits it reads in each scene of tests/scenes.py
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from checkpointing.tf_import import tensorflow_import
from mnist.images import digit_segmentation, image_files, pixel_arrays
from mnist.input import dataset
from mnist.tools import digit_reader
from mnist.tools.digit_reader import FoundDigit
from tests import scenes

KINDS = ("rotated", "thick", "thin", "inverted", "coloured", "off-centre", "gradient", "transparent", "large", "small")


def draw(digit: np.ndarray, kind: str, generator: np.random.Generator) -> Image.Image:
    """Draw a digit (uint8 [28, 28], bright on black)."""
    size = {"large": 1600, "small": 60}.get(kind, int(generator.integers(200, 500)))
    side = int(size * generator.uniform(0.5, 0.8))
    ink = scenes.enlarged(digit, side)
    stroke = max(1, side // 56)
    if kind == "thick":
        ink = ink.filter(ImageFilter.MaxFilter(2 * stroke + 1))
    if kind == "thin":
        ink = ink.filter(ImageFilter.MinFilter(2 * (stroke // 2) + 1))
    if kind == "rotated":
        ink = ink.rotate(generator.uniform(-20, 20), Image.Resampling.BICUBIC)
    room = size - side
    left, top = (int(generator.integers(0, room)) for _ in range(2)) if kind == "off-centre" else (room // 2, room // 2)
    opacity = Image.new("L", (size, size))
    opacity.paste(ink, (left, top))
    return _on_paper(opacity, kind, generator)


def _on_paper(opacity: Image.Image, kind: str, generator: np.random.Generator) -> Image.Image:
    if kind == "transparent":
        drawn = Image.new("RGBA", opacity.size, (20, 20, 60, 0))
        drawn.putalpha(opacity)
        return drawn
    size = opacity.size[0]
    paper, colour = np.full(3, 245.0), np.full(3, 30.0)
    if kind == "inverted":
        paper, colour = np.full(3, 15.0), np.full(3, 230.0)
    if kind == "coloured":  # equally bright: only the hue differs
        paper, colour = np.array([90.0, 190.0, 110.0]), np.array([230.0, 80.0, 200.0])
    page = np.broadcast_to(paper, (size, size, 3)).copy()
    if kind == "gradient":
        rows, columns = np.meshgrid(*[np.linspace(0, 1, size)] * 2, indexing="ij")
        light = 1 - 0.45 * (generator.uniform() * rows + generator.uniform() * columns**2)
        page = page * light[..., None] + generator.normal(0, 4, page.shape)
    cover = np.asarray(opacity)[..., None] / 255
    return Image.fromarray((page * (1 - cover) + colour * cover).clip(0, 255).astype(np.uint8))


def write(directory: Path, count: int) -> None:
    """Draw the first `count` digits of the test set: LABEL-NUMBER-KIND.png."""
    test, generator = dataset.load(None, 0).test, np.random.default_rng(6)
    directory.mkdir(parents=True, exist_ok=True)
    for number, (image, label) in enumerate(zip(test.images[:count], test.labels, strict=False)):
        kind = KINDS[number % len(KINDS)]
        draw(image, kind, generator).save(directory / f"{label}-{number:04d}-{kind}.png")


def sheet(columns: int = 10, side: int = 84) -> Image.Image:
    """Draw two rows for each kind: the drawings, and the model's inputs made from them."""
    images, generator = dataset.load(None, 0).test.images, np.random.default_rng(0)
    page = Image.new("RGB", (columns * side, 2 * len(KINDS) * side), "white")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "drawing.png"
        for row, kind in enumerate(KINDS):
            for column in range(columns):
                drawing = draw(images[column], kind, generator)
                drawing.save(path)
                (picture,) = image_files.read(path)
                (digit, *_) = digit_segmentation.digits(picture.pixels)
                shown = drawing.convert("RGBA").resize((side, side))
                page.paste(shown, (column * side, 2 * row * side), shown)
                seen = Image.fromarray(digit.image).resize((side, side), Image.Resampling.NEAREST)
                page.paste(seen, (column * side, (2 * row + 1) * side))
    return page


def print_table(saved_model: Path, count: int = 200) -> None:
    """Print how many digits a model reads in each scene; right is one answer for each digit, and the right one."""
    with tensorflow_import():
        from checkpointing.graphs import predictor  # noqa: PLC0415 - imports TensorFlow
    test = dataset.load(None, 0).test
    labels = [[int(label)] for label in test.labels[:count]]
    pairs = [[int(one), int(other)] for one, other in zip(test.labels, test.labels[count : 2 * count], strict=False)]
    sys.stdout.write(f"{'scene':26} right  none  wrong without a warning, right with one\n")
    with predictor.open_predictor(saved_model, {"images"}, {"classes", "probabilities"}, trusted=False) as model:
        for scene, draw_scene in scenes.SCENES.items():
            generator = np.random.default_rng(5)
            _print_row(scene, [draw_scene(image, generator) for image in test.images[:count]], labels, model.predict)
        generator = np.random.default_rng(5)
        touching = [scenes.touching(test.images[i], test.images[i + count], generator) for i in range(count)]
        _print_row("two digits that touch", touching, pairs, model.predict)


def _print_row(scene: str, pictures: list, labels: list[list[int]], model: Callable) -> None:
    digits = [digit_segmentation.digits(pixel_arrays.from_pillow(Image.fromarray(picture))) for picture in pictures]
    found = [FoundDigit(str(number), digit) for number, digits in enumerate(digits) for digit in digits]
    records: list[list[dict]] = [[] for _ in pictures]
    for each, record in digit_reader.predict(model, found):
        records[int(each.name)].append(record)
    right = [[each["digit"] for each in answers] == label for answers, label in zip(records, labels, strict=True)]
    warned = [any(each["warnings"] for each in answers) for answers in records]
    none = sum(not answers for answers in records)
    silent = sum(
        not is_right and bool(answers) and not warning
        for is_right, answers, warning in zip(right, records, warned, strict=True)
    )
    superfluous = sum(is_right and warning for is_right, warning in zip(right, warned, strict=True))
    sys.stdout.write(f"{scene:26} {sum(right):5} {none:5} {silent:5} {superfluous:5}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2])) if len(sys.argv) > 2 else print_table(Path(sys.argv[1]))
