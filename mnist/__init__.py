"""MNIST: data, models, training, evaluation and reports. Only the command lines read flags and checkpoints."""

import signal
import sys
from pathlib import Path

# `python -m mnist.NAME` imports this package first, with "-m" as sys.argv[0]. From here until `cli.run_tool` takes
# over, Ctrl-C ends the process without a traceback, as it ends a program in C.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

# What weights are a function of; the rest shows, asks and tells.
_COMPUTING = (
    *("input/augment", "input/dataset", "input/idx", "input/regular_file", "input/sampling"),
    *("model/ema", "model/training_graph", "model/networks", "model/precision", "model/schedules", "training/loop"),
)


def sources(*programs: str) -> list[Path]:
    """The files whose code computes weights, these programs beside the package among them.

    Where a run goes on with others, it says that its last bits may differ.
    """
    package = Path(__file__).parent
    return [
        *(package / f"{name}.py" for name in _COMPUTING),
        *(package.parent / "checkpointing" / f"{name}.py" for name in ("kernel_environment", "tf_import")),
        *(package.parent / name for name in programs),
    ]
