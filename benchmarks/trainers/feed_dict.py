"""The tutorial's training loop, for comparison: a Python loop that feeds each batch through feed_dict.

The models, optimizers and batches are those of TensorFlow 1's "MNIST for ML Beginners" and "Deep MNIST for Experts".
"""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from benchmarks.trainers import protocol
from benchmarks.trainers.arrays import Array, orders, scaled
from mnist.input import dataset
from mnist.input.dataset import Split

v1 = tf.compat.v1


def batches(split: Split, batch_size: int) -> Iterator[tuple[Array, Array]]:
    """Yield images, float32 [B, 784] in 0..1, and one-hot labels, float32 [B, 10], without end; shuffled each epoch.

    Gathers each batch by index, which is faster than the tutorial's next_batch: that copies all images once per epoch.
    """
    images, numbers = scaled(split)
    images, labels = images.reshape(-1, 784), np.eye(10, dtype=np.float32)[numbers]
    for batch in orders(len(labels), batch_size):
        yield images[batch], labels[batch]


def softmax(images: tf.Tensor, keep: tf.Tensor) -> tf.Tensor:
    """Map images, float32 [B, 784], to logits, float32 [B, 10]."""
    del keep
    return images @ tf.Variable(tf.zeros([784, 10])) + tf.Variable(tf.zeros([10]))


def cnn(images: tf.Tensor, keep: tf.Tensor) -> tf.Tensor:
    """Map images, float32 [B, 784], to logits, float32 [B, 10]; `keep` is 1 - dropout rate."""

    def layer(*shape: int) -> tuple[tf.Variable, tf.Variable]:
        return tf.Variable(tf.random.truncated_normal(shape, stddev=0.1)), tf.Variable(tf.fill(shape[-1:], 0.1))

    maps = tf.reshape(images, [-1, 28, 28, 1])
    for weights, biases in (layer(5, 5, 1, 32), layer(5, 5, 32, 64)):
        maps = tf.nn.relu(tf.nn.conv2d(maps, weights, strides=1, padding="SAME") + biases)
        maps = tf.nn.max_pool2d(maps, ksize=2, strides=2, padding="SAME")
    weights, biases = layer(7 * 7 * 64, 1024)
    hidden = tf.nn.relu(tf.reshape(maps, [-1, 7 * 7 * 64]) @ weights + biases)
    weights, biases = layer(1024, 10)
    return tf.nn.dropout(hidden, rate=1 - keep) @ weights + biases


def make(model: str, batch_size: int, variant: str) -> protocol.TrainFor:
    """Start a session; the variant is the number of threads, 0 for TensorFlow's default, as in the tutorial."""
    threads = int(variant)
    with tf.Graph().as_default() as graph:
        images = v1.placeholder(tf.float32, [None, 784])
        labels = v1.placeholder(tf.float32, [None, 10])
        keep = v1.placeholder(tf.float32, [])
        logits = {"softmax": softmax, "cnn": cnn}[model](images, keep)
        loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels=labels, logits=logits))
        optimizer = v1.train.GradientDescentOptimizer(0.5) if model == "softmax" else v1.train.AdamOptimizer(1e-4)
        update = optimizer.minimize(loss)
        initialize = v1.global_variables_initializer()
    config = v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
    session = v1.Session(graph=graph, config=config)
    session.run(initialize)
    source = batches(dataset.load(None, 5000).train, batch_size)

    def run_steps() -> int:
        batch_images, batch_labels = next(source)
        session.run(update, {images: batch_images, labels: batch_labels, keep: 0.5})
        return 1

    return protocol.repeat(run_steps)


if __name__ == "__main__":
    protocol.serve(make)
