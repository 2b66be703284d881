"""Trains softmax regression on MNIST, the tutorial's first model; run again, it goes on where it was stopped.

    python train_softmax.py [--data_dir=DIR] [--train_dir=DIR] [--export_dir=DIR] [--any_setting=VALUE ...]

Without flags: 1000 steps of 100 images of the bundled MNIST, in a few seconds, to a test accuracy of 0.918. What it
leaves in the train_dir (runs/softmax): checkpoints, metrics.jsonl, result.json, and a SavedModel in saved_model/1000.
Kill it at any moment and run the same command again: the weights come out the same, bit for bit.
Exit status: 0 done; 75 stopped by SIGTERM or SIGINT, the state saved; 1 an error; 2 wrong usage.
"""

from checkpointing.runs import starting

if __name__ == "__main__":
    starting.exit_on_signal()  # before the imports that take time

from functools import partial

from checkpointing.kernel_environment import choose_kernels
from checkpointing.protocol import resume
from checkpointing.runs import preemption, supervisor
from checkpointing.storage.fingerprint import code_sha256
from checkpointing.tf_import import tensorflow_import
from configs.flags import RunOptions
from mnist import sources
from mnist.training.stopwatch import Stopwatch
from trainer import app

MODEL = "softmax"


def main(command: RunOptions) -> int:
    """Loads the data, finds where to go on, and trains."""
    stopwatch = Stopwatch()
    settings = command.settings
    if command.max_restarts and not command.dry_run:
        return supervisor.supervise_run(command.train_dir, command.max_restarts)
    with preemption.listen_for_stop() as stop:
        with stop.interruptible():
            with stopwatch("data"):
                from mnist.input import dataset  # noqa: PLC0415 - --help does not wait for NumPy

                download = command.download and not command.dry_run
                data = dataset.load(command.data_dir, settings.validation_size, download=download)
            if command.dry_run:
                with tensorflow_import(debug=command.debug):
                    from trainer import dry_run  # noqa: PLC0415

                return dry_run.dry_run(command, data)
            start = resume.open_train_dir(
                command.train_dir,
                {"model": MODEL, "data": data.fingerprint, **command.run_identity()},
                code=code_sha256(sources("train_softmax.py", "trainer/train.py")),
                environment=choose_kernels(),
                restore_from=command.restore_from,
                warm_start_from=command.warm_start_from,
                may_grow=("train_steps",),
            )
            with stopwatch("import"), tensorflow_import(debug=command.debug):
                from mnist.model import networks  # noqa: PLC0415
                from trainer import train  # noqa: PLC0415 - nor do wrong flags, data or settings wait for TensorFlow

            make_model = partial(networks.Softmax, settings.precision)
            run = train.Run(command, make_model, data=data, start=start, stopwatch=stopwatch, stop=stop)
        return run.execute()


if __name__ == "__main__":
    app.run(main, program=MODEL, synopsis=__doc__)
