"""What digits are in a picture, as a trained model sees it: photographs, scans, drawings, MNIST's own files.

    python -m mnist.predict FILE... [--train_dir=DIR | --checkpoint=PREFIX | --saved_model=DIR]
        [--show] [--seen=DIR] [--trust] [--json]

A FILE is a PNG, JPEG, GIF, BMP, WebP, an IDX file, a `.npy` array, or a directory of these. Dark on light or light on
dark, in any colour and size; several digits in one picture are read line by line. Each is cropped, fitted and centred
as MNIST was; what is a 28 x 28 picture of MNIST's own kind is taken as it is. Without a model's name, the newest
checkpoint of runs/cnn is asked, where `python train_cnn.py` leaves it.

Exit status: 0 done; 1 a file could not be read, or held no digit: it is named, and the others are answered; 2 wrong
usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from checkpointing import cli
from checkpointing.tf_import import tensorflow_import
from mnist.errors import ImageError

if TYPE_CHECKING:  # --help waits for none of them
    from checkpointing.graphs.predictor import Predictor
    from mnist.images.digit_segmentation import Digit

_DEFAULT_TRAIN_DIR = Path("runs/cnn")
_AT_ONCE = 500

# A model that has seen labels smoothed to 0.91 is never surer than that; a doubtful digit is far from it.
_SURE = 0.7
_RUNNERS_UP = 3
_BLANK = "no digit found: the picture is blank, or nothing but noise"

_SHADES = " ░▒▓█"


class Found(NamedTuple):
    """What is in a picture. name: its file's, with its place in a file of several. digit: None where it is blank."""

    name: str
    digit: Digit | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what the command line says; gives the exit status."""
    given = _parser().parse_args(arguments)
    return cli.run_tool(lambda: _predict(given), debug=given.debug)


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("python -m mnist.predict", __doc__)
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE", help="pictures, or directories of pictures")
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--train_dir", type=Path, metavar="DIR", help=f"its newest checkpoint ({_DEFAULT_TRAIN_DIR})")
    model.add_argument("--checkpoint", type=Path, metavar="PREFIX", help="this checkpoint")
    model.add_argument("--saved_model", type=Path, metavar="DIR", help="an exported model")
    add("--show", action="store_true", help="draw what the model sees")
    add("--seen", type=Path, metavar="DIR", help="write what the model sees there, as PNG files")
    add("--trust", action="store_true", help="load a model that can touch files (SECURITY.md)")
    add("--json", action="store_true", help="one object a digit, a line each, for programs")
    return parser


def _predict(given: argparse.Namespace) -> int:
    from mnist.input import dataset  # noqa: F401, PLC0415 - NumPy, before TensorFlow is imported in silence

    with tensorflow_import():
        from checkpointing.graphs import predictor  # noqa: PLC0415 - needs TensorFlow
    path = given.train_dir or given.checkpoint or given.saved_model or _DEFAULT_TRAIN_DIR
    _check_there_is_one(path, asked_for=path != _DEFAULT_TRAIN_DIR)
    _check_is_free(given.seen)
    problems: list[str] = []
    number = 0
    with predictor.open_predictor(path, {"images"}, {"classes", "probabilities"}, trusted=given.trust) as model:
        for batch in _batches(_found(given.files, problems)):
            for found, record in zip(batch, answers(model, batch), strict=True):
                _tell(found, record, given, number)
                number += 1
    return cli.FAILED if problems else cli.OK


def _check_there_is_one(path: Path, *, asked_for: bool) -> None:
    from checkpointing.errors import CheckpointError  # noqa: PLC0415

    if not asked_for and not path.is_dir():
        message = (
            f"{path}: no trained model found there; train one by `python train_cnn.py --config=cnn_fast --train_dir="
        )
        raise CheckpointError(f"{message}{path}` (half a minute), or name one by --train_dir or --saved_model.")


def _check_is_free(directory: Path | None) -> None:
    from checkpointing.errors import CheckpointError  # noqa: PLC0415

    if directory is None or not (directory.exists() or directory.is_symlink()):
        return
    if not directory.is_dir():
        raise CheckpointError(f"--seen={directory}: expected a directory, or a path where there is nothing yet.")
    if any(directory.iterdir()):
        raise CheckpointError(f"--seen={directory}: files found in it, and none is overwritten: give a new directory.")


def _found(files: Sequence[Path], problems: list[str]) -> Iterator[Found]:
    """What is in all files; what is wrong with a file is told at once, and kept in `problems`."""
    from mnist.images import digit_segmentation, image_files  # noqa: PLC0415

    def complain(problem: str) -> None:
        problems.append(problem)
        cli.print_error(ImageError(problem))

    for path in files:
        try:
            inside = image_files.files_in(path)
        except ImageError as error:
            complain(str(error))
            continue
        for file in inside:
            try:
                for picture in image_files.read(file):
                    digits = digit_segmentation.digits(picture.pixels)
                    if not digits:
                        complain(f"{picture.name}: {_BLANK}.")
                        yield Found(picture.name, None)
                    yield from (Found(picture.name, digit) for digit in digits)
            except ImageError as error:
                complain(str(error))


def _batches(found: Iterator[Found]) -> Iterator[list[Found]]:
    """So many at once as a model likes to be asked; memory does not grow with the number of files."""
    batch: list[Found] = []
    for each in found:
        batch.append(each)
        if len(batch) == _AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def answers(model: Predictor, batch: Sequence[Found]) -> Iterator[dict[str, Any]]:
    """What is told of each, in order; a blank picture has an answer, too."""
    import numpy as np  # noqa: PLC0415

    images = [found.digit.image for found in batch if found.digit]
    asked = model.predict({"images": np.stack(images)}) if images else {}
    pairs = zip(asked.get("classes", ()), asked.get("probabilities", ()), strict=True)
    for found in batch:
        if found.digit is None:
            yield {"file": found.name, "digit": None, "probability": None, "runners_up": [], "warnings": [_BLANK]}
            continue
        digit, probabilities = next(pairs)
        others = [int(each) for each in np.argsort(-probabilities, kind="stable") if each != digit][:_RUNNERS_UP]
        warnings = list(found.digit.warnings)
        if probabilities[digit] < _SURE:
            warnings.append(f"unsure: it could be {others[0]} as well")
        yield {
            "file": found.name,
            "digit": int(digit),
            "probability": _rounded(probabilities[digit]),
            "runners_up": [{"digit": each, "probability": _rounded(probabilities[each])} for each in others],
            "warnings": warnings,
        }


def _rounded(probability: float) -> float:
    return round(float(probability), 6)


def _tell(found: Found, record: dict[str, Any], given: argparse.Namespace, number: int) -> None:
    if given.json:
        print(json.dumps(record), flush=True)
    if found.digit is None:  # that has been told as an error
        return
    if not given.json:
        others = ", ".join(f"{each['digit']} {each['probability']:.3f}" for each in record["runners_up"])
        warnings = "".join(f"; warning: {each}" for each in record["warnings"])
        how = f"{record['digit']}  {record['probability']:.3f}  (then {others}; {found.digit.ink}{warnings})"
        print(f"{_printable(found.name)}: {how}", flush=True)
    if given.show:
        print(drawn(found.digit.image), file=sys.stderr if given.json else sys.stdout, flush=True)
    if given.seen:
        name = f"{number:05d}-{Path(found.name).stem}-is-{record['digit']}.png"
        _write_seen(found.digit, given.seen / name)


def _printable(name: str) -> str:
    """A file's name, in which bytes that are not UTF-8 are written as hexadecimal digits."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def drawn(image: Any) -> str:  # noqa: ANN401 - NumPy is not imported here
    """Uint8 [28, 28] as text: two characters a pixel, which makes it about square."""
    shade = (image.astype(int) * (len(_SHADES) - 1) + 127) // 255
    return "\n".join("".join(_SHADES[value] * 2 for value in row).rstrip() for row in shade)


def _write_seen(digit: Digit, path: Path) -> None:
    """A PNG of what the model saw."""
    import io  # noqa: PLC0415

    from PIL import Image  # noqa: PLC0415

    from checkpointing.storage import durable  # noqa: PLC0415

    content = io.BytesIO()
    Image.fromarray(digit.image).save(content, "PNG")
    durable.make_directory(path.parent)
    durable.atomic_write(path, content.getvalue())


if __name__ == "__main__":
    sys.exit(main())
