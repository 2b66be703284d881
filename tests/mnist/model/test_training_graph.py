import numpy as np
import pytest
import tensorflow as tf

from checkpointing.storage.fingerprint import weights_sha256
from mnist.input.augment import Augmentation
from mnist.model import networks, training_graph
from tests.digit_graph import STEPS, build, digits


def train(built, cuts, threads=0):
    """Train in calls of `cuts` steps; return the hash of all saved variables, and the last update."""
    with training_graph.open_session(built.graph, threads) as session:
        training_graph.initialize(session, built, digits())
        for steps in cuts:
            update = session.run(built.run_steps, {built.steps_per_execution: steps})
        weights = session.run({variable.op.name: variable for variable in built.saved})
    return weights_sha256(weights), update


@pytest.mark.parametrize("optimizer", training_graph.OPTIMIZERS)
@pytest.mark.parametrize("name", ["softmax", "tutorial"])
def test_grouping_of_steps_into_calls_changes_no_bit(name, optimizer):
    """One call or many: the same state, variables of the optimizer included."""
    built = build(name, optimizer=optimizer)
    whole, update = train(built, [STEPS])
    cut, last = train(built, [1, 2, 3, 5, 13])
    assert cut == whole
    assert last == update
    assert update.step == STEPS


EVERYTHING = {
    "loss_options": training_graph.LossOptions(label_smoothing=0.1, l2=1e-4, clip_gradient_norm=1.0),
    "augmentation": Augmentation(rotation=10, zoom=0.1, shear=0.1, shift=2),
    "ema_decay": 0.9,
}


@pytest.mark.parametrize("name", networks.ARCHITECTURES)
def test_grouping_of_steps_changes_no_bit_with_any_option(name):
    """Augmentation, normalization, averages and clipping are functions of (seed, step) and of saved variables."""
    built = build(name, optimizer="adam", **EVERYTHING)
    whole, update = train(built, [STEPS])
    cut, last = train(built, [1, 2, 3, 5, 13], threads=1)
    assert cut == whole
    assert last == update


def test_two_graphs_in_one_process_give_the_same_bits():
    """The second graph has the same ops as the first."""
    assert train(build("tutorial"), [STEPS]) == train(build("tutorial"), [STEPS])


@pytest.mark.parametrize("name", ["softmax", *networks.ARCHITECTURES])
def test_bfloat16_gives_about_the_same_loss(name):
    """Variables stay float32, and grouping of steps changes no bit. TensorFlow emulates bfloat16 if necessary."""
    narrow, wide = build(name, precision="bfloat16", dropout_rate=0.0), build(name, dropout_rate=0.0)
    assert all(variable.dtype.base_dtype in {tf.float32, tf.int64} for variable in narrow.saved)
    assert train(narrow, [1])[1].loss == pytest.approx(train(wide, [1])[1].loss, rel=0.03)
    assert train(narrow, [5]) == train(narrow, [2, 3])


def test_label_smoothing_raises_the_lowest_loss():
    """The cross entropy of smoothed labels is at least their entropy."""
    plain, smooth = (
        train(build(loss_options=training_graph.LossOptions(label_smoothing=share)), [200])[1] for share in (0.0, 0.5)
    )
    assert smooth.loss > plain.loss


def test_l2_keeps_weights_small():
    """Weights trained with L2 have a smaller norm."""
    assert np.square(weights_after(l2=10.0)).sum() < 0.5 * np.square(weights_after(l2=0.0)).sum()


def test_clipping_limits_the_update():
    """With plain gradient descent, weights move by at most learning rate * norm per step."""
    moved = np.sqrt(np.square(weights_after(clip_gradient_norm=1e-3)).sum())
    assert 0 < moved <= 0.01 * 1e-3 * STEPS


def weights_after(**loss_options):
    """The weights of a softmax after STEPS steps with these loss options."""
    built = build(loss_options=training_graph.LossOptions(**loss_options))
    with training_graph.open_session(built.graph, 1) as session:
        training_graph.initialize(session, built, digits())
        session.run(built.run_steps, {built.steps_per_execution: STEPS})
        return session.run(built.trained[0])


def test_inference_uses_the_averages():
    """With ema_decay, predictions come from the averages; the trained weights are the same as without."""
    plain, averaged = build("small"), build("small", ema_decay=0.999)
    images = digits(50).images
    found = []
    for each in (plain, averaged):
        with training_graph.open_session(each.graph, 1) as session:
            training_graph.initialize(session, each, digits())
            session.run(each.run_steps, {each.steps_per_execution: STEPS})
            weights = session.run({variable.op.name: variable for variable in each.trained})
            found.append(
                (weights_sha256(weights), session.run(each.inference.probabilities, {each.inference.images: images}))
            )
    assert found[0][0] == found[1][0]
    assert not np.allclose(found[0][1], found[1][1])


@pytest.mark.parametrize("name", ["softmax", "tutorial"])
def test_threads_change_no_bit(name):
    """So a run can be resumed with another number of threads."""
    built = build(name)
    assert train(built, [STEPS], threads=1) == train(built, [STEPS], threads=2)


def test_weights_are_a_function_of_the_seed():
    """The same seed gives the same weights in another graph; another seed gives others."""
    assert train(build(seed=1), [STEPS]) == train(build(seed=1), [STEPS])
    assert train(build(seed=1), [STEPS]) != train(build(seed=2), [STEPS])


def test_training_learns():
    """The loss decreases."""
    built = build(schedule="constant")
    _, first = train(built, [1])
    _, last = train(built, [200])
    assert last.loss < first.loss


def test_the_update_returns_the_learning_rate_used():
    """That of the last update, not of the next."""
    _, update = train(build(), [1])
    assert update.learning_rate == pytest.approx(0.01)


def test_saved_variables():
    """The state is the step, the weights and the variables of the optimizer; the training data are not saved."""
    names = {variable.op.name for variable in build(optimizer="adam").saved}
    assert names == {
        "global_step",
        "layer1/weights",
        "layer1/biases",
        "beta1_power",
        "beta2_power",
        *(f"layer1/{kind}/{slot}" for kind in ("weights", "biases") for slot in ("Adam", "Adam_1")),
    }


def test_an_unknown_optimizer_raises():
    """The message lists the optimizers."""
    with pytest.raises(ValueError, match="sgd, momentum, adam"):
        build(optimizer="newton")


def test_with_a_gpu_the_loss_uses_deterministic_ops(monkeypatch):
    """SoftmaxCrossEntropyWithLogits has no deterministic GPU kernel; the loss of its replacement is the same."""
    fused = build()
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    composed = build()
    monkeypatch.undo()

    def operations(built):
        definition = built.graph.as_graph_def()
        nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
        return {node.op for node in nodes}

    assert "SoftmaxCrossEntropyWithLogits" in operations(fused)
    assert "SoftmaxCrossEntropyWithLogits" not in operations(composed)
    assert train(composed, [STEPS])[1].loss == pytest.approx(train(fused, [STEPS])[1].loss, rel=1e-5)
