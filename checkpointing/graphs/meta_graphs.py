"""Graphs on the disk: what a `.meta` file holds, and what can be made of it without the code that built it.

    meta_graph = graphs.read_meta_graph(layout.meta_path(prefix))
    with graphs.restored(graphs.pruned(meta_graph, ["serving_default"]), prefix) as session:
        session.run(...)

A `.meta` file is a MetaGraphDef: the graph, the collections (which variables there are), a Saver's description, and, in
those that this package wrote, the signatures: which tensors to feed and to fetch, by public names.

A graph is a program. What imports or runs one scans it first (`graph_safety`) and refuses it if it can touch files,
the network or Python, unless the caller says that it is `trusted`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tensorflow.core.framework.variable_pb2 import VariableDef
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

from checkpointing.errors import CheckpointError, reason
from checkpointing.graphs import graph_safety
from checkpointing.graphs.graph_safety import Run
from checkpointing.storage import durable, layout, regular_file, tf_path

# What a graph is asked, and what it answers: (inputs, outputs), each tensors by their public names.
Signature = tuple[Mapping[str, tf.Tensor], Mapping[str, tf.Tensor]]

_VARIABLES = (
    tf.compat.v1.GraphKeys.GLOBAL_VARIABLES,
    tf.compat.v1.GraphKeys.TRAINABLE_VARIABLES,
    tf.compat.v1.GraphKeys.LOCAL_VARIABLES,  # in no checkpoint: whoever loads the graph fills them
)
_TABLES = tf.compat.v1.GraphKeys.TABLE_INITIALIZERS
_ASSETS = tf.compat.v1.GraphKeys.ASSET_FILEPATHS

# More than a protocol buffer can hold.
_MOST_BYTES = 2**31


def signature_defs(signatures: Mapping[str, Signature]) -> dict[str, SignatureDef]:
    """The signatures as protocol buffers (SignatureDef), by name."""
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
    """Writes a graph as `tf.io.write_graph` does, but so that no crash leaves half of it.

    Args:
      graph_def: the graph.
      path: where to; `.pbtxt` for text, which people read, any other name for bytes, which are read 200 times as fast.
    """
    as_text = path.suffix == ".pbtxt"
    content = (
        text_format.MessageToString(graph_def).encode() if as_text else graph_def.SerializeToString(deterministic=True)
    )
    durable.atomic_write(path, content)


def read_meta_graph(path: Path) -> tf.compat.v1.MetaGraphDef:
    """Reads a `.meta` file, in bytes or as text (`as_text=True` of export_meta_graph).

    Raises:
      CheckpointError: it is missing, or no MetaGraphDef.
    """
    try:
        content = regular_file.read(path, _MOST_BYTES)
    except OSError as error:
        message = f"{path}: no graph can be read there ({reason(error)}); give a checkpoint that has its .meta file."
        raise CheckpointError(message) from error
    meta_graph = tf.compat.v1.MetaGraphDef()
    try:
        meta_graph.ParseFromString(content)
    except DecodeError as error:
        try:
            text_format.Parse(content.decode(), meta_graph)
        except (text_format.ParseError, UnicodeDecodeError):
            raise CheckpointError(f"{path}: not a graph's bytes ({reason(error)}), nor its text.") from error
    if not meta_graph.graph_def.node:
        raise CheckpointError(f"{path}: no graph found in it, a MetaGraphDef wanted.")
    return meta_graph


def add_signature(
    meta_graph: tf.compat.v1.MetaGraphDef,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    source: Path,
    *,
    trusted: bool = False,
) -> None:
    """Gives a graph the signature `serving_default`: public names to names of tensors, as in `x` to `Placeholder:0`.

    Raises:
      CheckpointError: there is no such tensor, and the message lists the graph's placeholders; or the graph is not
        safe to load.
    """
    if not trusted:
        graph_safety.check(meta_graph, source, [Run(outputs.values(), inputs.values())])
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(meta_graph.graph_def, name="")
        try:
            to_feed = {key: graph.get_tensor_by_name(name) for key, name in inputs.items()}
            to_fetch = {key: graph.get_tensor_by_name(name) for key, name in outputs.items()}
        except (KeyError, ValueError) as error:
            placeholders = ", ".join(f"{node.name}:0" for node in meta_graph.graph_def.node if node.op == "Placeholder")
            message = f"{source}: {reason(error)}; its placeholders are {placeholders or 'none'}."
            raise CheckpointError(message) from error
        default = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
        meta_graph.signature_def[default].CopyFrom(signature_defs({default: (to_feed, to_fetch)})[default])


def signatures_of(meta_graph: tf.compat.v1.MetaGraphDef) -> dict[str, Signature]:
    """The signatures of a graph that has been imported into the current one."""
    get = tf.compat.v1.get_default_graph().get_tensor_by_name
    return {
        name: (
            {key: get(info.name) for key, info in signature.inputs.items()},
            {key: get(info.name) for key, info in signature.outputs.items()},
        )
        for name, signature in meta_graph.signature_def.items()
    }


def check_signatures(meta_graph: tf.compat.v1.MetaGraphDef, wanted: Sequence[str], source: Path) -> None:
    """Raises CheckpointError where a graph lacks one of these signatures; the message lists those that it has."""
    for name in wanted:
        if name not in meta_graph.signature_def:
            there = ", ".join(sorted(meta_graph.signature_def)) or "none"
            raise CheckpointError(f"{source}: signature {name} wanted; there are: {there}.")


def pruned(meta_graph: tf.compat.v1.MetaGraphDef, signatures: Sequence[str]) -> tf.compat.v1.MetaGraphDef:
    """What is left of a graph when it has to do nothing but answer these signatures.

    Keeps the operations between inputs and outputs, the variables met on the way with their initial values, and the
    tables with what fills them; drops all other collections, and the marks of the devices that it was made for.
    """
    kept, collections = tf.compat.v1.MetaGraphDef(), dict(meta_graph.collection_def)
    for name in signatures:
        kept.signature_def[name].CopyFrom(meta_graph.signature_def[name])
    wanted = _operations_of(kept.signature_def.values())
    extract = tf.compat.v1.graph_util.extract_sub_graph
    met = {node.name for node in extract(meta_graph.graph_def, sorted(wanted)).node}
    for key in collections.keys() & set(_VARIABLES):
        for content in collections[key].bytes_list.value:
            variable = VariableDef.FromString(content)
            if _operation(variable.variable_name) in met:
                kept.collection_def[key].bytes_list.value.append(content)
                names = (variable.initializer_name, variable.initial_value_name, variable.snapshot_name)
                wanted |= {_operation(name) for name in names if name}
    if _TABLES in collections:
        tables = {node.name: node.input[0] for node in meta_graph.graph_def.node if node.input}
        fillers = [name for name in collections[_TABLES].node_list.value if _operation(tables[name]) in met]
        kept.collection_def[_TABLES].node_list.value.extend(fillers)
        wanted.update(fillers)
    kept.graph_def.CopyFrom(extract(meta_graph.graph_def, sorted(wanted)))
    _drop_unused_functions(kept.graph_def)
    for node in kept.graph_def.node:
        node.device = ""
    if _ASSETS in collections:
        there = {node.name for node in kept.graph_def.node}
        files = [name for name in collections[_ASSETS].node_list.value if _operation(name) in there]
        kept.collection_def[_ASSETS].node_list.value.extend(files)
    return kept


def _operations_of(signatures: Iterable[SignatureDef]) -> set[str]:
    """The names of the operations that these signatures feed or fetch."""
    infos = [info for each in signatures for side in (each.inputs, each.outputs) for info in side.values()]
    return {_operation(info.name) for info in infos}


def _operation(tensor: str) -> str:
    """The name of the operation that gives a tensor; an operation's own stays as it is."""
    return tensor.partition(":")[0]


