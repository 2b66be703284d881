"""Find where a run resumes: lock its train_dir, verify its checkpoints, compare its settings.

    start = resume.open_train_dir(train_dir, settings)
    ...
    start.close()

TensorFlow is not needed, so errors are raised at once. No checkpoint is ever deleted here: damaged ones are moved to
`quarantine/`, and only if an older one is complete.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from checkpointing.errors import (
    LATER,
    CheckpointError,
    DamagedError,
    OnlyDamagedError,
    OtherSourceError,
    SettingsDifferError,
    SourceError,
    listed,
    reason,
)
from checkpointing.protocol import cleanup, lookup, quarantine, run_identity, verification
from checkpointing.protocol.manifest import Manifest
from checkpointing.protocol.run_identity import Difference, SourceCheckpoint
from checkpointing.protocol.verification import Newest
from checkpointing.storage import layout, train_dir
from checkpointing.storage.fingerprint import file_sha256
from checkpointing.storage.lock import Lock

_log = logging.getLogger(__name__)

# Where a run starts: at step 0; at its own newest checkpoint; at one of another directory (`restore_from`); at one that
# a plain Saver wrote into the train_dir.
Origin = Literal["fresh", "own", "restored", "adopted"]

_USE_GOOD_COPY = "put a good copy back, or use another directory"


@dataclass(frozen=True, kw_only=True)
class ResumePoint:
    """The state that a run starts from, in a train_dir that is locked until `close`.

    directory, settings, code, environment, may_grow, defaults: as passed to open_train_dir.
    origin: "fresh", "own", "restored" or "adopted".
    prefix: checkpoint to restore; None if fresh.
    newest: its manifest, if origin is "own".
    older: checkpoints to try if `prefix` cannot be restored, oldest first, if origin is "adopted".
    started_from: sha256 of the index file that the run's first step was restored from; recorded in its manifests.
    warm_start: checkpoint to take the first weights from, if there is one and origin is "fresh".
    """

    directory: Path
    settings: dict[str, Any]
    code: str | None
    environment: dict[str, str] | None
    lock: Lock
    origin: Origin = "fresh"
    prefix: Path | None = None
    newest: Manifest | None = None
    older: tuple[Path, ...] = ()
    started_from: str | None = None
    warm_start: SourceCheckpoint | None = None
    may_grow: tuple[str, ...] = ()
    defaults: Mapping[str, Any] | None = None

    def close(self) -> None:
        """Release the train_dir's lock."""
        self.lock.release()

    def is_of_run(self, saved: Manifest) -> bool:
        """Return whether this run saved the checkpoint of a manifest."""
        return saved.started_from == self.started_from and not self.differences(saved)

    def differences(self, saved: Manifest) -> list[Difference]:
        """Return the settings in which a checkpoint was saved by another run than this one."""
        return run_identity.diff(saved.settings, self.settings, defaults=self.defaults, may_grow=self.may_grow)

    def fall_back(self, error: DamagedError) -> Self:
        """Return the checkpoint before, because this one cannot be restored although its files match the manifest.

        Raises:
          CheckpointError: there is no older one of this run; nothing has been moved.
        """
        assert self.prefix is not None
        if self.origin == "restored":
            message = f"{self.prefix}: cannot be restored ({error})"
            raise SourceError(message, hint="put a good copy back, or start from another checkpoint") from error
        if self.origin == "adopted":
            if not self.older:
                message = f"{self.prefix}: cannot be restored, and there is no older checkpoint ({error})"
                raise OnlyDamagedError(message, hint=_USE_GOOD_COPY) from error
            _log.warning("%s: %s: left where it is; trying the checkpoint before", self.prefix, error)
            return replace(self, **_adopted(self.older))
        assert self.newest is not None
        newest, damaged = _newest_complete(self.directory, {self.newest.step: error})
        assert newest is not None
        _check_settings(self, newest)
        if newest.started_from != self.started_from:
            message = f"{self.directory}: {error}; the complete checkpoint before it, of step {newest.step}, is of"
            raise OnlyDamagedError(f"{message} another run", hint=_USE_GOOD_COPY) from error
        quarantine.set_damaged_aside(self.directory, damaged, resumed_at=newest.step)
        return replace(self, prefix=layout.prefix(self.directory, newest.step), newest=newest)


