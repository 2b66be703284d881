"""The networks of an ensemble: trained one after the other, each by a process of its own, then joined.

A member is a run of train_cnn.py like any other, in <train_dir>/seed-<its seed>: it goes on after a crash, and one that
has ended is not run again. What joining them leaves in the train_dir itself, ensemble.py says.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpointing.cli import print_line
from checkpointing.errors import CheckpointError, DamagedError, UsageError
from checkpointing.kernel_environment import choose_kernels
from checkpointing.protocol import resume
from checkpointing.protocol.manifest import Manifest
from checkpointing.runs import supervisor
from checkpointing.runs.preemption import listen_for_stop
from checkpointing.storage import durable, layout, staging
from checkpointing.storage.fingerprint import code_sha256
from checkpointing.tf_import import tensorflow_import
from mnist import sources
from mnist.errors import ResultError
from mnist.reporting import results

if TYPE_CHECKING:
    from configs.flags import RunOptions
    from configs.settings import CnnSettings
    from mnist.training.stopwatch import Stopwatch

_log = logging.getLogger(__name__)


def train_members(command: RunOptions, settings: CnnSettings, stopwatch: Stopwatch) -> int:
    """Trains the members, and joins them.

    Args:
      command: where things lie; the members' command line is the same, but for seed and train_dir.
      settings: of the whole; a member's are the same, with one member.
      stopwatch: counts the seconds that joining takes.

    Returns:
      The exit status: 0 done; 75 stopped by a signal, run it again; else that of the member that failed, 128 + n where
      it died of signal n.

    Raises:
      UsageError, CheckpointError, DataError, ResultError: in one sentence, what is wrong and what to do.
    """
    if command.restore_from:
        message = (
            f"--restore_from found with --members={settings.members}: they would all be one network; leave one out."
        )
        raise UsageError(message)
    with listen_for_stop() as stop, stop.interruptible():
        with stopwatch("data"):
            from mnist.input import dataset  # noqa: PLC0415 - --help does not wait for NumPy

            data = dataset.load(command.data_dir, settings.validation_size, download=command.download)
        identity = {"model": "cnn", "data": data.fingerprint, **command.run_identity()}
        start = resume.open_train_dir(
            command.train_dir,
            identity,
            code=code_sha256(sources("trainer/members.py", "trainer/ensemble.py", "trainer/train.py")),
            environment=choose_kernels(),
        )
    stop.check()  # a signal that came at the end of the block
    if start.newest is None:
        try:
            staging.check_target(command.export_dir or layout.export_path(command.train_dir, settings.train_steps))
        except CheckpointError:
            start.close()
            raise
    seeds = range(settings.seed, settings.seed + settings.members)
    directories = {seed: command.train_dir / f"seed-{seed}" for seed in seeds}
    status = supervisor.run_each(
        _command_of_member(command, settings, seed, directory)
        for seed, directory in directories.items()
        if not _has_ended(directory, settings.train_steps, identity | {"members": 1, "seed": seed})
    )
    if status:
        start.close()
        return status
    with listen_for_stop() as stop:
        with stop.interruptible():
            with stopwatch("import"), tensorflow_import(debug=command.debug):
                from mnist import report  # noqa: PLC0415
                from trainer import ensemble  # noqa: PLC0415 - members do not wait for a TensorFlow of ours
            ended = {directory: results.read(directory / layout.RESULT) for directory in directories.values()}
            record, answers = ensemble.join_members(
                command, settings, ended, data=data, start=start, stopwatch=stopwatch
            )
            durable.atomic_write_json(command.train_dir / layout.RESULT, record)
        print_line(results.summary(record))
        if settings.report:
            report.leave(command.train_dir, settings.train_steps, data.test, answers, stop)
    return 0


def _has_ended(directory: Path, step: int, identity: dict[str, Any]) -> bool:
    """Whether this very run is at its end there; where anything else is there, its own start says what."""
    manifest_path = layout.manifest_path(layout.prefix(directory, step))
    result_path = directory / layout.RESULT
    if not (manifest_path.exists() and result_path.exists()):
        return False
    with suppress(DamagedError, ResultError):
        return results.read(result_path)["step"] == step and Manifest.read(manifest_path).settings == identity
    return False


def _command_of_member(command: RunOptions, settings: CnnSettings, seed: int, directory: Path) -> list[str]:
    """The command line of this very process, for one member."""
    _log.info("the network of seed %d: %s", seed, directory)
    if command.warm_start_from:
        _share_origin(command.train_dir, command.warm_start_from, directory)
    flags = ["--members=1", f"--seed={seed}", f"--train_dir={directory}"]
    if command.export_dir:
        flags.append(f"--export_dir={layout.export_path(directory, settings.train_steps)}")
    return [sys.executable, *sys.orig_argv[1:], *flags]


def _share_origin(train_dir: Path, warm_start_from: Path, directory: Path) -> None:
    """Has a member begin with the same weights as the others, whatever its source has saved meanwhile."""
    begun = directory.is_dir() and layout.steps_with(directory, "manifest.json")
    if begun or (directory / layout.ORIGIN).exists():
        return
    origin = resume.pin_origin(train_dir, "warm_start_from", warm_start_from)
    durable.make_directory(directory)
    resume.record_origin(directory, origin)
