"""The networks of an ensemble: trained one after the other, each by a process of its own, then joined.

A member is a run of train_cnn.py like any other, in <train_dir>/seed-<its seed>: it goes on after a crash, and one that
has ended is not trained again. What joining them leaves in the train_dir itself, ensemble.py says.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from checkpointing import durable, layout, resume, supervision
from checkpointing.errors import CheckpointError
from checkpointing.fingerprint import code_sha256
from checkpointing.interruption import listen_for_stop
from configs.command_line import tell
from mnist import result
from mnist.quiet import silenced

if TYPE_CHECKING:
    from configs.command_line import Command
    from configs.settings import CnnSettings
    from mnist.stopwatch import Stopwatch


_log = logging.getLogger(__name__)


def train(command: Command, settings: CnnSettings, stopwatch: Stopwatch) -> int:
    """Trains the members, and joins them.

    Args:
      command: where things lie; the members' command line is the same, but for seed and train_dir.
      settings: of the whole; a member's are the same, with one member.
      stopwatch: counts the seconds that joining takes.

    Returns:
      The exit status: 0 done; 75 stopped by a signal, run it again; else that of the member that failed.

    Raises:
      CheckpointError, DataError: in one sentence, what is wrong and what to do.
    """
    if command.restore_from:
        message = (
            f"--restore_from found with --members={settings.members}: they would all be one network; leave one out."
        )
        raise CheckpointError(message)
    seeds = range(settings.seed, settings.seed + settings.members)
    directories = [command.train_dir / f"seed-{seed}" for seed in seeds]
    for seed, directory in zip(seeds, directories, strict=True):
        _log.info("the network of seed %d, of %d to %d: %s", seed, seeds[0], seeds[-1], directory)
        status = supervision.supervise(
            _command_of_member(command, settings, seed, directory),
            max_restarts=0,  # where restarts are asked for, each member supervises itself
            newest_step=lambda: None,
            step_back=lambda _why: None,
        )
        if status:
            return status
    with listen_for_stop() as stop, stop.at_once():
        with stopwatch("data"):
            from mnist import dataset  # noqa: PLC0415 - nobody waits for NumPy or TensorFlow while members are trained

            data = dataset.load(command.data_dir, settings.validation_size)
        ended = {directory: result.read(directory / layout.RESULT) for directory in directories}
        start = resume.find_start(
            command.train_dir,
            {
                "model": "cnn",
                "data": data.fingerprint,
                **command.changing_weights(),
                "members_sha256": [each["weights_sha256"] for each in ended.values()],
            },
            code=code_sha256([Path(__file__), *Path(dataset.__file__).parent.glob("*.py")]),
        )
        with stopwatch("import"), silenced(debug=command.debug):
            import ensemble  # noqa: PLC0415 - as above
        record = ensemble.join(command, settings, ended, data=data, start=start, stopwatch=stopwatch)
        durable.replace_json(command.train_dir / layout.RESULT, record)
    tell(result.summary(record))
    return 0


def _command_of_member(command: Command, settings: CnnSettings, seed: int, directory: Path) -> list[str]:
    """The command line of this very process, for one member."""
    flags = ["--members=1", f"--seed={seed}", f"--train_dir={directory}"]
    if command.export_dir:
        flags.append(f"--export_dir={layout.export_path(directory, settings.train_steps)}")
    return [sys.executable, *sys.orig_argv[1:], *flags]
