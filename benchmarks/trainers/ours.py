"""This project's graph and loop, with the settings of its recipe. The variant is the instruction set."""

import sys

from benchmarks.trainers import protocol
from checkpointing.kernel_environment import choose_kernels
from checkpointing.tf_import import tensorflow_import
from mnist.training.stopwatch import Stopwatch

if __name__ == "__main__":
    choose_kernels(sys.argv[3])
with tensorflow_import():
    from mnist.model import training_graph
    from mnist.training import loop
    from trainer import train
import dataclasses
from functools import partial

import configs
import train_cnn
import train_softmax
from mnist.input import dataset
from trainer import app

_MAKE_MODEL: dict[str, app.MakeModel] = {"softmax": train_softmax.make_model, "cnn": train_cnn.make_model}
_ENDLESS = 10**12


def make(model: str, batch_size: int, _variant: str) -> protocol.TrainFor:
    """Train with the calls that a run with logs, validation and saves makes."""
    settings = dataclasses.replace(configs.load(model), batch_size=batch_size, train_steps=_ENDLESS)
    split = dataset.load(None, settings.validation_size).train
    built = train.build_graph(settings, partial(_MAKE_MODEL[model], settings), split)
    session = training_graph.open_session(built.graph, settings.threads)
    training_graph.initialize(session, built, split)
    cut_at = (settings.log_every_steps, settings.evaluate_every_steps, settings.save_every_steps)
    updates = loop.run_steps(session, built, 0, train_steps=_ENDLESS, cut_at=cut_at, stopwatch=Stopwatch())
    step = 0

    def run_steps() -> int:
        nonlocal step
        before, step = step, int(next(updates).step)
        return step - before

    return protocol.repeat(run_steps)


if __name__ == "__main__":
    protocol.serve(make)
