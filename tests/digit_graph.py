"""Training graphs on synthetic digits, which a model learns in a few steps."""

import numpy as np
import tensorflow as tf

from mnist.input.dataset import Split
from mnist.model import networks, schedules, training_graph

STEPS = 24

# Of images that are not [N, 28, 28]. Some have the pixels of whole images.
WRONG_SHAPES = ((1, 28, 28, 3), (2, 28, 28, 1), (1, 56, 56), (2, 56, 14), (28, 28, 2), (28, 28), (2, 784))


def digits(count=300):
    """Return images (uint8 [count, 28, 28]) whose mean is a function of the label, so that a model can learn it."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, count).astype(np.uint8)
    noise = generator.integers(0, 25, (count, 28, 28), np.uint8)
    images = noise + (labels * 20).astype(np.uint8)[:, None, None]
    return Split(images, labels)


def build(
    name="softmax", *, seed=0, optimizer="sgd", schedule="cosine", precision="float32", dropout_rate=0.5, **options
):
    """Build a training graph on the digits; its learning rate ends at step STEPS."""

    def make_model():
        if name == "softmax":
            return networks.Softmax(precision)
        return networks.make_cnn(name, seed=seed, dropout_rate=dropout_rate, precision=precision)

    return training_graph.build(
        make_model,
        digits(),
        batch_size=16,
        seed=seed,
        make_optimizer=lambda rate: training_graph.make_optimizer(optimizer, rate, momentum=0.9),
        learning_rate=lambda step: schedules.learning_rate(step, schedule=schedule, peak=0.01, train_steps=STEPS),
        **options,
    )


RANDOM = Split(
    np.random.default_rng(0).integers(0, 256, (40, 28, 28), np.uint8),
    np.arange(40, dtype=np.uint8) % 10,
)


def build_softmax(optimizer="momentum", *, learning_rate=0.1):
    """Build a training graph of the softmax on RANDOM, in batches of four."""
    return training_graph.build(
        networks.Softmax,
        RANDOM,
        batch_size=4,
        seed=0,
        make_optimizer=lambda rate: training_graph.make_optimizer(optimizer, rate, momentum=0.9),
        learning_rate=lambda _: tf.constant(learning_rate),
    )
