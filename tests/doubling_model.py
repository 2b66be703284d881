"""A model with one weight, for tests of exports: y = x * factor."""

import numpy as np
import tensorflow as tf

INPUTS = np.arange(6, dtype=np.float32).reshape(3, 2)


def build_signatures():
    """Build the model in the current graph; return its signatures."""
    x = tf.compat.v1.placeholder(tf.float32, [None, 2], name="x")
    factor = tf.compat.v1.get_variable("factor", initializer=1.0)
    return {"serving_default": ({"x": x}, {"y": x * factor, "positive": x > 0})}


def save_weights(prefix):
    """Save a checkpoint in which the factor is 2, with a plain Saver; return its prefix."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        factor = tf.compat.v1.get_variable("factor", initializer=2.0)
        session.run(factor.initializer)
        tf.compat.v1.train.Saver().save(session, str(prefix))
    return prefix
