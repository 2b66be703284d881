"""The names of all files in a train_dir, built and parsed here alone.

checkpoint                               TensorFlow's state file: a cache of what the manifests say
model.ckpt-100.data-00000-of-00001       the tensors
model.ckpt-100.index                     where each tensor lies in them
model.ckpt-100.meta                      the graph (MetaGraphDef)
model.ckpt-100.manifest.json             the commit record: with it the checkpoint exists, without it does not
model.ckpt-100.incomplete                there while the checkpoint is being made or deleted
model.ckpt-100.pinned                    there while somebody wants the checkpoint kept
quarantine/model.ckpt-100/               a damaged checkpoint's files, and reason.txt
quarantine/saved_model-100/              a damaged export, and reason.txt
graph.pbtxt                              the graph as text, for people
metrics.jsonl, history.jsonl             one JSON object a logged step, an attempt
events/                                  what TensorBoard shows, a file an attempt
attempt.json                             how far the attempt that is under way has come
lock                                     held by the process that owns the train_dir
started_from.json                        the checkpoint that the first weights come from, if from one of another run
result.json                              what programs read at the end
report.html, report/                     the run on a page, and its pictures
saved_model/100                          the exported model
saved_model/100.incomplete-0123abcd/     there while it is being written, with export.lock, which its process holds
saved_model/100/assets.extra/manifest.json  size and sha256 of each of its files
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
# What no export may be called in a train_dir.
RESERVED = {STATE_FILE, GRAPH, METRICS, HISTORY, EVENTS, ATTEMPT, LOCK, ORIGIN, RESULT, _QUARANTINE, "report"}
_STEP_AT_THE_END = re.compile(r"-(\d{1,18})$", re.ASCII)
_KIND = r"\.(?P<kind>data-\d+-of-\d+|index|meta|manifest\.json|incomplete|pinned)"
_TEMPORARY = r"(?P<temporary>\.tmp|\.tempstate\d+)?"
_AFTER_PREFIX = re.compile(rf"_temp|{_KIND}{_TEMPORARY}", re.ASCII)
_FILE = re.compile(rf"(?P<prefix>.+?){_KIND}", re.ASCII | re.DOTALL)
_ANY_FILE = re.compile(rf"(?P<prefix>.+?)(?:{_AFTER_PREFIX.pattern})", re.ASCII | re.DOTALL)
_OF_CHECKPOINT = re.compile(rf"model\.ckpt-(?P<step>0|[1-9]\d*)(?:{_AFTER_PREFIX.pattern})", re.ASCII)
# The parts of a checkpoint, a graph, a state file, and shards, as TensorFlow calls them until they are whole.
_LEFTOVER = re.compile(
    r"(?P<name>.+?)(\.(index|data-\d+-of-\d+)\.tempstate\d+|(\.meta)?\.tmp[0-9a-f]{32}|_temp)", re.ASCII | re.DOTALL
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


def data_path(prefix: Path, shard: int, shards: int) -> Path:
    """The file of some of the tensors' bytes."""
    return prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")


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


def export_quarantine_path(target: Path, directory: Path) -> Path:
    """Where a damaged export goes: to the quarantine of the train_dir that it lies in, otherwise beside itself."""
    place, within = resolved(target), directory.resolve()
    if within not in place.parents:  # or on another disk, behind a symbolic link
        return target.with_name(target.name + ".damaged")
    return quarantine_path(directory) / "-".join(place.relative_to(within).parts)


def resolved(path: Path) -> Path:
    """The path from the root; symbolic links are followed, but not where the path itself is one."""
    return path.parent.resolve() / path.name


def shards_directory(prefix: Path) -> Path:
    """Where the shards of a checkpoint are written before they are merged; Saver names it so, too."""
    return prefix.with_name(prefix.name + "_temp")


def holds_shards(directory: Path) -> bool:
    """Whether nothing but shards lies in a directory of shards; nothing at all will do."""
    return all(path.name.startswith("part-") for path in directory.iterdir())


def export_path(directory: Path, step: int) -> Path:
    """Where the exported model goes: TensorFlow Serving looks for numbers under a base path."""
    return directory / "saved_model" / str(step)


def staging_path(target: Path, token: str) -> Path:
    """The directory in which a file or an export is written before it is renamed to its target.

    The name is no number, so TensorFlow Serving does not load it. The token is eight hexadecimal digits.
    """
    return target.with_name(f"{target.name}.incomplete-{token}")


def staging_lock_path(staging: Path) -> Path:
    """The file that a process keeps locked as long as it uses a staging directory."""
    return staging / "export.lock"


def staging_paths(target: Path) -> list[Path]:
    """All that has the name of one of a target's staging directories, in sorted order."""
    pattern = re.compile(rf"{re.escape(target.name)}\.incomplete-[0-9a-f]{{8}}", re.ASCII)
    return sorted(path for path in target.parent.iterdir() if pattern.fullmatch(path.name))


def old_staging_path(target: Path) -> Path:
    """The staging directory of an export by release 0.6.4 or older, which had no lock."""
    return target.with_name(target.name + ".incomplete")


def export_manifest_path(target: Path) -> Path:
    """The record of an exported model's files; servers leave this folder alone."""
    return target / "assets.extra" / "manifest.json"


def prefix_of(path: Path) -> Path | None:
    """The prefix of the checkpoint that a file belongs to, whoever made it; None for any other file."""
    match = _FILE.fullmatch(path.name)
    return path.with_name(match["prefix"]) if match else None


def leftover_of(path: Path) -> str | None:
    """The name of what TensorFlow was writing when it was killed, and left this; None for any other file."""
    match = _LEFTOVER.fullmatch(path.name)
    return match["name"] if match else None


def files_of(prefix: Path) -> list[Path]:
    """All that lies on the disk of this checkpoint, TensorFlow's temporary files included, in sorted order.

    Only what TensorFlow and this package name: a file of the user's beside them is not theirs to delete.
    """
    name = prefix.name
    return sorted(
        path
        for path in prefix.parent.iterdir()
        if path.name.startswith(name) and _AFTER_PREFIX.fullmatch(path.name[len(name) :])
    )


def files_by_prefix(directory: Path) -> dict[str, list[str]]:
    """What `files_of` gives for each prefix in a directory, names by name, in one search of it."""
    found: dict[str, list[str]] = {}
    with os.scandir(directory) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        match = _ANY_FILE.fullmatch(name)
        if match:
            found.setdefault(match["prefix"], []).append(name)
    return found


def contents_of(prefix: Path) -> list[Path]:
    """The files that TensorFlow reads: neither manifest nor marks, nothing temporary."""
    matches = {path: _AFTER_PREFIX.fullmatch(path.name[len(prefix.name) :]) for path in files_of(prefix)}
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
    return sorted(prefixes, key=by_step)


def by_step(prefix: Path) -> tuple[int, str]:
    """What to sort prefixes by; those without a step come first."""
    step = step_at_the_end(prefix)
    return -1 if step is None else step, prefix.name


def step_at_the_end(prefix: Path) -> int | None:
    """The step that a prefix ends with, whoever named it so; None where it ends with none."""
    match = _STEP_AT_THE_END.search(prefix.name)
    return int(match[1]) if match else None


def steps_with(directory: Path, kind: str) -> list[int]:
    """The steps, in order, for which a file of this kind ('manifest.json', 'incomplete', 'pinned' ...) is there."""
    matches = (_OF_CHECKPOINT.fullmatch(path.name) for path in directory.iterdir())
    return sorted(int(match["step"]) for match in matches if match and match["kind"] == kind and not match["temporary"])
