"""Write checkpoints and SavedModels with this project, TensorFlow 1, TensorFlow 2 and Keras.

Each writer creates its directory, and writes one checkpoint or SavedModel with the float32 values [0, 1, 2, 3, 4, 5].
"""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import tensorflow as tf

from checkpointing.protocol.manager import CheckpointManager
from checkpointing.protocol.resume import open_train_dir

v1 = tf.compat.v1
VALUES = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def _initialized(graph, config=None):
    session = v1.Session(graph=graph, config=config)
    with graph.as_default():
        session.run(v1.global_variables_initializer())
    return session


def ours(directory, steps=(20,)):
    """Save with this project's CheckpointManager; add 1 to the weights after each save."""
    start = open_train_dir(directory, {"model": "line"})
    with tf.Graph().as_default() as graph:
        step = v1.train.get_or_create_global_step()
        weights = v1.get_variable("weights", initializer=VALUES)
        add = weights.assign_add([1.0] * len(VALUES))
    manager = CheckpointManager(graph, start, variables=[step, weights], step=step)
    with _initialized(graph) as session, manager:
        manager.restore(session)
        for number in steps:
            step.load(number, session)
            manager.save(session)
            session.run(add)


def plain_saver(directory, steps=(20,)):
    """Save with TensorFlow 1's Saver."""
    with tf.Graph().as_default() as graph:
        v1.get_variable("weights", initializer=VALUES)
        saver = v1.train.Saver(max_to_keep=100)
    directory.mkdir(exist_ok=True)
    with _initialized(graph) as session:
        for step in steps:
            saver.save(session, str(directory / "model"), global_step=step)


def sharded_saver(directory):
    """Save with TensorFlow 1's Saver from two devices: two data files."""
    with tf.Graph().as_default() as graph:
        for device, name in enumerate(["weights", "others"]):
            with tf.device(f"/cpu:{device}"):
                v1.get_variable(name, initializer=VALUES)
        saver = v1.train.Saver(sharded=True)
    directory.mkdir()
    with _initialized(graph, v1.ConfigProto(device_count={"CPU": 2})) as session:
        saver.save(session, str(directory / "model"), global_step=20)


def partitioned(directory):
    """Save a partitioned variable, in three slices."""
    with tf.Graph().as_default() as graph:
        with v1.variable_scope("", partitioner=v1.fixed_size_partitioner(3)):
            v1.get_variable("weights", initializer=tf.constant(VALUES))
        saver = v1.train.Saver()
    directory.mkdir()
    with _initialized(graph) as session:
        saver.save(session, str(directory / "model"), global_step=20)


def object_based(directory):
    """Save with TensorFlow 2's CheckpointManager."""
    checkpoint = tf.train.Checkpoint(weights=tf.Variable(VALUES), step=tf.Variable(20, dtype=tf.int64))
    tf.train.CheckpointManager(checkpoint, str(directory), max_to_keep=3).save(checkpoint_number=20)


def keras(directory):
    """Save a Keras model's weights in TensorFlow's format."""
    model = tf.keras.Sequential([tf.keras.Input([6]), tf.keras.layers.Dense(1, name="line")])
    model.layers[0].kernel.assign([[value] for value in VALUES])
    tf.train.Checkpoint(model=model).write(str(directory / "keras-20"))


def saved_model(directory):
    """Write a SavedModel with TensorFlow 2."""
    module = tf.Module()
    module.weights = tf.Variable(VALUES)
    module.scaled = tf.function(lambda x: x * module.weights, input_signature=[tf.TensorSpec([], name="x")])
    tf.saved_model.save(module, str(directory), signatures=module.scaled)


def built_model(directory):
    """Write a SavedModel with TensorFlow 1's Builder."""
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 6], name="x")
        scaled = x * v1.get_variable("weights", initializer=VALUES)
    with _initialized(graph) as session:
        v1.saved_model.simple_save(session, str(directory), {"x": x}, {"y": scaled})


WRITERS = {
    each.__name__: each
    for each in (ours, plain_saver, sharded_saver, partitioned, object_based, keras, saved_model, built_model)
}
MODELS = ["saved_model", "built_model"]


@cache
def _saver_files():
    with TemporaryDirectory() as directory:
        plain_saver(Path(directory))
        return {path.name.removeprefix("model-20"): path.read_bytes() for path in Path(directory).glob("model-20.*")}


def make_foreign(directory, name):
    """Copy a plain Saver's checkpoint into a directory; return its prefix."""
    for suffix, content in _saver_files().items():
        (directory / f"{name}{suffix}").write_bytes(content)
    return directory / name
