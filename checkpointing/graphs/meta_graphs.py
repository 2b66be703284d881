"""MetaGraphs: read `.meta` files, restore, prune and freeze their graphs without the code that built them.

    meta_graph = meta_graphs.read_meta_graph(layout.meta_path(prefix))
    with meta_graphs.restored(meta_graphs.pruned(meta_graph, ["serving_default"]), prefix) as session:
        session.run(...)

A `.meta` file is a MetaGraphDef: the graph, the collections (which variables there are), a SaverDef, and, in files that
this package wrote, the signatures: which tensors to feed and to fetch, by public names.

A graph is a program. Functions that import or run one check it first with `graph_safety`, unless it is `trusted`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tensorflow.core.framework.variable_pb2 import VariableDef
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

from checkpointing.errors import CheckpointError, listed, reason
from checkpointing.graphs import graph_safety
from checkpointing.graphs.graph_scan import Run, functions_called, operation_of
from checkpointing.storage import durable, layout, regular_file, tf_path

# (inputs, outputs) of a signature, each tensors by public name.
Signature = tuple[Mapping[str, tf.Tensor], Mapping[str, tf.Tensor]]

_VARIABLES = (
    tf.compat.v1.GraphKeys.GLOBAL_VARIABLES,
    tf.compat.v1.GraphKeys.TRAINABLE_VARIABLES,
    tf.compat.v1.GraphKeys.LOCAL_VARIABLES,  # in no checkpoint: the loader initializes them
)
_TABLES = tf.compat.v1.GraphKeys.TABLE_INITIALIZERS
_ASSETS = tf.compat.v1.GraphKeys.ASSET_FILEPATHS
_MOST_BYTES = 2**31  # more than a protocol buffer can hold


def signature_defs(signatures: Mapping[str, Signature]) -> dict[str, SignatureDef]:
    """Convert signatures to SignatureDef protocol buffers, by name."""
    info = tf.compat.v1.saved_model.build_tensor_info
    return {
        name: tf.compat.v1.saved_model.build_signature_def(
            {key: info(tensor) for key, tensor in inputs.items()},
            {key: info(tensor) for key, tensor in outputs.items()},
            tf.saved_model.PREDICT_METHOD_NAME,
        )
        for name, (inputs, outputs) in signatures.items()
    }


def write_graph(graph_def: tf.compat.v1.GraphDef, path: Path) -> None:
    """Write a graph as `tf.io.write_graph` does, but atomically.

    Args:
      graph_def: the graph.
      path: text format if it ends with `.pbtxt`, otherwise binary, which is read 200 times faster.
    """
    as_text = path.suffix == ".pbtxt"
    content = (
        text_format.MessageToString(graph_def).encode() if as_text else graph_def.SerializeToString(deterministic=True)
    )
    durable.atomic_write(path, content)


def read_meta_graph(path: Path) -> tf.compat.v1.MetaGraphDef:
    """Read a `.meta` file, binary or in text format (`as_text=True` of export_meta_graph).

    Raises:
      CheckpointError: it is missing, or not a MetaGraphDef.
    """
    try:
        content = regular_file.read(path, _MOST_BYTES)
    except OSError as error:
        message = f"{path}: no graph can be read there ({reason(error)})"
        raise CheckpointError(message, hint="use a checkpoint that has its .meta file") from error
    meta_graph = tf.compat.v1.MetaGraphDef()
    try:
        meta_graph.ParseFromString(content)
    except DecodeError as error:
        try:
            text_format.Parse(content.decode(), meta_graph)
        except (text_format.ParseError, UnicodeDecodeError):
            raise CheckpointError(f"{path}: expected a MetaGraphDef, got other content ({reason(error)})") from error
    if not meta_graph.graph_def.node:
        raise CheckpointError(f"{path}: expected a MetaGraphDef, got one without nodes")
    return meta_graph


def add_signature(
    meta_graph: tf.compat.v1.MetaGraphDef,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    source: Path,
    *,
    trusted: bool = False,
) -> None:
    """Add the signature `serving_default` to a graph.

    Args:
      meta_graph: the graph, which is changed.
      inputs: public names to names of tensors, as in `{"images": "Placeholder:0"}`.
      outputs: likewise.
      source: the graph's file, for messages.
      trusted: import the graph without the safety check.

    Raises:
      CheckpointError: there is no such tensor (the hint lists the graph's placeholders), or the graph is not safe to
        load.
    """
    if not trusted:
        graph_safety.check(meta_graph, source, [Run(outputs.values(), inputs.values())])
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(meta_graph.graph_def, name="")
        try:
            to_feed = {key: graph.get_tensor_by_name(name) for key, name in inputs.items()}
            to_fetch = {key: graph.get_tensor_by_name(name) for key, name in outputs.items()}
        except (KeyError, ValueError) as error:
            placeholders = listed(f"{node.name}:0" for node in meta_graph.graph_def.node if node.op == "Placeholder")
            message = f"{source}: {reason(error)}"
            raise CheckpointError(message, hint=f"its placeholders are {placeholders}") from error
        default = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
        meta_graph.signature_def[default].CopyFrom(signature_defs({default: (to_feed, to_fetch)})[default])


def signatures_of(meta_graph: tf.compat.v1.MetaGraphDef) -> dict[str, Signature]:
    """Return the signatures of a MetaGraph, as tensors of the current graph, into which it has been imported."""
    get = tf.compat.v1.get_default_graph().get_tensor_by_name
    return {
        name: (
            {key: get(info.name) for key, info in signature.inputs.items()},
            {key: get(info.name) for key, info in signature.outputs.items()},
        )
        for name, signature in meta_graph.signature_def.items()
    }


def check_signatures(meta_graph: tf.compat.v1.MetaGraphDef, expected: Sequence[str], source: Path) -> None:
    """Raise CheckpointError if a graph lacks one of these signatures; the message lists those that it has."""
    for name in expected:
        if name not in meta_graph.signature_def:
            found = listed(sorted(meta_graph.signature_def))
            raise CheckpointError(f"{source}: expected a signature {name}, got {found}")


def pruned(meta_graph: tf.compat.v1.MetaGraphDef, signatures: Sequence[str]) -> tf.compat.v1.MetaGraphDef:
    """Return the part of a graph that these signatures need.

    It has the operations between inputs and outputs, their variables with the initial values, and their tables with
    the initializers. All other collections, and device placements, are dropped.
    """
    kept, collections = tf.compat.v1.MetaGraphDef(), dict(meta_graph.collection_def)
    for name in signatures:
        kept.signature_def[name].CopyFrom(meta_graph.signature_def[name])
    needed = _operations_of(kept.signature_def.values())
    extract = tf.compat.v1.graph_util.extract_sub_graph
    reached = {node.name for node in extract(meta_graph.graph_def, sorted(needed)).node}
    for key in collections.keys() & set(_VARIABLES):
        for content in collections[key].bytes_list.value:
            variable = VariableDef.FromString(content)
            if operation_of(variable.variable_name) in reached:
                kept.collection_def[key].bytes_list.value.append(content)
                names = (variable.initializer_name, variable.initial_value_name, variable.snapshot_name)
                needed |= {operation_of(name) for name in names if name}
    if _TABLES in collections:
        tables = {node.name: node.input[0] for node in meta_graph.graph_def.node if node.input}
        initializers = [name for name in collections[_TABLES].node_list.value if operation_of(tables[name]) in reached]
        kept.collection_def[_TABLES].node_list.value.extend(initializers)
        needed.update(initializers)
    kept.graph_def.CopyFrom(extract(meta_graph.graph_def, sorted(needed)))
    _drop_unused_functions(kept.graph_def)
    for node in kept.graph_def.node:
        node.device = ""
    if _ASSETS in collections:
        kept_names = {node.name for node in kept.graph_def.node}
        files = [name for name in collections[_ASSETS].node_list.value if operation_of(name) in kept_names]
        kept.collection_def[_ASSETS].node_list.value.extend(files)
    return kept


def _operations_of(signatures: Iterable[SignatureDef]) -> set[str]:
    """Return the names of the operations that these signatures feed or fetch."""
    infos = [info for each in signatures for side in (each.inputs, each.outputs) for info in side.values()]
    return {operation_of(info.name) for info in infos}


def _drop_unused_functions(graph_def: tf.compat.v1.GraphDef) -> None:
    """Delete the functions (bodies of loops, for example) that no node calls."""
    functions = {function.signature.name: function for function in graph_def.library.function}
    used: set[str] = set()
    nodes = list(graph_def.node)
    while nodes:
        called = {name for node in nodes for name, _ in functions_called(node)} & functions.keys()
        nodes = [node for name in called - used for node in functions[name].node_def]
        used |= called
    kept = [functions[name] for name in sorted(used)]
    del graph_def.library.function[:]
    graph_def.library.function.extend(kept)


def restore_variables(session: tf.compat.v1.Session, saver: tf.compat.v1.train.Saver, prefix: Path) -> None:
    """Restore a Saver's variables from a checkpoint.

    Raises:
      CheckpointError: a file is missing or damaged, or lacks a variable.
    """
    try:
        with tf_path.without_pattern(prefix) as plain:
            saver.restore(session, str(plain))
    except (ValueError, KeyError, TypeError, tf.errors.OpError) as error:
        raise CheckpointError(f"{prefix}: cannot be restored ({reason(error)})") from error


@contextmanager
def restored(
    meta_graph: tf.compat.v1.MetaGraphDef,
    prefix: Path,
    *,
    source: Path | None = None,
    runs: Callable[[tf.compat.v1.MetaGraphDef], Iterable[Run]] = graph_safety.signature_runs,
    trusted: bool = False,
) -> Iterator[tf.compat.v1.Session]:
    """Import a graph and restore its variables from a checkpoint; yield a session on it.

    Args:
      meta_graph: the graph; importing changes it.
      prefix: the checkpoint.
      source: the graph's file, for messages; by default the checkpoint's `.meta` file.
      runs: returns what the session will run; by default all signatures.
      trusted: load the graph without the safety check.

    Raises:
      CheckpointError: the graph is not safe to load or cannot be imported, or the checkpoint lacks one of its variables
        or has it in another shape.
    """
    if not trusted:
        graph_safety.check(meta_graph, source or layout.meta_path(prefix), runs(meta_graph))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        try:
            saver = tf.compat.v1.train.import_meta_graph(meta_graph, clear_devices=True)
        except (ValueError, KeyError, TypeError, DecodeError, tf.errors.OpError) as error:
            raise CheckpointError(f"{prefix}: its graph cannot be imported ({reason(error)})") from error
        if saver is not None:  # None: the graph has no variables
            restore_variables(session, saver, prefix)
        yield session


def frozen(
    meta_graph: tf.compat.v1.MetaGraphDef, prefix: Path, signature: str = "serving_default", *, trusted: bool = False
) -> tf.compat.v1.GraphDef:
    """Freeze a graph: return its part for one signature, with the checkpoint's values as constants.

    Raises:
      CheckpointError: it needs a table, is not safe to load, or cannot be restored.
    """
    needed = pruned(meta_graph, [signature])
    tables = dict(needed.collection_def).get(_TABLES)
    if tables is not None and tables.node_list.value:
        message = f"{prefix}: signature {signature} needs a table, which cannot become a constant"
        raise CheckpointError(message, hint="export a SavedModel")
    outputs = sorted({operation_of(info.name) for info in needed.signature_def[signature].outputs.values()})
    with restored(needed, prefix, trusted=trusted) as session:
        return tf.compat.v1.graph_util.convert_variables_to_constants(session, session.graph_def, outputs)
