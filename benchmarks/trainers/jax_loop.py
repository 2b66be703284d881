"""JAX; variants: jit (compiled step, batches gathered on the host) and scan (many steps and the data in one call)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.trainers import protocol
from benchmarks.trainers.arrays import orders, scaled
from mnist.input import dataset

# Weights, state and gradients are nested lists and tuples of arrays.
_Tree = Any

_STEPS_A_CALL = {"softmax": 100, "cnn": 5}
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def softmax(weights: _Tree, images: jax.Array, _key: jax.Array) -> jax.Array:
    """Map images, float32 [B, 28, 28], to logits, float32 [B, 10]."""
    return images.reshape(-1, 784) @ weights[0][0] + weights[0][1]


def cnn(weights: _Tree, images: jax.Array, key: jax.Array) -> jax.Array:
    """Map images to logits with the tutorial's network."""
    maps = images[..., None]
    for kernel, bias in weights[:2]:
        maps = lax.conv_general_dilated(maps, kernel, (1, 1), "SAME", dimension_numbers=_DIMENSIONS) + bias
        maps = lax.reduce_window(jax.nn.relu(maps), -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    hidden = jax.nn.relu(maps.reshape(maps.shape[0], -1) @ weights[2][0] + weights[2][1])
    hidden = jnp.where(jax.random.bernoulli(key, 0.5, hidden.shape), hidden * 2, 0)
    return hidden @ weights[3][0] + weights[3][1]


SHAPES: dict[str, list[tuple[int, ...]]] = {
    "softmax": [(784, 10)],
    "cnn": [(5, 5, 1, 32), (5, 5, 32, 64), (3136, 1024), (1024, 10)],
}


def make(model: str, batch_size: int, variant: str) -> protocol.TrainFor:
    """Train the softmax with SGD, or the CNN with a hand-written Adam."""
    images, labels = map(jnp.asarray, scaled(dataset.load(None, 5000).train))
    draw = np.random.default_rng(0).normal
    weights = [
        (jnp.asarray(draw(scale=0.05, size=shape), jnp.float32), jnp.zeros(shape[-1])) for shape in SHAPES[model]
    ]
    mean, square = (jax.tree.map(jnp.zeros_like, weights) for _ in range(2))
    network = softmax if model == "softmax" else cnn

    def loss_of(weights: _Tree, images: jax.Array, labels: jax.Array, key: jax.Array) -> jax.Array:
        logits = jax.nn.log_softmax(network(weights, images, key))
        return -jnp.take_along_axis(logits, labels[:, None], axis=1).mean()

    def update(state: _Tree, batch_images: jax.Array, batch_labels: jax.Array) -> _Tree:
        weights, mean, square, step = state
        gradient = jax.grad(loss_of)(weights, batch_images, batch_labels, jax.random.fold_in(jax.random.key(0), step))
        if model == "softmax":
            return jax.tree.map(lambda w, g: w - 0.5 * g, weights, gradient), mean, square, step + 1
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, gradient)
        square = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g * g, square, gradient)
        rate = 1e-3 * jnp.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
        weights = jax.tree.map(lambda w, m, s: w - rate * m / (jnp.sqrt(s) + 1e-8), weights, mean, square)
        return weights, mean, square, step + 1

    state = (weights, mean, square, jnp.float32(0))
    source = orders(len(labels), batch_size)
    step = jax.jit(update, donate_argnums=0)

    @functools.partial(jax.jit, donate_argnums=0)
    def scan(state: _Tree, order: jax.Array) -> _Tree:
        def body(state: _Tree, batch: jax.Array) -> tuple[_Tree, None]:
            return update(state, images[batch], labels[batch]), None

        return lax.scan(body, state, order)[0]

    def run_steps() -> int:
        nonlocal state
        if variant == "scan":
            count = _STEPS_A_CALL[model]
            state = scan(state, jnp.asarray(np.stack([next(source) for _ in range(count)])))
        else:
            count, batch = 1, next(source)
            state = step(state, images[batch], labels[batch])
        jax.block_until_ready(state)
        return count

    return protocol.repeat(run_steps)


if __name__ == "__main__":
    protocol.serve(make)
