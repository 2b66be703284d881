"""--dry_run: all that a run does, for a second, and nothing written; then what it would cost."""

import math
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import tensorflow as tf
from tabulate import tabulate

from checkpointing.cli import print_line
from configs.flags import RunOptions
from configs.settings import CnnSettings, Settings
from mnist.input.dataset import Dataset, Split
from mnist.model import precision, training_graph
from mnist.training import evaluation
from trainer import train

_SECONDS = 1.0
_MOST_VALIDATED = 500


def dry_run(command: RunOptions, data: Dataset) -> int:
    """Builds the graph, fills it, makes steps for about a second, judges some images, and tells time and disk.

    Returns:
      The exit status: 0.

    Raises:
      MachineError: the precision asked for is not this machine's.
    """
    settings = command.settings
    precision.check_precision(settings.precision)
    built = train.build_graph(settings, partial(train.make_model, settings), data.train)
    with training_graph.open_session(built.graph, settings.threads) as session:
        training_graph.initialize(session, built, data.train)
        first = _seconds(partial(session.run, built.run_steps, {built.steps_per_execution: 1}))
        steps, spent = 0, 0.0
        while spent < _SECONDS:  # twice as many each time
            count = max(1, steps)
            spent += _seconds(partial(session.run, built.run_steps, {built.steps_per_execution: count}))
            steps += count
        some = Split(data.validation.images[:_MOST_VALIDATED], data.validation.labels[:_MOST_VALIDATED])
        evaluation.evaluate(session, built.inference, some)  # the first call pays for preparations
        judging = _seconds(partial(evaluation.evaluate, session, built.inference, some))
    a_step = spent / steps
    validating = judging * len(data.validation.labels) / max(1, len(some.labels))
    validating *= _times(settings.evaluate_every_steps, settings)
    size = sum(_bytes(variable) for variable in built.saved) + built.graph.as_graph_def().ByteSize()
    parameters = sum(math.prod(variable.shape.as_list()) for variable in built.trained)
    saves = settings.train_steps if settings.save_every_seconds else _times(settings.save_every_steps, settings)
    kept = min(saves, settings.max_to_keep + settings.keep_best) if settings.max_to_keep else saves
    told = {
        "parameters": f"{parameters:,}",
        "first step": f"{first:.1f} s",
        "a step": f"{1000 * a_step:.2f} ms, {settings.batch_size / a_step:,.0f} images/s",
        "training": f"{_duration(a_step * settings.train_steps)} for {settings.train_steps:,} steps",
        "validation": f"{_duration(validating)} in all",
        "a checkpoint": f"{size / 1e6:.1f} MB",
        "checkpoints kept": f"up to {kept:,}, {kept * size / 1e6:.1f} MB",
        "free on the disk": f"{_free(command.train_dir) / 1e6:,.0f} MB",
    }
    print_line(tabulate(told.items(), tablefmt="plain"))
    if isinstance(settings, CnnSettings) and settings.members > 1:
        print_line(f"each of the {settings.members} members")
    print_line("nothing was written: leave --dry_run out to train")
    return 0


def _seconds(what: Callable[[], object]) -> float:
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def _times(every_steps: int, settings: Settings) -> int:
    """How often something happens in a run, the last step included."""
    return math.ceil(settings.train_steps / every_steps) if every_steps else 1


def _bytes(variable: tf.Variable) -> int:
    return int(math.prod(variable.shape.as_list()) * variable.dtype.base_dtype.size)


def _free(directory: Path) -> int:
    """On the disk where the train_dir would be made."""
    there = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
