"""Where a run goes on: what lies in its train_dir, and whether it may be continued.

    start = resume.open_train_dir(train_dir, settings)
    ...
    start.close()

No TensorFlow is needed to find out, so whoever may not go on is told at once. Nothing that could be somebody's only
copy is deleted: damaged checkpoints are moved to `quarantine/`, and only where there is an older one to go on from.
"""

import errno
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from checkpointing.errors import LATER, CheckpointError, DamagedError, OddFileError, OnlyDamagedError, reason
from checkpointing.protocol import cleanup, lookup, manifest, quarantine, run_identity
from checkpointing.protocol.manifest import Manifest
from checkpointing.storage import durable, layout
from checkpointing.storage.fingerprint import file_sha256
from checkpointing.storage.json_kinds import PATH, TEXT
from checkpointing.storage.lock import Lock

_log = logging.getLogger(__name__)


class Origin(NamedTuple):
    """A checkpoint of another run that the first weights come from.

    flag, given: the option that names it, and its value. prefix: the checkpoint that this means, found once.
    index_sha256: of its index file, which holds a checksum of each tensor.
    """

    flag: str
    given: str
    prefix: Path
    index_sha256: str

    def check(self) -> None:
        """Makes sure that it is still the same checkpoint.

        Raises:
          CheckpointError: it is gone, or another one.
        """
        path = layout.index_path(self.prefix)
        try:
            if file_sha256(path) == self.index_sha256:
                return
            problem = "has changed"
        except FileNotFoundError:
            problem = "is gone"
        raise CheckpointError(
            f"{path}: {problem} since the run began that takes its first weights from there (--{self.flag}="
            f"{self.given}): put the same checkpoint back, or give a new --train_dir."
        )


@dataclass(frozen=True, kw_only=True)
class ResumePoint:
    """Where a run goes on, in a train_dir that is its own until `close`.

    directory: the train_dir. settings, code, environment: as given to open_train_dir; checkpoints record them.
    prefix: the checkpoint to restore; None to start from the beginning.
    newest: its manifest; None where it has none, or there is no checkpoint.
    older: where `prefix` has no manifest, those to try after it.
    started_from: as in the manifest, for those to come.
    warm_start: the checkpoint to take the first weights from; None in a run that has its own, or takes none.
    may_grow, defaults: as passed to open_train_dir; needed wherever a checkpoint is compared with the run.
    """

    directory: Path
    settings: dict[str, Any]
    code: str | None
    environment: dict[str, str] | None
    lock: Lock
    prefix: Path | None = None
    newest: Manifest | None = None
    older: tuple[Path, ...] = ()
    started_from: str | None = None
    warm_start: Origin | None = None
    may_grow: tuple[str, ...] = ()
    defaults: Mapping[str, Any] | None = None

    def close(self) -> None:
        """Lets another run have the train_dir."""
        self.lock.release()

    def fall_back(self, error: DamagedError) -> Self:
        """Goes on from the checkpoint before, because this one, though each byte is as written, cannot be restored.

        Raises:
          CheckpointError: there is none before it; nothing has been moved.
        """
        assert self.prefix is not None
        if self.newest is None:
            if not self.older:
                elsewhere = self.prefix.parent.resolve() != self.directory.resolve()
                advice = "give another --restore_from" if elsewhere else f"it is the last one in {self.directory}"
                raise CheckpointError(f"{self.prefix}: {error}; {advice}.") from error
            _log.warning("%s: %s: left where it is, and trying the one before", self.prefix, error)
            *older, prefix = self.older
            return replace(self, prefix=prefix, older=tuple(older), started_from=file_sha256(layout.index_path(prefix)))
        newest, damaged = _search(self.directory, {self.newest.step: error})
        assert newest is not None, "it raises where nothing is left"
        _check_settings(self, newest)
        if newest.started_from != self.started_from:
            raise CheckpointError(
                f"{self.directory}: {error}; the complete checkpoint before it, of step {newest.step}, is of another "
                f"run: put a good copy back, or give a new --train_dir."
            ) from error
        _quarantine(self.directory, newest, damaged)
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
    """Takes the train_dir, makes it ready to go on, and says from where: the newest complete checkpoint.

    A train_dir is one run. `restore_from` says where a new one starts; once it has checkpoints of its own, the same
    command goes on from those. What an interrupted save or deletion left goes; damaged checkpoints go to quarantine.
    Where there are only checkpoints that a plain Saver made, the run goes on from the newest of them.

    Args:
      directory: the train_dir; made where it is missing.
      settings: all that the weights are a function of, JSON-ready; they must be those that the train_dir was made with.
      code: hash of the code that computes the weights; another one than before is worth a warning.
      environment: the environment variables that the last bits of the weights depend on, with their values; others
        than the checkpoint was made with are worth a warning. None: not compared.
      restore_from: the prefix of a checkpoint, or None.
      warm_start_from: one from which a new run takes weights over; only looked for here.
      may_grow: names of the settings that may be larger than they were.
      defaults: values of settings that `settings` or an older checkpoint lacks: settings since added or removed.

    Raises:
      CheckpointError: another run holds it, other settings, only damaged checkpoints, none where restore_from points.
    """
    try:
        if not (directory.is_dir() and layout.steps_with(directory, "manifest.json")):
            if restore_from is not None:
                _check_is_checkpoint(restore_from)
            if warm_start_from is not None and not (directory / layout.ORIGIN).exists():
                lookup.resolve_checkpoint(warm_start_from)
        start = ResumePoint(
            directory=directory,
            settings=settings,
            code=code,
            environment=environment,
            may_grow=may_grow,
            defaults=defaults,
            lock=_take(directory),
        )
    except OSError as error:
        raise _at_the_moment(directory, error) from error
    try:
        return _found(start, restore_from, warm_start_from)
    except OSError as error:
        start.close()
        raise _at_the_moment(directory, error) from error
    except BaseException:
        start.close()
        raise


