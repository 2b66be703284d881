"""Convert an exported model to ONNX or TFLite.

    python -m mnist.convert --saved_model=DIR FILE.onnx
    python -m mnist.convert --saved_model=DIR FILE.tflite
        [--data_dir=DIR] [--trust]

The file's input is `images`, uint8 [N, 28, 28]; its outputs are `classes`, int64 [N], and `probabilities`, float32
[N, 10]. It is written only if its predictions for all test images match the SavedModel's: equal classes, and
probabilities within 1e-4. Needs `pip install -r requirements-convert.txt`.
Exit status: 0 done; 1 an error; 2 a usage error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from checkpointing import cli
from checkpointing.errors import CheckpointError
from checkpointing.protocol import lookup
from checkpointing.tf_import import tensorflow_import

_SUFFIXES = (".onnx", ".tflite")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = _parser().parse_args(arguments)
    return cli.run_tool(
        lambda: _convert(args.saved_model, args.file, args.data_dir, trusted=args.trust), debug=args.debug
    )


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("python -m mnist.convert", __doc__)
    add = parser.add_argument
    add("--saved_model", type=Path, required=True, metavar="DIR", help="the exported model")
    add("--data_dir", type=Path, metavar="DIR", help="data whose test images are compared (the bundled MNIST)")
    add("--trust", action="store_true", help="load a graph that can touch files (SECURITY.md)")
    add("file", type=_target, metavar="FILE", help="file to write: .onnx or .tflite")
    return parser


def _target(text: str) -> Path:
    path = Path(text)
    if path.suffix not in _SUFFIXES:
        raise argparse.ArgumentTypeError(f"expected a name that ends in {' or '.join(_SUFFIXES)}, got {text}")
    return path


def _convert(directory: Path, target: Path, data_dir: Path | None, *, trusted: bool) -> int:
    from mnist.input import dataset  # noqa: PLC0415 - --help does not wait for NumPy

    if not lookup.is_saved_model(directory):
        raise CheckpointError(f"{directory}: no SavedModel found", hint="give a run's saved_model/<step>")
    if target.is_dir():
        raise CheckpointError(f"{target}: expected a file to write, got a directory")
    if not target.parent.is_dir():
        raise CheckpointError(f"{target}: expected a name in a directory that exists")
    images = dataset.load(data_dir, 0).test.images
    with tensorflow_import():
        from mnist.tools import model_conversion  # noqa: PLC0415 - needs TensorFlow
    cli.print_result(f"{target}: {model_conversion.convert(directory, target, images, trusted=trusted)}")
    return cli.OK


if __name__ == "__main__":
    sys.exit(main())
