"""The training graph: data, model, loss and update, with the loop over the steps inside the graph.

    built = training_graph.build(networks.Softmax, data.train, batch_size=100, ...)
    with training_graph.open_session(built.graph, threads=1) as session:
        training_graph.initialize(session, built, data.train)
        session.run(built.run_steps, {built.steps_per_execution: 100})

The training data are loaded once into variables that are not saved; nothing is fed during training.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from checkpointing import kernel_environment
from mnist.input import sampling
from mnist.input.augment import Augmentation, augment
from mnist.input.dataset import CLASSES, IMAGE_SHAPE, Split
from mnist.model import ema, input_checks
from mnist.model.networks import Model

OPTIMIZERS = ("sgd", "momentum", "adam")


class Update(NamedTuple):
    """Result of running steps, all scalars.

    step: int64, the number of updates applied so far.
    loss: float32, the loss of the last batch before its update: mean cross entropy, plus L2 if configured.
    learning_rate: float32, the learning rate of the last update.
    """

    step: Any
    loss: Any
    learning_rate: Any


class Inference(NamedTuple):
    """Tensors of inference.

    images: uint8 [N, 28, 28], raw pixels in 0..255; a placeholder unless `build_inference` is given a tensor.
    classes: int64 [N].
    probabilities: float32 [N, 10].
    """

    images: tf.Tensor
    classes: tf.Tensor
    probabilities: tf.Tensor


class TrainingGraph(NamedTuple):
    """A graph and its tensors for training.

    steps_per_execution: int64 scalar placeholder, the number of updates per session.run.
    run_steps: fetch this to apply them.
    step: int64 scalar variable, the number of updates applied so far.
    saved: the variables that are the state of the run.
    data: the variables that hold the training images and labels; not saved.
    trained: the variables that the optimizer updates.
    initialize: initializes all variables except the data.
    train_images: uint8 [T, 28, 28], placeholder from which the data variable is initialized.
    train_labels: uint8 [T], likewise.
    """

    graph: tf.Graph
    steps_per_execution: tf.Tensor
    run_steps: Update
    step: tf.Variable
    saved: list[tf.Variable]
    data: list[tf.Variable]
    trained: list[tf.Variable]
    inference: Inference
    initialize: tf.Operation
    train_images: tf.Tensor
    train_labels: tf.Tensor


class LossOptions(NamedTuple):
    """Options of the loss and its gradient.

    label_smoothing: fraction of each label that is spread evenly over all classes (source: Szegedy et al.,
      "Rethinking the Inception Architecture", 2016).
    l2: weight of half the sum of squared weights in the loss; biases, scales and offsets are not included.
    clip_gradient_norm: upper limit of the gradients' global norm; 0 for no limit.
    """

    label_smoothing: float = 0.0
    l2: float = 0.0
    clip_gradient_norm: float = 0.0


CROSS_ENTROPY = LossOptions()
NO_AUGMENTATION = Augmentation()


def build(
    make_model: Callable[[], Model],
    train: Split,
    *,
    batch_size: int,
    seed: int,
    make_optimizer: Callable[[tf.Tensor], tf.compat.v1.train.Optimizer],
    learning_rate: Callable[[tf.Tensor], tf.Tensor],
    loss_options: LossOptions = CROSS_ENTROPY,
    augmentation: Augmentation = NO_AUGMENTATION,
    ema_decay: float = 0.0,
) -> TrainingGraph:
    """Build the training graph.

    Args:
      make_model: creates the model and its variables in the current graph.
      train: the training data; only the shapes are used, `initialize` loads the data.
      batch_size: images per update.
      seed: random seed of image order, augmentation and dropout.
      make_optimizer: maps the learning rate (float32 scalar) to the optimizer.
      learning_rate: maps the step (int64 scalar) to the learning rate (float32 scalar).
      loss_options: regularization and gradient clipping.
      augmentation: largest random changes of the training images.
      ema_decay: decay of the exponential moving averages that inference uses in place of the variables; 0 for none.
    """
    # Ops without a deterministic kernel raise an error. Set before the graph is built, because some gradients are
    # built from other ops then.
    tf.config.experimental.enable_op_determinism()
    with tf.Graph().as_default() as graph:
        train_images, images = _data_variable("train_images", train.images.shape)
        train_labels, labels = _data_variable("train_labels", train.labels.shape)
        step = tf.compat.v1.train.get_or_create_global_step()
        model = make_model()
        trained = tf.compat.v1.trainable_variables()
        inference_model = ema.averaged(make_model) if ema_decay else model
        averages = ema.pairs()

        def update(step_now: tf.Tensor, _loss: tf.Tensor, _rate: tf.Tensor) -> Update:
            """Apply one update: the body of the loop over steps."""
            indices = sampling.batch_indices(step_now, batch_size=batch_size, size=len(train.labels), seed=seed)  # [B]
            key = tf.stack([seed, step_now])  # int64 [2]
            batch_images = augment(tf.gather(images, indices), key, augmentation)  # [B, 28, 28]
            batch_labels = tf.cast(tf.gather(labels, indices), tf.int32)  # [B]
            logits = model.logits(batch_images, dropout_key=key)  # [B, 10]
            loss = _compute_loss(logits, batch_labels, trained, loss_options)  # scalar
            rate = learning_rate(step_now)  # scalar
            updated = _apply(make_optimizer(rate), loss, trained, loss_options.clip_gradient_norm)
            if averages:
                with tf.control_dependencies([updated]):
                    updated = ema.update(averages, ema_decay, step_now)
            with tf.control_dependencies([updated]):
                return Update(step_now + 1, tf.identity(loss), rate)

        steps_per_execution = tf.compat.v1.placeholder(tf.int64, [], name="steps_to_run")
        start = step.read_value()
        end = start + input_checks.ensure_input(steps_per_execution, [])
        done = tf.while_loop(
            lambda step_now, _loss, _rate: step_now < end,
            update,
            Update(start, tf.constant(0.0), tf.constant(0.0)),
            # Updates are sequential: each reads the weights that the previous one wrote.
            parallel_iterations=1,
        )
        step_made = step.assign(done.step, name="run_steps", read_value=False)
        with tf.control_dependencies([step_made]):
            run_steps = Update(tf.identity(done.step), done.loss, done.learning_rate)
        # The optimizer adds an op of the loop's body to this collection, with which a .meta file cannot be imported.
        graph.clear_collection(tf.compat.v1.GraphKeys.TRAIN_OP)
        graph.add_to_collection(tf.compat.v1.GraphKeys.TRAIN_OP, step_made)
        return TrainingGraph(
            graph=graph,
            steps_per_execution=steps_per_execution,
            run_steps=run_steps,
            step=step,
            saved=tf.compat.v1.global_variables(),
            data=[images, labels],
            trained=trained,
            inference=build_inference(inference_model),
            initialize=tf.compat.v1.global_variables_initializer(),
            train_images=train_images,
            train_labels=train_labels,
        )


def build_inference(model: Model, images: tf.Tensor | None = None) -> Inference:
    """Add inference to the current graph: uint8 [N, 28, 28] (a new placeholder by default) to classes [N]."""
    if images is None:
        images = tf.compat.v1.placeholder(tf.uint8, [None, *IMAGE_SHAPE], name="images")
    logits = model.logits(input_checks.ensure_images(images, IMAGE_SHAPE))  # [N, 10]
    return Inference(images, tf.argmax(logits, axis=1, name="classes"), tf.nn.softmax(logits, name="probabilities"))


def _compute_loss(
    logits: tf.Tensor, labels: tf.Tensor, trained: Sequence[tf.Variable], loss_options: LossOptions
) -> tf.Tensor:
    """Compute the loss, a float32 scalar, from logits float32 [B, 10] and labels int32 [B]."""
    spread = loss_options.label_smoothing / CLASSES
    targets = tf.one_hot(labels, CLASSES, 1 - loss_options.label_smoothing + spread, spread)  # [B, 10]
    losses = _cross_entropies(logits, targets)  # [B]
    loss = tf.reduce_mean(losses)
    if loss_options.l2:
        weights = [variable for variable in trained if len(variable.shape) > 1]
        loss += loss_options.l2 * tf.add_n([tf.nn.l2_loss(each) for each in weights])
    return loss


def _cross_entropies(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Compute the cross entropy of each image, float32 [B], from logits and targets float32 [B, 10]."""
    if tf.config.list_physical_devices("GPU"):
        # The raw op has no deterministic GPU kernel; with op determinism on, this function uses other ops.
        return tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits)
    return tf.raw_ops.SoftmaxCrossEntropyWithLogits(features=logits, labels=targets).loss


