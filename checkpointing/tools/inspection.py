"""List the checkpoints of a directory and their condition, without TensorFlow.

    inspection.list_checkpoints(directory)  # [CheckpointInfo(prefix, step, ..., complete=True, ...), ...]
    inspection.verify_all(directory)

It works on this package's checkpoints, which have a manifest with the hash of every file, and on those that a plain
Saver, tf.train.Checkpoint or a SavedModel's builder wrote, which have TensorFlow's checksums of tensors and index.
A run may save and delete checkpoints in the directory at the same time.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from checkpointing.errors import CheckpointError, DamagedError, OtherVersionError
from checkpointing.protocol import checkpoint_state, cleanup, lookup, manifest, retention
from checkpointing.protocol.lookup import DATA_FILE, is_committed, missing_file
from checkpointing.protocol.manifest import Manifest
from checkpointing.protocol.verification import ATTEMPTS, about_unfinished, files_signature, open_bundle, verify_once
from checkpointing.storage import layout


class CheckpointInfo(NamedTuple):
    """A checkpoint and its condition.

    saved_at: seconds since 1970.
    complete: None if nothing records its bytes and all its files are there, or if it cannot be read just now.
    problem: what is wrong with it, unless it is complete.
    score: the validation score that its run recorded; None without a validation.
    why_kept: why retention keeps it; empty if retention is about to delete it, or if that is unknown.
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
        """Whether a run was making or deleting it when it was inspected, or was interrupted while it did."""
        return self.problem == about_unfinished(self.prefix)


def list_checkpoints(directory: Path, *, check: bool = True) -> list[CheckpointInfo]:
    """Return all checkpoints in a directory, of any writer; the newest last.

    Args:
      directory: a train_dir, or any other.
      check: whether to hash the files of checkpoints with a manifest; otherwise the right sizes count as complete.

    Raises:
      CheckpointError: there is no such directory.
    """
    return [listed for listed, _ in survey(directory, check=check)]


def survey(directory: Path, *, check: bool = True) -> list[tuple[CheckpointInfo, Manifest | None]]:
    """Return what `list_checkpoints` returns, each with its manifest; None if it has none that can be used."""
    names = _names(directory)
    found = list(_inspect_each(directory, names, lambda prefix, files: _inspect(prefix, files, check=check)))
    reasons = _reasons([each.manifest for each in found if each.manifest is not None], names)
    resolved = directory.resolve()
    in_state_file = {path.resolve() for path in checkpoint_state.read(directory)}
    newest = _newest_by_state_file(directory)
    listed = []
    for each in found:
        why_kept = reasons.get(each.manifest.step, "") if each.manifest else each.why_kept
        if not each.manifest and each.problem is None:
            if each.prefix == newest:
                why_kept = why_kept or "named in the state file as the newest"
            elif resolved / each.prefix.name in in_state_file:
                why_kept = why_kept or "named in the state file"
        listed.append((_info(each, why_kept), each.manifest))
    return sorted(listed, key=lambda pair: layout.by_step(pair[0].prefix))


def _newest_by_state_file(directory: Path) -> Path | None:
    """The newest checkpoint of a directory that is no run's, if the state file names it."""
    newest = lookup.newest_in(directory, warn=lambda _: None)
    path = checkpoint_state.read_newest(directory)
    return newest if newest is not None and path is not None and Path(path).name == newest.name else None


def verify_all(directory: Path) -> list[tuple[Path, str | None, str | None]]:
    """Read every byte of each checkpoint in a directory, except those being made or deleted.

    Returns:
      For each its prefix, what it was compared with, and what is wrong with it; one of the two is None.
    """
    found = _inspect_each(directory, _names(directory), _verify)
    return sorted(
        ((each.prefix, each.compared_with, each.problem) for each in found if not each.unfinished),
        key=lambda row: layout.by_step(row[0]),
    )


class _Inspected(NamedTuple):
    """A checkpoint as one inspection finds it.

    damaged: whether `problem` concerns its bytes; otherwise it cannot be read just now, or is another version's.
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
_Inspect = Callable[[Path, Collection[str]], _Inspected | None]


def _names(directory: Path) -> _Names:
    """The names of each checkpoint's files, by the name of its prefix."""
    if not directory.is_dir():
        hint = "use a directory with checkpoints in it"
        raise CheckpointError(f"{directory}: no such directory", hint=hint)
    names: _Names = {}
    for _ in range(ATTEMPTS):  # a run may delete the only one before its successor is listed
        names = layout.files_by_prefix(directory)
        if names:
            break
    return names


def _inspect_each(directory: Path, names: _Names, inspect: _Inspect) -> Iterator[_Inspected]:
    for name, files in names.items():
        found = _inspect_until_stable(directory / name, files, inspect)
        if found is not None:
            yield found


