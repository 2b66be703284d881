"""The commands that write a new file from a checkpoint: export, freeze, convert, average, rename.

`python -m checkpointing` imports TensorFlow before this module.
"""

import argparse
from functools import partial
from pathlib import Path

import tensorflow as tf

from checkpointing.errors import CheckpointError, listed
from checkpointing.format import tensor_io
from checkpointing.format.tensor_io import State
from checkpointing.graphs import graph_safety, meta_graphs, saved_model, staged_export
from checkpointing.graphs.meta_graphs import Signature
from checkpointing.graphs.saved_model import TaggedGraph
from checkpointing.protocol import lookup, verification
from checkpointing.storage import layout, staging
from checkpointing.tools.output import CommandResult, size

_SERVE = tf.saved_model.SERVING
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


def export(args: argparse.Namespace) -> CommandResult:
    """Export a checkpoint and its graph as a SavedModel."""
    prefix = _source(args.prefix)
    meta_graph = _graph_of(args, prefix)
    # The training graph first: the builder writes the variables of the first graph, and it has all of them.
    tags = sorted(set(args.tags or [_SERVE]), key=lambda tag: (tag == _SERVE, tag))
    pruned = [_pruned_for(meta_graph, tag) for tag in tags]
    if not args.trust:
        for each in pruned:
            graph_safety.check(each, layout.meta_path(prefix), graph_safety.signature_runs(each))
            graph_safety.check_assets(each, prefix.parent, layout.meta_path(prefix))
    tagged = [TaggedGraph([tag], partial(_import, each)) for tag, each in zip(tags, pruned, strict=True)]
    staging.check_target(args.directory)
    with staged_export.unfinished_export(args.directory) as unfinished:
        saved_model.write(unfinished, prefix, tagged, as_text=args.as_text)
        staged_export.seal(unfinished, prefix)
        for tag in tags:
            saved_model.check_loads(unfinished, [tag], trusted=args.trust)
        staged_export.publish(unfinished, args.directory)
    described = saved_model.describe(saved_model.read(args.directory))
    record = {"checkpoint": str(prefix), "directory": str(args.directory), "tags": tags}
    return CommandResult(record, f"exported {prefix} to {args.directory}: {described}")


def _source(path: Path) -> Path:
    """Find a checkpoint and verify every byte: damage must not spread to what is made from it."""
    prefix = lookup.resolve_checkpoint(path)
    verification.verify(prefix)
    return prefix


def _graph_of(args: argparse.Namespace, prefix: Path) -> tf.compat.v1.MetaGraphDef:
    """Read a checkpoint's graph; add the signature of --input and --output."""
    meta_path = layout.meta_path(prefix)
    meta_graph = meta_graphs.read_meta_graph(meta_path)
    if bool(args.input) != bool(args.output):
        raise CheckpointError("--input and --output: expected both, got one of them")
    if args.input:
        meta_graphs.add_signature(meta_graph, dict(args.input), dict(args.output), meta_path, trusted=args.trust)
    if tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY not in meta_graph.signature_def:
        raise CheckpointError(
            f"{meta_path}: the graph has no serving signature",
            hint="use --input=NAME=TENSOR and --output=NAME=TENSOR, for example --input=images=x:0",
        )
    return meta_graph


def _pruned_for(meta_graph: tf.compat.v1.MetaGraphDef, tag: str) -> tf.compat.v1.MetaGraphDef:
    """Reduce a graph to the signatures exported under a tag: `serve` gets serving_default, other tags get all."""
    default = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
    return meta_graphs.pruned(meta_graph, [default] if tag == _SERVE else sorted(meta_graph.signature_def))


def _import(meta_graph: tf.compat.v1.MetaGraphDef) -> dict[str, Signature]:
    tf.compat.v1.train.import_meta_graph(meta_graph)
    return meta_graphs.signatures_of(meta_graph)


def freeze(args: argparse.Namespace) -> CommandResult:
    """Write a checkpoint's graph as one file, with its variables as constants."""
    prefix = _source(args.prefix)
    staging.check_is_new_file(args.file)
    graph_def = meta_graphs.frozen(_graph_of(args, prefix), prefix, trusted=args.trust)
    staging.replace_by(args.file, partial(meta_graphs.write_graph, graph_def))
    written = args.file.stat().st_size
    record = {"checkpoint": str(prefix), "file": str(args.file), "bytes": written}
    return CommandResult(record, f"froze {prefix} into {args.file}, {size(written)}")


def convert(args: argparse.Namespace) -> CommandResult:
    """Convert a checkpoint to a .npz or .safetensors file, or such a file to a checkpoint."""
    archives = [path for path in (args.source, args.target) if path.suffix in tensor_io.ARCHIVES]
    if len(archives) != 1:
        kinds = " or ".join(tensor_io.ARCHIVES)
        message = f"{args.source} to {args.target}: expected one {kinds} file and one checkpoint's prefix"
        raise CheckpointError(message)
    if args.source in archives:
        state = tensor_io.read_archive(args.source)
        tensor_io.write(args.target, state)
        return _written(args.target, state, f"{args.source}")
    prefix = _source(args.source)
    state = tensor_io.read(prefix)
    left_out = [name for name, array in state.items() if array.dtype == object]
    kept = {name: array for name, array in state.items() if name not in left_out}
    if not kept:
        problem = f"expected tensors that {args.target.suffix} can store, got strings only: {listed(left_out)}"
        raise CheckpointError(f"{prefix}: {problem}")
    tensor_io.write_archive(args.target, kept)
    result = _written(args.target, kept, f"{prefix}")
    if not left_out:
        return result
    text = f"{result.text}; left out, because {args.target.suffix} has no strings: {listed(left_out)}"
    return CommandResult(result.record | {"left_out": left_out}, text)


def _written(target: Path, state: State, source: str) -> CommandResult:
    record = {"source": source, "target": str(target), "tensors": list(state), "left_out": []}
    return CommandResult(record, f"wrote {len(state)} tensors of {source} to {target}")


def average(args: argparse.Namespace) -> CommandResult:
    """Average the weights of checkpoints into a new one, with the last one's graph, if it has one."""
    prefixes = [_source(path) for path in args.prefixes]
    state = tensor_io.averaged([tensor_io.read(prefix) for prefix in prefixes])
    meta_path = layout.meta_path(prefixes[-1])
    tensor_io.write(args.output, state, meta_path if meta_path.is_file() else None)
    return _written(args.output, state, listed(prefix.name for prefix in prefixes))


def rename(args: argparse.Namespace) -> CommandResult:
    """Rename tensors in a new checkpoint. It has no graph: the graph's variables have the old names."""
    prefix = _source(args.prefix)
    names = dict(args.names)
    if len(names) < len(args.names):
        raise CheckpointError(f"{prefix}: expected one new name for each of {listed(names)}, got two for one of them")
    state = tensor_io.renamed(tensor_io.read(prefix), names)
    objects = state.pop(_OBJECT_GRAPH, None)  # it holds the old names
    tensor_io.write(args.output, state)
    result = _written(args.output, state, f"{prefix}")
    if objects is None:
        return result
    text = f"{result.text}; left out: {_OBJECT_GRAPH}, so tf.train.Checkpoint cannot restore it, but a Saver can"
    return CommandResult(result.record | {"left_out": [_OBJECT_GRAPH]}, text)
