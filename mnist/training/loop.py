"""The training loop.

Many steps run in one session.run: up to the next step at which something is due, and for at most about half a second,
so that signals are handled. How steps are grouped into calls does not change the result.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from mnist.errors import NonFiniteLossError
from mnist.model.training_graph import TrainingGraph, Update
from mnist.training.progress import Progress
from mnist.training.recheck import Recheck
from mnist.training.stopwatch import Stopwatch

# Target duration of a session.run; below half a second, because the speed varies.
_SECONDS_PER_CALL = 0.4

# Key of a record whose validation was interrupted; the same as in checkpointing/runs/history.py.
UNFINISHED = "unfinished"


class Hooks(NamedTuple):
    """Functions that the loop calls between two calls of session.run.

    evaluate: returns the validation accuracy, or None without validation images.
    record: stores the record of a logged step, which can be written as JSON; called before the step is saved. A record
      with the key UNFINISHED has no validation accuracy, because validation was interrupted.
    save_if_due: called after every session.run and the step's record, with the step and its validation accuracy, if
      any; returns the step of the newest checkpoint, or None.
    check_stop: raises an exception if the run shall stop.
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
    recheck: Recheck | None = None,
) -> float | None:
    """Train from the session's current step up to train_steps.

    The last step is always evaluated and logged. A record has the keys `step`, `loss` of the last batch,
    `learning_rate`, `images_per_second` since the previous record, and, if evaluated, `validation_accuracy`.

    Args:
      session: open session on the training graph, initialized or restored.
      training_graph: the graph.
      hooks: what to do between two calls.
      stopwatch: adds up seconds under `train` and `evaluate`.
      train_steps: the step to train up to.
      batch_size: images per step, for the speed.
      log_every_steps: steps between two records; 0 for the last step only.
      evaluate_every_steps: steps between two evaluations; 0 for the last step only.
      save_every_steps: a call ends at each multiple, so that `save_if_due` can save that step; 0 for none.
      recheck: computes some of the steps twice, before `hooks` get their result.

    Returns:
      The validation accuracy after the last step; None without validation images.

    Raises:
      NonFiniteLossError: the loss is NaN or infinite; that step is neither logged nor saved.
      RecheckError: the recheck found a fault; likewise.
    """
    step = int(session.run(training_graph.step))
    if step == train_steps:
        with stopwatch("evaluate"):
            return hooks.evaluate()
    validation_accuracy = None
    steps_recorded, seconds_recorded = step, stopwatch.seconds["train"]
    periods = (log_every_steps, evaluate_every_steps, save_every_steps)
    updates = run_steps(
        session,
        training_graph,
        step,
        train_steps=train_steps,
        cut_at=periods,
        stopwatch=stopwatch,
        recheck=recheck,
    )
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
    """Evaluate, add the validation accuracy to a record, and return it; None without validation images.

    If the evaluation raises, the record is stored with the key UNFINISHED.
    """
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
    recheck: Recheck | None = None,
) -> Iterator[Update]:
    """Run the steps after `step`, one session.run after the other.

    Args:
      session: open session on the training graph.
      training_graph: the graph.
      step: the number of updates applied so far.
      train_steps: the step to stop at.
      cut_at: periods in steps; a call ends at each multiple of them. 0 for none.
      stopwatch: adds up seconds under `train`.
      recheck: computes some of the steps twice, before they are yielded.

    Yields:
      The last update of each call, as Python numbers.

    Raises:
      RecheckError: the recheck found a fault.
    """
    if recheck is not None:
        recheck.begin(session, step)
    # The first call is short, because it includes TensorFlow's preparations.
    call_steps = 1
    while step < train_steps:
        steps_to_next = min((every - step % every for every in cut_at if every), default=train_steps)
        if recheck is not None:
            steps_to_next = min(steps_to_next, recheck.prepare(session, step))
        steps = min(call_steps, steps_to_next, train_steps - step)
        started = time.perf_counter()
        with stopwatch("train"):
            values = session.run(training_graph.run_steps, {training_graph.steps_per_execution: steps})
        call_steps = max(1, int(_SECONDS_PER_CALL * steps / (time.perf_counter() - started)))
        update = Update(*(value.item() for value in values))
        if recheck is not None:
            with stopwatch("train"):
                recheck.check(session, step + steps, update.step)
        step = update.step
        yield update


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
