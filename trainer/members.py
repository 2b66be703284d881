"""The members of an ensemble: trained one after the other, each in a separate process, then joined (ensemble.py).

A member is an ordinary run of train_cnn.py in <train_dir>/seed-<seed>: it resumes after a crash, and a finished one is
not run again.
"""

import logging
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpointing.cli import print_line
from checkpointing.errors import CheckpointError, DamagedError, UsageError
from checkpointing.protocol import run_identity
from checkpointing.protocol.manifest import Manifest
from checkpointing.runs import supervisor
from checkpointing.runs.preemption import listen_for_stop
from checkpointing.storage import durable, layout, staging
from checkpointing.tf_import import tensorflow_import
from configs.flags import RunOptions
from configs.settings import CnnSettings
from mnist.errors import ResultError
from mnist.reporting import results
from mnist.training.stopwatch import Stopwatch
from trainer import preparation

if TYPE_CHECKING:
    from collections.abc import Callable

    from mnist.model.networks import Model

_log = logging.getLogger(__name__)


def train_members(
    options: RunOptions, settings: CnnSettings, make_model: "Callable[[CnnSettings], Model]", stopwatch: Stopwatch
) -> int:
    """Train the members and join them.

    Args:
      options: directories; a member's command line is this process's, with its own seed and train_dir.
      settings: of the ensemble; a member's are the same, with members=1.
      make_model: makes one member in the current graph.
      stopwatch: counts the seconds of joining.

    Returns:
      The exit status: 0 done; 75 stopped by a signal; otherwise that of the member that failed, 128 + n if it died of
      signal n.

    Raises:
      UsageError, CheckpointError, DataError, ResultError: the ensemble cannot be trained or joined.
    """
    if options.restore_from:
        raise UsageError(
            f"--restore_from: expected no checkpoint with --members={settings.members}, got {options.restore_from}",
            hint="all members would be the same network; leave one of the two flags out",
        )
    with listen_for_stop() as stop, stop.interruptible():
        data = preparation.load_data(options, stopwatch)
        identity = preparation.run_identity(options, "cnn", data)
        start = preparation.open_train_dir(options, identity)
    stop.check()  # a signal that came at the end of the block
    if start.newest is None:
        try:
            staging.check_target(preparation.export_dir(options))
        except CheckpointError:
            start.close()
            raise
    seeds = range(settings.seed, settings.seed + settings.members)
    directories = {seed: options.train_dir / f"seed-{seed}" for seed in seeds}
    status = supervisor.run_each(
        _member_command(options, seed, directory)
        for seed, directory in directories.items()
        if not _has_finished(directory, settings, identity | {"members": 1, "seed": seed})
    )
    if status:
        start.close()
        return status
    with listen_for_stop() as stop:
        with stop.interruptible():
            with stopwatch("import"), tensorflow_import(debug=options.debug):
                from mnist.tools import run_report  # noqa: PLC0415 - members are trained without a TensorFlow in this process
                from trainer import ensemble  # noqa: PLC0415
            finished = {directory: results.read(directory / layout.RESULT) for directory in directories.values()}
            record, predictions = ensemble.join_members(
                options, partial(make_model, settings), finished, data=data, start=start, stopwatch=stopwatch
            )
            durable.atomic_write_json(options.train_dir / layout.RESULT, record)
        print_line(results.summary(record))
        if settings.report:
            run_report.write_at_end(options.train_dir, settings.train_steps, data.test, predictions, stop)
    return 0


def _has_finished(directory: Path, settings: CnnSettings, identity: dict[str, Any]) -> bool:
    """Whether the run of this identity has finished there. Any other run in that place is an error of its start."""
    manifest_path = layout.manifest_path(layout.prefix(directory, settings.train_steps))
    result_path = directory / layout.RESULT
    if not (manifest_path.exists() and result_path.exists()):
        return False
    with suppress(DamagedError, ResultError):
        recorded = Manifest.read(manifest_path).settings
        return results.read(result_path)["step"] == settings.train_steps and not run_identity.diff(
            recorded, identity, defaults=settings.identity_defaults()
        )
    return False


def _member_command(options: RunOptions, seed: int, directory: Path) -> list[str]:
    """Return this process's command line with the flags of one member."""
    _log.info("training the member of seed %d in %s", seed, directory)
    if options.warm_start_from:
        _share_source(options.train_dir, options.warm_start_from, directory)
    flags = ["--members=1", f"--seed={seed}", f"--train_dir={directory}"]
    if options.export_dir:
        flags.append(f"--export_dir={layout.export_path(directory, options.settings.train_steps)}")
    return [sys.executable, *sys.orig_argv[1:], *flags]


def _share_source(train_dir: Path, warm_start_from: Path, directory: Path) -> None:
    """Pin one checkpoint for all members to start from: the directory it is in may get a newer one meanwhile."""
    has_begun = directory.is_dir() and layout.steps_with(directory, "manifest.json")
    if has_begun or (directory / layout.ORIGIN).exists():
        return
    source = run_identity.pin_source(train_dir, "warm_start_from", warm_start_from)
    durable.make_directory(directory)
    run_identity.record_source(directory, source)
