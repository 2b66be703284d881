"""Shuffled batches without state: the images of batch N are a pure function of (seed, N), computed in the graph.

Batches are consecutive slices of an endless sequence of image indices. Each `size` indices of the sequence are one
epoch: a permutation of all images, keyed by (seed, epoch). So every epoch contains each image exactly once, even if a
batch spans two epochs, and there is no position to save: after N updates the next batch is batch N.
"""

import tensorflow as tf


def batch_indices(step: tf.Tensor, *, batch_size: int, size: int, seed: int) -> tf.Tensor:
    """Return the indices of the images that update step + 1 consumes.

    Args:
      step: int64 scalar, the number of updates applied so far.
      batch_size: images per batch.
      size: number of images.
      seed: random seed of the order.

    Returns:
      int64 [batch_size], indices in 0..size-1.
    """
    positions = step * batch_size + tf.range(batch_size, dtype=tf.int64)  # [batch_size]
    epochs = positions // size  # [batch_size]
    # [batch_size, 3]: each index has the key of its epoch; the op takes three numbers, the first is not needed.
    keys = tf.stack([tf.zeros_like(epochs), tf.fill([batch_size], tf.constant(seed, tf.int64)), epochs], axis=1)
    # The raw op, because tf.random.experimental.index_shuffle takes only one key for all indices.
    return tf.raw_ops.RandomIndexShuffle(index=positions % size, seed=keys, max_index=tf.constant(size - 1, tf.int64))
