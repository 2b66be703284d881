"""Learning-rate schedules: the learning rate as a pure function of the step."""

import math

import tensorflow as tf

NAMES = ("constant", "cosine", "one_cycle")

# One cycle (source: Smith and Topin, "Super-Convergence", 2018; proportions of PyTorch's OneCycleLR): from 1/25 of the
# peak up to the peak in the first 30 % of the steps, then down to 0 along half a cosine.
_WARMUP = 0.3
_INITIAL = 1 / 25


def learning_rate(step: tf.Tensor, *, schedule: str, peak: float, train_steps: int) -> tf.Tensor:
    """Return the learning rate of update step + 1.

    Args:
      step: int64 scalar, the number of updates applied so far.
      schedule: one of NAMES. constant: always the peak; cosine: from the peak to 0 along half a cosine; one_cycle: up
        to the peak in the first 30 % of the steps, then down to 0.
      peak: the highest learning rate.
      train_steps: the step at which training ends.

    Returns:
      float32 scalar.

    Raises:
      ValueError: the schedule is unknown.
    """
    progress = tf.cast(step, tf.float32) / train_steps  # scalar, 0 to 1
    if schedule == "constant":
        return tf.constant(peak, tf.float32)
    if schedule == "cosine":
        return peak * _half_cosine(progress)
    if schedule == "one_cycle":
        warmup = peak * (_INITIAL + (1 - _INITIAL) * progress / _WARMUP)
        decay = peak * _half_cosine((progress - _WARMUP) / (1 - _WARMUP))
        return tf.where(progress < _WARMUP, warmup, decay)
    raise ValueError(f"learning_rate_schedule: expected one of {', '.join(NAMES)}, got {schedule!r}")


def _half_cosine(progress: tf.Tensor) -> tf.Tensor:
    """Fall from 1 to 0 while the progress rises from 0 to 1."""
    return 0.5 * (1 + tf.cos(math.pi * tf.clip_by_value(progress, 0.0, 1.0)))


def depends_on_train_steps(schedule: str) -> bool:
    """Return whether another value of train_steps changes the learning rate of a step."""
    return schedule != "constant"