def _inspect_until_stable(prefix: Path, files: Collection[str], inspect: _Inspect) -> _Inspected | None:
    """Inspect a checkpoint; if something is wrong and its files change meanwhile, again: a run makes or deletes it."""
    found = inspect(prefix, files)
    for _ in range(ATTEMPTS - 1):
        if found is not None and found.problem is None:
            return found
        before = files_signature(prefix)
        if not _are_there(prefix, files):
            files = [path.name for path in layout.files_of(prefix)] if prefix.parent.is_dir() else []
        if not files:
            return None
        again = inspect(prefix, files)
        if again == found and files_signature(prefix) == before and _are_there(prefix, files):
            return again
        found = again
    return found


def _are_there(prefix: Path, files: Collection[str]) -> bool:
    """Whether these files exist, and no mark or manifest in addition."""
    marks = {layout.manifest_path(prefix).name, layout.incomplete_path(prefix).name}
    return all(os.path.lexists(prefix.with_name(name)) == (name in files) for name in {*files, *marks})


def _inspect(prefix: Path, files: Collection[str], *, check: bool) -> _Inspected | None:
    """Inspect a checkpoint by its manifest or its files' names; None if it is not a checkpoint."""
    if not _has_manifest(prefix, files):
        return _inspect_names(prefix, files)
    found = None
    try:
        found = Manifest.read(layout.manifest_path(prefix))
        (manifest.check_files if check else manifest.check_sizes)(prefix, found)
    except OtherVersionError:
        return _Inspected(prefix, None, _status_of(prefix, files), why_kept="another version's")
    except CheckpointError as error:
        damaged = isinstance(error, DamagedError)
        return _Inspected(prefix, found, {} if found else _status_of(prefix, files), str(error), damaged)
    return _Inspected(prefix, found, {}, compared_with=f"sha256 of {len(found.files)} files" if check else None)


def _verify(prefix: Path, files: Collection[str]) -> _Inspected | None:
    """Inspect a checkpoint, and without a manifest compare its bytes with TensorFlow's checksums."""
    found = _inspect(prefix, files, check=True)
    if found is None or found.problem is not None or found.compared_with is not None:
        return found
    try:
        return found._replace(compared_with=verify_once(prefix))
    except CheckpointError as error:
        return found._replace(problem=str(error), damaged=isinstance(error, DamagedError))


def _has_manifest(prefix: Path, files: Collection[str]) -> bool:
    return layout.step_of(f"{prefix.name}.index") is not None and layout.manifest_path(prefix).name in files


def _inspect_names(prefix: Path, files: Collection[str]) -> _Inspected | None:
    found = _status_of(prefix, files)
    if not found or not _is_checkpoint(prefix, found):
        return None
    problem = _problem(prefix, found)
    return _Inspected(prefix, None, found, problem, damaged=problem is not None)


def _status_of(prefix: Path, files: Collection[str]) -> dict[Path, os.stat_result]:
    """The sizes and times of the regular files among these, without temporary ones."""
    found = {}
    for path in map(prefix.with_name, files):
        with suppress(OSError):  # deleted meanwhile
            status = path.stat()
            if stat.S_ISREG(status.st_mode) and layout.prefix_of(path) is not None:
                found[path] = status
    return found


def _is_checkpoint(prefix: Path, files: Collection[Path]) -> bool:
    """Whether files are at least part of a checkpoint; other programs use .index and .manifest.json as well."""
    if any(DATA_FILE.search(path.name) for path in files):
        return True
    if layout.step_of(f"{prefix.name}.index") is not None:
        return not {layout.manifest_path(prefix), layout.incomplete_path(prefix)}.isdisjoint(files)
    try:
        return layout.index_path(prefix) in files and bool(open_bundle(prefix))
    except (CheckpointError, OSError):  # another program's .index, or it cannot be read
        return False


def _reasons(manifests: Sequence[Manifest], names: _Names) -> dict[int, str]:
    """Why each step is kept, by the retention policy in the newest manifest; empty if it records none."""
    newest = max(manifests, key=lambda each: each.step, default=None)
    policy = retention.recorded(newest.retention) if newest else None
    if policy is None:
        return {}
    prefixes = {each.step: layout.prefix(Path(), each.step) for each in manifests}
    pinned = {step for step, prefix in prefixes.items() if layout.pinned_path(prefix).name in names[prefix.name]}
    return cleanup.kept(manifests, policy, pinned)


def _problem(prefix: Path, files: Collection[Path]) -> str | None:
    """What is wrong with a checkpoint that has no manifest, by the names of its files."""
    if layout.incomplete_path(prefix) in files and not is_committed(prefix):
        return about_unfinished(prefix)
    missing = missing_file(prefix.name, {path.name for path in files})
    return f"{missing}: file not found" if missing else None


def _info(inspected: _Inspected, why_kept: str) -> CheckpointInfo:
    found, files = inspected.manifest, inspected.files.values()
    complete = found is not None or None
    return CheckpointInfo(
        prefix=inspected.prefix,
        step=found.step if found else layout.step_at_the_end(inspected.prefix),
        saved_at=found.saved_at if found else max((each.st_mtime for each in files), default=0.0),
        bytes=sum(each["bytes"] for each in found.files.values()) if found else sum(each.st_size for each in files),
        complete=complete if inspected.problem is None else False if inspected.damaged else None,
        problem=inspected.problem,
        score=found.score if found else None,
        why_kept=why_kept,
    )
