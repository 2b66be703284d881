"""The commands that look and change nothing: list, show, verify, diff, history, watch."""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from checkpointing import tf_import
from checkpointing.errors import CheckpointError
from checkpointing.format import array_stats
from checkpointing.format.tensor_bundle import Bundle, Entry
from checkpointing.protocol import lookup, verification
from checkpointing.protocol.manifest import Manifest
from checkpointing.runs import history
from checkpointing.storage import layout, lock
from checkpointing.tools import inspection
from checkpointing.tools.inspection import CheckpointInfo
from checkpointing.tools.output import CommandResult, ago, counted, moment, size

_BINS = 12
_SHORTEST, _LONGEST = 0.1, 3600.0  # seconds between two looks
_LOOKS = 10  # at a directory whose newest checkpoint is deleted meanwhile
_BAR = 40  # characters of the longest bar of a histogram


def list_checkpoints(given: argparse.Namespace) -> CommandResult:
    """Each checkpoint of a directory, whether it is complete, and why rotation keeps it."""
    of_model = lookup.is_saved_model(given.directory)
    listed = inspection.list_checkpoints(given.directory / "variables" if of_model else given.directory)
    if not listed:
        lookup.resolve_checkpoint(given.directory)  # says what is there instead
    record = [each._asdict() | {"prefix": each.prefix.name} for each in listed]
    problems = [each.problem for each in listed if each.problem]
    damaged = any(each.problem and not each.unfinished for each in listed)
    return CommandResult(record, "\n".join([_table_of(listed), *problems]), status=1 if damaged else 0)


def _table_of(listed: list[CheckpointInfo]) -> str:
    now = time.time()
    words = {True: "yes", False: "no", None: "all files there"}  # the last: nothing records their bytes
    return _table(
        {
            "checkpoint": each.prefix.name,
            "step": each.step,
            "saved": ago(each.saved_at, now),
            "size": size(each.bytes),
            "complete": "not known" if each.complete is None and each.problem else words[each.complete],
            "score": "" if each.score is None else f"{each.score:.4f}",
            "why kept": each.why_kept,
        }
        for each in listed
    )


def _table(rows: Any, **options: Any) -> str:  # noqa: ANN401 - what tabulate takes
    return str(tabulate(list(rows), headers="keys", disable_numparse=True, **options))


def show(given: argparse.Namespace) -> CommandResult:
    """What a checkpoint holds: of a SavedModel also what it can be asked."""
    if lookup.is_saved_model(given.path):
        return _show_saved_model(given)
    return _show_checkpoint(given, lookup.resolve_checkpoint(given.path))


def _show_saved_model(given: argparse.Namespace) -> CommandResult:
    tf_import.import_tensorflow()  # graphs need it
    from checkpointing.graphs import saved_model  # noqa: PLC0415

    graphs: list[dict[str, Any]] = [
        {"tags": sorted(each.meta_info_def.tags), "signatures": _signatures(each)}
        for each in saved_model.read(given.path)
    ]
    if (given.path / "variables").is_dir() and layout.prefixes_in(given.path / "variables"):
        inside = _show_checkpoint(given, lookup.resolve_checkpoint(given.path))
    else:
        inside = CommandResult({"tensors": []}, "no variables")
    lines = [
        f"tags {','.join(each['tags'])}: {name}: {', '.join(asked['inputs'])} -> {', '.join(asked['outputs'])}"
        for each in graphs
        for name, asked in each["signatures"].items()
    ]
    return CommandResult({"graphs": graphs, **inside.record}, "\n".join([*lines, "", inside.text]))


def _signatures(meta_graph: Any) -> dict[str, dict[str, list[str]]]:  # noqa: ANN401 - a MetaGraphDef
    import tensorflow as tf  # noqa: PLC0415

    def told(infos: Mapping[str, Any]) -> list[str]:
        return [f"{name} {tf.as_dtype(infos[name].dtype).name}{_dimensions(infos[name])}" for name in sorted(infos)]

    return {
        name: {"inputs": told(signature.inputs), "outputs": told(signature.outputs)}
        for name, signature in sorted(meta_graph.signature_def.items())
        if not name.startswith("__")
    }


def _dimensions(info: Any) -> str:  # noqa: ANN401 - a TensorInfo
    if info.tensor_shape.unknown_rank:
        return " of any shape"
    return str(["N" if dimension.size < 0 else dimension.size for dimension in info.tensor_shape.dim]).replace("'", "")


