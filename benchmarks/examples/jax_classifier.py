"""JAX's example "mnist_classifier": 784-1024-1024-10, 10 epochs, batch size 128, momentum 0.9, learning rate 0.001.

Source: github.com/jax-ml/jax, examples/mnist_classifier.py. Here the last, incomplete batch of an epoch is dropped.
JAX's examples with convolutions are too slow on a CPU.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.trainers.arrays import orders, scaled
from mnist.input import dataset

_BATCH, _EPOCHS, _RATE, _MOMENTUM = 128, 10, 0.001, 0.9
_SIZES = (784, 1024, 1024, 10)

_Tree = Any  # nested lists and tuples of arrays


def logits_of(weights: _Tree, images: jax.Array) -> jax.Array:
    """Map images, float32 [B, 784], to logits, float32 [B, 10]."""
    *hidden, last = weights
    for matrix, bias in hidden:
        images = jax.nn.relu(images @ matrix + bias)
    return images @ last[0] + last[1]


def update(weights: _Tree, velocity: _Tree, images: jax.Array, labels: jax.Array) -> tuple[_Tree, _Tree]:
    """Apply one momentum update; return weights and velocity."""

    def loss_of(weights: _Tree) -> jax.Array:
        return -jnp.mean(jnp.sum(jax.nn.log_softmax(logits_of(weights, images)) * jax.nn.one_hot(labels, 10), axis=1))

    gradient = jax.grad(loss_of)(weights)
    velocity = jax.tree.map(lambda v, g: _MOMENTUM * v + g, velocity, gradient)
    return jax.tree.map(lambda w, v: w - _RATE * v, weights, velocity), velocity


def main() -> None:
    """Print the test accuracy after each epoch."""
    data = dataset.load(None, 0)
    images, labels = scaled(data.train)
    images = images.reshape(-1, 784)
    test_images, test_labels = scaled(data.test)
    draw = np.random.default_rng(0).normal
    weights = [
        (jnp.asarray(draw(scale=(2 / (a + b)) ** 0.5, size=(a, b)), jnp.float32), jnp.asarray(draw(size=b) * 0.01))
        for a, b in itertools.pairwise(_SIZES)
    ]
    velocity = jax.tree.map(jnp.zeros_like, weights)
    compiled = jax.jit(update)
    source = orders(len(labels), _BATCH)
    for _ in range(_EPOCHS):
        for _batch in range(len(labels) // _BATCH):
            batch = next(source)
            weights, velocity = compiled(weights, velocity, images[batch], labels[batch])
        classes = logits_of(weights, jnp.asarray(test_images.reshape(-1, 784))).argmax(axis=1)
        print(float((np.asarray(classes) == test_labels).mean()), flush=True)


if __name__ == "__main__":
    main()
