"""Exponential moving averages of a model's variables, and models that use them.

    model = make_model()
    inference_model = ema.averaged(make_model)
    ...
    ema.update(ema.pairs(), decay=0.999, step=step)   # after each update of the variables

The averages are variables named as TensorFlow's ExponentialMovingAverage names them
(`layer1/weights/ExponentialMovingAverage`), saved, resumed and exported like any other. All variables of the model are
averaged, the moving averages of batch normalization included.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from mnist.model.networks import Model

_SUFFIX = "/ExponentialMovingAverage"


def averaged(make_model: Callable[[], Model]) -> Model:
    """Create a model whose variables are the averages, in the current graph; their initial values are the model's."""

    def make_average(getter: Callable[..., tf.Variable], name: str, **options: Any) -> tf.Variable:  # noqa: ANN401 - get_variable's
        return getter(f"{name}{_SUFFIX}", **options | {"trainable": False})

    with tf.compat.v1.variable_scope(tf.compat.v1.get_variable_scope(), custom_getter=make_average):
        return make_model()


def inference_model(make_model: Callable[[], Model], ema_decay: float) -> Model:
    """Create the model for inference alone: with averages if `ema_decay` is not 0, else with the trained variables."""
    return averaged(make_model) if ema_decay else make_model()


def pairs() -> list[tuple[tf.Variable, tf.Variable]]:
    """Return (variable, average) for each variable of the current graph that has an average."""
    by_name = {variable.op.name: variable for variable in tf.compat.v1.global_variables()}
    return [(by_name[name.removesuffix(_SUFFIX)], by_name[name]) for name in by_name if name.endswith(_SUFFIX)]


def update(pairs: Sequence[tuple[tf.Variable, tf.Variable]], decay: float, step: tf.Tensor) -> tf.Operation:
    """Move each average towards its variable: average -= (1 - decay) * (average - variable).

    Args:
      pairs: variables and their averages.
      decay: fraction of an average that is kept; at most (1 + step) / (10 + step), so that the first steps count less.
      step: int64 scalar, the number of updates applied before this one.
    """
    applied = tf.cast(step, tf.float32)  # scalar
    rate = 1 - tf.minimum(decay, (1 + applied) / (10 + applied))  # scalar
    return tf.group(*[average.assign_sub(rate * (average - variable), read_value=False) for variable, average in pairs])
