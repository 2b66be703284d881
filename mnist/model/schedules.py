"""How far an update goes: the learning rate as a pure function of step."""

import math

import tensorflow as tf

# The one-cycle schedule of Smith and Topin, "Super-Convergence" (2018), with the proportions that became customary:
# it climbs from 1/25 of the peak through the first 30 % of the steps, then falls along a cosine to (nearly) nothing.
_CLIMB = 0.3
_START = 1 / 25

NAMES = ("constant", "cosine", "one_cycle")


def learning_rate(step: tf.Tensor, *, schedule: str, peak: float, train_steps: int) -> tf.Tensor:
    """The learning rate of update step + 1.

    Args:
      step: int64 scalar, the number of updates applied so far.
      schedule: one of NAMES. constant: always the peak; cosine: from the peak to 0 along half a cosine;
        one_cycle: up to the peak in the first 30 % of the steps, then down to 0.
      peak: the highest learning rate.
      train_steps: the step at which training ends.

    Returns:
      float32 scalar.
    """
    done = tf.cast(step, tf.float32) / train_steps
    if schedule == "constant":
        return tf.constant(peak, tf.float32)
    if schedule == "cosine":
        return peak * _half_cosine(done)
    if schedule == "one_cycle":
        climbing = peak * (_START + (1 - _START) * done / _CLIMB)
        falling = peak * _half_cosine((done - _CLIMB) / (1 - _CLIMB))
        return tf.where(done < _CLIMB, climbing, falling)
    message = f"learning rate schedule {schedule!r} found, one of {', '.join(NAMES)} wanted."
    raise ValueError(message)


def _half_cosine(done: tf.Tensor) -> tf.Tensor:
    """From 1 at 0 to 0 at 1."""
    return 0.5 * (1 + tf.cos(math.pi * tf.clip_by_value(done, 0.0, 1.0)))


def depends_on_train_steps(schedule: str) -> bool:
    """Whether prolonging a run changes the learning rates of the steps still to come."""
    return schedule != "constant"
