import numpy as np
import pytest

from checkpointing.fingerprint import weights_sha256
from mnist import graph, models, schedules
from mnist.dataset import Split

STEPS = 24


def digits(count=300):
    """Images that can be told apart by their mean, so that learning shows."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, count).astype(np.uint8)
    noise = generator.integers(0, 25, (count, 28, 28), np.uint8)
    images = noise + (labels * 20).astype(np.uint8)[:, None, None]
    return Split(images, labels)


def build(name="softmax", *, seed=0, optimizer="sgd", schedule="cosine"):
    """A training graph on the digits."""
    return graph.build(
        models.Softmax if name == "softmax" else lambda: models.Cnn(seed, dropout_rate=0.5),
        digits(),
        batch_size=16,
        seed=seed,
        make_optimizer=lambda rate: graph.make_optimizer(optimizer, rate, momentum=0.9),
        learning_rate=lambda step: schedules.learning_rate(step, schedule=schedule, peak=0.01, train_steps=STEPS),
    )


def train(training_graph, cuts, threads=0):
    """Trains in calls of so many steps; gives the hash of the weights, and the last update."""
    with graph.open_session(training_graph, threads) as session:
        graph.start(session, training_graph, digits())
        for steps in cuts:
            update = session.run(training_graph.run_steps, {training_graph.steps_to_run: steps})
        weights = session.run({variable.op.name: variable for variable in training_graph.saved})
    return weights_sha256(weights), update


@pytest.mark.parametrize("optimizer", graph.OPTIMIZERS)
@pytest.mark.parametrize("name", ["softmax", "cnn"])
def test_how_steps_are_cut_into_calls_changes_no_bit(name, optimizer):
    """One call or many: the same state, optimizer's variables included."""
    training_graph = build(name, optimizer=optimizer)
    whole, update = train(training_graph, [STEPS])
    cut, last = train(training_graph, [1, 2, 3, 5, 13])
    assert cut == whole
    assert last == update
    assert update.step == STEPS


@pytest.mark.parametrize("name", ["softmax", "cnn"])
def test_threads_change_no_bit(name):
    """A run may go on with another number of threads."""
    training_graph = build(name)
    assert train(training_graph, [STEPS], threads=1) == train(training_graph, [STEPS], threads=2)


def test_the_seed_names_the_run():
    """Another seed gives other weights; the same seed gives the same in another graph."""
    assert train(build(seed=1), [STEPS]) == train(build(seed=1), [STEPS])
    assert train(build(seed=1), [STEPS]) != train(build(seed=2), [STEPS])


def test_training_learns():
    """The loss falls."""
    training_graph = build(schedule="constant")
    _, first = train(training_graph, [1])
    _, last = train(training_graph, [200])
    assert last.loss < first.loss


def test_the_update_tells_the_rate_that_it_used():
    """The learning rate is that of the last update made, not of the next one."""
    _, update = train(build(), [1])
    assert update.learning_rate == pytest.approx(0.01)


def test_the_training_images_are_not_saved():
    """State is what training changes: step, weights, and what the optimizer keeps of them."""
    names = {variable.op.name for variable in build(optimizer="adam").saved}
    assert names == {
        "global_step",
        "layer1/weights",
        "layer1/biases",
        "beta1_power",
        "beta2_power",
        *(f"layer1/{kind}/{slot}" for kind in ("weights", "biases") for slot in ("Adam", "Adam_1")),
    }


def test_an_unknown_optimizer_is_refused():
    """A name that is no optimizer is an error that lists those that are."""
    with pytest.raises(ValueError, match="sgd, momentum, adam"):
        build(optimizer="newton")
