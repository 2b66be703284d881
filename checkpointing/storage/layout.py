"""Names of all files in a train_dir. No other module builds or parses them.

checkpoint                               TensorFlow's checkpoint state: a cache, rebuilt from the manifests; without any
                                         manifest it names the newest checkpoint
model.ckpt-100.data-00000-of-00001       the tensors' bytes
model.ckpt-100.index                     dtype, shape, offset and crc32c of each tensor
model.ckpt-100.meta                      the graph (MetaGraphDef)
model.ckpt-100.manifest.json             the commit record: a checkpoint exists once this file does
model.ckpt-100.incomplete                exists while the checkpoint is being written or deleted
model.ckpt-100.pinned                    exists if a user has pinned the checkpoint: retention keeps it
quarantine/model.ckpt-100/               a damaged checkpoint's files, and reason.txt
quarantine/saved_model-100/              a damaged export, and reason.txt
graph.pbtxt                              the graph as text, for TensorBoard and people
metrics.jsonl                            one JSON object per logged step
history.jsonl                            one JSON object per attempt
events/                                  TensorBoard event files, one per attempt
attempt.json                             progress of the current attempt
lock                                     locked (flock) by the process that owns the train_dir
started_from.json                        the other run's checkpoint that training started from, if any
result.json                              the run's results, written at the end
report.html, report/                     the run's report, and its plots
saved_model/100/                         the exported model
saved_model/100/assets.extra/manifest.json  size and sha256 of each of its files
saved_model/100.incomplete-0123abcd/     an export being written; export.lock in it is locked by its process
"""

import os
import re
from pathlib import Path

STATE_FILE = "checkpoint"
GRAPH = "graph.pbtxt"
METRICS = "metrics.jsonl"
HISTORY = "history.jsonl"
EVENTS = "events"
ATTEMPT = "attempt.json"
LOCK = "lock"
ORIGIN = "started_from.json"
REASON = "reason.txt"
RESULT = "result.json"

_PREFIX = "model.ckpt"
_QUARANTINE = "quarantine"
# Names in a train_dir that no export may have.
RESERVED = {STATE_FILE, GRAPH, METRICS, HISTORY, EVENTS, ATTEMPT, LOCK, ORIGIN, RESULT, _QUARANTINE, "report"}
_TRAILING_STEP = re.compile(r"-(\d{1,18})$", re.ASCII)
_KIND = r"\.(?P<kind>data-\d+-of-\d+|index|meta|manifest\.json|incomplete|pinned)"
_TEMPORARY = r"(?P<temporary>\.tmp|\.tempstate\d+)?"
_AFTER_PREFIX = re.compile(rf"_temp|{_KIND}{_TEMPORARY}", re.ASCII)
_FILE = re.compile(rf"(?P<prefix>.+?){_KIND}", re.ASCII | re.DOTALL)
_ANY_FILE = re.compile(rf"(?P<prefix>.+?)(?:{_AFTER_PREFIX.pattern})", re.ASCII | re.DOTALL)
_OF_CHECKPOINT = re.compile(rf"model\.ckpt-(?P<step>0|[1-9]\d*)(?:{_AFTER_PREFIX.pattern})", re.ASCII)
# TensorFlow's temporary names: of index and data files, of graph and checkpoint state, of the directory of shards.
_LEFTOVER = re.compile(
    r"(?P<name>.+?)(\.(index|data-\d+-of-\d+)\.tempstate\d+|(\.meta)?\.tmp[0-9a-f]{32}|_temp)", re.ASCII | re.DOTALL
)


def prefix(directory: Path, step: int) -> Path:
    """Return the prefix of a checkpoint's files, which is its name in TensorFlow."""
    return directory / f"{_PREFIX}-{step}"


def meta_path(prefix: Path) -> Path:
    """Return the path of the checkpoint's MetaGraphDef."""
    return prefix.with_name(prefix.name + ".meta")


def index_path(prefix: Path) -> Path:
    """Return the path of the checkpoint's index."""
    return prefix.with_name(prefix.name + ".index")


def data_path(prefix: Path, shard: int, shards: int) -> Path:
    """Return the path of one data file."""
    return prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")


def manifest_path(prefix: Path) -> Path:
    """Return the path of the commit record."""
    return prefix.with_name(prefix.name + ".manifest.json")


def incomplete_path(prefix: Path) -> Path:
    """Return the path of the mark of an unfinished save or deletion: without a manifest, the files may be deleted."""
    return prefix.with_name(prefix.name + ".incomplete")


def pinned_path(prefix: Path) -> Path:
    """Return the path of the mark of a pinned checkpoint."""
    return prefix.with_name(prefix.name + ".pinned")


def quarantine_path(directory: Path) -> Path:
    """Return the directory of damaged checkpoints, each in its own subdirectory."""
    return directory / _QUARANTINE


def export_quarantine_path(target: Path, directory: Path) -> Path:
    """Return where a damaged export is moved: into the train_dir's quarantine; or, if it is elsewhere, next to itself.

    Args:
      target: the export.
      directory: the train_dir.
    """
    export, train_dir = resolved(target), directory.resolve()
    if train_dir not in export.parents:  # it may be on another disk, where a rename cannot go
        return target.with_name(target.name + ".damaged")
    return quarantine_path(directory) / "-".join(export.relative_to(train_dir).parts)


