"""The commands that make something new of a checkpoint: export, freeze, convert, average, rename.

They need TensorFlow, which `python -m checkpointing` imports before this.
"""

import argparse
from functools import partial
from pathlib import Path

import tensorflow as tf

from checkpointing.errors import CheckpointError
from checkpointing.format import tensor_io
from checkpointing.format.tensor_io import State
from checkpointing.graphs import graph_safety, meta_graphs, saved_model
from checkpointing.graphs.meta_graphs import Signature
from checkpointing.graphs.saved_model import TaggedGraph
from checkpointing.protocol import lookup, verification
from checkpointing.storage import layout, staging
from checkpointing.tools.output import CommandResult, size

_SERVE = tf.saved_model.SERVING
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


def export(given: argparse.Namespace) -> CommandResult:
    """Makes a SavedModel of a checkpoint and the graph beside it."""
    prefix = _source(given.prefix)
    meta_graph = _graph_of(given, prefix)
    # The whole graph first: the others' variables are among its own.
    tags = sorted(set(given.tags or [_SERVE]), key=lambda tag: (tag == _SERVE, tag))
    asked = [_asked_of(meta_graph, tag) for tag in tags]
    if not given.trust:
        for each in asked:
            graph_safety.check(each, layout.meta_path(prefix), graph_safety.signature_runs(each))
            graph_safety.check_assets(each, prefix.parent, layout.meta_path(prefix))
    tagged = [TaggedGraph([tag], partial(_import, each)) for tag, each in zip(tags, asked, strict=True)]
    staging.check_target(given.directory, "DIR")
    with saved_model.unfinished_export(given.directory, "DIR") as unfinished:
        saved_model.write(unfinished, prefix, tagged, as_text=given.as_text)
        saved_model.seal(unfinished, prefix)
        for tag in tags:
            saved_model.check_loads(unfinished, [tag], trusted=given.trust)
        saved_model.publish(unfinished, given.directory, "DIR")
    told = saved_model.described(saved_model.read(given.directory))
    record = {"checkpoint": str(prefix), "directory": str(given.directory), "tags": tags}
    return CommandResult(record, f"exported {prefix} to {given.directory}: {told}")


def _source(path: Path) -> Path:
    """The checkpoint that is meant, every byte of it as it should be: what is made of it outlives it."""
    prefix = lookup.resolve_checkpoint(path)
    verification.verify(prefix)
    return prefix


def _graph_of(given: argparse.Namespace, prefix: Path) -> tf.compat.v1.MetaGraphDef:
    """The graph beside a checkpoint, with the signature that the command line gives it, if it does."""
    meta_path = layout.meta_path(prefix)
    meta_graph = meta_graphs.read_meta_graph(meta_path)
    if bool(given.input) != bool(given.output):
        raise CheckpointError(f"{meta_path}: --input and --output go together: say what to feed and what to fetch.")
    if given.input:
        meta_graphs.add_signature(meta_graph, dict(given.input), dict(given.output), meta_path, trusted=given.trust)
    if tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY not in meta_graph.signature_def:
        message = (
            f"{meta_path}: no signature says what to feed and to fetch: "
            f"give --input=NAME=TENSOR and --output=NAME=TENSOR, as in --input=images=x:0."
        )
        raise CheckpointError(message)
    return meta_graph


def _asked_of(meta_graph: tf.compat.v1.MetaGraphDef, tag: str) -> tf.compat.v1.MetaGraphDef:
    """What a graph with this tag has to answer: a served one its default question, another one all."""
    default = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
    return meta_graphs.pruned(meta_graph, [default] if tag == _SERVE else sorted(meta_graph.signature_def))


def _import(meta_graph: tf.compat.v1.MetaGraphDef) -> dict[str, Signature]:
    tf.compat.v1.train.import_meta_graph(meta_graph)
    return meta_graphs.signatures_of(meta_graph)


def freeze(given: argparse.Namespace) -> CommandResult:
    """Makes one file of a checkpoint and its graph, the variables turned into constants."""
    prefix = _source(given.prefix)
    _check_is_free(given.file)
    graph_def = meta_graphs.frozen(_graph_of(given, prefix), prefix, trusted=given.trust)
    staging.replace_by(given.file, partial(meta_graphs.write_graph, graph_def))
    written = given.file.stat().st_size
    record = {"checkpoint": str(prefix), "file": str(given.file), "bytes": written}
    return CommandResult(record, f"froze {prefix} into {given.file}, {size(written)}")


def _check_is_free(path: Path) -> None:
    if path.exists():
        raise CheckpointError(f"{path}: exists already, and is not overwritten: give another name.")


def convert(given: argparse.Namespace) -> CommandResult:
    """Turns a checkpoint into a .npz or .safetensors file, or such a file into a checkpoint."""
    archives = [path for path in (given.source, given.target) if path.suffix in tensor_io.ARCHIVES]
    if len(archives) != 1:
        message = (
            f"{given.source} to {given.target}: one of the two must be a file that ends with "
            f"{' or '.join(tensor_io.ARCHIVES)}, the other a checkpoint's prefix."
        )
        raise CheckpointError(message)
    if given.source in archives:
        state = tensor_io.read_archive(given.source)
        tensor_io.write(given.target, state)
        return _written(given.target, state, f"{given.source}")
    prefix = _source(given.source)
    state = tensor_io.read(prefix)
    left_out = [name for name, array in state.items() if array.dtype == object]
    kept = {name: array for name, array in state.items() if name not in left_out}
    tensor_io.write_archive(given.target, kept)
    answer = _written(given.target, kept, f"{prefix}")
    if not left_out:
        return answer
    told = f"{answer.text}; left out, for {given.target.suffix} has no strings: {', '.join(left_out)}"
    return CommandResult(answer.record | {"left_out": left_out}, told)


def _written(target: Path, state: State, source: str) -> CommandResult:
    record = {"source": source, "target": str(target), "tensors": list(state), "left_out": []}
    return CommandResult(record, f"wrote {len(state)} tensors of {source} to {target}")


def average(given: argparse.Namespace) -> CommandResult:
    """Averages checkpoints of the same variables into a new one; with the graph of the last, if it has one."""
    prefixes = [_source(path) for path in given.prefixes]
    state = tensor_io.averaged([tensor_io.read(prefix) for prefix in prefixes])
    meta_path = layout.meta_path(prefixes[-1])
    tensor_io.write(given.output, state, meta_path if meta_path.is_file() else None)
    return _written(given.output, state, ", ".join(prefix.name for prefix in prefixes))


def rename(given: argparse.Namespace) -> CommandResult:
    """Gives tensors other names, in a new checkpoint; without a graph, for its variables have other names."""
    prefix = _source(given.prefix)
    names = dict(given.names)
    if len(names) < len(given.names):
        raise CheckpointError(f"{prefix}: one of {', '.join(names)} found twice, one new name for each wanted.")
    state = tensor_io.renamed(tensor_io.read(prefix), names)
    objects = state.pop(_OBJECT_GRAPH, None)  # it tells of the old names
    tensor_io.write(given.output, state)
    answer = _written(given.output, state, f"{prefix}")
    if objects is None:
        return answer
    told = f"{answer.text}; left out: {_OBJECT_GRAPH}, so tf.train.Checkpoint cannot restore it, but a Saver can"
    return CommandResult(answer.record | {"left_out": [_OBJECT_GRAPH]}, told)
