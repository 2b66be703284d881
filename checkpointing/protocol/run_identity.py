"""Identity of a run: its settings, and the checkpoint that its first weights come from.

    differences = run_identity.diff(manifest.settings, settings, defaults=Settings.identity_defaults())
    source = run_identity.pin_source(train_dir, "warm_start_from", path)

A train_dir is resumed only by a run of the same identity.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from checkpointing.errors import DamagedError, SourceError, listed
from checkpointing.kernel_environment import INSTRUCTION_SET, PROCESSOR
from checkpointing.protocol import lookup, manifest
from checkpointing.protocol.manifest import Manifest
from checkpointing.storage import durable, layout
from checkpointing.storage.fingerprint import file_sha256
from checkpointing.storage.json_kinds import PATH, TEXT

NOT_RECORDED = "not recorded"

_log = logging.getLogger(__name__)


class Difference(NamedTuple):
    """A setting with two values; None where one side lacks it and it has no default."""

    name: str
    recorded: Any
    current: Any

    def __str__(self) -> str:
        """Return a text such as "batch_size 64 (now 32)"."""
        return f"{self.name} {self.recorded} (now {self.current})"


def diff(
    recorded: Mapping[str, Any],
    current: Mapping[str, Any],
    *,
    defaults: Mapping[str, Any] | None = None,
    may_grow: Collection[str] = (),
) -> list[Difference]:
    """Return the settings in which a recorded run differs from the current one, sorted by name.

    A setting that one side lacks has its default there. So a release may add a setting, or remove one, and resume the
    runs of the release before.

    Args:
      recorded: settings as a manifest or result.json holds them.
      current: settings of now, JSON-ready.
      defaults: default values, by name.
      may_grow: names of integers that may be larger now than recorded, such as "train_steps".
    """
    defaults = defaults or {}
    pairs = (
        Difference(name, recorded.get(name, defaults.get(name)), current.get(name, defaults.get(name)))
        for name in sorted({*recorded, *current})
    )
    return [pair for pair in pairs if not (_is_same(pair) or (pair.name in may_grow and _has_grown(pair)))]


def _is_same(pair: Difference) -> bool:
    return bool(pair.recorded == pair.current)


def _has_grown(pair: Difference) -> bool:
    return type(pair.recorded) is int and type(pair.current) is int and pair.recorded < pair.current


def log_other_conditions(
    directory: Path, recorded: Manifest, code: str | None, environment: Mapping[str, str] | None
) -> None:
    """Log a warning for each condition that may change the last bits: versions, code, environment variables."""
    versions = manifest.versions()
    if recorded.versions != versions:
        message = "%s was made with %s, now %s: the last bits may differ"
        _log.warning(message, directory, recorded.versions, versions)
    if recorded.code != code:
        _log.warning("%s was made with other code: the last bits may differ", directory)
    if recorded.environment is not None and environment is not None:
        _log_other_kernels(directory, recorded.environment, environment)


def kernel_differences(recorded: Mapping[str, str], current: Mapping[str, str]) -> list[Difference]:
    """Return the differences of two records of `choose_kernels` that may change the last bits.

    The processor's name is none: its instruction set is.
    """
    missing = dict.fromkeys([*recorded, *current], "unset") | {INSTRUCTION_SET: NOT_RECORDED}
    return [each for each in diff(recorded, current, defaults=missing) if each.name != PROCESSOR]


def _log_other_kernels(directory: Path, recorded: Mapping[str, str], current: Mapping[str, str]) -> None:
    """Log a warning if the instruction set, and one if the environment variables that choose kernels differ."""
    differences = {each.name: each for each in kernel_differences(recorded, current)}
    instructions = differences.pop(INSTRUCTION_SET, None)
    if instructions and NOT_RECORDED not in instructions:
        message = (
            "%s was made with the processor's instruction set %s, now %s: the last bits may differ; "
            "those of a run with instruction_set=avx2 do not depend on the processor"
        )
        _log.warning(message, directory, instructions.recorded, instructions.current)
    if differences:
        message = "%s was made with environment variables %s: the last bits may differ"
        _log.warning(message, directory, listed(differences.values()))


class SourceCheckpoint(NamedTuple):
    """The checkpoint of another run that a run takes its first weights from, as `started_from.json` records it.

    flag, given: the option that names it, and its value. prefix: the checkpoint that this meant at the first start.
    index_sha256: sha256 of its index file, which holds a checksum of each tensor.
    """

    flag: str
    given: str
    prefix: Path
    index_sha256: str

    def check(self) -> None:
        """Check that the checkpoint has not changed.

        Raises:
          SourceError: it has, or it is missing.
        """
        path = layout.index_path(self.prefix)
        try:
            if file_sha256(path) == self.index_sha256:
                return
            problem = "has changed"
        except FileNotFoundError:
            problem = "is missing"
        raise SourceError(
            f"{path}: {problem} since the run started, whose first weights it holds ({self.flag}={self.given})",
            hint="put the same checkpoint back, or use another directory",
        )


def pin_source(
    directory: Path, flag: str, given: Path, prefix_of: Callable[[Path], Path] = lookup.resolve_checkpoint
) -> SourceCheckpoint:
    """Find the checkpoint that the first weights come from once, and record it.

    A run that is killed before its first checkpoint starts from the same one again, even if the source's directory has
    a newer one by then.

    Args:
      directory: train_dir, whose lock is held.
      flag: option that names the checkpoint.
      given: value of the option.
      prefix_of: returns the prefix that the value means; of a directory, its newest checkpoint.

    Raises:
      CheckpointError: there is no checkpoint.
      SourceError: the recorded one has changed, is missing, or its record is damaged.
    """
    recorded = read_source(directory)
    if recorded is not None:
        if recorded.flag == flag and Path(recorded.given).resolve() == given.resolve():
            recorded.check()
            return recorded
        _log.warning("%s: started with the weights of %s, now starts with others", directory, recorded.prefix)
    prefix = prefix_of(given)
    source = SourceCheckpoint(flag, str(given), prefix, file_sha256(layout.index_path(prefix)))
    record_source(directory, source)
    return source


def record_source(directory: Path, source: SourceCheckpoint) -> None:
    """Write `started_from.json`: the checkpoint that the first weights of the run in a train_dir come from."""
    record = source._asdict() | {"prefix": str(source.prefix)}
    durable.atomic_write_json(directory / layout.ORIGIN, manifest.sealed(record))


def read_source(directory: Path) -> SourceCheckpoint | None:
    """Return the checkpoint that the first weights of the run in a train_dir come from; None without a record.

    Raises:
      SourceError: the record is damaged.
    """
    path = directory / layout.ORIGIN
    if not path.exists():
        return None
    kinds = dict.fromkeys(SourceCheckpoint._fields, TEXT) | {"given": PATH, "prefix": PATH}
    try:
        record = manifest.read_sealed(path, kinds)
    except DamagedError as error:
        raise SourceError(
            f"{path}: damaged, so the source of the run's first weights is unknown ({error})",
            hint="put a good copy back, or use another directory",
        ) from error
    return SourceCheckpoint(record["flag"], record["given"], Path(record["prefix"]), record["index_sha256"])
