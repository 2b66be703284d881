"""Which checkpoints there are and what state they are in: told without TensorFlow, and without a graph.

    prefix = inspection.find_prefix(path)       # a prefix, one of its files, a train_dir, a SavedModel
    inspection.verify(prefix)                   # raises where a byte is wrong
    inspection.listing(directory)

All of it works on this package's checkpoints and on those that a plain Saver, tf.train.Checkpoint or a SavedModel's
builder wrote. Ours are recognised by their manifest, which knows what each byte should be. Of the others, TensorFlow's
own checksums are looked at: of each tensor and of the index.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from checkpointing import layout, manifest, retirement, state_file
from checkpointing.errors import CheckpointError, DamagedError
from checkpointing.manifest import Manifest
from checkpointing.rotation import Retention

if TYPE_CHECKING:
    from checkpointing.bundle import Bundle

_DATA = re.compile(r"\.data-\d{5}-of-(\d{5})$", re.ASCII)
_HDF5 = b"\x89HDF\r\n\x1a\n"
_KERAS = {".h5", ".keras"}


class Listed(NamedTuple):
    """A checkpoint as `listing` finds it.

    saved_at: seconds since 1970.
    complete: None where nothing records what its bytes should be, and all its files are there.
    problem: what is wrong with it, if it is not complete.
    score: how good it is, as its run judged; None where nobody asked.
    why_kept: empty where rotation is about to delete it, or nobody knows.
    """

    prefix: Path
    step: int | None
    saved_at: float
    bytes: int
    complete: bool | None
    problem: str | None
    score: float | None
    why_kept: str


def find_prefix(path: Path) -> Path:
    """The checkpoint that a path means.

    Args:
      path: a prefix; one of the checkpoint's files; a directory, for the newest checkpoint in it; or the directory of a
        SavedModel, whose variables are a checkpoint.

    Raises:
      CheckpointError: there is none; the message lists those that there are, or says which file is missing.
    """
    if path.is_dir() and not (path.name and layout.index_path(path).is_file()):
        return _newest_in(path)
    prefix = layout.prefix_of(path) or path
    names = {each.name for each in prefix.parent.iterdir()} if prefix.parent.is_dir() else set()
    if not any(name.startswith((f"{prefix.name}.index", f"{prefix.name}.data-")) for name in names):
        raise CheckpointError(_about_another_format(path) if path.is_file() else _about_missing(prefix))
    missing = _missing_file(prefix.name, names)
    if missing:
        raise CheckpointError(f"{prefix}: {missing} is missing: the checkpoint is incomplete; put a good copy back.")
    return prefix


def newest_of_run(train_dir: Path) -> tuple[Path, Manifest]:
    """The newest checkpoint of one of our runs, and what is recorded about it.

    Raises:
      CheckpointError: there is none, or it is somebody else's.
    """
    prefix = find_prefix(train_dir)
    if not is_ours(prefix):
        raise CheckpointError(f"{prefix}: no manifest found beside it; give the train_dir of a run of this project.")
    return prefix, Manifest.read(layout.manifest_path(prefix))


def is_saved_model(directory: Path) -> bool:
    """Whether this is the directory of a SavedModel."""
    return any((directory / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt"))


def _newest_in(directory: Path) -> Path:
    if is_saved_model(directory):
        return find_prefix(directory / "variables" / "variables")
    ours = layout.steps_with(directory, "manifest.json")
    prefixes = [layout.prefix(directory, ours[-1])] if ours else layout.prefixes_in(directory)
    if not prefixes:
        raise CheckpointError(f"{directory}: no checkpoint found in it{_whatever_else(directory)}.")
    return prefixes[-1]


def _whatever_else(directory: Path) -> str:
    """What of a checkpoint, or of its kind, is there all the same."""
    found = sorted(
        path
        for path in directory.iterdir()
        if layout.prefix_of(path) or layout.leftover_of(path) or path.suffix in _KERAS
    )
    if not found:
        return ""
    kind = ": that is Keras' own format, not TensorFlow's" if found[0].suffix in _KERAS else ""
    return f", but {found[0].name}{kind}"


def _missing_file(name: str, names: Collection[str]) -> str | None:
    """The first file that a checkpoint of this name lacks, as far as the names of the others tell."""
    if f"{name}.index" not in names:
        return f"{name}.index"
    found = (_DATA.search(each) for each in names if each.startswith(f"{name}.data-"))
    counts = {int(match[1]) for match in found if match} or {1}
    # Where somebody saved twice under one name, files of another number may be left of the first time.
    missing = [
        next((data for number in range(count) if (data := f"{name}.data-{number:05}-of-{count:05}") not in names), None)
        for count in sorted(counts)
    ]
    return None if None in missing else missing[-1]


def _about_another_format(path: Path) -> str:
    with path.open("rb") as file:
        begin = file.read(8)
    if begin == _HDF5 or path.suffix in _KERAS:
        return (
            f"{path}: Keras' own format found (.h5, .keras), a TensorFlow checkpoint wanted: load it with Keras, and "
            f"write one with tf.train.Checkpoint(model=model).write(PREFIX)."
        )
    return (
        f"{path}: a file without an .index beside it found, a checkpoint's prefix wanted: if it is one of TensorFlow's "
        f"format V1, restore it and save it anew with a Saver of today."
    )


def _about_missing(prefix: Path) -> str:
    directory = prefix.parent
    there = [path.name for path in layout.prefixes_in(directory)] if directory.is_dir() else []
    advice = f": give one of them, as in {directory / there[-1]}" if there else ""
    return f"{prefix}: no checkpoint found; in {directory} there are {', '.join(there) or 'none'}{advice}."


def is_ours(prefix: Path) -> bool:
    """Whether a manifest records what each byte of this checkpoint should be."""
    return layout.step_of(f"{prefix.name}.index") is not None and layout.manifest_path(prefix).exists()


def is_committed(prefix: Path) -> bool:
    """Whether it exists for its readers: by the name of ours with the manifest, by any other with the index."""
    named_as_ours = layout.step_of(layout.index_path(prefix).name) is not None
    return (layout.manifest_path if named_as_ours else layout.index_path)(prefix).exists()


def is_unfinished(prefix: Path) -> bool:
    """Whether it is being made or deleted, or either was interrupted: then it does not exist for its readers."""
    return layout.incomplete_path(prefix).exists() and not is_committed(prefix)


def verify(prefix: Path) -> str:
    """Reads every byte of a checkpoint.

    Returns:
      What it was compared with.

    Raises:
      DamagedError: a byte is wrong, or a file missing; the message begins with the file's name.
      CheckpointError: another version of this package wrote its manifest.
    """
    if is_ours(prefix):
        found = Manifest.read(layout.manifest_path(prefix))
        manifest.check_files(prefix, found)
        return f"sha256 of {len(found.files)} files"
    if is_unfinished(prefix):
        raise DamagedError(_about_unfinished(prefix))
    try:
        bundle = _opened(prefix)
        bundle.check()
    except OSError as error:
        raise manifest.unreadable(Path(error.filename or prefix), error) from error
    return f"crc32c of {len(bundle.entries)} tensors"


def _opened(prefix: Path) -> Bundle:
    from checkpointing.bundle import Bundle  # noqa: PLC0415 - needs NumPy, which most questions do not

    return Bundle(prefix)


def verify_saved_model(directory: Path) -> str:
    """Reads every byte of a SavedModel; of one that this package did not export, its variables.

    Returns:
      What it was compared with.

    Raises:
      DamagedError: a byte is wrong, or a file missing; the message begins with the file's name.
    """
    path = layout.export_manifest_path(directory)
    if path.exists():
        files = manifest.read_sealed(path, manifest.EXPORT)["files"]
        manifest.check_described(directory, files)
        return f"sha256 of {len(files)} files"
    return f"{verify(find_prefix(directory))}; nothing is known of its graph's bytes"


def listing(directory: Path, *, check: bool = True) -> list[Listed]:
    """All checkpoints in a directory, whoever made them; the newest last. A run may go on in it meanwhile.

    Args:
      directory: a train_dir, or any other.
      check: whether to read each byte of ours; without, files of the right size are believed to be complete.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: no directory found there; give one with checkpoints in it.")
    manifests, damaged = manifest.read_all(directory)
    reasons = _reasons(directory, manifests)
    listed = [_ours(directory, each, reasons.get(each.step, ""), check=check) for each in manifests]
    problems = {layout.prefix(directory, step): str(error) for step, error in damaged.items()}
    in_state_file = {path.resolve() for path in state_file.read(directory)}
    known = {each.prefix for each in listed}
    listed = [each for each in listed if each.complete or is_ours(each.prefix)]
    for prefix, files in _files_by_prefix(directory).items():
        damage = problems.get(prefix) if layout.manifest_path(prefix) in files else None
        problem = damage or _problem(prefix, files)
        if prefix not in known and not _has_changed(prefix, files):
            why_kept = "named in the state file" if prefix.resolve() in in_state_file and problem is None else ""
            listed.append(_described(prefix, files, problem, why_kept))
    return sorted(listed, key=lambda each: layout.by_step(each.prefix))