def _show_checkpoint(given: argparse.Namespace, prefix: Path) -> CommandResult:
    bundle = Bundle(prefix)
    if given.tensor is not None:
        return _show_tensor(bundle, given.tensor)
    about = _about(prefix)
    rows = [_figures_of(entry, bundle, stats=given.stats) for entry in bundle.entries.values()]
    told = [
        {name: _figure(value) for name, value in row.items()} | {"bytes": _size_of(entry)}
        for row, entry in zip(rows, bundle.entries.values(), strict=True)
    ]
    total = sum(bundle.data_path(shard).stat().st_size for shard in range(bundle.shards))
    end = f"{counted(len(rows), 'tensor')}, {size(total)}, in {counted(bundle.shards, 'data file')}"
    record = {"prefix": str(prefix), **about, "tensors": rows}
    return CommandResult(record, "\n".join([*_lines(about), _table(told), end]))


def _about(prefix: Path) -> dict[str, Any]:
    """What the manifest says of a checkpoint of ours, or what is wrong with it; nothing of others."""
    if not lookup.is_ours(prefix):
        return {}
    try:
        found = Manifest.read(layout.manifest_path(prefix))
    except CheckpointError as error:  # the tensors are to be seen all the same
        return {"problem": str(error)}
    names = ("step", "saved_at", "training_seconds", "score", "state_digest", "settings", "versions")
    return {name: getattr(found, name) for name in names}


def _lines(about: Mapping[str, Any]) -> list[str]:
    if not about:
        return []
    if "problem" in about:
        return [about["problem"], ""]
    score = "" if about["score"] is None else f", score {about['score']:.4f}"
    trained = f"{about['training_seconds']:,.1f} s of training"
    return [
        f"step {about['step']}, saved {moment(about['saved_at'])} after {trained}{score}",
        "with " + ", ".join(f"{name}={value}" for name, value in about["settings"].items() if name != "data"),
        "",
    ]


def _figures_of(entry: Entry, bundle: Bundle, *, stats: bool) -> dict[str, Any]:
    row = {"name": entry.name, "dtype": entry.dtype, "shape": list(entry.shape), "bytes": entry.bytes}
    if entry.slices:
        row["bytes"] = None  # they are its parts', and lie here and there
    if stats:
        array = _value(bundle, entry)
        found = array_stats.summary(array)._asdict() if array_stats.is_numeric(array) else {}
        row |= {name: found.get(name) for name in ("min", "mean", "max", "zeros", "nans", "infinities")}
    return row


def _value(bundle: Bundle, entry: Entry) -> array_stats.Array:
    if entry.slices:
        tf_import.import_tensorflow()  # puts the parts together
    return bundle.tensor(entry.name)


def _size_of(entry: Entry) -> str:
    return f"in {entry.slices} parts" if entry.slices else size(entry.bytes)


