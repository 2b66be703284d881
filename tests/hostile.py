"""Hostile models for tests: graphs that read or write a file when they run."""

import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

v1 = tf.compat.v1
NAMES = {"images"}, {"classes", "probabilities"}


def classify(images):
    """Build a constant MNIST model with one variable: uint8 [N, 28, 28] -> int64 [N], float32 [N, 10]."""
    weights = v1.get_variable("weights", initializer=tf.linspace(0.0, 1.0, 10), use_resource=True)
    probabilities = tf.cast(images[:, :1, 0], tf.float32) * 0 + tf.nn.softmax(weights)  # [N, 10]
    return tf.argmax(probabilities, axis=1), probabilities


def save(directory, make_hostile, initialise=None, edit=None):
    """Write a SavedModel; return its directory.

    Args:
      directory: must not exist.
      make_hostile: maps the probabilities to the model's output.
      initialise: builds the main operation.
      edit: changes the MetaGraphDef.
    """
    with tf.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.uint8, [None, 28, 28], name="images")
        classes, probabilities = classify(images)
        outputs = {"classes": classes, "probabilities": tf.identity(make_hostile(probabilities), name="probabilities")}
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(directory))
        signature = v1.saved_model.predict_signature_def({"images": images}, outputs)
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"serving_default": signature}, main_op=initialise() if initialise else None
        )
        builder.save()
    if edit is not None:
        change(directory, edit)
    return directory


def change(directory, edit):
    """Change the MetaGraphDef of a SavedModel."""
    path = directory / "saved_model.pb"
    model = SavedModel.FromString(path.read_bytes())
    edit(model.meta_graphs[0])
    path.write_bytes(model.SerializeToString())


def save_checkpoint(prefix, make_hostile, edit=None, signature=True):  # noqa: FBT002 - passed by name
    """Save a checkpoint with a plain Saver, and its graph with the signature `serving_default`; return its prefix."""
    with tf.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.uint8, [None, 28, 28], name="images")
        classes, probabilities = classify(images)
        outputs = {"classes": classes, "probabilities": tf.identity(make_hostile(probabilities), name="probabilities")}
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver()
        saver.save(session, str(prefix), write_meta_graph=False)
        meta_graph = saver.export_meta_graph()
        if signature:
            meta_graph.signature_def["serving_default"].CopyFrom(
                v1.saved_model.predict_signature_def({"images": images}, outputs)
            )
    if edit is not None:
        edit(meta_graph)
    prefix.with_name(prefix.name + ".meta").write_bytes(meta_graph.SerializeToString())
    return prefix


def writing(path):
    """Return a function that returns its tensor once it has written a file."""

    def make_hostile(tensor):
        with tf.control_dependencies([tf.io.write_file(str(path), "x")]):
            return tf.identity(tensor)

    return make_hostile


def write_before(operation, path):
    """Return an edit that makes an operation wait for one that writes a file."""

    def edit(meta_graph):
        with tf.Graph().as_default() as graph:
            tf.io.write_file(str(path), "x", name="evil")
            meta_graph.graph_def.node.extend(graph.as_graph_def().node)
        next(node for node in meta_graph.graph_def.node if node.name == operation).input.append("^evil")

    return edit


def rename_asset(name):
    """Return an edit that gives the first asset of a SavedModel another file name."""

    def edit(meta_graph):
        if meta_graph.asset_file_def:
            meta_graph.asset_file_def[0].filename = name
        for packed in meta_graph.collection_def["saved_model_assets"].any_list.value:
            asset = AssetFileDef()
            packed.Unpack(asset)
            asset.filename = name
            packed.Pack(asset)

    return edit
