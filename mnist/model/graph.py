"""One graph that trains: data, model, loss and update, with the loop over the steps inside it.

    training_graph = graph.build(models.Softmax, data.train, batch_size=100, ...)
    with graph.open_session(training_graph.graph, threads=1) as session:
        graph.start(session, training_graph, data.train)
        session.run(training_graph.run_steps, {training_graph.steps_to_run: 100})

The training images are put once into variables that are not saved; nothing is fed while training goes on.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from mnist.input import sampling
from mnist.input.augment import Augmentation, augment
from mnist.input.dataset import CLASSES, IMAGE_SHAPE, Split
from mnist.model import ema
from mnist.model.networks import Model

OPTIMIZERS = ("sgd", "momentum", "adam")


class Update(NamedTuple):
    """What running steps returns, all scalars of the last update made.

    step: int64, the number of updates applied so far.
    loss: float32, what the last update lessened, before it: the batch's mean cross entropy, and L2 where asked for.
    learning_rate: float32, as the last update used it.
    """

    step: Any
    loss: Any
    learning_rate: Any


class Inference(NamedTuple):
    """From raw pixels to answers.

    images: uint8 [N, 28, 28], raw pixels 0 to 255; a placeholder.
    classes: int64 [N]. probabilities: float32 [N, 10].
    """

    images: tf.Tensor
    classes: tf.Tensor
    probabilities: tf.Tensor


class TrainingGraph(NamedTuple):
    """The tensors that training is made of, in `graph`.

    steps_to_run: int64 scalar placeholder. run_steps: makes that many updates in one session.run.
    step: the variable that counts the updates.
    saved: the variables whose values are the run's state; trained: those of them that the optimizer updates.
    """

    graph: tf.Graph
    steps_to_run: tf.Tensor
    run_steps: Update
    step: tf.Variable
    saved: list[tf.Variable]
    trained: list[tf.Variable]
    inference: Inference
    initialize: tf.Operation
    train_images: tf.Tensor
    train_labels: tf.Tensor


class LossOptions(NamedTuple):
    """What training lessens, and how it goes about it.

    label_smoothing: the share of each label that is spread evenly over all classes.
    l2: weight of half the sum of the squares of all weights (not of biases, scales and offsets).
    clip_gradient_norm: the gradient is shortened to this length where it is longer; 0 leaves it.
    """

    label_smoothing: float = 0.0
    l2: float = 0.0
    clip_gradient_norm: float = 0.0


PLAIN = LossOptions()
AS_THEY_ARE = Augmentation()


def build(
    make_model: Callable[[], Model],
    train: Split,
    *,
    batch_size: int,
    seed: int,
    make_optimizer: Callable[[tf.Tensor], tf.compat.v1.train.Optimizer],
    learning_rate: Callable[[tf.Tensor], tf.Tensor],
    objective: LossOptions = PLAIN,
    augmentation: Augmentation = AS_THEY_ARE,
    ema_decay: float = 0.0,
) -> TrainingGraph:
    """Builds the training graph for training data of this size.

    Args:
      make_model: makes the model and its variables in the graph.
      train: the training data; only its size is used here, `start` puts the data in.
      batch_size: images an update.
      seed: keys the order of the images, how they are changed, and what dropout drops.
      make_optimizer: from the learning rate (float32 scalar) to the optimizer.
      learning_rate: from the step (int64 scalar) to the learning rate.
      objective: what is lessened.
      augmentation: how far the training images are changed.
      ema_decay: of the averages of the model's variables that inference uses; 0 for the variables themselves.

    Returns:
      The graph's tensors.
    """
    # Asked for, an op whose kernel could give other bits the next time raises an error instead. Before the graph is
    # built, for gradients are built of other operations then.
    tf.config.experimental.enable_op_determinism()
    with tf.Graph().as_default() as graph:
        train_images, images = _data_variable("train_images", train.images.shape)
        train_labels, labels = _data_variable("train_labels", train.labels.shape)
        step = tf.compat.v1.train.get_or_create_global_step()
        model = make_model()
        trained = tf.compat.v1.trainable_variables()
        model_in_use = ema.averaged(make_model) if ema_decay else model
        averages = ema.pairs()

        def update(step_now: tf.Tensor, _loss: tf.Tensor, _rate: tf.Tensor) -> Update:
            indices = sampling.batch_indices(step_now, batch_size=batch_size, size=len(train.labels), seed=seed)
            key = tf.stack([seed, step_now])
            batch_images = augment(tf.gather(images, indices), key, augmentation)  # [B, 28, 28]
            batch_labels = tf.cast(tf.gather(labels, indices), tf.int32)  # [B]
            logits = model.logits(batch_images, dropout_key=key)  # [B, 10]
            loss = _loss_of(logits, batch_labels, trained, objective)
            rate = learning_rate(step_now)
            updated = _apply(make_optimizer(rate), loss, trained, objective.clip_gradient_norm)
            if averages:
                with tf.control_dependencies([updated]):
                    updated = ema.update(averages, ema_decay, step_now)
            with tf.control_dependencies([updated]):
                return Update(step_now + 1, tf.identity(loss), rate)

        steps_to_run = tf.compat.v1.placeholder(tf.int64, [], name="steps_to_run")
        start = step.read_value()
        done = tf.while_loop(
            lambda step_now, _loss, _rate: step_now < start + steps_to_run,
            update,
            Update(start, tf.constant(0.0), tf.constant(0.0)),
            # One update after the other: each reads the weights that the one before wrote.
            parallel_iterations=1,
        )
        step_made = step.assign(done.step, name="run_steps", read_value=False)
        with tf.control_dependencies([step_made]):
            run_steps = Update(tf.identity(done.step), done.loss, done.learning_rate)
        # The optimizer left an operation of the loop's body here, which no .meta file could be imported with.
        graph.clear_collection(tf.compat.v1.GraphKeys.TRAIN_OP)
        graph.add_to_collection(tf.compat.v1.GraphKeys.TRAIN_OP, step_made)
        return TrainingGraph(
            graph=graph,
            steps_to_run=steps_to_run,
            run_steps=run_steps,
            step=step,
            saved=tf.compat.v1.global_variables(),
            trained=trained,
            inference=build_inference(model_in_use),
            initialize=tf.compat.v1.global_variables_initializer(),
            train_images=train_images,
            train_labels=train_labels,
        )


def build_inference(model: Model, images: tf.Tensor | None = None) -> Inference:
    """Adds to the current graph the way from raw pixels (by default a placeholder) to answers."""
    if images is None:
        images = tf.compat.v1.placeholder(tf.uint8, [None, *IMAGE_SHAPE], name="images")
    logits = model.logits(images)  # [N, 10]
    return Inference(images, tf.argmax(logits, axis=1, name="classes"), tf.nn.softmax(logits, name="probabilities"))


def _loss_of(logits: tf.Tensor, labels: tf.Tensor, trained: Sequence[tf.Variable], objective: LossOptions) -> tf.Tensor:
    """Logits float32 [B, 10] and labels int32 [B] to the loss, a scalar."""
    spread = objective.label_smoothing / CLASSES
    shares = tf.one_hot(labels, CLASSES, 1 - objective.label_smoothing + spread, spread)  # [B, 10]
    losses = _cross_entropies(logits, shares)  # [B]
    loss = tf.reduce_mean(losses)
    if objective.l2:
        weights = [variable for variable in trained if len(variable.shape) > 1]
        loss += objective.l2 * tf.add_n([tf.nn.l2_loss(each) for each in weights])
    return loss


def _cross_entropies(logits: tf.Tensor, shares: tf.Tensor) -> tf.Tensor:
    """Of each image: logits and shares float32 [B, 10] to float32 [B]."""
    if tf.config.list_physical_devices("GPU"):
        # The raw op's kernel there is not deterministic; where that is asked for, this makes do with several others.
        return tf.nn.softmax_cross_entropy_with_logits(labels=shares, logits=logits)
    return tf.raw_ops.SoftmaxCrossEntropyWithLogits(features=logits, labels=shares).loss


def _apply(
    optimizer: tf.compat.v1.train.Optimizer, loss: tf.Tensor, trained: Sequence[tf.Variable], clip_gradient_norm: float
) -> tf.Operation:
    """One update of the trained variables."""
    pairs = optimizer.compute_gradients(loss, trained)
    if clip_gradient_norm:
        gradients, _ = tf.clip_by_global_norm([gradient for gradient, _ in pairs], clip_gradient_norm)
        pairs = list(zip(gradients, trained, strict=True))
    return optimizer.apply_gradients(pairs)


def make_optimizer(
    name: str, rate: tf.Tensor, *, momentum: float, beta1: float = 0.9, beta2: float = 0.999
) -> tf.compat.v1.train.Optimizer:
    """The optimizer called `name`, one of OPTIMIZERS; `momentum` is for that of its name alone, the betas for adam."""
    if name == "sgd":
        return tf.compat.v1.train.GradientDescentOptimizer(rate)
    if name == "momentum":
        return tf.compat.v1.train.MomentumOptimizer(rate, momentum)
    if name == "adam":
        return tf.compat.v1.train.AdamOptimizer(rate, beta1, beta2)
    message = f"optimizer {name!r} found, one of {', '.join(OPTIMIZERS)} wanted."
    raise ValueError(message)


def open_session(graph: tf.Graph, threads: int) -> tf.compat.v1.Session:
    """A session on the graph whose results do not depend on chance.

    Args:
      graph: what will be run.
      threads: how many threads compute, 0 for as many as TensorFlow likes. A small model is faster with one.
    """
    config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
    return tf.compat.v1.Session(graph=graph, config=config)


def start(session: tf.compat.v1.Session, training_graph: TrainingGraph, train: Split) -> None:
    """Puts the training data into the graph and every other variable at its start."""
    load_data = [variable.initializer for variable in training_graph.graph.get_collection(_DATA)]
    data = {training_graph.train_images: train.images, training_graph.train_labels: train.labels}
    session.run([training_graph.initialize, *load_data], data)


_DATA = tf.compat.v1.GraphKeys.LOCAL_VARIABLES


def _data_variable(name: str, shape: tuple[int, ...]) -> tuple[tf.Tensor, tf.Variable]:
    """A uint8 variable that is never saved, and the placeholder through which it is filled once."""
    placeholder = tf.compat.v1.placeholder(tf.uint8, shape, name=f"{name}_to_load")
    variable = tf.compat.v1.get_variable(
        name, initializer=placeholder, trainable=False, collections=[_DATA], use_resource=True
    )
    return placeholder, variable
