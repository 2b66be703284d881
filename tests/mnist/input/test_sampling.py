import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist.input import sampling


def batch_indices(step, *, batch_size, size, seed=0):
    """The indices of one batch, int64 [batch_size]."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        indices = sampling.batch_indices(tf.constant(step, tf.int64), batch_size=batch_size, size=size, seed=seed)
        return session.run(indices)


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 60), batch_size=st.integers(1, 25), seed=st.integers(0, 2**31 - 1))
def test_every_epoch_contains_each_image_once(size, batch_size, seed):
    """For any batch size, each `size` consecutive indices are a permutation of all images."""
    steps = -(-2 * size // batch_size)
    indices = np.concatenate(
        [batch_indices(step, batch_size=batch_size, size=size, seed=seed) for step in range(steps)]
    )
    for epoch in range(2):
        assert sorted(indices[epoch * size : (epoch + 1) * size]) == list(range(size))


def test_a_batch_is_a_function_of_step_and_seed():
    """The same step and seed give the same batch; another step or seed gives another."""
    batch = batch_indices(7, batch_size=50, size=1000, seed=1)
    assert np.array_equal(batch, batch_indices(7, batch_size=50, size=1000, seed=1))
    assert not np.array_equal(batch, batch_indices(8, batch_size=50, size=1000, seed=1))
    assert not np.array_equal(batch, batch_indices(7, batch_size=50, size=1000, seed=2))


def test_epochs_have_different_orders():
    """The second epoch does not repeat the order of the first."""
    first, second = (batch_indices(step, batch_size=100, size=100) for step in range(2))
    assert not np.array_equal(first, second)


def test_the_order_is_a_persistent_format():
    """The images of a batch never change, so that checkpoints of older releases can be resumed."""
    assert batch_indices(3, batch_size=8, size=55_000, seed=5).tolist() == [
        47771,
        52220,
        20038,
        872,
        31642,
        10932,
        53127,
        44696,
    ]
