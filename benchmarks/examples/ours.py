"""Our recipes: the trainer's graph and loop, evaluated on the test set after each epoch.

    python -m benchmarks.examples.ours RECIPE

The trainer itself reads the test set only once, after the last step.
"""

import sys
from functools import partial

from checkpointing.tf_import import tensorflow_import

with tensorflow_import():
    from mnist.model import training_graph
    from mnist.training import evaluation
    from trainer import train
import configs
import train_cnn
from configs.settings import CnnSettings
from mnist.input import dataset


def main() -> None:
    """Print the test accuracy after each epoch, and after the last step."""
    settings = configs.load(sys.argv[1])
    assert isinstance(settings, CnnSettings)
    data = dataset.load(None, settings.validation_size)
    steps_an_epoch = len(data.train.labels) // settings.batch_size
    built = train.build_graph(settings, partial(train_cnn.make_model, settings), data.train)
    with training_graph.open_session(built.graph, settings.threads) as session:
        training_graph.initialize(session, built, data.train)
        step = 0
        while step < settings.train_steps:
            steps = min(steps_an_epoch, settings.train_steps - step)
            step = session.run(built.run_steps, {built.steps_per_execution: steps}).step
            print(evaluation.evaluate(session, built.inference, data.test), flush=True)


if __name__ == "__main__":
    main()
