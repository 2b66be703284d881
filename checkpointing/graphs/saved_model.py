"""SavedModels: write them with TensorFlow's Builder, read their graphs, load them by tags.

    saved_model.write(directory, prefix, [TaggedGraph(["serve"], build_signatures)])
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta_graph = saved_model.load(session, directory, ["serve"])

The model is built in a new graph and its weights come from a checkpoint. So a SavedModel holds nothing of training, and
each one proves that its checkpoint can be restored. `export` writes SavedModels atomically and verifies them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from checkpointing.errors import CheckpointError, listed, reason
from checkpointing.graphs import graph_safety, meta_graphs
from checkpointing.graphs.graph_scan import Run
from checkpointing.graphs.meta_graphs import Signature
from checkpointing.storage import regular_file, tf_path, write_guard

_MOST_BYTES = 2**31  # more than a protocol buffer can hold


class TaggedGraph(NamedTuple):
    """One of the graphs of a SavedModel; loaders select it by its tags.

    tags: `serve`, `train`, `gpu`, ...
    build: builds it in the current graph and returns its signatures by name. Its variables have their names in the
      checkpoint. Tables to initialize on loading are in the collection TABLE_INITIALIZERS.
    """

    tags: Sequence[str]
    build: Callable[[], Mapping[str, Signature]]


def write(directory: Path, prefix: Path, tagged_graphs: Sequence[TaggedGraph], *, as_text: bool = False) -> None:
    """Write a SavedModel in place, with TensorFlow's Builder (SavedModelBuilder).

    Args:
      directory: must not exist.
      prefix: the checkpoint with the weights.
      tagged_graphs: one or more. They share one variables file, which the first graph writes: the variables of the
        others must be among its own. Files in a graph's collection ASSET_FILEPATHS are copied to `assets/`.
      as_text: write `saved_model.pbtxt` in place of the binary `saved_model.pb`.

    Raises:
      CheckpointError: the checkpoint cannot be restored, or a file cannot be written.
    """
    write_guard.check(directory)
    try:
        builder = tf.compat.v1.saved_model.Builder(str(directory))
        for number, tagged in enumerate(tagged_graphs):
            _add(builder, prefix, tagged, with_variables=number == 0)
        builder.save(as_text=as_text)
    except (OSError, tf.errors.OpError) as error:
        raise CheckpointError(f"{directory}: could not be written ({reason(error)})") from error


def _add(builder: tf.compat.v1.saved_model.Builder, prefix: Path, tagged: TaggedGraph, *, with_variables: bool) -> None:
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        signatures = meta_graphs.signature_defs(tagged.build())
        saver = tf.compat.v1.train.Saver(allow_empty=True)
        meta_graphs.restore_variables(session, saver, prefix)
        keys = tf.compat.v1.GraphKeys
        options = {
            "signature_def_map": signatures,
            "assets_collection": graph.get_collection(keys.ASSET_FILEPATHS),
            "main_op": tf.compat.v1.tables_initializer() if graph.get_collection(keys.TABLE_INITIALIZERS) else None,
            "clear_devices": True,
            "saver": saver,
        }
        # The main_op runs them. Tools that extract a signature's subgraph (tf2onnx, TensorFlow's own
        # convert_variables_to_constants_v2) fail if the collection names operations that the subgraph lacks.
        graph.clear_collection(keys.TABLE_INITIALIZERS)
        if with_variables:
            builder.add_meta_graph_and_variables(session, list(tagged.tags), **options)
        else:
            builder.add_meta_graph(list(tagged.tags), **options)


def read(directory: Path) -> list[tf.compat.v1.MetaGraphDef]:
    """Read the graphs of any SavedModel; nothing is imported or loaded.

    Raises:
      CheckpointError: there is none, or it cannot be read.
    """
    binary, text = directory / "saved_model.pb", directory / "saved_model.pbtxt"
    model = SavedModel()
    try:
        if binary.is_file() or not text.is_file():
            model.ParseFromString(regular_file.read(binary, _MOST_BYTES))
        else:
            text_format.Parse(regular_file.read(text, _MOST_BYTES).decode(), model)
    except OSError as error:
        message = f"{directory}: no SavedModel found ({binary.name}: {reason(error)})"
        raise CheckpointError(message, hint=_suggest_nearby(directory)) from error
    except (DecodeError, UnicodeDecodeError, text_format.ParseError) as error:
        raise CheckpointError(f"{directory}: its SavedModel is damaged ({reason(error)})") from error
    return list(model.meta_graphs)


def _suggest_nearby(directory: Path) -> str | None:
    """Return a hint that lists the SavedModels one and two levels below: in a server's base path, or a train_dir."""
    found = sorted(path.parent for pattern in ("*", "*/*") for path in directory.glob(f"{pattern}/saved_model.pb*"))
    return f"there is {listed(found)}" if found else None


def describe(graphs: Sequence[tf.compat.v1.MetaGraphDef]) -> str:
    """Return the tags and signature names of each graph, on one line."""
    graphs_described = (
        f"tags {','.join(sorted(each.meta_info_def.tags))} "
        f"with signatures {listed(sorted(name for name in each.signature_def if not name.startswith('__')))}"
        for each in graphs
    )
    return listed(graphs_described, "; ")


def load(
    session: tf.compat.v1.Session,
    directory: Path,
    tags: Sequence[str],
    *,
    runs: Callable[[tf.compat.v1.MetaGraphDef], Iterable[Run]] = graph_safety.signature_runs,
    trusted: bool = False,
) -> tf.compat.v1.MetaGraphDef:
    """Load the graph with these tags, and its variables, into a session; return its MetaGraphDef.

    Args:
      session: a session on the graph to load into.
      directory: the SavedModel.
      tags: exactly those of the graph.
      runs: returns what the session will run; by default all signatures.
      trusted: load the graph without the safety check.

    Raises:
      CheckpointError: there is no SavedModel; no graph has these tags (the message lists the graphs); a file is
        damaged; or the graph fails the safety check.
    """
    graphs = read(directory)
    meta_graph = next((each for each in graphs if set(each.meta_info_def.tags) == set(tags)), None)
    if meta_graph is None:
        raise CheckpointError(f"{directory}: expected a graph with tags {','.join(tags)}, got {describe(graphs)}")
    if not trusted:
        graph_safety.check(meta_graph, directory, runs(meta_graph))
    try:
        # TensorFlow looks for the weights by a pattern that includes the directory's own name.
        with tf_path.without_pattern(directory / "saved_model.pb") as plain:
            return tf.compat.v1.saved_model.load(session, list(tags), str(plain.parent))
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, tf.errors.OpError) as error:
        raise CheckpointError(f"{directory}: cannot be loaded ({reason(error)})") from error


def check_loads(directory: Path, tags: Sequence[str], *, trusted: bool = False) -> None:
    """Check that the graph with these tags, and its variables, can be loaded.

    Raises:
      CheckpointError: it cannot be loaded, or fails the safety check.
    """
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        load(session, directory, tags, trusted=trusted)
