"""Judge how a run under attack ended, without using the code under test.

A run must end with exit status 0 and the weights, the metrics and the exported files of an undisturbed run, or with
exit status 1, one `error:` line and at most one `hint:` line. In either case it must keep every good checkpoint, every
file of the user's, and all files outside its train_dir.
"""

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from tests.crash.victims import Ended

_FILE_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}
# Content up to this size is hashed; a sparse file of 100 GB is compared by its size.
_MOST_HASHED = 50 * 2**20

# An exception printed with its type, not as an error message.
_BARE = re.compile(r"error: (?:\w+\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Iteration|Exit|Warning)\b")
_TRACES = ("Traceback (most recent call last)", "--debug shows where", "Exception ignored", "Fatal Python error")

# The only value in metrics.jsonl that differs between two equal runs.
_SPEED = "images_per_second"

# Files of an exported model, and the beginning of the line that names the environment of the last attempt.
_CARD, _EXPORT_MANIFEST = "assets.extra/MODEL_CARD.md", "assets.extra/manifest.json"
_KERNELS = b"- kernels, "


class Reference(NamedTuple):
    """The result of an undisturbed run. exported: see `hashes_of_export`."""

    weights_sha256: str
    test_accuracy: float
    step: int
    metrics: list[dict[str, Any]]
    exported: dict[str, str]
    variables: dict[str, Any]


Checkpoints = Mapping[int, Mapping[str, str]]  # sha256 by step and file name


def sha256(path: Path) -> str:
    """Return the hash of a regular file; raise OSError if there is none."""
    return hashlib.sha256(read_regular(path)).hexdigest()


def read_regular(path: Path) -> bytes:
    """Return the content of a regular file of a sensible size.

    Raises:
      OSError: anything else is there.
    """
    if not is_regular(path) or path.lstat().st_size > _MOST_HASHED:
        raise FileNotFoundError(f"{path.name}: no regular file of a sensible size")
    return path.read_bytes()


def is_regular(path: Path) -> bool:
    """Whether there is a regular file here; a link to one does not count."""
    return stat.S_ISREG(path.lstat().st_mode) if os.path.lexists(path) else False


def hashes_below(directory: Path) -> dict[str, str]:
    """Return the hashes of all regular files below a directory, by relative path; links are not followed."""
    found = {}
    for parent, _, names in os.walk(directory):
        for path in (Path(parent) / name for name in names):
            with contextlib.suppress(FileNotFoundError):
                found[path.relative_to(directory).as_posix()] = sha256(path)
    return found


def refer_to(train_dir: Path, step: int) -> Reference:
    """Read the result of an undisturbed run."""
    result = json.loads(read_regular(train_dir / "result.json"))
    export = train_dir / "saved_model" / str(step)
    return Reference(
        result["weights_sha256"],
        result["test_accuracy"],
        step,
        _metrics(train_dir),
        hashes_of_export(export),
        _variables(export),
    )


def hashes_of_export(export: Path) -> dict[str, str]:
    """Return the hashes of an exported model's files, by relative path.

    The line of the model card that names the environment is left out, and the card's entry in the manifest, if that
    entry is right.
    """
    found = hashes_below(export)
    try:
        record = json.loads(read_regular(export / _EXPORT_MANIFEST))
        is_right = record["sha256"] == seal_of(record) and record["files"].pop(_CARD)["sha256"] == found[_CARD]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return found
    if is_right:
        lines = read_regular(export / _CARD).splitlines()
        found[_CARD] = _hash_of([line.decode() for line in lines if not line.startswith(_KERNELS)])
        found[_EXPORT_MANIFEST] = seal_of(record)
    return found


def seal_of(record: Mapping[str, Any]) -> str:
    """Return the hash of a manifest's other values, which an intact one holds as `sha256`."""
    return _hash_of({name: value for name, value in record.items() if name != "sha256"})


