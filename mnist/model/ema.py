"""Exponential moving averages of a model's variables, and the model that uses them.

    model = make_model()
    model_in_use = averaged(make_model)
    ...
    update(pairs(), decay=0.999, step=step)   # after each update of the variables

The averages are variables of their own, named as TensorFlow's ExponentialMovingAverage names them
(`layer1/weights/ExponentialMovingAverage`): saved, resumed and exported like any other. All variables of the model are
averaged, the moving averages of batch normalization among them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from mnist.model.networks import Model

_SUFFIX = "/ExponentialMovingAverage"


def averaged(make_model: Callable[[], Model]) -> Model:
    """A model whose variables are the averages; they start where the variables of another model so made start."""

    def average_of(getter: Callable[..., tf.Variable], name: str, **options: Any) -> tf.Variable:  # noqa: ANN401 - get_variable's
        return getter(f"{name}{_SUFFIX}", **options | {"trainable": False})

    with tf.compat.v1.variable_scope(tf.compat.v1.get_variable_scope(), custom_getter=average_of):
        return make_model()


def inference_model(make_model: Callable[[], Model], ema_decay: float) -> Model:
    """The model that answers, made alone in the current graph: of the averages where there are any, else as it is."""
    return averaged(make_model) if ema_decay else make_model()


def pairs() -> list[tuple[tf.Variable, tf.Variable]]:
    """The variables of the current graph that have an average, each with its average."""
    named = {variable.op.name: variable for variable in tf.compat.v1.global_variables()}
    return [(named[name.removesuffix(_SUFFIX)], named[name]) for name in named if name.endswith(_SUFFIX)]


def update(pairs: Sequence[tuple[tf.Variable, tf.Variable]], decay: float, step: tf.Tensor) -> tf.Operation:
    """Moves each average towards its variable.

    Args:
      pairs: variables and their averages.
      decay: how much of an average stays; less in the first steps, for it starts far from where it should be.
      step: int64 scalar, the number of updates applied before this one.
    """
    done = tf.cast(step, tf.float32)
    replaced = 1 - tf.minimum(decay, (1 + done) / (10 + done))
    return tf.group(
        *[average.assign_sub(replaced * (average - variable), read_value=False) for variable, average in pairs]
    )