def _drop_unused_functions(graph_def: tf.compat.v1.GraphDef) -> None:
    """Deletes the functions (bodies of loops, for one) that no node is left to call."""
    functions = {function.signature.name: function for function in graph_def.library.function}
    used: set[str] = set()
    nodes = list(graph_def.node)
    while nodes:
        called = {name for node in nodes for name, _ in graph_safety.functions_called(node)} & functions.keys()
        nodes = [node for name in called - used for node in functions[name].node_def]
        used |= called
    kept = [functions[name] for name in sorted(used)]
    del graph_def.library.function[:]
    graph_def.library.function.extend(kept)


@contextmanager
def restored(
    meta_graph: tf.compat.v1.MetaGraphDef,
    prefix: Path,
    *,
    source: Path | None = None,
    runs: Callable[[tf.compat.v1.MetaGraphDef], Iterable[Run]] = graph_safety.signature_runs,
    trusted: bool = False,
) -> Iterator[tf.compat.v1.Session]:
    """A session on a graph of its own, imported and with its variables at their values in a checkpoint.

    Args:
      meta_graph: the graph; it is changed by being imported.
      prefix: the checkpoint.
      source: the graph's file, for messages; unset: the one beside the checkpoint.
      runs: from the graph to what the session will run; unset: all its signatures.
      trusted: loads the graph without scanning it.

    Raises:
      CheckpointError: the graph is not safe to load or cannot be imported, or its variables are not in the checkpoint
        in the same shapes.
    """
    if not trusted:
        graph_safety.check(meta_graph, source or layout.meta_path(prefix), runs(meta_graph))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        try:
            saver = tf.compat.v1.train.import_meta_graph(meta_graph, clear_devices=True)
            if saver is not None:  # a graph without variables has nothing to restore
                with tf_path.without_pattern(prefix) as plain:
                    saver.restore(session, str(plain))
        except (ValueError, KeyError, TypeError, DecodeError, tf.errors.OpError) as error:
            raise CheckpointError(f"{prefix}: its graph cannot be restored ({reason(error)}).") from error
        yield session


def frozen(
    meta_graph: tf.compat.v1.MetaGraphDef, prefix: Path, signature: str = "serving_default", *, trusted: bool = False
) -> tf.compat.v1.GraphDef:
    """A graph whose variables have become constants of their values in a checkpoint: all of a model in one piece.

    Its inputs and outputs are called as in the signature, which is pruned to.

    Raises:
      CheckpointError: it needs a table, is not safe to load, or cannot be restored.
    """
    needed = pruned(meta_graph, [signature])
    tables = dict(needed.collection_def).get(_TABLES)
    if tables is not None and tables.node_list.value:
        message = f"{prefix}: signature {signature} needs a table, which no constant can hold: export a SavedModel."
        raise CheckpointError(message)
    outputs = sorted({_operation(info.name) for info in needed.signature_def[signature].outputs.values()})
    with restored(needed, prefix, trusted=trusted) as session:
        return tf.compat.v1.graph_util.convert_variables_to_constants(session, session.graph_def, outputs)