# What says that a train_dir is the wrong one; anything else may be over a moment later.
_UNSUITABLE = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
        *(errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG),
    }
)


def _take(directory: Path) -> Lock:
    """Makes the directory where it is missing, and takes its lock."""
    try:
        durable.make_directory(directory)
        if not os.access(directory, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(directory))
    except OSError as error:
        if error.errno not in _UNSUITABLE:
            raise
        message = f"{directory}: cannot be made a directory to write to ({reason(error)}); give another --train_dir."
        raise CheckpointError(message) from error
    path = directory / layout.LOCK
    try:
        return Lock(directory)
    except OddFileError as error:
        raise CheckpointError(f"{path}: {reason(error)}; delete it, or give another --train_dir.") from error
    except OSError as error:
        if error.errno not in _UNSUITABLE:
            raise
        whose = _other_owner(path)
        advice = f"run as {whose}, to whom it belongs, or give another" if whose else "give another"
        message = f"{directory}: its lock file cannot be written ({reason(error)}); {advice} --train_dir."
        raise CheckpointError(message) from error


def _other_owner(path: Path) -> str | None:
    """The user that a file belongs to, where it is not the one who runs this."""
    try:
        return path.owner() if path.stat().st_uid != os.geteuid() else None
    except (OSError, KeyError):  # no file, or a user without a name
        return None


def _at_the_moment(directory: Path, error: OSError) -> CheckpointError:
    """What the disk refuses now, it may allow later; nothing has been concluded from it."""
    return CheckpointError(f"{error.filename or directory}: {reason(error)}; {LATER}.")


def _found(start: ResumePoint, restore_from: Path | None, warm_start_from: Path | None) -> ResumePoint:
    directory = start.directory
    _check_places(directory)
    remove_incomplete(directory)
    newest, damaged = _search(directory)
    if newest is not None:
        start = _go_on(start, newest, restore_from)
        _quarantine(directory, newest, damaged)
        return start
    _check_quarantine_is_not_all(directory)
    if restore_from is not None:
        return _start_elsewhere(start, restore_from)
    if warm_start_from is not None:
        _check_is_empty(directory, warm_start_from, "--warm_start_from")
        start = replace(start, warm_start=pin_origin(directory, "warm_start_from", warm_start_from))
    return _adopt_or_begin(start)


