"""The commands that read tensors: show, diff. They change nothing, and import TensorFlow only if they must."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from checkpointing import tf_import
from checkpointing.errors import CheckpointError, listed
from checkpointing.format import array_stats
from checkpointing.format.tensor_bundle import Bundle
from checkpointing.format.tensor_index import Entry
from checkpointing.protocol import lookup
from checkpointing.protocol.manifest import Manifest
from checkpointing.storage import layout
from checkpointing.tools.output import CommandResult, counted, figure, moment, size, table

_BINS = 12
_BAR = 40  # characters of the longest bar of a histogram


def show(args: argparse.Namespace) -> CommandResult:
    """Show what a checkpoint holds; of a SavedModel also its signatures."""
    if lookup.is_saved_model(args.path):
        return _show_saved_model(args)
    return _show_checkpoint(args, lookup.resolve_checkpoint(args.path))


def _show_saved_model(args: argparse.Namespace) -> CommandResult:
    tf_import.import_tensorflow()
    from checkpointing.graphs import saved_model  # noqa: PLC0415

    graphs: list[dict[str, Any]] = [
        {"tags": sorted(each.meta_info_def.tags), "signatures": _signatures(each)}
        for each in saved_model.read(args.path)
    ]
    if (args.path / "variables").is_dir() and layout.prefixes_in(args.path / "variables"):
        inside = _show_checkpoint(args, lookup.resolve_checkpoint(args.path))
    else:
        inside = CommandResult({"tensors": []}, "no variables")
    lines = [
        f"tags {','.join(each['tags'])}: {name}: {', '.join(found['inputs'])} -> {', '.join(found['outputs'])}"
        for each in graphs
        for name, found in each["signatures"].items()
    ]
    return CommandResult({"graphs": graphs, **inside.record}, "\n".join([*lines, "", inside.text]))


def _signatures(meta_graph: Any) -> dict[str, dict[str, list[str]]]:  # noqa: ANN401 - a MetaGraphDef
    import tensorflow as tf  # noqa: PLC0415

    def lines(infos: Mapping[str, Any]) -> list[str]:
        return [f"{name} {tf.as_dtype(infos[name].dtype).name}{_dimensions(infos[name])}" for name in sorted(infos)]

    return {
        name: {"inputs": lines(signature.inputs), "outputs": lines(signature.outputs)}
        for name, signature in sorted(meta_graph.signature_def.items())
        if not name.startswith("__")
    }


def _dimensions(info: Any) -> str:  # noqa: ANN401 - a TensorInfo
    if info.tensor_shape.unknown_rank:
        return " of any shape"
    return str(["N" if dimension.size < 0 else dimension.size for dimension in info.tensor_shape.dim]).replace("'", "")


def _show_checkpoint(args: argparse.Namespace, prefix: Path) -> CommandResult:
    bundle = Bundle(prefix)
    if args.tensor is not None:
        return _show_tensor(bundle, args.tensor)
    recorded = _recorded(prefix)
    entries = list(bundle.entries.values())
    rows = [_row(entry, bundle, stats=args.stats) for entry in entries]
    cells = [
        {name: figure(value) for name, value in row.items()} | {"bytes": _size_of(entry)}
        for row, entry in zip(rows, entries, strict=True)
    ]
    total = sum(bundle.data_path(shard).stat().st_size for shard in range(bundle.num_shards))
    end = f"{counted(len(rows), 'tensor')}, {size(total)}, in {counted(bundle.num_shards, 'data file')}"
    record = {"prefix": str(prefix), **recorded, "tensors": rows}
    return CommandResult(record, "\n".join([*_head(recorded), table(cells), end]))


def _recorded(prefix: Path) -> dict[str, Any]:
    """Fields of a checkpoint's manifest, or `problem` if it is damaged; empty if the checkpoint has none."""
    if not lookup.is_ours(prefix):
        return {}
    try:
        found = Manifest.read(layout.manifest_path(prefix))
    except CheckpointError as error:  # the tensors can be read without it
        return {"problem": str(error)}
    names = ("step", "saved_at", "training_seconds", "score", "state_digest", "settings", "versions")
    return {name: getattr(found, name) for name in names}


