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
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from checkpointing.errors import CheckpointError, DamagedError, OtherVersionError
from checkpointing.protocol import checkpoint_state, cleanup, manifest, retention
from checkpointing.protocol.lookup import DATA_FILE, is_committed, missing_file
from checkpointing.protocol.manifest import Manifest
from checkpointing.protocol.verification import ATTEMPTS, about_unfinished, files_signature, open_bundle, verify_once
from checkpointing.storage import layout


class CheckpointInfo(NamedTuple):
    """A checkpoint as `listing` finds it.

    saved_at: seconds since 1970.
    complete: None where nothing records what its bytes should be, and all its files are there; or where it cannot be
      read just now.
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

    @property
    def unfinished(self) -> bool:
        """Whether it was being made or deleted, or either was interrupted, when it was looked at."""
        return self.problem == about_unfinished(self.prefix)


def list_checkpoints(directory: Path, *, check: bool = True) -> list[CheckpointInfo]:
    """All checkpoints in a directory, whoever made them; the newest last. A run may go on in it meanwhile.

    Args:
      directory: a train_dir, or any other.
      check: whether to read each byte of ours; without, files of the right size are believed to be complete.

    Raises:
      CheckpointError: there is no such directory.
    """
    return [listed for listed, _ in survey(directory, check=check)]


def survey(directory: Path, *, check: bool = True) -> list[tuple[CheckpointInfo, Manifest | None]]:
    """What `listing` gives, each with its manifest; None where there is none that can be used."""
    names = _names(directory)
    seen = list(_seen(directory, names, lambda prefix, files: _judged(prefix, files, check=check)))
    reasons = _reasons([each.manifest for each in seen if each.manifest is not None], names)
    there = directory.resolve()
    in_state_file = {path.resolve() for path in checkpoint_state.read(directory)}
    listed = []
    for each in seen:
        why_kept = reasons.get(each.manifest.step, "") if each.manifest else each.why_kept
        if not each.manifest and each.problem is None and there / each.prefix.name in in_state_file:
            why_kept = why_kept or "named in the state file"
        listed.append((_described(each, why_kept), each.manifest))
    return sorted(listed, key=lambda pair: layout.by_step(pair[0].prefix))


def verify_all(directory: Path) -> list[tuple[Path, str | None, str | None]]:
    """Reads every byte of each checkpoint in a directory, but for those being made or deleted. A run may go on in it.

    Returns:
      For each its prefix, what it was compared with, and what is wrong with it; one of the two is None.
    """
    seen = _seen(directory, _names(directory), _compared)
    return sorted(
        ((each.prefix, each.compared_with, each.problem) for each in seen if not each.unfinished),
        key=lambda row: layout.by_step(row[0]),
    )


class _Seen(NamedTuple):
    """A checkpoint as a look finds it.

    damaged: whether `problem` is about its bytes; else it cannot be read just now, or is another version's.
    """

    prefix: Path
    manifest: Manifest | None
    files: Mapping[Path, os.stat_result]
    problem: str | None = None
    damaged: bool = False
    compared_with: str | None = None
    why_kept: str = ""

    @property
    def unfinished(self) -> bool:
        return self.problem == about_unfinished(self.prefix)


_Names = dict[str, list[str]]
_Look = Callable[[Path, Collection[str]], _Seen | None]


def _names(directory: Path) -> _Names:
    """The names of each checkpoint's files, by its own."""
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: no directory found there; give one with checkpoints in it.")
    names: _Names = {}
    for _ in range(ATTEMPTS):  # the only one may be gone before its successor is seen
        names = layout.files_by_prefix(directory)
        if names:
            break
    return names


def _seen(directory: Path, names: _Names, look: _Look) -> Iterator[_Seen]:
    """Looks at each; again at what looks wrong and has changed since, for then a run makes or deletes it."""
    for name, files in names.items():
        found = _seen_steadily(directory / name, files, look)
        if found is not None:
            yield found


def _seen_steadily(prefix: Path, files: Collection[str], look: _Look) -> _Seen | None:
    found = look(prefix, files)
    for _ in range(ATTEMPTS - 1):
        if found is not None and found.problem is None:
            return found
        before = files_signature(prefix)
        if not _are_there(prefix, files):
            files = [path.name for path in layout.files_of(prefix)] if prefix.parent.is_dir() else []
        if not files:
            return None
        again = look(prefix, files)
        if again == found and files_signature(prefix) == before and _are_there(prefix, files):
            return again
        found = again
    return found