def open_train_dir(
    directory: Path,
    settings: dict[str, Any],
    *,
    code: str | None = None,
    environment: dict[str, str] | None = None,
    restore_from: Path | None = None,
    warm_start_from: Path | None = None,
    may_grow: tuple[str, ...] = (),
    defaults: Mapping[str, Any] | None = None,
) -> ResumePoint:
    """Lock a train_dir, clean it up, and find its newest complete checkpoint.

    A train_dir holds one run. Once a run has checkpoints, it resumes from the newest of them, and `restore_from` and
    `warm_start_from` only identify it. Files of an interrupted save or deletion are deleted; damaged checkpoints are
    moved to quarantine. A directory with nothing but a plain Saver's checkpoints is adopted: the run starts from the
    newest of them, which is the one that TensorFlow's state file names.

    Args:
      directory: train_dir; created if it is missing.
      settings: everything that the weights are a function of, JSON-ready; equal to what the checkpoints record.
      code: hash of the code that computes the weights; a difference is logged.
      environment: environment variables that the last bits of the weights depend on; a difference is logged. None: not
        compared.
      restore_from: prefix of the checkpoint that a new run starts from.
      warm_start_from: checkpoint that a new run takes weights from; it is found and recorded here, not read.
      may_grow: names of settings that may be larger than recorded.
      defaults: values of settings that `settings` or an older checkpoint lacks: settings since added or removed.

    Raises:
      CheckpointError: the train_dir is locked, holds another run, or has no complete checkpoint left; there is no
        checkpoint at restore_from or warm_start_from; or the disk reports an error.
    """
    try:
        if not (directory.is_dir() and layout.steps_with(directory, "manifest.json")):
            # Before a directory is created for a checkpoint that does not exist.
            if restore_from is not None:
                lookup.check_prefix(restore_from)
            if warm_start_from is not None and not (directory / layout.ORIGIN).exists():
                lookup.resolve_checkpoint(warm_start_from, warn=_log.debug)  # the warning follows when it is pinned
        start = ResumePoint(
            directory=directory,
            settings=settings,
            code=code,
            environment=environment,
            may_grow=may_grow,
            defaults=defaults,
            lock=train_dir.acquire(directory),
        )
    except OSError as error:
        raise _temporary_error(directory, error) from error
    try:
        return _find_start(start, restore_from, warm_start_from)
    except OSError as error:
        start.close()
        raise _temporary_error(directory, error) from error
    except BaseException:
        start.close()
        raise


def _temporary_error(directory: Path, error: OSError) -> CheckpointError:
    """Return an error from which nothing is concluded: the disk may allow later what it refuses now."""
    return CheckpointError(f"{error.filename or directory}: {reason(error)}", hint=LATER)


def _find_start(start: ResumePoint, restore_from: Path | None, warm_start_from: Path | None) -> ResumePoint:
    directory = start.directory
    train_dir.check_file_names(directory)
    cleanup.remove_incomplete(directory)
    newest, damaged = _newest_complete(directory)
    if newest is not None:
        start = _resume_own(start, newest, restore_from)
        quarantine.set_damaged_aside(directory, damaged, resumed_at=newest.step)
        return start
    if quarantine.holds_checkpoints(directory) and not layout.prefixes_in(directory):
        message = f"{directory}: its checkpoints are all in {layout.quarantine_path(directory).name}/"
        raise OnlyDamagedError(message, hint=_USE_GOOD_COPY)
    if restore_from is not None:
        _check_no_foreign(directory, restore_from, "restore_from")
        source = run_identity.pin_source(directory, "restore_from", restore_from, lambda prefix: prefix)
        return replace(start, origin="restored", prefix=source.prefix, started_from=source.index_sha256)
    if warm_start_from is not None:
        _check_no_foreign(directory, warm_start_from, "warm_start_from")
        start = replace(start, warm_start=run_identity.pin_source(directory, "warm_start_from", warm_start_from))
    return _adopt_or_begin(start)


def _newest_complete(directory: Path, known: Mapping[int, DamagedError] | None = None) -> Newest:
    """Find the newest complete checkpoint.

    Raises:
      OnlyDamagedError: there are checkpoints, and all are damaged.
    """
    found = verification.find_newest(directory, known)
    if found.complete is None and found.damaged:
        problems = listed((error for _, error in sorted(found.damaged.items())), "; ")
        message = f"{directory}: only damaged checkpoints found ({problems}); they stay where they are"
        raise OnlyDamagedError(message, hint=_USE_GOOD_COPY)
    return found