def _files_by_prefix(directory: Path) -> dict[Path, dict[Path, os.stat_result]]:
    """The files of each checkpoint, with their sizes and times."""
    files: defaultdict[Path, dict[Path, os.stat_result]] = defaultdict(dict)
    for path in directory.iterdir():
        prefix = layout.prefix_of(path)
        if prefix and path.is_file():
            with suppress(FileNotFoundError):  # deleted meanwhile
                files[prefix][path] = path.stat()
    return {prefix: found for prefix, found in files.items() if _is_checkpoint(prefix, found)}


def _is_checkpoint(prefix: Path, files: Collection[Path]) -> bool:
    """Whether files are at least the rest of a checkpoint; many others are called .index or .manifest.json, too."""
    if any(_DATA.search(path.name) for path in files):
        return True
    if layout.step_of(f"{prefix.name}.index") is not None:
        return not {layout.manifest_path(prefix), layout.incomplete_path(prefix)}.isdisjoint(files)
    try:
        return layout.index_path(prefix) in files and bool(_opened(prefix))
    except CheckpointError:
        return False


def _has_changed(prefix: Path, files: Collection[Path]) -> bool:
    """Whether a run has made it whole, or begun or ended to delete it, since its files were listed."""
    marks = layout.manifest_path(prefix), layout.incomplete_path(prefix)
    return any(mark.exists() != (mark in files) for mark in marks) or not any(path.exists() for path in files)


