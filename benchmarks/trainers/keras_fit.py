"""Keras' `Model.fit` on arrays in memory, with the TensorFlow backend, which compiles the step to a graph."""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras

from benchmarks.trainers import protocol
from benchmarks.trainers.arrays import scaled
from mnist.input import dataset


def make(model: str, batch_size: int, _variant: str) -> protocol.TrainFor:
    """Fit many batches per call, because each call of fit has an overhead of 0.1 s."""
    images, labels = scaled(dataset.load(None, 5000).train)
    layers = keras.layers
    if model == "softmax":
        body = [layers.Flatten()]
        optimizer = keras.optimizers.SGD(0.5)
    else:
        body = [
            *(layers.Conv2D(32, 5, padding="same", activation="relu"), layers.MaxPool2D()),
            *(layers.Conv2D(64, 5, padding="same", activation="relu"), layers.MaxPool2D()),
            *(layers.Flatten(), layers.Dense(1024, activation="relu"), layers.Dropout(0.5)),
        ]
        optimizer = keras.optimizers.Adam(1e-3)
    net = keras.Sequential([layers.Input((28, 28, 1)), *body, layers.Dense(10)])
    net.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    steps = max(1, (40_000 if model == "softmax" else 2_000) // batch_size)

    def run_steps() -> int:
        net.fit(images[..., None], labels, batch_size=batch_size, steps_per_epoch=steps, epochs=1, verbose=0)
        return steps

    return protocol.repeat(run_steps)


if __name__ == "__main__":
    protocol.serve(make)
