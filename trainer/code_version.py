"""Hash of the code that computes the weights. Resuming with another hash logs a warning.

The modules are found, not listed: every .py file of PACKAGES counts, except the files and folders in EXCLUDED, which
only read command lines, report, export or serve. A new module counts until it is excluded here.
"""

from collections.abc import Iterator
from pathlib import Path

from checkpointing.storage import fingerprint

ROOT = Path(__file__).parent.parent

PACKAGES = ("mnist", "trainer")
PROGRAMS = "train_*.py"
# Choose TensorFlow's kernels, and the number of threads.
KERNELS = ("checkpointing/kernel_environment.py", "checkpointing/processor.py")

EXCLUDED = (
    # command lines
    *("mnist/__init__.py", "mnist/compare.py", "mnist/convert.py", "mnist/evaluate.py"),
    *("mnist/predict.py", "mnist/report.py", "mnist/reproduce.py"),
    # exceptions
    "mnist/errors.py",
    # images of other sources, for inference
    "mnist/images",
    # use of a trained model
    *("mnist/model/predictor.py", "mnist/model/signatures.py"),
    # reports, and what a run logs and measures
    *("mnist/reporting", "mnist/tools"),
    *("mnist/training/evaluation.py", "mnist/training/progress.py", "mnist/training/stopwatch.py"),
    "mnist/training/summaries.py",
    # the trainer around the training
    *("trainer/app.py", "trainer/code_version.py", "trainer/dry_run.py", "trainer/export.py", "trainer/hints.py"),
    *("trainer/hooks.py", "trainer/preparation.py", "trainer/replay", "trainer/results.py"),
)


def code_sha256(root: Path = ROOT) -> str:
    """Return the hex sha256 of all modules that compute weights."""
    return fingerprint.code_sha256(computing_modules(root))


def computing_modules(root: Path = ROOT) -> Iterator[Path]:
    """Yield the files whose code computes weights."""
    excluded = {root / name for name in EXCLUDED}
    yield from (root / name for name in KERNELS)
    yield from root.glob(PROGRAMS)
    for package in PACKAGES:
        for path in (root / package).rglob("*.py"):
            if excluded.isdisjoint((path, *path.parents)):
                yield path
