"""Recognise the handwritten digits in image files: photographs, scans, drawings, MNIST's own files.

    python -m mnist.predict FILE... [--train_dir=DIR | --checkpoint=PREFIX | --saved_model=DIR]
        [--show] [--seen=DIR] [--trust] [--json]

A FILE is a PNG, JPEG, GIF, BMP, WebP or TIFF image, an IDX file, a `.npy` array, or a directory of these. Each page of
a TIFF, frame of an animation, and image of an MPO, IDX or `.npy` file is read, as scan.tif[0], scan.tif[1] and so on.
Digits may be dark on light or light on dark, of any colour and size; several digits in one image are read line by line.
Each digit is cropped, scaled and centred the way MNIST was; a 28 x 28 image in MNIST's own format is used unchanged.
The default model is the newest checkpoint in runs/cnn, the train_dir of `python train_cnn.py`.

Exit status: 0 done; 1 an error, or a file that could not be read or holds no digit: it is named, and the other files
are still read; 2 a usage error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpointing import cli
from checkpointing.errors import CheckpointError
from checkpointing.tf_import import tensorflow_import

if TYPE_CHECKING:
    from mnist.tools.digit_reader import FoundDigit

_DEFAULT_TRAIN_DIR = Path("runs/cnn")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = _parser().parse_args(arguments)
    return cli.run_tool(lambda: _predict(args), debug=args.debug)


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("python -m mnist.predict", __doc__)
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE", help="image files, or directories of image files")
    model = parser.add_mutually_exclusive_group()
    model.add_argument(
        "--train_dir", type=Path, metavar="DIR", help=f"a run's newest checkpoint ({_DEFAULT_TRAIN_DIR})"
    )
    model.add_argument("--checkpoint", type=Path, metavar="PREFIX", help="a checkpoint")
    model.add_argument("--saved_model", type=Path, metavar="DIR", help="a SavedModel")
    add("--show", action="store_true", help="print the model's input as text")
    add("--seen", type=Path, metavar="DIR", help="write the model's inputs to this directory, as PNG files")
    add("--trust", action="store_true", help="load a graph that can touch files (SECURITY.md)")
    add("--json", action="store_true", help="print one JSON object per digit and line")
    return parser


def _predict(args: argparse.Namespace) -> int:
    from mnist.tools import digit_reader  # noqa: PLC0415 - NumPy, before TensorFlow's import is silenced

    with tensorflow_import():
        from checkpointing.graphs import predictor  # noqa: PLC0415 - needs TensorFlow
    path = args.train_dir or args.checkpoint or args.saved_model or _DEFAULT_TRAIN_DIR
    if path == _DEFAULT_TRAIN_DIR and not path.is_dir():
        hint = f"train one with `python train_cnn.py --config=cnn_fast --train_dir={path}` (seconds), or give "
        raise CheckpointError(f"{path}: no trained model found", hint=f"{hint}--train_dir or --saved_model")
    _check_is_empty(args.seen)
    problems: list[Exception] = []

    def report(error: Exception) -> None:
        problems.append(error)
        cli.print_error(error)

    with predictor.open_predictor(path, {"images"}, {"classes", "probabilities"}, trusted=args.trust) as model:
        found = digit_reader.find_digits(args.files, report)
        for number, (digit, record) in enumerate(digit_reader.predict(model.predict, found)):
            _print(digit, record, number, args)
    return cli.FAILED if problems else cli.OK


def _check_is_empty(directory: Path | None) -> None:
    if directory is None or not (directory.exists() or directory.is_symlink()):
        return
    if not directory.is_dir() or any(directory.iterdir()):
        got = "one with files in it" if directory.is_dir() else "something else"
        message = f"--seen={directory}: expected a directory that is new or empty, got {got}"
        raise CheckpointError(message, hint="give another directory")


def _print(found: FoundDigit, record: dict[str, Any], number: int, args: argparse.Namespace) -> None:
    from mnist.tools import digit_reader  # noqa: PLC0415 - needs NumPy

    if args.json:
        cli.print_result(json.dumps(record))
    if found.digit is None:  # an error about it has been printed
        return
    if not args.json:
        cli.print_result(digit_reader.in_words(found, record))
    if args.show:
        stream, show = (sys.stderr, cli.print_to_stderr) if args.json else (sys.stdout, cli.print_result)
        show(digit_reader.as_text(found.digit.image, stream.encoding))
    if args.seen:
        name = f"{number:05d}-{Path(found.name).stem}-is-{record['digit']}.png"
        digit_reader.write_png(found.digit.image, args.seen / name)


if __name__ == "__main__":
    sys.exit(main())
