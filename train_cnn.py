"""Trains the tutorial's convolutional network on MNIST; run again, it goes on where it was stopped.

    python train_cnn.py [--data_dir=DIR] [--train_dir=DIR] [--export_dir=DIR] [--any_setting=VALUE ...]

Without flags: ten epochs of the bundled MNIST, in minutes on two cores, to a test accuracy of 0.993. What it leaves
in the train_dir (runs/cnn): checkpoints, metrics.jsonl, result.json, and a SavedModel in saved_model/5500.
Other networks and settings by name: --config=cnn_fast learns in one epoch, --config=cnn_best is the best we know.
Kill it at any moment and run the same command again: the weights come out the same, bit for bit.
Exit status: 0 done; 75 stopped by SIGTERM or SIGINT, the state saved; 1 an error; 2 wrong usage.
"""

from checkpointing import starting

if __name__ == "__main__":
    starting.exit_on_signal()  # before the imports that take time

from functools import partial

import members
from checkpointing import interruption, resume, supervision
from checkpointing.fingerprint import code_sha256
from configs import command_line
from configs.settings import CnnSettings
from mnist import sources
from mnist.quiet import choose_kernels, tensorflow_import
from mnist.stopwatch import Stopwatch

MODEL = "cnn"


def main(command: command_line.Command) -> int:
    """Loads the data, finds where to go on, and trains."""
    stopwatch = Stopwatch()
    settings = command.settings
    assert isinstance(settings, CnnSettings)
    if settings.members > 1 and not command.dry_run:
        return members.train(command, settings, stopwatch)
    if command.max_restarts and not command.dry_run:
        return supervision.supervise_run(command.train_dir, command.max_restarts)
    with interruption.listen_for_stop() as stop:
        with stop.at_once():
            with stopwatch("data"):
                from mnist import dataset  # noqa: PLC0415 - --help does not wait for NumPy

                download = command.download and not command.dry_run
                data = dataset.load(command.data_dir, settings.validation_size, download=download)
            if command.dry_run:
                with tensorflow_import(debug=command.debug):
                    import rehearsal  # noqa: PLC0415

                return rehearsal.rehearse(command, data)
            start = resume.find_start(
                command.train_dir,
                {"model": MODEL, "data": data.fingerprint, **command.changing_weights()},
                code=code_sha256(sources("train_cnn.py", "trainer.py")),
                environment=choose_kernels(),
                restore_from=command.restore_from,
                warm_start_from=command.warm_start_from,
                may_grow=("train_steps",),
            )
            with stopwatch("import"), tensorflow_import(debug=command.debug):
                import trainer  # noqa: PLC0415 - nor do wrong flags, data or settings wait for TensorFlow

            make_model = partial(trainer.make_cnn, settings)
            run = trainer.Run(command, make_model, data=data, start=start, stopwatch=stopwatch, stop=stop)
        return run.execute()


if __name__ == "__main__":
    command_line.run(main, program=MODEL, synopsis=__doc__)
