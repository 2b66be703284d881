"""--dry_run: build the graph, train for about a second, write nothing; print what the run would cost."""

import math
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
from tabulate import tabulate

from checkpointing.cli import print_line
from configs.flags import RunOptions
from configs.settings import CnnSettings, Settings
from mnist.input.dataset import Dataset, Split
from mnist.model import training_graph
from mnist.model.networks import Model
from mnist.model.training_graph import TrainingGraph
from mnist.training import evaluation
from trainer import train

_SECONDS = 1.0
_VALIDATION_IMAGES = 500


class _Cost(NamedTuple):
    """Measured seconds. validation_image: of one image."""

    first_step: float
    step: float
    validation_image: float


def dry_run(options: RunOptions, make_model: Callable[[], Model], data: Dataset) -> int:
    """Measure the steps and print time, size of the checkpoints and free disk space.

    Returns:
      The exit status: 0.

    Raises:
      MachineError: the processor lacks the precision.
    """
    settings = options.settings
    graph = train.build_graph(settings, make_model, data.train)
    cost = _measure(graph, settings, data)
    validation = cost.validation_image * len(data.validation.labels) * _times(settings.evaluate_every_steps, settings)
    size = sum(_bytes(variable) for variable in graph.saved) + graph.graph.as_graph_def().ByteSize()
    parameters = sum(math.prod(variable.shape.as_list()) for variable in graph.trained)
    saves = settings.train_steps if settings.save_every_seconds else _times(settings.save_every_steps, settings)
    kept = min(saves, settings.max_to_keep + settings.keep_best) if settings.max_to_keep else saves
    lines = {
        "parameters": f"{parameters:,}",
        "first step": f"{cost.first_step:.1f} s",
        "a step": f"{1000 * cost.step:.2f} ms, {settings.batch_size / cost.step:,.0f} images/s",
        "training": f"{_duration(cost.step * settings.train_steps)} for {settings.train_steps:,} steps",
        "validation": f"{_duration(validation)} in all",
        "a checkpoint": f"{size / 1e6:.1f} MB",
        "checkpoints kept": f"up to {kept:,}, {kept * size / 1e6:.1f} MB",
        "free on the disk": f"{_free_bytes(options.train_dir) / 1e6:,.0f} MB",
    }
    print_line(tabulate(lines.items(), tablefmt="plain"))
    if isinstance(settings, CnnSettings) and settings.members > 1:
        print_line(f"each of the {settings.members} members")
    print_line("nothing was written: leave --dry_run out to train")
    return 0


def _measure(graph: TrainingGraph, settings: Settings, data: Dataset) -> _Cost:
    with training_graph.open_session(graph.graph, settings.threads) as session:
        training_graph.initialize(session, graph, data.train)
        first = _seconds(partial(session.run, graph.run_steps, {graph.steps_per_execution: 1}))
        steps, spent = 0, 0.0
        while spent < _SECONDS:  # twice as many each time
            count = max(1, steps)
            spent += _seconds(partial(session.run, graph.run_steps, {graph.steps_per_execution: count}))
            steps += count
        images, labels = data.validation
        some = Split(images[:_VALIDATION_IMAGES], labels[:_VALIDATION_IMAGES])
        evaluation.evaluate(session, graph.inference, some)  # the first call includes one-time work
        validation = _seconds(partial(evaluation.evaluate, session, graph.inference, some))
    return _Cost(first, spent / steps, validation / max(1, len(some.labels)))


def _seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _times(every_steps: int, settings: Settings) -> int:
    """Return how often something happens in a run that happens every so many steps and after the last one."""
    return math.ceil(settings.train_steps / every_steps) if every_steps else 1


def _bytes(variable: tf.Variable) -> int:
    return int(math.prod(variable.shape.as_list()) * variable.dtype.base_dtype.size)


def _free_bytes(directory: Path) -> int:
    """Return the free space of the disk on which the train_dir would be made."""
    existing = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