def _reasons(directory: Path, manifests: list[Manifest]) -> dict[int, str]:
    """Why rotation keeps what it keeps, as far as the newest manifest says what it was told."""
    if not manifests or manifests[-1].retention is None:
        return {}
    return retirement.kept(directory, manifests, Retention(**manifests[-1].retention))


def _ours(directory: Path, found: Manifest, why_kept: str, *, check: bool) -> Listed:
    prefix = layout.prefix(directory, found.step)
    problem = None
    try:
        (manifest.check_files if check else manifest.check_sizes)(prefix, found)
    except DamagedError as error:
        problem = str(error)
    size = sum(file["bytes"] for file in found.files.values())
    return Listed(prefix, found.step, found.saved_at, size, problem is None, problem, found.score, why_kept)


def _problem(prefix: Path, files: Collection[Path]) -> str | None:
    """What is wrong with a checkpoint that has no manifest, as far as the names of its files tell."""
    if layout.incomplete_path(prefix) in files and not is_committed(prefix):
        return _about_unfinished(prefix)
    missing = _missing_file(prefix.name, {path.name for path in files})
    return f"{missing}: nothing found" if missing else None


def _about_unfinished(prefix: Path) -> str:
    return f"{layout.incomplete_path(prefix).name}: it is being made or deleted, or either was interrupted"


def _described(prefix: Path, files: Mapping[Path, os.stat_result], problem: str | None, why_kept: str) -> Listed:
    return Listed(
        prefix=prefix,
        step=layout.step_at_the_end(prefix),
        saved_at=max(each.st_mtime for each in files.values()),
        bytes=sum(each.st_size for each in files.values()),
        complete=None if problem is None else False,
        problem=problem,
        score=None,
        why_kept=why_kept,
    )
