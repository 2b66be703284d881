"""Train the convolutional network of TensorFlow's tutorial on MNIST. The same command resumes a stopped run.

    python train_cnn.py [--data_dir=DIR] [--train_dir=DIR] [--export_dir=DIR] [--any_setting=VALUE ...]

Defaults: ten epochs of the bundled MNIST, minutes on two cores, test accuracy 0.993. The train_dir (runs/cnn) gets
checkpoints, metrics.jsonl, result.json and a SavedModel in saved_model/5500.
Other recipes: --config=cnn_fast trains for one epoch; --config=cnn_best is the most accurate single network.
Exit status: 0 done; 75 stopped by SIGTERM or SIGINT, the state saved; 1 an error; 2 a usage error.
"""

from checkpointing.runs import starting

if __name__ == "__main__":
    starting.exit_on_signal()  # before the slow imports

from typing import TYPE_CHECKING

from configs.settings import CnnSettings
from trainer import app

if TYPE_CHECKING:
    from mnist.model.networks import Model


def make_model(settings: CnnSettings) -> "Model":
    """Make the model; its variables go into the current graph. trainer/train.py trains it."""
    from mnist.model import networks  # noqa: PLC0415 - imports TensorFlow, which --help does without

    return networks.make_cnn(
        settings.architecture,
        seed=settings.seed,
        dropout_rate=settings.dropout_rate,
        precision=settings.precision,
        crops=settings.crops,
    )


if __name__ == "__main__":
    app.run(make_model, program="cnn", synopsis=__doc__)
