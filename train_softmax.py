"""Train softmax regression on MNIST, the first model of TensorFlow's tutorial. The same command resumes a stopped run.

    python train_softmax.py [--data_dir=DIR] [--train_dir=DIR] [--export_dir=DIR] [--any_setting=VALUE ...]

Defaults: 1000 steps of 100 images of the bundled MNIST, a few seconds, test accuracy 0.918. The train_dir
(runs/softmax) gets checkpoints, metrics.jsonl, result.json and a SavedModel in saved_model/1000.
Exit status: 0 done; 75 stopped by SIGTERM or SIGINT, the state saved; 1 an error; 2 a usage error.
"""

from checkpointing.runs import starting

if __name__ == "__main__":
    starting.exit_on_signal()  # before the slow imports

from typing import TYPE_CHECKING

from configs.settings import Settings
from trainer import app

if TYPE_CHECKING:
    from mnist.model.networks import Model


def make_model(settings: Settings) -> "Model":
    """Make the model; its variables go into the current graph. trainer/train.py trains it."""
    from mnist.model import networks  # noqa: PLC0415 - imports TensorFlow, which --help does without

    return networks.Softmax(settings.precision)


if __name__ == "__main__":
    app.run(make_model, program="softmax", synopsis=__doc__)
