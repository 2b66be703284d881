"""Our own recipes: the trainer's graph and loop, judged on the test set every so many steps.

python -m benchmarks.examples.ours RECIPE [STEPS_BETWEEN_JUDGEMENTS]

A run of the program judges once, after the last step; here the question is when it gets where.
"""

import sys
from functools import partial

from mnist.quiet import silenced

with silenced():
    import trainer
    from mnist import evaluation, graph
import configs
from configs.settings import CnnSettings
from mnist import dataset


def main() -> None:
    """Prints the test accuracy after every so many steps, and after the last."""
    settings = configs.load(sys.argv[1])
    assert isinstance(settings, CnnSettings)
    steps_between = int(sys.argv[2])
    data = dataset.load(None, settings.validation_size)
    training_graph = trainer.build_graph(settings, partial(trainer.make_cnn, settings), data.train)
    with graph.open_session(training_graph, settings.threads) as session:
        graph.start(session, training_graph, data.train)
        step = 0
        while step < settings.train_steps:
            steps = min(steps_between, settings.train_steps - step)
            step = session.run(training_graph.run_steps, {training_graph.steps_to_run: steps}).step
            print(evaluation.accuracy(session, training_graph.inference, data.test), flush=True)


if __name__ == "__main__":
    main()
