"""Two ways to save a model in TensorFlow's graph API: Saver (a checkpoint) and SavedModelBuilder (an exported model).

    python examples/saver_and_saved_model.py [DIRECTORY]

Plain TensorFlow, as its tutorials show it, on the bundled MNIST, in a few seconds. The comment at each call names what
this project has in its place; train_softmax.py trains the same model. DIRECTORY must be empty or missing.
"""

import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for mnist

import numpy as np
import tensorflow.compat.v1 as tf

from mnist.input import dataset

tf.disable_eager_execution()
tf.logging.set_verbosity(tf.logging.ERROR)
directory = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
data = dataset.load(None, validation_size=5000)

# Here: `build` in mnist/model/training_graph.py; the data and the loop over the steps are in the graph, too.
images = tf.placeholder(tf.uint8, [None, 28, 28], name="images")
labels = tf.placeholder(tf.int64, [None], name="labels")
weights = tf.get_variable("weights", initializer=tf.zeros([784, 10]))
biases = tf.get_variable("biases", initializer=tf.zeros([10]))
# Here: `ensure_images` in mnist/model/input_checks.py. TensorFlow 2's loader does not check a placeholder's shape.
pixels = tf.reshape(tf.ensure_shape(images, [None, 28, 28]), [-1, 784])  # [N, 784]
logits = tf.cast(pixels, tf.float32) / 255 @ weights + biases  # [N, 10]
classes = tf.argmax(logits, axis=1, name="classes")  # [N]
loss = tf.losses.sparse_softmax_cross_entropy(labels, logits)
step = tf.train.get_or_create_global_step()
update = tf.train.GradientDescentOptimizer(0.5).minimize(loss, global_step=step)

# Here: `CheckpointManager` in checkpointing/protocol/manager.py.
saver = tf.train.Saver(max_to_keep=5)
with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    for first in range(0, 30_000, 100):
        batch = slice(first, first + 100)
        session.run(update, {images: data.train.images[batch], labels: data.train.labels[batch]})
    # Here: `CheckpointManager.save_if_due` and `save`: in the background, durable, committed by a manifest.
    prefix = saver.save(session, str(directory / "model.ckpt"), global_step=step)
    # SavedModelBuilder. Here: `export_model` in trainer/export.py, which checks the export's predictions.
    builder = tf.saved_model.Builder(str(directory / "saved_model"))
    signature = tf.saved_model.predict_signature_def({"images": images}, {"classes": classes})
    builder.add_meta_graph_and_variables(session, [tf.saved_model.tag_constants.SERVING], {"predict": signature})
    builder.save()

with tf.Session() as session:
    # Here: `open_train_dir` in checkpointing/protocol/resume.py finds the newest complete checkpoint, and
    # `CheckpointManager.restore` checks and restores it.
    saver.restore(session, tf.train.latest_checkpoint(str(directory)))
    restored = session.run(classes, {images: data.test.images})

with tf.Session(graph=tf.Graph()) as session:
    # Here: `load` in checkpointing/graphs/saved_model.py, as mnist/evaluate.py and mnist/predict.py call it.
    exported = tf.saved_model.loader.load(session, ["serve"], str(directory / "saved_model")).signature_def["predict"]
    fed = {exported.inputs["images"].name: data.test.images}
    loaded = session.run(exported.outputs["classes"].name, fed)

print(f"checkpoint   {prefix}  test accuracy {np.mean(restored == data.test.labels):.4f}")
print(f"saved model  {directory / 'saved_model'}  test accuracy {np.mean(loaded == data.test.labels):.4f}")
print(f"same predictions: {np.array_equal(restored, loaded)}")
