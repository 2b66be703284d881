"""What a run needs before TensorFlow is imported: the data, the train_dir, the export's directory."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpointing.kernel_environment import choose_kernels
from checkpointing.protocol import resume
from checkpointing.protocol.resume import ResumePoint
from checkpointing.storage import layout
from configs.flags import RunOptions
from mnist.training.stopwatch import Stopwatch
from trainer import code_version

if TYPE_CHECKING:
    from mnist.input.dataset import Dataset


def load_data(options: RunOptions, stopwatch: Stopwatch) -> "Dataset":
    """Read and split the data; count the seconds under "data".

    Raises:
      DataError: the files are missing or damaged.
    """
    with stopwatch("data"):
        from mnist.input import dataset  # noqa: PLC0415 - imports NumPy, which --help does without

        download = options.download and not options.dry_run
        return dataset.load(options.data_dir, options.settings.validation_size, download=download)


def run_identity(options: RunOptions, program: str, data: "Dataset") -> dict[str, Any]:
    """Return everything the weights are a function of, code and environment aside."""
    return {"model": program, "data": data.fingerprint, **options.run_identity()}


def open_train_dir(
    options: RunOptions,
    identity: dict[str, Any],
    *,
    restore_from: Path | None = None,
    warm_start_from: Path | None = None,
    may_grow: tuple[str, ...] = (),
) -> ResumePoint:
    """Lock the train_dir and find where to resume; see `resume.open_train_dir`."""
    return resume.open_train_dir(
        options.train_dir,
        identity,
        code=code_version.code_sha256(),
        environment=choose_kernels(),
        defaults=options.settings.identity_defaults(),
        restore_from=restore_from,
        warm_start_from=warm_start_from,
        may_grow=may_grow,
    )


def export_dir(options: RunOptions) -> Path:
    """Return the directory of the exported model: --export_dir, or <train_dir>/saved_model/<train_steps>."""
    return options.export_dir or layout.export_path(options.train_dir, options.settings.train_steps)