def resolved(path: Path) -> Path:
    """Return the absolute path, with symbolic links followed in all but the last part."""
    return path.parent.resolve() / path.name


def shards_directory(prefix: Path) -> Path:
    """Return where the shards of a checkpoint are written before they are merged; Saver uses the same name."""
    return prefix.with_name(prefix.name + "_temp")


def holds_shards(directory: Path) -> bool:
    """Whether a directory of shards holds only shards, or nothing."""
    return all(path.name.startswith("part-") for path in directory.iterdir())


def export_path(directory: Path, step: int) -> Path:
    """Return the default path of the exported model: numbered, as TensorFlow Serving expects below a base path."""
    return directory / "saved_model" / str(step)


def staging_path(target: Path, token: str) -> Path:
    """Return the directory in which a file or an export is written before it is renamed to its target.

    The name is not a number, so TensorFlow Serving does not load it. The token is eight hexadecimal digits.
    """
    return target.with_name(f"{target.name}.incomplete-{token}")


def staging_lock_path(staging: Path) -> Path:
    """Return the file that a process keeps locked while it uses a staging directory."""
    return staging / "export.lock"


def staging_paths(target: Path) -> list[Path]:
    """List the paths with the name of a staging directory of a target, sorted."""
    pattern = re.compile(rf"{re.escape(target.name)}\.incomplete-[0-9a-f]{{8}}", re.ASCII)
    return sorted(path for path in target.parent.iterdir() if pattern.fullmatch(path.name))


def old_staging_path(target: Path) -> Path:
    """Return the staging directory of an export by release 0.6.4 or older, which had no lock."""
    return target.with_name(target.name + ".incomplete")


def export_manifest_path(target: Path) -> Path:
    """Return the path of an exported model's manifest, in a folder that servers ignore."""
    return target / "assets.extra" / "manifest.json"


def prefix_of(path: Path) -> Path | None:
    """Return the prefix of the checkpoint that a file belongs to, by any writer; None for any other file."""
    match = _FILE.fullmatch(path.name)
    return path.with_name(match["prefix"]) if match else None


def leftover_of(path: Path) -> str | None:
    """Return the name of the file or checkpoint that a temporary file of TensorFlow's was for; None for other files."""
    match = _LEFTOVER.fullmatch(path.name)
    return match["name"] if match else None


def files_of(prefix: Path) -> list[Path]:
    """List all files of a checkpoint, with TensorFlow's temporary ones, sorted.

    Only names that TensorFlow and this package use, so that a user's file with the same prefix is never deleted.
    """
    name = prefix.name
    return sorted(
        path
        for path in prefix.parent.iterdir()
        if path.name.startswith(name) and _AFTER_PREFIX.fullmatch(path.name[len(name) :])
    )


def files_by_prefix(directory: Path) -> dict[str, list[str]]:
    """List the names that `files_of` gives for each prefix in a directory, in one scan."""
    found: dict[str, list[str]] = {}
    with os.scandir(directory) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        match = _ANY_FILE.fullmatch(name)
        if match:
            found.setdefault(match["prefix"], []).append(name)
    return found


def contents_of(prefix: Path) -> list[Path]:
    """List the files that TensorFlow reads: no manifest, no marks, no temporary files."""
    matches = {path: _AFTER_PREFIX.fullmatch(path.name[len(prefix.name) :]) for path in files_of(prefix)}
    return [path for path, match in matches.items() if match and _is_content(match["kind"], match["temporary"])]


def _is_content(kind: str | None, temporary: str | None) -> bool:
    return kind is not None and not temporary and kind not in {"manifest.json", "incomplete", "pinned"}


def may_be_of_checkpoint(path: Path) -> bool:
    """Return whether a file without an index is evidence of a checkpoint, by any writer, that cannot be found."""
    return path.is_file() and (path.name == STATE_FILE or path.suffix == ".meta" or ".data-" in path.name)


def step_of(name: str) -> int | None:
    """Return the step of the checkpoint that a file of this name belongs to; None for any other file."""
    match = _OF_CHECKPOINT.fullmatch(name)
    return int(match["step"]) if match else None


def prefixes_in(directory: Path) -> list[Path]:
    """List the prefixes of all checkpoints in a directory, by any writer; the newest step last."""
    prefixes = [path.with_suffix("") for path in directory.iterdir() if path.suffix == ".index" and path.is_file()]
    return sorted(prefixes, key=by_step)


def by_step(prefix: Path) -> tuple[int, str]:
    """Return the sort key of a prefix: by step; prefixes without one come first."""
    step = step_at_the_end(prefix)
    return -1 if step is None else step, prefix.name


def step_at_the_end(prefix: Path) -> int | None:
    """Return the step that a prefix ends with, by any writer; None if it does not end with one."""
    match = _TRAILING_STEP.search(prefix.name)
    return int(match[1]) if match else None


def steps_with(directory: Path, kind: str) -> list[int]:
    """List the steps that have a file of this kind ('manifest.json', 'incomplete', 'pinned' ...), ascending."""
    matches = (_OF_CHECKPOINT.fullmatch(path.name) for path in directory.iterdir())
    return sorted(int(match["step"]) for match in matches if match and match["kind"] == kind and not match["temporary"])