def _apply(
    optimizer: tf.compat.v1.train.Optimizer, loss: tf.Tensor, trained: Sequence[tf.Variable], clip_gradient_norm: float
) -> tf.Operation:
    """Apply one update to the trained variables; with a clip norm above 0, clip the gradients first."""
    pairs = optimizer.compute_gradients(loss, trained)
    if clip_gradient_norm:
        gradients, _ = tf.clip_by_global_norm([gradient for gradient, _ in pairs], clip_gradient_norm)
        pairs = list(zip(gradients, trained, strict=True))
    return optimizer.apply_gradients(pairs)


def make_optimizer(
    name: str, rate: tf.Tensor, *, momentum: float, beta1: float = 0.9, beta2: float = 0.999
) -> tf.compat.v1.train.Optimizer:
    """Create an optimizer.

    Args:
      name: one of OPTIMIZERS.
      rate: float32 scalar, the learning rate.
      momentum: momentum coefficient ("momentum" only).
      beta1: decay rate of the first moment ("adam" only).
      beta2: decay rate of the second moment ("adam" only).

    Raises:
      ValueError: the name is unknown.
    """
    if name == "sgd":
        return tf.compat.v1.train.GradientDescentOptimizer(rate)
    if name == "momentum":
        return tf.compat.v1.train.MomentumOptimizer(rate, momentum)
    if name == "adam":
        return tf.compat.v1.train.AdamOptimizer(rate, beta1, beta2)
    raise ValueError(f"optimizer: expected one of {', '.join(OPTIMIZERS)}, got {name!r}")