# What a run writes under these names must not be a link that leads elsewhere, nor replace what is no file.
_PLACES = (layout.METRICS, layout.HISTORY, layout.ATTEMPT, layout.RESULT, layout.ORIGIN)


def _check_places(directory: Path) -> None:
    """Refuses a train_dir in which something else has the name of a file that the run will write, hours later."""
    for name in _PLACES:
        path = directory / name
        if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
            message = f"{path}: expected a regular file, got {_kind(path)}; move it away, or give another --train_dir."
            raise CheckpointError(message)
        temporary = durable.temporary_path(path)
        if temporary.is_dir() and not temporary.is_symlink():
            message = f"{temporary}: expected no directory there, got one; move it away, or give another --train_dir."
            raise CheckpointError(message)


def _kind(path: Path) -> str:
    if path.is_symlink():
        return "a symbolic link"
    return "a directory" if path.is_dir() else "a special file"


def pin_origin(
    directory: Path, flag: str, given: Path, prefix_of: Callable[[Path], Path] = lookup.resolve_checkpoint
) -> Origin:
    """The checkpoint of another run that a run takes its first weights from: found once, whatever is saved there later.

    It is recorded in the train_dir before the first step, so that a run killed before its first checkpoint takes the
    same one again.

    Args:
      directory: the train_dir, whose lock is held.
      flag: the option that names the checkpoint.
      given: its value.
      prefix_of: gives the checkpoint that this means: of a directory, the newest in it.

    Raises:
      CheckpointError: there is none, or not the recorded one any more.
    """
    path = directory / layout.ORIGIN
    if path.exists():
        try:
            recorded = manifest.read_sealed(path, dict.fromkeys(Origin._fields, TEXT) | {"given": PATH, "prefix": PATH})
        except DamagedError as error:
            message = f"{directory}: {error}: from which checkpoint the run began is not known; give a new --train_dir."
            raise CheckpointError(message) from error
        origin = Origin(*(recorded[name] for name in Origin._fields))._replace(prefix=Path(recorded["prefix"]))
        if origin.flag == flag and Path(origin.given).resolve() == given.resolve():
            origin.check()
            return origin
        _log.warning("%s: began with the weights of %s, and begins again with others", directory, origin.prefix)
    prefix = prefix_of(given)
    origin = Origin(flag, str(given), prefix, file_sha256(layout.index_path(prefix)))
    record_origin(directory, origin)
    return origin


def record_origin(directory: Path, origin: Origin) -> None:
    """Records from which checkpoint the run in a train_dir takes its first weights."""
    record = origin._asdict() | {"prefix": str(origin.prefix)}
    durable.atomic_write_json(directory / layout.ORIGIN, manifest.sealed(record))


def remove_incomplete(directory: Path) -> None:
    """Deletes what an interrupted save or deletion of ours left: it carries a mark, and has no manifest."""
    complete = set(layout.steps_with(directory, "manifest.json"))
    for step in layout.steps_with(directory, "incomplete"):
        prefix = layout.prefix(directory, step)
        mark = layout.incomplete_path(prefix)
        if step not in complete:
            _log.info("%s: deleting what an interrupted save or deletion left", prefix)
            cleanup.delete(prefix)
        durable.delete([mark])