def _hash_of(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _variables(export: Path) -> dict[str, Any]:
    reader = tf.train.load_checkpoint(str(export / "variables" / "variables"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def _metrics(train_dir: Path) -> list[dict[str, Any]]:
    lines = read_regular(train_dir / "metrics.jsonl").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != _SPEED} for line in lines]


def complete_checkpoints(train_dir: Path) -> dict[int, dict[str, str]]:
    """Return the hashes of the files of each complete checkpoint, by step."""
    found = {}
    for path in train_dir.glob("model.ckpt-*.manifest.json"):
        try:
            record = json.loads(read_regular(path))
            is_intact = record["sha256"] == seal_of(record)
            hashes = {name: sha256(train_dir / name) for name in record["files"]}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        if is_intact and all(hashes[name] == file["sha256"] for name, file in record["files"].items()):
            found[record["step"]] = {**hashes, path.name: sha256(path)}
    return found


def snapshot(root: Path, leave_out: Iterable[Path] = ()) -> dict[str, str]:
    """Return kind, mode, size, content and link target of everything below a directory, by path; follow no link."""
    skipped = set(leave_out)
    found = {}
    for parent, directories, names in os.walk(root):
        directories[:] = [name for name in directories if Path(parent) / name not in skipped]
        for path in (Path(parent) / name for name in [*directories, *names]):
            if path not in skipped:
                found[path.relative_to(root).as_posix()] = _describe(path)
    return found


def _describe(path: Path) -> str:
    status = path.lstat()
    kind = _FILE_KINDS[stat.S_IFMT(status.st_mode)]
    text = f"{kind} {stat.S_IMODE(status.st_mode):o}"
    if kind == "link":
        return f"{text} -> {path.readlink()}"
    if kind != "file":
        return text
    content = sha256(path) if status.st_size <= _MOST_HASHED else "not hashed"
    return f"{text}, {status.st_size} bytes, {content}"


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """Return what has changed between two snapshots; "" if nothing has."""
    changed = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    lines = [f"{name}: {before.get(name, 'absent')[:60]} -> {after.get(name, 'absent')[:60]}" for name in changed]
    return f"changed outside the train_dir: {'; '.join(lines[:5])}{' ...' if lines[5:] else ''}" if lines else ""


def wrong_ending(ended: Ended) -> str:
    """Return what is wrong with a process's exit status and output; "" if nothing is."""
    if ended.status is None:
        return f"hung: still running after {ended.seconds:.0f} s"
    if ended.status not in {0, 1}:
        signal = " (a signal)" if ended.status < 0 else ""
        return f"exit status {ended.status}{signal}, expected 0 or 1; it printed {ended.stderr[-200:]!r}"
    traces = [trace for trace in _TRACES if trace in ended.stderr + ended.stdout]
    return f"{traces[0]!r} printed: {first_error(ended)}" if traces else _wrong_error_lines(ended)


def _wrong_error_lines(ended: Ended) -> str:
    """Return what is wrong with the end of stderr: `error:` and perhaps `hint:` after status 1, neither after 0."""
    lines = ended.stderr.splitlines()
    errors = [line for line in lines if line.startswith("error:")]
    if len(errors) != ended.status:
        return f"exit status {ended.status} with {len(errors)} error lines: {ended.stderr[-200:]!r}"
    if errors and _BARE.match(errors[0]):
        return f"a bare exception: {errors[0][:200]}"
    start = next((number for number, line in enumerate(lines) if line.startswith(("error:", "hint:"))), len(lines))
    kinds = [line.partition(": ")[0] for line in lines[start:]]
    if kinds not in ([], ["error"], ["error", "hint"]):
        return f"after the error only a hint may follow, got {lines[start : start + 3]}"
    return ""


def first_error(ended: Ended) -> str:
    """Return the error line, or the last line of stderr."""
    lines = ended.stderr.splitlines()
    return next((line for line in lines if line.startswith("error:")), lines[-1] if lines else "")[:300]


def wrong_model(train_dir: Path, export: Path, reference: Reference, *, metrics: bool) -> str:
    """Return how a finished run's result differs from the undisturbed run's; "" if it does not.

    Args:
      train_dir: the run's.
      export: the exported model.
      reference: the undisturbed run.
      metrics: whether metrics.jsonl must be the same, too.
    """
    try:
        result = json.loads(read_regular(train_dir / "result.json"))
    except (OSError, ValueError) as error:
        return f"exit status 0, but result.json cannot be read ({error})"
    for name, expected in (
        ("weights_sha256", reference.weights_sha256),
        ("test_accuracy", reference.test_accuracy),
        ("step", reference.step),
    ):
        if result.get(name) != expected:
            return f"exit status 0 with another model: {name} {result.get(name)}, expected {expected}"
    if Path(result["export_dir"]) != export:
        return f"result.json says that {result['export_dir']} was exported, expected {export}"
    return _wrong_export(export, reference) or (_wrong_metrics(train_dir, reference) if metrics else "")


def _wrong_export(export: Path, reference: Reference) -> str:
    found = hashes_of_export(export)
    names = sorted({*found, *reference.exported})
    wrong = [name for name in names if found.get(name) != reference.exported.get(name)]
    if not wrong:
        return ""
    try:
        variables = _variables(export)
        others = sorted(
            name for name, array in reference.variables.items() if array.tobytes() != variables[name].tobytes()
        )
    except Exception as error:  # noqa: BLE001 - TensorFlow has many ways to say that a file is damaged
        return f"exit status 0 with a damaged export: {', '.join(wrong)} ({str(error)[:80]})"
    weights = f"other weights in {', '.join(others)}" if others else "the weights are right"
    return f"exit status 0 with a wrong export: {', '.join(wrong)} differ or are missing; {weights}"


def _wrong_metrics(train_dir: Path, reference: Reference) -> str:
    try:
        found = _metrics(train_dir)
    except (OSError, ValueError) as error:
        return f"exit status 0, but metrics.jsonl cannot be read ({error})"
    return "" if found == reference.metrics else f"metrics.jsonl holds {found}, expected {reference.metrics}"


def lost_checkpoints(train_dir: Path, good: Checkpoints, damaged: Checkpoints = {}) -> str:  # noqa: B006 - read only
    """Return which checkpoints are lost, or were moved although they are intact; "" if none.

    Args:
      train_dir: the run's.
      good: those that no attack has touched; they must not have been moved.
      damaged: the untouched files of the others; they may have been moved.
    """
    lost = []
    for step, files in good.items():
        gone = [name for name, content in files.items() if _content(train_dir / name) != content]
        aside = sorted(path.name for path in train_dir.glob(f"quarantine/model.ckpt-{step}*"))
        moved = [place for place in aside if re.fullmatch(rf"model\.ckpt-{step}(\.\d+)?", place)]
        if gone:
            lost.append(f"{', '.join(gone)} lost or changed{', moved to quarantine' if moved else ''}")
        elif moved:
            lost.append(f"quarantine/{moved[0]} is there, and nothing was wrong with it")
    kept = set(hashes_below(train_dir).values())
    for files in damaged.values():
        lost += [f"{name} deleted, though intact" for name, content in files.items() if content not in kept]
    return f"good checkpoint lost: {'; '.join(lost)}" if lost else ""


def _content(path: Path) -> str | None:
    try:
        return sha256(path)
    except OSError:
        return None


def lost_files(train_dir: Path, files: Mapping[Path, bytes]) -> str:
    """Return which files of the user's are neither at their place nor anywhere in the train_dir; "" if none."""
    kept = set(hashes_below(train_dir).values())
    lost = [
        path.name
        for path, content in files.items()
        if hashlib.sha256(content).hexdigest() not in kept and _content(path) != hashlib.sha256(content).hexdigest()
    ]
    return f"the user's files deleted: {', '.join(lost)}" if lost else ""
