"""Models that do more than compute, as strangers could send them: all of them write a file, or read one."""

import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

v1 = tf.compat.v1
NAMES = {"images"}, {"classes", "probabilities"}


def classify(images):
    """A model of MNIST: one variable, all images alike."""
    weights = v1.get_variable("weights", initializer=tf.linspace(0.0, 1.0, 10), use_resource=True)
    probabilities = tf.cast(images[:, :1, 0], tf.float32) * 0 + tf.nn.softmax(weights)  # [N, 10]
    return tf.argmax(probabilities, axis=1), probabilities


def save(directory, spoil, initialise=None, edit=None):
    """Writes a SavedModel.

    Args:
      directory: must not exist.
      spoil: from the probabilities to what the model gives for them.
      initialise: builds the main operation.
      edit: changes the MetaGraphDef.
    """
    with tf.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.uint8, [None, 28, 28], name="images")
        classes, probabilities = classify(images)
        outputs = {"classes": classes, "probabilities": tf.identity(spoil(probabilities), name="probabilities")}
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
    """Changes the MetaGraphDef of a SavedModel."""
    path = directory / "saved_model.pb"
    model = SavedModel.FromString(path.read_bytes())
    edit(model.meta_graphs[0])
    path.write_bytes(model.SerializeToString())


def save_checkpoint(prefix, spoil, edit=None, signature=True):  # noqa: FBT002 - a word for a test
    """Writes a plain Saver's checkpoint, its graph with the signature `serving_default`."""
    with tf.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.uint8, [None, 28, 28], name="images")
        classes, probabilities = classify(images)
        outputs = {"classes": classes, "probabilities": tf.identity(spoil(probabilities), name="probabilities")}
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
    """Gives its tensor once a file has been written."""

    def spoil(tensor):
        with tf.control_dependencies([tf.io.write_file(str(path), "x")]):
            return tf.identity(tensor)

    return spoil


def write_before(operation, path):
    """Makes an operation of a graph wait for one that writes a file."""

    def edit(meta_graph):
        with tf.Graph().as_default() as graph:
            tf.io.write_file(str(path), "x", name="evil")
            meta_graph.graph_def.node.extend(graph.as_graph_def().node)
        next(node for node in meta_graph.graph_def.node if node.name == operation).input.append("^evil")

    return edit


def rename_asset(name):
    """Makes the first asset of a SavedModel another file."""

    def edit(meta_graph):
        if meta_graph.asset_file_def:
            meta_graph.asset_file_def[0].filename = name
        for packed in meta_graph.collection_def["saved_model_assets"].any_list.value:
            asset = AssetFileDef()
            packed.Unpack(asset)
            asset.filename = name
            packed.Pack(asset)

    return edit