def _search(
    directory: Path, known: Mapping[int, DamagedError] | None = None
) -> tuple[Manifest | None, dict[int, DamagedError]]:
    """Finds the newest checkpoint whose every byte is as its manifest says.

    Args:
      directory: the train_dir.
      known: what is wrong with checkpoints that need not be looked at again, by step.

    Returns:
      Its manifest, None where no checkpoint has one; and what is wrong with the newer ones, by step.

    Raises:
      OnlyDamagedError: only damaged ones are there.
      CheckpointError: one cannot be read just now.
    """
    damaged = dict(known or {})
    for step in reversed(layout.steps_with(directory, "manifest.json")):
        prefix = layout.prefix(directory, step)
        if step in damaged:
            continue
        try:
            found = Manifest.read(layout.manifest_path(prefix))
            manifest.check_files(prefix, found, large_ones_too=False)
        except DamagedError as error:
            damaged[step] = error
            continue
        for lost in _without_manifest(directory, after=step):
            damaged[lost] = DamagedError(f"{layout.prefix(directory, lost).name}: its manifest is missing")
        return found, damaged
    if damaged:
        listed = "; ".join(str(error) for _, error in sorted(damaged.items()))
        raise OnlyDamagedError(
            f"{directory}: only damaged checkpoints found ({listed}): they stay where they are; put a good copy back, "
            f"or give a new --train_dir to start from the beginning."
        )
    return None, {}


def _quarantine(directory: Path, newest: Manifest, damaged: Mapping[int, DamagedError]) -> None:
    """Sets aside what is damaged, for there is a complete one to go on from."""
    for step, problem in sorted(damaged.items()):
        steps = "1 step is" if step == newest.step + 1 else f"{step - newest.step} steps are"
        quarantine.set_aside(
            layout.prefix(directory, step), f"{problem}; {steps} to be made again, from step {newest.step}"
        )


def discard_latest(directory: Path, why: str) -> int | None:
    """Sets the newest checkpoint aside, for a reason that its files do not show.

    Returns:
      The step of the checkpoint before it; None, and nothing is moved, where there is none.
    """
    lock = Lock(directory)
    try:
        newest = layout.steps_with(directory, "manifest.json")[-1]
        before, _ = _search(directory, {newest: DamagedError(why)})
        assert before is not None, "it raises where nothing is left"
        quarantine.set_aside(layout.prefix(directory, newest), f"{layout.prefix(directory, newest).name}: {why}")
    except (OnlyDamagedError, IndexError):  # none before it that is complete, or none at all
        return None
    else:
        return before.step
    finally:
        lock.release()


def _without_manifest(directory: Path, after: int) -> list[int]:
    """The steps of what could be checkpoints of ours, newer than the newest complete one, but for a manifest."""
    complete = set(layout.steps_with(directory, "manifest.json"))
    return [step for step in layout.steps_with(directory, "index") if step > after and step not in complete]


def _go_on(start: ResumePoint, newest: Manifest, restore_from: Path | None) -> ResumePoint:
    directory = start.directory
    _check_settings(start, newest)
    prefix = layout.prefix(directory, newest.step)
    if restore_from is not None and restore_from.resolve() != prefix.resolve():
        _check_started_from(restore_from, directory, newest)
    return replace(start, prefix=prefix, newest=newest, started_from=newest.started_from)


def _check_started_from(restore_from: Path, directory: Path, newest: Manifest) -> None:
    """Whether this run began at that checkpoint; if its owner has deleted it meanwhile, that is taken to be so."""
    if newest.started_from is not None and not layout.index_path(restore_from).is_file():
        _log.warning("%s: is gone; going on from the run's own step %d", restore_from, newest.step)
        return
    _check_is_checkpoint(restore_from)
    if file_sha256(layout.index_path(restore_from)) != newest.started_from:
        message = (
            f"{directory}: checkpoints up to step {newest.step} found, which did not start from {restore_from}: "
            f"give a new --train_dir to start from there, or leave out --restore_from to go on from step {newest.step}."
        )
        raise CheckpointError(message)


def _check_is_empty(directory: Path, source: Path, flag: str) -> None:
    """Refuses to start from elsewhere in a directory that a plain Saver has filled."""
    there = layout.prefixes_in(directory)
    if there:
        message = (
            f"{directory}: {there[-1].name} found without a manifest, so it was not made by this program: "
            f"give a new --train_dir to start from {source}, or leave out {flag} to go on from {there[-1].name}."
        )
        raise CheckpointError(message)


def _start_elsewhere(start: ResumePoint, restore_from: Path) -> ResumePoint:
    _check_is_empty(start.directory, restore_from, "--restore_from")
    origin = pin_origin(start.directory, "restore_from", restore_from, lambda prefix: prefix)
    return replace(start, prefix=origin.prefix, started_from=origin.index_sha256)