def _are_there(prefix: Path, files: Collection[str]) -> bool:
    """Whether these files are there, and no mark or manifest besides."""
    marks = {layout.manifest_path(prefix).name, layout.incomplete_path(prefix).name}
    return all(os.path.lexists(prefix.with_name(name)) == (name in files) for name in {*files, *marks})


def _judged(prefix: Path, files: Collection[str], *, check: bool) -> _Seen | None:
    """What there is to say of a checkpoint, as `listing` looks at it; None where it is none."""
    if not _has_manifest(prefix, files):
        return _judged_by_names(prefix, files)
    found = None
    try:
        found = Manifest.read(layout.manifest_path(prefix))
        (manifest.check_files if check else manifest.check_sizes)(prefix, found)
    except OtherVersionError:
        return _Seen(prefix, None, _status_of(prefix, files), why_kept="another version's")
    except CheckpointError as error:
        damaged = isinstance(error, DamagedError)
        return _Seen(prefix, found, {} if found else _status_of(prefix, files), str(error), damaged)
    return _Seen(prefix, found, {}, compared_with=f"sha256 of {len(found.files)} files" if check else None)


def _compared(prefix: Path, files: Collection[str]) -> _Seen | None:
    """The same, as `verify` looks at it."""
    found = _judged(prefix, files, check=True)
    if found is None or found.problem is not None or found.compared_with is not None:
        return found
    try:
        return found._replace(compared_with=verify_once(prefix))
    except CheckpointError as error:
        return found._replace(problem=str(error), damaged=isinstance(error, DamagedError))


def _has_manifest(prefix: Path, files: Collection[str]) -> bool:
    return layout.step_of(f"{prefix.name}.index") is not None and layout.manifest_path(prefix).name in files


def _judged_by_names(prefix: Path, files: Collection[str]) -> _Seen | None:
    found = _status_of(prefix, files)
    if not found or not _is_checkpoint(prefix, found):
        return None
    problem = _problem(prefix, found)
    return _Seen(prefix, None, found, problem, damaged=problem is not None)


def _status_of(prefix: Path, files: Collection[str]) -> dict[Path, os.stat_result]:
    """The sizes and times of the regular files among these; temporary ones do not count."""
    found = {}
    for path in map(prefix.with_name, files):
        with suppress(OSError):  # deleted meanwhile
            status = path.stat()
            if stat.S_ISREG(status.st_mode) and layout.prefix_of(path) is not None:
                found[path] = status
    return found


def _is_checkpoint(prefix: Path, files: Collection[Path]) -> bool:
    """Whether files are at least the rest of a checkpoint; many others are called .index or .manifest.json, too."""
    if any(DATA_FILE.search(path.name) for path in files):
        return True
    if layout.step_of(f"{prefix.name}.index") is not None:
        return not {layout.manifest_path(prefix), layout.incomplete_path(prefix)}.isdisjoint(files)
    try:
        return layout.index_path(prefix) in files and bool(open_bundle(prefix))
    except (CheckpointError, OSError):  # or it cannot be read: any program may call a file .index
        return False


def _reasons(manifests: Sequence[Manifest], names: _Names) -> dict[int, str]:
    """Why rotation keeps what it keeps, as far as the newest manifest says what it was told."""
    newest = max(manifests, key=lambda each: each.step, default=None)
    policy = retention.recorded(newest.retention) if newest else None
    if policy is None:
        return {}
    prefixes = {each.step: layout.prefix(Path(), each.step) for each in manifests}
    pinned = {step for step, prefix in prefixes.items() if layout.pinned_path(prefix).name in names[prefix.name]}
    return cleanup.kept(manifests, policy, pinned)


def _problem(prefix: Path, files: Collection[Path]) -> str | None:
    """What is wrong with a checkpoint that has no manifest, as far as the names of its files tell."""
    if layout.incomplete_path(prefix) in files and not is_committed(prefix):
        return about_unfinished(prefix)
    missing = missing_file(prefix.name, {path.name for path in files})
    return f"{missing}: nothing found" if missing else None


def _described(seen: _Seen, why_kept: str) -> CheckpointInfo:
    found, files = seen.manifest, seen.files.values()
    complete = found is not None or None
    return CheckpointInfo(
        prefix=seen.prefix,
        step=found.step if found else layout.step_at_the_end(seen.prefix),
        saved_at=found.saved_at if found else max((each.st_mtime for each in files), default=0.0),
        bytes=sum(each["bytes"] for each in found.files.values()) if found else sum(each.st_size for each in files),
        complete=complete if seen.problem is None else False if seen.damaged else None,
        problem=seen.problem,
        score=found.score if found else None,
        why_kept=why_kept,
    )