def _figure(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else value


def _show_tensor(bundle: Bundle, name: str) -> CommandResult:
    if name not in bundle.entries:
        listed = ", ".join(bundle.entries)
        raise CheckpointError(f"{bundle.prefix}: tensor {name} wanted; there are {listed}.")
    array = _value(bundle, bundle.entries[name])
    row = _figures_of(bundle.entries[name], bundle, stats=True)
    bars = array_stats.histogram(array, _BINS) if array_stats.is_numeric(array) else []
    record = row | {"histogram": [{"from": low, "to": high, "count": count} for low, high, count in bars]}
    told = [f"{key:<11} {_figure(value)}" for key, value in row.items()]
    highest = max((count for _, _, count in bars), default=1)
    drawn = [
        f"{low:>11.4g} .. {high:>10.4g}  {'#' * round(_BAR * count / highest):<{_BAR}} {count:,}"
        for low, high, count in bars
    ]
    values = np.array2string(array, threshold=20, edgeitems=2, precision=4, max_line_width=100)
    return CommandResult(record, "\n".join([*told, "", *drawn, "", values]))


def verify(given: argparse.Namespace) -> CommandResult:
    """Reads every byte; a directory's newest checkpoint, or each of them."""
    if given.all and not given.path.is_dir():
        raise CheckpointError(f"{given.path}: a prefix found, a directory wanted with --all.")
    checked = _verified_all(given.path) if given.all else [_verified(given.path)]
    table = _table(
        {"checkpoint": each["name"], "result": each["problem"] or f"as it should be: {each['compared_with']}"}
        for each in checked
    )
    damaged = [each for each in checked if each["problem"]]
    return CommandResult(checked, table, status=1 if damaged else 0)


def _verified_all(directory: Path) -> list[dict[str, Any]]:
    if lookup.is_saved_model(directory):
        return [_verified(directory)]
    checked = inspection.verify_all(directory)
    if not checked:
        return [_verified(directory)]
    return [
        {"name": prefix.name, "problem": problem, "compared_with": compared_with}
        for prefix, compared_with, problem in checked
    ]


def _verified(path: Path) -> dict[str, Any]:
    """Verifies a SavedModel, or a checkpoint: of a directory, its newest; where that is deleted meanwhile, the next."""
    if lookup.is_saved_model(path):
        return _result_of(path, verification.verify_saved_model)
    prefix = lookup.resolve_checkpoint(path)
    for _ in range(_LOOKS - 1):
        result = _result_of(prefix, verification.verify)
        if result["problem"] is None or (newer := lookup.resolve_checkpoint(path)) == prefix:
            return result
        prefix = newer
    return _result_of(prefix, verification.verify)


def _result_of(path: Path, check: Callable[[Path], str]) -> dict[str, Any]:
    try:
        return {"name": path.name, "problem": None, "compared_with": check(path)}
    except CheckpointError as error:
        return {"name": path.name, "problem": str(error), "compared_with": None}


def diff(given: argparse.Namespace) -> CommandResult:
    """What became of each tensor between two checkpoints."""
    one, other = (Bundle(lookup.resolve_checkpoint(path)) for path in (given.one, given.other))
    rows = [_compared(name, one, other) for name in sorted({*one.entries, *other.entries})]
    told = [
        {name: _figure(value) for name, value in row.items()} | {"cosine": _cosine(row["cosine"])}
        for row in rows
        if row["what"] != "same"
    ]
    same = sum(row["what"] == "same" for row in rows)
    end = f"{same} of {len(rows)} tensors are the same, to the last bit"
    return CommandResult(
        rows, "\n".join([*([_table(told)] if told else []), end]), status=0 if same == len(rows) else 1
    )


def _cosine(value: float | None) -> str:
    """In more figures: what differs little is close to 1."""
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
    return (
        row | {"what": "same"}
        if found.equal
        else row | {"largest": found.largest, "mean": found.mean, "cosine": found.cosine}
    )


def show_history(given: argparse.Namespace) -> CommandResult:
    """A run's attempts, one a line, and what they add up to."""
    attempts = history.read(given.directory)
    if not attempts:
        raise CheckpointError(f"{given.directory}: no {layout.HISTORY} found; give the train_dir of a run.")
    summary = history.summary(attempts)
    rows = [
        {
            "started": moment(attempt["started_at"]),
            "resumed from": attempt["resumed_from"] or "-",
            "to step": attempt["to_step"],
            "done": attempt["steps_done"],
            "redone": attempt["steps_redone"],
            **{name: attempt["seconds"].get(name, 0.0) for name in ("train", "saving", "stalled", "restoring")},
            "ended": _state(given.directory, attempt),
        }
        for attempt in attempts
    ]
    share = summary["useful_share"]
    useful = "" if share is None else f": {share:.1%} of {summary['seconds']:,.1f} s was useful work"
    end = f"{counted(len(attempts), 'attempt')}, {counted(summary['steps_redone'], 'step')} made twice{useful}"
    table = tabulate(rows, headers="keys", floatfmt=",.2f")
    return CommandResult({"attempts": attempts, **summary}, f"{table}\n{end}")


def watch(given: argparse.Namespace) -> CommandResult:
    """Shows how a run goes on, again and again until Ctrl-C; once where nobody is at a terminal."""
    if given.json or not sys.stdout.isatty():
        return _status(given.directory)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs of a script are started deaf to it
    try:
        while True:
            text = _status(given.directory).text
            sys.stdout.write(f"\x1b[H\x1b[J{text}\n")  # from the upper left corner, on a cleared screen
            sys.stdout.flush()
            time.sleep(min(max(_SHORTEST, given.seconds), _LONGEST))
    except KeyboardInterrupt:
        return CommandResult(None, "")


def _status(directory: Path) -> CommandResult:
    """What the files of a run tell of it while it goes on; nothing is locked, no tensor is read."""
    listed = inspection.list_checkpoints(directory, check=False)
    attempts = history.read(directory)
    attempt = attempts[-1] if attempts else None
    newest = history.metrics(directory).last()
    record = {
        "state": _state(directory, attempt),
        "attempt": attempt,
        "attempts": len(attempts),
        "newest_record": newest,
        "checkpoints": [each._asdict() | {"prefix": each.prefix.name} for each in listed],
    }
    lines = [f"{directory}: {record['state']}"]
    if attempt:
        lines.append(
            f"step {attempt['to_step']}, seen {ago(attempt['last_seen_at'], time.time())}, attempt {len(attempts)}"
        )
    if newest:
        lines.append("  ".join(f"{name} {_figure(value)}" for name, value in newest.items()))
    return CommandResult(record, "\n".join([*lines, "", _table_of(listed)]))


def _state(directory: Path, attempt: Mapping[str, Any] | None) -> str:
    """Whether the run goes on, as far as its files tell."""
    if attempt is None:
        return "no attempt has been noted yet"
    if attempt["ended"]:
        return str(attempt["ended"])
    return "under way" if lock.owner_lives(directory) else "killed"