def _adopt_or_begin(start: ResumePoint) -> ResumePoint:
    """Goes on from what a plain Saver made; it stays whose it is, and is never deleted."""
    foreign = layout.prefixes_in(start.directory)
    if foreign:
        _log.info("%s: adopted: made by a plain Saver, so its settings are taken to be those of now", foreign[-1])
        *older, prefix = foreign
        return replace(start, prefix=prefix, older=tuple(older), started_from=file_sha256(layout.index_path(prefix)))
    unreadable = [path.name for path in start.directory.iterdir() if _hints_at_a_checkpoint(path)]
    if unreadable:
        message = (
            f"{start.directory}: {min(unreadable)} found, but no .index file that goes with it: a checkpoint was "
            f"damaged, or made in TensorFlow's format V1, which is not adopted; give a new --train_dir to start from "
            f"the beginning."
        )
        raise CheckpointError(message)
    return start


def _hints_at_a_checkpoint(path: Path) -> bool:
    """Whether somebody's work may lie here although no checkpoint is found."""
    return path.is_file() and (path.name == layout.STATE_FILE or path.suffix == ".meta" or ".data-" in path.name)


def _check_quarantine_is_not_all(directory: Path) -> None:
    """A run whose checkpoints were all damaged is not begun anew in silence."""
    place = layout.quarantine_path(directory)
    if _holds_checkpoints(place) and not layout.prefixes_in(directory):
        message = (
            f"{directory}: its checkpoints are all in {place.name}/: put a good copy back, "
            f"or give a new --train_dir to start anew."
        )
        raise CheckpointError(message)


def _holds_checkpoints(place: Path) -> bool:
    """Whether checkpoints of a run are in a quarantine: damaged exports and the files of others go there, too."""
    inside = (path for each in place.iterdir() if each.is_dir() for path in each.iterdir()) if place.is_dir() else ()
    return any(layout.step_of(path.name) is not None for path in inside)


def _check_is_checkpoint(prefix: Path) -> None:
    """Refuses what is no checkpoint, or only the beginning of one, which the sweep would delete."""
    if _is_checkpoint(prefix):
        return
    directory = prefix if prefix.is_dir() else prefix.parent
    there = [path for path in layout.prefixes_in(directory) if _is_checkpoint(path)] if directory.is_dir() else []
    listed = ", ".join(path.name for path in there) or "none"
    message = (
        f"{prefix}: no checkpoint found; give the prefix of one (its files' name without .index or .data): "
        f"in {directory} there are {listed}."
    )
    raise CheckpointError(message)


def _is_checkpoint(prefix: Path) -> bool:
    """Also somebody else's, which has no manifest, but not one of ours that is unfinished."""
    if not prefix.name or not layout.index_path(prefix).is_file():
        return False
    return layout.manifest_path(prefix).exists() or not layout.incomplete_path(prefix).exists()


def _check_settings(start: ResumePoint, newest: Manifest) -> None:
    differences = run_identity.diff(newest.settings, start.settings, defaults=start.defaults, may_grow=start.may_grow)
    if differences:
        message = (
            f"{start.directory}: was made with {', '.join(map(str, differences))}: "
            f"give the settings that it was made with, or a new --train_dir."
        )
        raise CheckpointError(message)
    now = manifest.versions()
    if newest.versions != now:
        _log.warning("%s was made with %s, now %s: the last bits may differ", start.directory, newest.versions, now)
    if newest.code != start.code:
        _log.warning("%s was made with other code than today's: the last bits may differ", start.directory)
    if newest.environment is not None and start.environment is not None:
        unset = dict.fromkeys([*newest.environment, *start.environment], "unset")
        changes = run_identity.diff(newest.environment, start.environment, defaults=unset)
        if changes:
            _log.warning(
                "%s was made with environment variables %s: the last bits may differ",
                start.directory,
                ", ".join(map(str, changes)),
            )