def _head(recorded: Mapping[str, Any]) -> list[str]:
    if not recorded:
        return []
    if "problem" in recorded:
        return [recorded["problem"], ""]
    score = "" if recorded["score"] is None else f", score {recorded['score']:.4f}"
    trained = f"{recorded['training_seconds']:,.1f} s of training"
    return [
        f"step {recorded['step']}, saved {moment(recorded['saved_at'])} after {trained}{score}",
        "with " + ", ".join(f"{name}={value}" for name, value in recorded["settings"].items() if name != "data"),
        "",
    ]


def _row(entry: Entry, bundle: Bundle, *, stats: bool) -> dict[str, Any]:
    """A tensor's name, dtype, shape and bytes, with `stats` its statistics. A partitioned variable's bytes are None."""
    size_ = None if entry.slices else entry.size
    row = {"name": entry.name, "dtype": entry.dtype, "shape": list(entry.shape), "bytes": size_}
    if stats:
        array = _value(bundle, entry)
        found = array_stats.summary(array)._asdict() if array_stats.is_numeric(array) else {}
        row |= {name: found.get(name) for name in ("min", "mean", "max", "zeros", "nans", "infinities")}
    return row


def _value(bundle: Bundle, entry: Entry) -> array_stats.Array:
    if entry.slices:
        tf_import.import_tensorflow()  # it joins the parts
    return bundle.tensor(entry.name)


def _size_of(entry: Entry) -> str:
    return f"in {entry.slices} parts" if entry.slices else size(entry.size)


def _show_tensor(bundle: Bundle, name: str) -> CommandResult:
    if name not in bundle.entries:
        raise CheckpointError(f"{bundle.prefix}: no tensor {name} found; there are {listed(bundle.entries)}")
    array = _value(bundle, bundle.entries[name])
    row = _row(bundle.entries[name], bundle, stats=True)
    bars = array_stats.histogram(array, _BINS) if array_stats.is_numeric(array) else []
    record = row | {"histogram": [{"from": low, "to": high, "count": count} for low, high, count in bars]}
    lines = [f"{key:<11} {figure(value)}" for key, value in row.items()]
    highest = max((count for _, _, count in bars), default=1)
    drawn = [
        f"{low:>11.4g} .. {high:>10.4g}  {'#' * round(_BAR * count / highest):<{_BAR}} {count:,}"
        for low, high, count in bars
    ]
    values = np.array2string(array, threshold=20, edgeitems=2, precision=4, max_line_width=100)
    return CommandResult(record, "\n".join([*lines, "", *drawn, "", values]))


def diff(args: argparse.Namespace) -> CommandResult:
    """Compare the tensors of two checkpoints; status 1 if any differs."""
    one, other = (Bundle(lookup.resolve_checkpoint(path)) for path in (args.one, args.other))
    rows = [_compared(name, one, other) for name in sorted({*one.entries, *other.entries})]
    cells = [
        {name: figure(value) for name, value in row.items()} | {"cosine": _cosine(row["cosine"])}
        for row in rows
        if row["what"] != "same"
    ]
    same = len(rows) - len(cells)
    end = f"{same} of {len(rows)} tensors are bit-identical"
    text = "\n".join([*([table(cells)] if cells else []), end])
    return CommandResult(rows, text, status=1 if cells else 0)


def _cosine(value: float | None) -> str:
    """More figures than others have: similar tensors have a cosine close to 1."""
    return "" if value is None else f"{value:.7f}"


def _compared(name: str, one: Bundle, other: Bundle) -> dict[str, Any]:
    a, b = one.entries.get(name), other.entries.get(name)
    row: dict[str, Any] = {"name": name, "what": "changed", "largest": None, "mean": None, "cosine": None}
    if a is None or b is None:
        return row | {"what": "added" if a is None else "gone"}
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return row | {"what": f"{a.dtype} {list(a.shape)} is now {b.dtype} {list(b.shape)}"}
    arrays = _value(one, a), _value(other, b)
    if not all(map(array_stats.is_numeric, arrays)):
        return row | {"what": "same" if np.array_equal(*arrays) else "changed"}
    found = array_stats.difference(*arrays)
    if found.equal:
        return row | {"what": "same"}
    return row | {"largest": found.largest, "mean": found.mean, "cosine": found.cosine}
