import numpy as np
import pytest
import tensorflow as tf

from mnist.input.dataset import Split
from mnist.model.training_graph import Inference
from mnist.training import evaluation


def accuracy(labels, **options):
    """The accuracy of a model whose predictions 0, 1, ..., 9, 0, ... do not depend on the labels."""
    images = np.zeros((len(labels), 28, 28), np.uint8)
    images[:, 0, 0] = np.arange(len(labels)) % 10
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        pixels = tf.compat.v1.placeholder(tf.uint8, [None, 28, 28])
        inference = Inference(pixels, tf.cast(pixels[:, 0, 0], tf.int64), tf.zeros([1, 10]))
        return evaluation.evaluate(session, inference, Split(images, np.array(labels, np.uint8)), **options)


def test_every_image_counts_once():
    """Three errors in 1,234 images, which are not a multiple of the batch size: exactly 1,231 / 1,234."""
    labels = np.arange(1234) % 10
    labels[[0, 600, 1233]] += 1
    assert accuracy(labels % 10) == 1231 / 1234


def test_an_empty_split_has_no_accuracy():
    """The accuracy is None, not 0 or 1."""
    assert accuracy([]) is None


def test_between_batches_can_stop_an_evaluation():
    """Its exceptions are propagated."""

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        accuracy([1, 2, 3], between_batches=stop)
