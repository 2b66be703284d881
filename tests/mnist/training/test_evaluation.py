import numpy as np
import pytest
import tensorflow as tf

from mnist.input.dataset import Split
from mnist.model.graph import Inference
from mnist.training import evaluation


def accuracy(labels, **options):
    """How accurate it is to say that the class is the upper left pixel."""
    images = np.zeros((len(labels), 28, 28), np.uint8)
    images[:, 0, 0] = np.arange(len(labels)) % 10
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        pixels = tf.compat.v1.placeholder(tf.uint8, [None, 28, 28])
        inference = Inference(pixels, tf.cast(pixels[:, 0, 0], tf.int64), tf.zeros([1, 10]))
        return evaluation.evaluate(session, inference, Split(images, np.array(labels, np.uint8)), **options)


def test_every_image_is_judged_once():
    """1,234 images, no multiple of any batch, three of them wrong: exactly 1,231 / 1,234."""
    labels = np.arange(1234) % 10
    labels[[0, 600, 1233]] += 1
    assert accuracy(labels % 10) == 1231 / 1234


def test_nothing_to_judge_has_no_accuracy():
    """An empty split has none, rather than 0 or 1."""
    assert accuracy([]) is None


def test_an_evaluation_can_be_stopped():
    """Between two batches whoever asked for it is called, and may raise."""

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        accuracy([1, 2, 3], between_batches=stop)
