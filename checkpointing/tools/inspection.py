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
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from checkpointing.errors import CheckpointError, DamagedError, OtherVersionError
from checkpointing.protocol import checkpoint_state, cleanup, manifest, retention
from checkpointing.protocol.manifest import Manifest
from checkpointing.storage import durable, layout

if TYPE_CHECKING:
    from checkpointing.format.tensor_bundle import Bundle

_DATA = re.compile(r"\.data-\d{5}-of-(\d{5})$", re.ASCII)
_HDF5 = b"\x89HDF\r\n\x1a\n"
_KERAS = {".h5", ".keras"}

_LOOKS = 10  # at what a run makes or deletes meanwhile


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
        return self.problem == _about_unfinished(self.prefix)


def resolve_checkpoint(path: Path) -> Path:
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
    prefix = resolve_checkpoint(train_dir)
    if not is_ours(prefix):
        raise CheckpointError(f"{prefix}: no manifest found beside it; give the train_dir of a run of this project.")
    return prefix, Manifest.read(layout.manifest_path(prefix))


def is_saved_model(directory: Path) -> bool:
    """Whether this is the directory of a SavedModel."""
    return any((directory / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt"))


def _newest_in(directory: Path) -> Path:
    if is_saved_model(directory):
        return resolve_checkpoint(directory / "variables" / "variables")
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
    with durable.open_to_read(path) as file:
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
      CheckpointError: another version of this package wrote its manifest, or it cannot be read just now.
    """
    for _ in range(_LOOKS - 1):
        before = _signature(prefix)
        try:
            return _verified(prefix)
        except DamagedError:
            if _signature(prefix) == before:
                raise
    return _verified(prefix)


def _verified(prefix: Path) -> str:
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


def _signature(prefix: Path) -> list[tuple[int, int] | None]:
    """What changes where a checkpoint is made, deleted, or made again under the same name."""
    marks = (layout.manifest_path(prefix), layout.incomplete_path(prefix), layout.index_path(prefix))
    return [_identity(path) for path in marks]


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _opened(prefix: Path) -> Bundle:
    from checkpointing.format.tensor_bundle import Bundle  # noqa: PLC0415 - needs NumPy, which most questions do not

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
    return f"{verify(resolve_checkpoint(directory))}; nothing is known of its graph's bytes"


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
        return self.problem == _about_unfinished(self.prefix)


_Names = dict[str, list[str]]
_Look = Callable[[Path, Collection[str]], _Seen | None]


def _names(directory: Path) -> _Names:
    """The names of each checkpoint's files, by its own."""
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: no directory found there; give one with checkpoints in it.")
    names: _Names = {}
    for _ in range(_LOOKS):  # the only one may be gone before its successor is seen
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
    for _ in range(_LOOKS - 1):
        if found is not None and found.problem is None:
            return found
        before = _signature(prefix)
        if not _are_there(prefix, files):
            files = [path.name for path in layout.files_of(prefix)] if prefix.parent.is_dir() else []
        if not files:
            return None
        again = look(prefix, files)
        if again == found and _signature(prefix) == before and _are_there(prefix, files):
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
        return found._replace(compared_with=_verified(prefix))
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
    if any(_DATA.search(path.name) for path in files):
        return True
    if layout.step_of(f"{prefix.name}.index") is not None:
        return not {layout.manifest_path(prefix), layout.incomplete_path(prefix)}.isdisjoint(files)
    try:
        return layout.index_path(prefix) in files and bool(_opened(prefix))
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
        return _about_unfinished(prefix)
    missing = _missing_file(prefix.name, {path.name for path in files})
    return f"{missing}: nothing found" if missing else None


def _about_unfinished(prefix: Path) -> str:
    return f"{layout.incomplete_path(prefix).name}: it is being made or deleted, or either was interrupted"


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
