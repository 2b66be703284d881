import numpy as np
import pytest
import tensorflow as tf

from mnist.model import ema, networks


def test_every_variable_of_the_model_has_an_average():
    """Also the moving averages of normalization. The averages have TensorFlow's names, and are not trained."""
    with tf.Graph().as_default():
        networks.make_cnn("small", seed=0, dropout_rate=0.0, precision="float32")
        before, trained = tf.compat.v1.global_variables(), tf.compat.v1.trainable_variables()
        ema.averaged(lambda: networks.make_cnn("small", seed=0, dropout_rate=0.0, precision="float32"))
        pairs = ema.pairs()
        assert {variable.op.name for variable, _ in pairs} == {variable.op.name for variable in before}
        assert all(average.op.name == f"{each.op.name}/ExponentialMovingAverage" for each, average in pairs)
        assert tf.compat.v1.trainable_variables() == trained


def test_a_model_without_averages_has_no_pairs():
    """Its variables have no averages."""
    with tf.Graph().as_default():
        networks.Softmax()
        assert ema.pairs() == []


@pytest.mark.parametrize(("step", "kept"), [(0, 0.1), (1, 2 / 11), (10_000, 0.99)])
def test_averages_decay_as_in_tensorflow(step, kept):
    """As in tf.train.ExponentialMovingAverage, min(decay, (1 + step) / (10 + step)) of an average is kept."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        model = networks.Softmax()
        average = ema.averaged(networks.Softmax)
        update = ema.update(ema.pairs(), 0.99, tf.constant(step, tf.int64))
        session.run(tf.compat.v1.global_variables_initializer())
        session.run(model.layer1.weights.assign(tf.ones([784, 10])))
        session.run(update)
        assert session.run(average.layer1.weights) == pytest.approx(np.full((784, 10), 1 - kept), abs=1e-6)
