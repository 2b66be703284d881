"""The start of training: initial values, then a checkpoint to resume from or weights of another run."""

import logging

import tensorflow as tf

from checkpointing.errors import CheckpointError
from checkpointing.graphs import variable_matching
from checkpointing.protocol.manager import CheckpointManager
from checkpointing.protocol.run_identity import SourceCheckpoint
from configs.flags import RunOptions, WarmStart
from configs.settings import Settings
from mnist.input.dataset import Split
from mnist.model import schedules, training_graph
from mnist.model.training_graph import TrainingGraph
from mnist.training.stopwatch import Stopwatch
from trainer import export

_log = logging.getLogger(__name__)


def restore(
    session: tf.compat.v1.Session,
    graph: TrainingGraph,
    manager: CheckpointManager,
    *,
    split: Split,
    options: RunOptions,
    stopwatch: Stopwatch,
) -> int:
    """Load the training data, and give each variable its value at the step to resume from.

    Returns:
      The step.

    Raises:
      CheckpointError: the checkpoint cannot be restored or is beyond --train_steps, or the export's place is taken.
    """
    with stopwatch("restore"):
        training_graph.initialize(session, graph, split)
        manager.restore(session)
        start = manager.start  # a damaged checkpoint may have been replaced by the one before
        if start.prefix is None and start.warm_start and options.warm_start:
            warm_start(session, graph, start.warm_start, options.warm_start)
    step = int(session.run(graph.step))
    train_steps = options.settings.train_steps
    if step > train_steps:
        raise CheckpointError(
            f"{start.prefix}: expected a step up to --train_steps={train_steps}, got {step}",
            hint="give a larger --train_steps, or another --train_dir for a shorter run",
        )
    if step == train_steps:
        _log.info("finished already: step %d of %d; only evaluating", step, train_steps)
    else:
        export.check_export_dir(options, start)
        if start.prefix:
            _log.info("resuming from %s, step %d of %d", start.prefix, step, train_steps)
    if start.newest and start.newest.settings["train_steps"] != train_steps:
        _log_extension(options.settings, step, start.newest.settings["train_steps"])
    return step


def warm_start(
    session: tf.compat.v1.Session, graph: TrainingGraph, source: SourceCheckpoint, choice: WarmStart
) -> None:
    """Copy weights of another run's checkpoint; step and optimizer keep their initial values."""
    prefix = source.prefix
    found = variable_matching.match(prefix, graph.trained, choice.pattern, renames=choice.renames)
    with graph.graph.as_default():
        variable_matching.restore(session, prefix, found)
    source.check()  # the files may have been replaced meanwhile
    for line in found.summary().splitlines():
        _log.info("warm start from %s: %s", prefix, line)


def _log_extension(settings: Settings, step: int, before: int) -> None:
    """Log that a run is extended, and what a schedule that depends on the number of steps makes of it."""
    _log.info("extended from %d to %d steps", before, settings.train_steps)
    if schedules.depends_on_train_steps(settings.learning_rate_schedule):
        _log.warning(
            "the %s schedule now ends at step %d; up to step %d it was to end at %d, so the weights will differ from "
            "those of an undisturbed run of %d steps",
            settings.learning_rate_schedule,
            settings.train_steps,
            step,
            before,
            settings.train_steps,
        )
