import numpy as np
import pytest
import tensorflow as tf

from checkpointing.storage.fingerprint import weights_sha256
from mnist.input.augment import Augmentation
from mnist.input.dataset import Split
from mnist.model import graph, networks, schedules

STEPS = 24


def digits(count=300):
    """Images that can be told apart by their mean, so that learning shows."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, count).astype(np.uint8)
    noise = generator.integers(0, 25, (count, 28, 28), np.uint8)
    images = noise + (labels * 20).astype(np.uint8)[:, None, None]
    return Split(images, labels)


def build(
    name="softmax", *, seed=0, optimizer="sgd", schedule="cosine", precision="float32", dropout_rate=0.5, **options
):
    """A training graph on the digits."""

    def make_model():
        if name == "softmax":
            return networks.Softmax(precision)
        return networks.make_cnn(name, seed=seed, dropout_rate=dropout_rate, precision=precision)

    return graph.build(
        make_model,
        digits(),
        batch_size=16,
        seed=seed,
        make_optimizer=lambda rate: graph.make_optimizer(optimizer, rate, momentum=0.9),
        learning_rate=lambda step: schedules.learning_rate(step, schedule=schedule, peak=0.01, train_steps=STEPS),
        **options,
    )


def train(training_graph, cuts, threads=0):
    """Trains in calls of so many steps; gives the hash of the weights, and the last update."""
    with graph.open_session(training_graph.graph, threads) as session:
        graph.start(session, training_graph, digits())
        for steps in cuts:
            update = session.run(training_graph.run_steps, {training_graph.steps_to_run: steps})
        weights = session.run({variable.op.name: variable for variable in training_graph.saved})
    return weights_sha256(weights), update


@pytest.mark.parametrize("optimizer", graph.OPTIMIZERS)
@pytest.mark.parametrize("name", ["softmax", "tutorial"])
def test_how_steps_are_cut_into_calls_changes_no_bit(name, optimizer):
    """One call or many: the same state, optimizer's variables included."""
    training_graph = build(name, optimizer=optimizer)
    whole, update = train(training_graph, [STEPS])
    cut, last = train(training_graph, [1, 2, 3, 5, 13])
    assert cut == whole
    assert last == update
    assert update.step == STEPS


EVERYTHING = {
    "objective": graph.LossOptions(label_smoothing=0.1, l2=1e-4, clip_gradient_norm=1.0),
    "augmentation": Augmentation(rotation=10, zoom=0.1, shear=0.1, shift=2, elastic=0.5, cutout=4),
    "ema_decay": 0.9,
}


@pytest.mark.parametrize("name", networks.ARCHITECTURES)
def test_whatever_is_asked_for_cutting_changes_no_bit(name):
    """Augmentation, normalization, averages, clipping: all are functions of (seed, step) and of what is saved."""
    training_graph = build(name, optimizer="adam", **EVERYTHING)
    whole, update = train(training_graph, [STEPS])
    cut, last = train(training_graph, [1, 2, 3, 5, 13], threads=1)
    assert cut == whole
    assert last == update


def test_graphs_of_one_process_give_the_same_bits():
    """The second graph is built of the same operations as the first."""
    assert train(build("tutorial"), [STEPS]) == train(build("tutorial"), [STEPS])


@pytest.mark.parametrize("name", ["softmax", *networks.ARCHITECTURES])
def test_bfloat16_learns_about_the_same(name):
    """Emulated where the processor lacks it; variables stay float32, and the first loss is nearly the same."""
    narrow, wide = build(name, precision="bfloat16", dropout_rate=0.0), build(name, dropout_rate=0.0)
    assert all(variable.dtype.base_dtype in {tf.float32, tf.int64} for variable in narrow.saved)
    assert train(narrow, [1])[1].loss == pytest.approx(train(wide, [1])[1].loss, rel=0.03)
    assert train(narrow, [5]) == train(narrow, [2, 3])


def test_label_smoothing_lifts_the_least_loss():
    """Before the first update all logits are 0: a smoothed label costs what a plain one does, log 10; later, more."""
    plain, smooth = (train(build(objective=graph.LossOptions(label_smoothing=share)), [200])[1] for share in (0.0, 0.5))
    assert smooth.loss > plain.loss


def test_l2_keeps_weights_small():
    """And is part of the loss that is told."""
    assert np.square(weights_after(l2=10.0)).sum() < 0.5 * np.square(weights_after(l2=0.0)).sum()


def test_clipping_shortens_the_step():
    """A gradient clipped to a length moves the weights by the learning rates times that length at most."""
    moved = np.sqrt(np.square(weights_after(clip_gradient_norm=1e-3)).sum())
    assert 0 < moved <= 0.01 * 1e-3 * STEPS


def weights_after(**objective):
    """The weights of a softmax after STEPS steps."""
    training_graph = build(objective=graph.LossOptions(**objective))
    with graph.open_session(training_graph.graph, 1) as session:
        graph.start(session, training_graph, digits())
        session.run(training_graph.run_steps, {training_graph.steps_to_run: STEPS})
        return session.run(training_graph.trained[0])


def test_inference_uses_the_averages():
    """With ema_decay the answers come from the averages, and the weights that are trained are the same."""
    plain, averaged = build("small"), build("small", ema_decay=0.999)
    images = digits(50).images
    found = []
    for each in (plain, averaged):
        with graph.open_session(each.graph, 1) as session:
            graph.start(session, each, digits())
            session.run(each.run_steps, {each.steps_to_run: STEPS})
            weights = session.run({variable.op.name: variable for variable in each.trained})
            found.append(
                (weights_sha256(weights), session.run(each.inference.probabilities, {each.inference.images: images}))
            )
    assert found[0][0] == found[1][0]
    assert not np.allclose(found[0][1], found[1][1])


@pytest.mark.parametrize("name", ["softmax", "tutorial"])
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


def test_where_there_is_a_gpu_the_loss_is_made_of_deterministic_operations(monkeypatch):
    """The one for all has no deterministic kernel there, and would end the run; the loss is the same."""
    alone = build()
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    composed = build()
    monkeypatch.undo()

    def operations(training_graph):
        definition = training_graph.graph.as_graph_def()
        nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
        return {node.op for node in nodes}

    assert "SoftmaxCrossEntropyWithLogits" in operations(alone)
    assert "SoftmaxCrossEntropyWithLogits" not in operations(composed)
    assert train(composed, [STEPS])[1].loss == pytest.approx(train(alone, [STEPS])[1].loss, rel=1e-5)