def discard_latest(directory: Path, why: str) -> int | None:
    """Move the newest checkpoint to quarantine, for a reason that its files do not show.

    Returns:
      The step of the newest complete checkpoint before it; None if there is none, and then nothing is moved.
    """
    lock = Lock(directory)
    try:
        steps = layout.steps_with(directory, "manifest.json")
        if not steps:
            return None
        before, _ = verification.find_newest(directory, {steps[-1]: DamagedError(why)})
        if before is None:
            return None
        prefix = layout.prefix(directory, steps[-1])
        quarantine.set_aside(prefix, f"{prefix.name}: {why}")
        return before.step
    finally:
        lock.release()


def _resume_own(start: ResumePoint, newest: Manifest, restore_from: Path | None) -> ResumePoint:
    _check_settings(start, newest)
    prefix = layout.prefix(start.directory, newest.step)
    if restore_from is not None and restore_from.resolve() != prefix.resolve():
        _check_started_from(restore_from, start.directory, newest)
    return replace(start, origin="own", prefix=prefix, newest=newest, started_from=newest.started_from)


def _check_started_from(restore_from: Path, directory: Path, newest: Manifest) -> None:
    """Check that the run started from a checkpoint. One that has been deleted since cannot be compared, and passes."""
    if newest.started_from is not None and not layout.index_path(restore_from).is_file():
        _log.warning("%s: is missing; resuming from the run's own step %d", restore_from, newest.step)
        return
    lookup.check_prefix(restore_from)
    if file_sha256(layout.index_path(restore_from)) != newest.started_from:
        raise OtherSourceError(
            f"{directory}: checkpoints up to step {newest.step} found, which did not start from {restore_from}",
            hint=f"use another directory to start from there, or omit restore_from to resume from step {newest.step}",
        )


def _check_no_foreign(directory: Path, source: Path, option: str) -> None:
    """Refuse to start from another checkpoint in a directory that holds a plain Saver's checkpoints."""
    newest = lookup.newest_in(directory)
    if newest is not None:
        name = newest.name
        raise OtherSourceError(
            f"{directory}: {name} found without a manifest, so another program wrote it",
            hint=f"use another directory to start from {source}, or omit {option} to resume from {name}",
        )


def _adopt_or_begin(start: ResumePoint) -> ResumePoint:
    """Resume from a plain Saver's newest checkpoint, which is never deleted; without one, start at step 0."""
    newest = lookup.newest_in(start.directory)
    if newest is not None:
        _log.info("%s: adopted: a plain Saver wrote it; its settings are assumed to be the current ones", newest)
        foreign = layout.prefixes_in(start.directory)
        place = foreign.index(newest) + 1
        if foreign[place:]:
            unused = listed(prefix.name for prefix in foreign[place:])
            _log.warning("%s: not used, because the state file names %s: %s", start.directory, newest.name, unused)
        return replace(start, **_adopted(foreign[:place]))
    unreadable = [path.name for path in start.directory.iterdir() if layout.may_be_of_checkpoint(path)]
    if unreadable:
        message = f"{start.directory}: {min(unreadable)} found, but no .index file that goes with it: a checkpoint is"
        raise OnlyDamagedError(f"{message} damaged, or has TensorFlow's format V1", hint=_USE_GOOD_COPY)
    return start


def _adopted(foreign: list[Path] | tuple[Path, ...]) -> dict[str, Any]:
    """Return the fields of a ResumePoint that adopts the last of some checkpoints."""
    *older, prefix = foreign
    started_from = file_sha256(layout.index_path(prefix))
    return {"origin": "adopted", "prefix": prefix, "older": tuple(older), "started_from": started_from}


def _check_settings(start: ResumePoint, newest: Manifest) -> None:
    """Raise SettingsDifferError if the checkpoint was saved with other settings."""
    differences = start.differences(newest)
    if differences:
        raise SettingsDifferError(
            f"{start.directory}: was made with {listed(differences)}",
            hint="use the recorded settings, or another directory",
        )
    run_identity.log_other_conditions(start.directory, newest, start.code, start.environment)
