"""Which images make batch N: a pure function of (seed, step), computed in the graph.

Batch 1 takes positions 0 to batch_size - 1 of an endless sequence, batch 2 the next ones, and so on. Each stretch of
`size` positions is one epoch, a permutation of all the images keyed by (seed, epoch), so that every epoch shows each
image exactly once, also where a batch straddles two epochs. There is no cursor to save: whoever has made N updates
asks for batch N + 1.
"""

import tensorflow as tf


def batch_indices(step: tf.Tensor, *, batch_size: int, size: int, seed: int) -> tf.Tensor:
    """The images of the batch that update step + 1 consumes.

    Args:
      step: int64 scalar, the number of updates applied so far.
      batch_size: images a batch.
      size: how many images there are.
      seed: names the order.

    Returns:
      int64 [batch_size], indices from 0 to size - 1.
    """
    positions = step * batch_size + tf.range(batch_size, dtype=tf.int64)  # [batch_size]
    epochs = positions // size  # [batch_size]
    # Each index is shuffled under the key of its own epoch: three numbers, of which we use two.
    keys = tf.stack([tf.zeros_like(epochs), tf.fill([batch_size], tf.constant(seed, tf.int64)), epochs], axis=1)
    # The raw op: its wrapper tf.random.experimental.index_shuffle takes one key for all indices only.
    return tf.raw_ops.RandomIndexShuffle(index=positions % size, seed=keys, max_index=tf.constant(size - 1, tf.int64))
