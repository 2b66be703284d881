"""The trainer's own graph and loop, with the settings of its recipe."""

from benchmarks.trainers import protocol
from mnist.quiet import silenced
from mnist.stopwatch import Stopwatch

with silenced():
    from mnist import graph, models, schedules, training
import configs
from configs.settings import CnnSettings
from mnist import dataset

_ENDLESS = 1 << 40


def make(model: str, batch_size: int, _variant: str) -> protocol.TrainFor:
    """Cut into calls as a run is that logs, validates and saves."""
    settings = configs.load(model)
    train = dataset.load(None, settings.validation_size).train

    def make_model() -> models.Model:
        if isinstance(settings, CnnSettings):
            return models.Cnn(0, settings.dropout_rate)
        return models.Softmax()

    training_graph = graph.build(
        make_model,
        train,
        batch_size=batch_size,
        seed=0,
        make_optimizer=lambda rate: graph.make_optimizer(settings.optimizer, rate, momentum=settings.momentum),
        learning_rate=lambda step: schedules.learning_rate(
            step, schedule=settings.learning_rate_schedule, peak=settings.learning_rate, train_steps=_ENDLESS
        ),
    )
    session = graph.open_session(training_graph, settings.threads)
    graph.start(session, training_graph, train)
    cut_at = (settings.log_every_steps, settings.evaluate_every_steps, settings.save_every_steps)
    updates = training.run_steps(session, training_graph, 0, train_steps=_ENDLESS, cut_at=cut_at, stopwatch=Stopwatch())
    step = 0

    def run_steps() -> int:
        nonlocal step
        before, step = step, int(next(updates).step)
        return step - before

    return protocol.repeat(run_steps)


if __name__ == "__main__":
    protocol.serve(make)
