"""Keras' example "Simple MNIST convnet": 15 epochs, batch size 128, Adam, a tenth of the data for validation.

Source: keras.io/examples/vision/mnist_convnet. Differences: reads the bundled files instead of Keras' download, and
evaluates on the test set after each epoch.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras

from benchmarks.trainers.arrays import scaled
from mnist.input import dataset


def main() -> None:
    """Print the test accuracy after each epoch."""
    data = dataset.load(None, 0)
    images, labels = scaled(data.train)
    test_images, test_labels = scaled(data.test)
    layers = keras.layers
    net = keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            *(layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(2)),
            *(layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D(2)),
            *(layers.Flatten(), layers.Dropout(0.5), layers.Dense(10, activation="softmax")),
        ]
    )
    net.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])

    def evaluate(_epoch: int, _logs: object) -> None:
        _loss, accuracy = net.evaluate(
            test_images[..., None], keras.utils.to_categorical(test_labels, 10), batch_size=500, verbose=0
        )
        print(accuracy, flush=True)

    net.fit(
        *(images[..., None], keras.utils.to_categorical(labels, 10)),
        batch_size=128,
        epochs=15,
        validation_split=0.1,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=evaluate)],
    )


if __name__ == "__main__":
    main()