def open_session(graph: tf.Graph, threads: int) -> tf.compat.v1.Session:
    """Open a session on a graph.

    Args:
      graph: the graph to run.
      threads: threads between and within ops; 0 for TensorFlow's default. A small model is faster with one.
    """
    within = kernel_environment.session_threads(threads)
    config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=within, inter_op_parallelism_threads=threads)
    return tf.compat.v1.Session(graph=graph, config=config)


def initialize(session: tf.compat.v1.Session, training_graph: TrainingGraph, train: Split) -> None:
    """Load the training data into the graph and initialize all other variables."""
    session.run(training_graph.initialize)
    load_data(session, training_graph, train)


def load_data(session: tf.compat.v1.Session, training_graph: TrainingGraph, train: Split) -> None:
    """Load the training data into the graph, again or for the first time."""
    data = {training_graph.train_images: train.images, training_graph.train_labels: train.labels}
    session.run([variable.initializer for variable in training_graph.data], data)


_DATA = tf.compat.v1.GraphKeys.LOCAL_VARIABLES


def _data_variable(name: str, shape: tuple[int, ...]) -> tuple[tf.Tensor, tf.Variable]:
    """Create a uint8 variable that is not saved; return the placeholder of its initial value, and the variable."""
    placeholder = tf.compat.v1.placeholder(tf.uint8, shape, name=f"{name}_to_load")
    value = input_checks.ensure_input(placeholder, shape)
    variable = tf.compat.v1.get_variable(
        name, initializer=value, trainable=False, collections=[_DATA], use_resource=True
    )
    return placeholder, variable
