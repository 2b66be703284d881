"""Safety check of graphs from files: refuse those that touch files, the network, Python or other processes.

    graph_safety.check(meta_graph, path, graph_safety.signature_runs(meta_graph))

A TensorFlow graph is a program: WriteFile writes any file, ReadFile reads one, PyFunc calls Python. A graph from a file
(`.meta`, SavedModel) is therefore scanned before TensorFlow imports it. The rules:

1. Only operations known to be harmless may run (`op_policy.HARMLESS`). All others are refused, including operations
   that a later TensorFlow adds.
2. The scan covers what this package runs: the Saver's restore operation, the variables, the initializer of a
   SavedModel, and the outputs of the signatures (or the tensors that the user names). It follows data and control
   inputs, and the bodies of all functions called, nested ones included. It stops at fed tensors. So SaveV2, and the
   readers and queues of a training graph, are allowed as long as nothing that runs depends on them.
3. Reading a file is allowed if the loader feeds its name: the checkpoint's prefix to the restore operation, the path of
   an asset to the initializer. The name may pass through an Identity, an argument of a function, and a variable that is
   assigned nothing else (tf.saved_model.save keeps the path of an asset so). A file name stored in the graph is
   refused, and so are constants that forge the handle of a variable.
4. TensorFlow evaluates stateless operations although nothing that runs depends on them: for shapes when it imports a
   graph, and to fold constants when it optimizes one, even upstream of a fed tensor. So a harmful stateless operation
   (DebugIdentity writes a file) is refused anywhere in the graph and its functions. Exceptions, because training graphs
   often have them and they only read: MatchingFiles, input pipelines, and ReadFile if the file name is not a constant.

Not covered: a graph can still use all memory and time, or exploit a bug in a kernel.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework.variable_pb2 import VariableDef
from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef

from checkpointing.errors import CheckpointError, reason
from checkpointing.graphs.graph_scan import TRUST_HINT, GraphScan, Run, attribute, operation_of

_VARIABLES = ("variables", "saveable_objects")  # the collections that a Saver saves and restores by default
_INITIALIZERS = ("saved_model_main_op", "legacy_init_op")
_INIT_SIGNATURE, _TRAIN_SIGNATURE = "__saved_model_init_op", "__saved_model_train_op"
_ASSETS = "saved_model_assets"


def check(meta_graph: tf.compat.v1.MetaGraphDef, source: Path, runs: Iterable[Run]) -> None:
    """Check that importing a graph, loading its state and running it only computes.

    Args:
      meta_graph: the graph, not imported yet.
      source: its file, for messages.
      runs: what will run in addition to loading, as in `signature_runs(meta_graph)`.

    Raises:
      CheckpointError: it can do more; the message names operation and node.
    """
    try:
        scan = GraphScan(meta_graph, source, list(_variables(meta_graph)))
        loading = list(_loading_runs(meta_graph, source))
    except DecodeError as error:
        raise CheckpointError(f"{source}: its collections are damaged ({reason(error)})") from error
    scan.check_import()
    for run in (*loading, *runs):
        scan.check_run(run)


def check_assets(meta_graph: tf.compat.v1.MetaGraphDef, directory: Path, source: Path) -> None:
    """Check that the assets of a graph lie in a directory: an export copies them, and may be published.

    Raises:
      CheckpointError: one lies elsewhere.
    """
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    key = tf.compat.v1.GraphKeys.ASSET_FILEPATHS
    for name in meta_graph.collection_def[key].node_list.value if key in meta_graph.collection_def else ():
        node = nodes.get(operation_of(name))
        for content in attribute(node, "value").tensor.string_val if node is not None else ():
            path = Path(os.fsdecode(content))
            if not path.resolve().is_relative_to(directory.resolve()):
                message = (
                    f"{source}: expected the assets of the graph in {directory}, got {path} at node {name}, which an "
                    f"export would copy"
                )
                raise CheckpointError(message, hint=TRUST_HINT)


def signature_runs(meta_graph: tf.compat.v1.MetaGraphDef) -> list[Run]:
    """Return one Run for each signature of a graph."""
    return [
        Run([info.name for info in each.outputs.values()], [info.name for info in each.inputs.values()])
        for name, each in meta_graph.signature_def.items()
        if name not in (_INIT_SIGNATURE, _TRAIN_SIGNATURE)
    ]


def _loading_runs(meta_graph: tf.compat.v1.MetaGraphDef, source: Path) -> Iterator[Run]:
    """Yield what runs to load a graph's state, and to read it again (to export it, or to freeze it)."""
    saver = meta_graph.saver_def
    yield Run([saver.restore_op_name], [saver.filename_tensor_name], [saver.filename_tensor_name])
    yield Run(list(_variables(meta_graph)))
    initializers: list[str] = []
    if _INIT_SIGNATURE in meta_graph.signature_def:
        initializers.extend(info.name for info in meta_graph.signature_def[_INIT_SIGNATURE].outputs.values())
    for key in _INITIALIZERS:
        if key in meta_graph.collection_def:
            initializers.extend(meta_graph.collection_def[key].node_list.value)
    assets = _checked_assets(meta_graph, source)
    yield Run(initializers, assets, assets)


def _variables(meta_graph: tf.compat.v1.MetaGraphDef) -> Iterator[str]:
    """Yield the names of the tensors by which variables are assigned and read."""
    for key in _VARIABLES:
        if key in meta_graph.collection_def:
            content = meta_graph.collection_def[key]
            yield from content.node_list.value
            for value in content.bytes_list.value:
                variable = VariableDef.FromString(value)
                yield from (variable.variable_name, variable.snapshot_name)
    for node in meta_graph.graph_def.node:
        if node.op == "VarHandleOp":
            yield f"{node.name}/Read/ReadVariableOp"  # convert_variables_to_constants reads variables by this name


def _checked_assets(meta_graph: tf.compat.v1.MetaGraphDef, source: Path) -> list[str]:
    """Return the names of the tensors that a SavedModel loader feeds with the paths of assets.

    Raises:
      CheckpointError: an asset's path leads out of the SavedModel.
    """
    assets = list(meta_graph.asset_file_def)
    if not assets and _ASSETS in meta_graph.collection_def:
        for packed in meta_graph.collection_def[_ASSETS].any_list.value:
            assets.append(AssetFileDef())
            packed.Unpack(assets[-1])
    for asset in assets:
        path = PurePosixPath(asset.filename)
        if path.is_absolute() or ".." in path.parts:
            message = f"{source}: expected the assets of the graph in its directory, got {asset.filename}"
            raise CheckpointError(message, hint=TRUST_HINT)
    return [asset.tensor_info.name for asset in assets]
