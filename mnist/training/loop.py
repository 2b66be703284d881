"""The loop, and nothing but the loop.

Many steps run in one session.run, up to the next thing due and never longer than about half a second, so that
signals are heard. How the steps are cut into calls changes no bit of the result.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from mnist.errors import NonFiniteLossError
from mnist.model.graph import TrainingGraph, Update
from mnist.training.progress import Progress
from mnist.training.stopwatch import Stopwatch

# Aim below the half second that a signal may wait, for speed drifts.
_SECONDS_A_CALL = 0.4

UNFINISHED = "unfinished"


class Hooks(NamedTuple):
    """What happens between two calls; the loop says when, the caller what.

    evaluate: gives the validation accuracy, or None where there are no validation images.
    record: takes the record of a logged step, JSON-ready, before anything of that step is saved. With UNFINISHED in
      it the record lacks its validation accuracy, for whoever was to give it raised.
    save_if_due: is called after every call, once the step's record is taken, with the step and its validation accuracy
      if it has one; gives the step of the newest checkpoint, None where there is none.
    check_stop: raises where the run has been asked to stop.
    """

    evaluate: Callable[[], float | None]
    record: Callable[[dict[str, Any]], None]
    save_if_due: Callable[[int, float | None], int | None]
    check_stop: Callable[[], None]


def train(
    session: tf.compat.v1.Session,
    training_graph: TrainingGraph,
    hooks: Hooks,
    stopwatch: Stopwatch,
    *,
    train_steps: int,
    batch_size: int,
    log_every_steps: int,
    evaluate_every_steps: int,
    save_every_steps: int,
) -> float | None:
    """Trains from the step that the session holds up to train_steps.

    A period of 0 steps never comes due; the last step is always evaluated and logged. A record holds `step`, `loss` of
    the last batch, `learning_rate`, `images_per_second` since the record before, and, where evaluated,
    `validation_accuracy`. Seconds are counted under `train` and `evaluate`.

    Returns:
      The validation accuracy after the last step; None where there are no validation images.

    Raises:
      NonFiniteLossError: the loss is no longer a finite number; nothing of that step has been saved.
    """
    step = int(session.run(training_graph.step))
    if step == train_steps:
        with stopwatch("evaluate"):
            return hooks.evaluate()
    validation_accuracy = None
    steps_recorded, seconds_recorded = step, stopwatch.seconds["train"]
    periods = (log_every_steps, evaluate_every_steps, save_every_steps)
    updates = run_steps(session, training_graph, step, train_steps=train_steps, cut_at=periods, stopwatch=stopwatch)
    with Progress(train_steps, step) as progress:
        hooks.check_stop()
        for update in updates:
            step = update.step
            if not math.isfinite(update.loss):
                raise NonFiniteLossError(f"the loss is {update.loss} at step {step}")
            progress.advance(step)
            evaluation_due = step == train_steps or _due(step, evaluate_every_steps)
            if evaluation_due or _due(step, log_every_steps):
                seconds = stopwatch.seconds["train"]
                images_per_second = (step - steps_recorded) * batch_size / (seconds - seconds_recorded)
                steps_recorded, seconds_recorded = step, seconds
                record = {**update._asdict(), "images_per_second": round(images_per_second, 1)}
                if evaluation_due:
                    validation_accuracy = validate(record, hooks, stopwatch)
                hooks.record(record)
                progress.show(record)
            progress.saved(hooks.save_if_due(step, validation_accuracy if evaluation_due else None))
            hooks.check_stop()
    return validation_accuracy


def validate(record: dict[str, Any], hooks: Hooks, stopwatch: Stopwatch) -> float | None:
    """Adds the validation accuracy to a record, and gives it; None where there are no validation images."""
    try:
        with stopwatch("evaluate"):
            accuracy = hooks.evaluate()
    except BaseException:
        hooks.record(record | {UNFINISHED: True})
        raise
    if accuracy is not None:
        record["validation_accuracy"] = accuracy
    return accuracy


def run_steps(
    session: tf.compat.v1.Session,
    training_graph: TrainingGraph,
    step: int,
    *,
    train_steps: int,
    cut_at: Sequence[int],
    stopwatch: Stopwatch,
) -> Iterator[Update]:
    """Runs the steps after `step`, a call at a time, stopping at each multiple of the periods in cut_at.

    Yields:
      The last update of each call, as Python numbers.
    """
    # The first call is short: it pays for TensorFlow's preparations, and tells nothing of the speed.
    call_steps = 1
    while step < train_steps:
        to_next_due = min((every - step % every for every in cut_at if every), default=train_steps)
        steps = min(call_steps, to_next_due, train_steps - step)
        started = time.perf_counter()
        with stopwatch("train"):
            values = session.run(training_graph.run_steps, {training_graph.steps_to_run: steps})
        call_steps = max(1, int(_SECONDS_A_CALL * steps / (time.perf_counter() - started)))
        update = Update(*(value.item() for value in values))
        step = update.step
        yield update


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
