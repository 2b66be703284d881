"""The names of all files in a train_dir, built and parsed here alone.

checkpoint                               TensorFlow's state file: a cache of what the manifests say
model.ckpt-100.data-00000-of-00001       the tensors
model.ckpt-100.index                     where each tensor lies in them
model.ckpt-100.meta                      the graph (MetaGraphDef)
model.ckpt-100.manifest.json             the commit record: with it the checkpoint exists, without it does not
model.ckpt-100.incomplete                there while the checkpoint is being made or deleted
model.ckpt-100.pinned                    there while somebody wants the checkpoint kept
quarantine/model.ckpt-100/               a damaged checkpoint's files, and reason.txt
metrics.jsonl, history.jsonl             one JSON object a logged step, an attempt
attempt.json                             how far the attempt that is under way has come
lock                                     held by the process that owns the train_dir
result.json                              what programs read at the end
saved_model/100                          the exported model
"""

import re
from pathlib import Path

STATE_FILE = "checkpoint"
METRICS = "metrics.jsonl"
HISTORY = "history.jsonl"
ATTEMPT = "attempt.json"
LOCK = "lock"
REASON = "reason.txt"
RESULT = "result.json"

_PREFIX = "model.ckpt"
_QUARANTINE = "quarantine"
_STEP_AT_THE_END = re.compile(r"-(\d{1,18})$", re.ASCII)
_OF_CHECKPOINT = re.compile(
    r"model\.ckpt-(?P<step>0|[1-9]\d*)"
    r"(?:_temp|\.(?P<kind>data-\d+-of-\d+|index|meta|manifest\.json|incomplete|pinned)(?P<temporary>\.tmp|\.tempstate\d+)?)",
    re.ASCII,
)


def prefix(directory: Path, step: int) -> Path:
    """The prefix that the files of one checkpoint share, by which TensorFlow names it."""
    return directory / f"{_PREFIX}-{step}"


def meta_path(prefix: Path) -> Path:
    """The file of the checkpoint's graph."""
    return prefix.with_name(prefix.name + ".meta")


def index_path(prefix: Path) -> Path:
    """The file that says where each tensor lies."""
    return prefix.with_name(prefix.name + ".index")


def manifest_path(prefix: Path) -> Path:
    """The file whose existence is the checkpoint's."""
    return prefix.with_name(prefix.name + ".manifest.json")


def incomplete_path(prefix: Path) -> Path:
    """The mark that whatever lies here without a manifest is ours, and unfinished."""
    return prefix.with_name(prefix.name + ".incomplete")


def pinned_path(prefix: Path) -> Path:
    """The mark that somebody wants this checkpoint kept."""
    return prefix.with_name(prefix.name + ".pinned")


def quarantine_path(directory: Path) -> Path:
    """Where damaged checkpoints go, each to a directory of its own."""
    return directory / _QUARANTINE


def shards_directory(prefix: Path) -> Path:
    """Where the shards of a checkpoint are written before they are merged; Saver names it so, too."""
    return prefix.with_name(prefix.name + "_temp")


def export_path(directory: Path, step: int) -> Path:
    """Where the exported model goes: TensorFlow Serving looks for numbers under a base path."""
    return directory / "saved_model" / str(step)


def unfinished_export_path(target: Path) -> Path:
    """Where a model is written before it is exported; no number, so no server takes it for a model."""
    return target.with_name(target.name + ".incomplete")


def files_of(prefix: Path) -> list[Path]:
    """All that lies on the disk of this checkpoint, TensorFlow's temporary files included, in sorted order.

    Only what TensorFlow and this package name: a file of the user's beside them is not theirs to delete.
    """
    starts = (f"{prefix.name}.", f"{prefix.name}_")
    return sorted(
        path for path in prefix.parent.iterdir() if path.name.startswith(starts) and step_of(path.name) is not None
    )


def contents_of(prefix: Path) -> list[Path]:
    """The files that TensorFlow reads: neither manifest nor marks, nothing temporary."""
    matches = {path: _OF_CHECKPOINT.fullmatch(path.name) for path in files_of(prefix)}
    return [path for path, match in matches.items() if match and _is_content(match["kind"], match["temporary"])]


def _is_content(kind: str | None, temporary: str | None) -> bool:
    return kind is not None and not temporary and kind not in {"manifest.json", "incomplete", "pinned"}


def step_of(name: str) -> int | None:
    """The step of the checkpoint that a file of this name belongs to; None for any other file."""
    match = _OF_CHECKPOINT.fullmatch(name)
    return int(match["step"]) if match else None


def prefixes_in(directory: Path) -> list[Path]:
    """The prefixes of all that looks like a checkpoint, whoever made it; the newest step last."""
    prefixes = [path.with_suffix("") for path in directory.iterdir() if path.suffix == ".index" and path.is_file()]
    return sorted(prefixes, key=lambda prefix: (_step_at_the_end(prefix.name), prefix.name))


def _step_at_the_end(name: str) -> int:
    match = _STEP_AT_THE_END.search(name)
    return int(match[1]) if match else -1


def steps_with(directory: Path, kind: str) -> list[int]:
    """The steps, in order, for which a file of this kind ('manifest.json', 'incomplete', 'pinned' ...) is there."""
    matches = (_OF_CHECKPOINT.fullmatch(path.name) for path in directory.iterdir())
    return sorted(int(match["step"]) for match in matches if match and match["kind"] == kind and not match["temporary"])
