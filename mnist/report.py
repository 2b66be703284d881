"""Write the report of a run: one HTML page of learning curves, errors, calibration, checkpoints and settings.

    python -m mnist.report [--train_dir=DIR] [--data_dir=DIR] [--trust]

Writes `<train_dir>/report.html`, which needs only a browser, and its plots as `<train_dir>/report/*.png`. The model is
the newest checkpoint, also of a run in progress. A run writes its report itself when it ends, unless --noreport.
Exit status: 0 done; 1 an error; 2 a usage error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from checkpointing import cli
from checkpointing.protocol import lookup
from checkpointing.tf_import import tensorflow_import

if TYPE_CHECKING:
    from mnist.input.dataset import Split
    from mnist.training.evaluation import Predictions

_DEFAULT_TRAIN_DIR = Path("runs/cnn")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = _parser().parse_args(arguments)
    return cli.run_tool(lambda: _report(args.train_dir, args.data_dir, trusted=args.trust), debug=args.debug)


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("python -m mnist.report", __doc__)
    add = parser.add_argument
    add("--train_dir", type=Path, default=_DEFAULT_TRAIN_DIR, metavar="DIR", help=f"the run ({_DEFAULT_TRAIN_DIR})")
    add("--data_dir", type=Path, metavar="DIR", help="the run's data (the bundled MNIST)")
    add("--trust", action="store_true", help="load a graph that can touch files (SECURITY.md)")
    return parser


def _report(train_dir: Path, data_dir: Path | None, *, trusted: bool) -> int:
    from mnist.tools import run_data, run_report  # noqa: PLC0415 - --help does not wait for NumPy

    prefix, manifest = lookup.newest_of_run(train_dir)
    test = run_data.load(data_dir, 0, manifest.settings).test
    cli.print_result(str(run_report.write(train_dir, prefix, test, _predict(prefix, test, trusted=trusted))))
    return cli.OK


def _predict(prefix: Path, split: Split, *, trusted: bool) -> Predictions:
    with tensorflow_import():
        from checkpointing.graphs import predictor  # noqa: PLC0415 - needs TensorFlow
        from mnist.training.evaluation import Predictions  # noqa: PLC0415
    with predictor.open_predictor(prefix, {"images"}, set(Predictions._fields), trusted=trusted) as model:
        return Predictions(**predictor.predict_in_batches(model.predict, {"images": split.images}))


if __name__ == "__main__":
    sys.exit(main())
