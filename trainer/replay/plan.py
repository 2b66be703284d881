"""Which steps to replay: the segments between the kept checkpoints of a train_dir.

    segments = plan.choose(train_dir, every=True)

The checkpoints are verified first. Nothing is written, and the train_dir is not locked.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from checkpointing.errors import CheckpointError, DamagedError, SourceError, listed
from checkpointing.protocol import lookup, manifest, run_identity, verification
from checkpointing.protocol.manifest import Manifest
from checkpointing.protocol.run_identity import SourceCheckpoint
from checkpointing.storage import layout
from checkpointing.storage.fingerprint import file_sha256
from mnist.tools import checkpoint_refs
from trainer.replay import conditions

_STEP_VARIABLE = "global_step"
_CHOOSE_OTHERS = "put a good copy back, or choose other checkpoints with --from and --to"
_WITHOUT_SOURCE = "put the same checkpoint back, or choose kept checkpoints with --from and --to"


class Start(NamedTuple):
    """The state that a segment starts from.

    step: number of updates applied.
    prefix: checkpoint to restore; None: initial values.
    saved: its manifest; None if it is a source from outside the run.
    warm_start: checkpoint that some initial values are taken from.
    """

    step: int
    prefix: Path | None = None
    saved: Manifest | None = None
    warm_start: SourceCheckpoint | None = None

    def __str__(self) -> str:
        """Return the checkpoint's name, with its directory if it is not the run's; "step 0" for initial values."""
        if self.prefix is None:
            return f"step {self.step}"
        return self.prefix.name if self.saved else str(self.prefix)


class Segment(NamedTuple):
    """The steps from one state to a kept checkpoint of the same run.

    end: prefix of that checkpoint. saved: its manifest.
    """

    start: Start
    end: Path
    saved: Manifest

    def __str__(self) -> str:
        """Return a text such as "model.ckpt-200 -> model.ckpt-400"."""
        return f"{self.start} -> {self.end.name}"

    @property
    def steps(self) -> int:
        """The number of steps."""
        return self.saved.step - self.start.step


def choose(directory: Path, *, first: int | None = None, last: int | None = None, every: bool = False) -> list[Segment]:
    """Return the segments to replay, in the order of their steps.

    Args:
      directory: the train_dir.
      first: step of the checkpoint to start from, or the step at which the run began; None: the kept one before `last`.
      last: step of the checkpoint to reach; None: the kept one after `first`, or the newest.
      every: all segments from the run's first step to its newest checkpoint, in place of one.

    Raises:
      CheckpointError: there are no such checkpoints, they are damaged or of different runs, or the run is an ensemble.
    """
    steps = _kept_steps(directory)
    if every:
        saved = _verified(directory, steps)
        starts = [_origin(directory, saved[0]), *(_start(directory, each) for each in saved)]
    else:
        first, last = _one_segment(directory, steps, first, last)
        saved = _verified(directory, sorted({step for step in (first, last) if step in steps}))
        starts = [_begin(directory, first, saved), *(_start(directory, each) for each in saved if each.step == last)]
    ends = {layout.prefix(directory, each.step): each for each in saved}
    pairs = pairwise(starts)
    return [Segment(start, end.prefix, ends[end.prefix]) for start, end in pairs if end.prefix is not None]


def _kept_steps(directory: Path) -> list[int]:
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: expected the train_dir of a run, got no directory")
    steps = layout.steps_with(directory, "manifest.json")
    if not steps:
        members = _members(directory)
        hint = f"give one of {listed(members)}" if members else "give the train_dir of a run"
        raise CheckpointError(f"{directory}: no checkpoint with a manifest found", hint=hint)
    return steps


def _members(directory: Path) -> list[Path]:
    """Return the train_dirs of an ensemble's members."""
    return [path for path in sorted(directory.glob("seed-*")) if path.is_dir()]


def _one_segment(directory: Path, steps: Sequence[int], first: int | None, last: int | None) -> tuple[int | None, int]:
    """Return the two steps of one segment; the first one is None for the run's first step."""
    if last is None:
        last = steps[-1] if first is None else next((step for step in steps if step > first), None)
    if last is None:
        raise CheckpointError(f"{directory}: no checkpoint after step {first} found; there are steps {listed(steps)}")
    lookup.choose_checkpoint(directory, last)  # raises if there is none
    if first is not None and first >= last:
        raise CheckpointError(f"--from={first}: expected a step before {last}, the step to reach")
    return next((step for step in reversed(steps) if step < last), None) if first is None else first, last


def _verified(directory: Path, steps: Sequence[int]) -> list[Manifest]:
    """Read the manifests of checkpoints of one run, and verify all their files.

    Raises:
      CheckpointError: some are damaged, or they are not of one run.
    """
    found, damaged = [], []
    for step in steps:
        prefix = layout.prefix(directory, step)
        try:
            saved = Manifest.read(layout.manifest_path(prefix))
            manifest.check_files(prefix, saved)
            found.append(saved)
        except DamagedError as error:
            if not checkpoint_refs.was_deleted(prefix):  # a running run's retention deletes checkpoints
                damaged.append(error)
    if damaged:
        raise CheckpointError(f"{directory}: damaged checkpoints: {listed(damaged, '; ')}", hint=_CHOOSE_OTHERS)
    if len(found) < len(steps):
        raise CheckpointError(f"{directory}: its run has just deleted a checkpoint", hint="run the same command again")
    _check_one_network(directory, found[-1])
    for before, after in pairwise(found):
        _check_same_run(directory, before, after)
    return found


def _check_one_network(directory: Path, saved: Manifest) -> None:
    members = saved.settings.get("members", 1)
    if members != 1:
        raise CheckpointError(
            f"{directory}: expected the train_dir of one network, got an ensemble of {members}, which was joined, not"
            " trained",
            hint=f"replay its members: {listed(_members(directory))}",
        )


def _check_same_run(directory: Path, before: Manifest, after: Manifest) -> None:
    defaults = conditions.defaults_of(after)
    differences = run_identity.diff(before.settings, after.settings, defaults=defaults, may_grow=("train_steps",))
    problems = [f"{each.name} {each.recorded} and {each.current}" for each in differences]
    if before.started_from != after.started_from:
        problems.append("they started from different checkpoints")
    if problems:
        names = f"model.ckpt-{before.step} and model.ckpt-{after.step}"
        raise CheckpointError(f"{directory}: expected checkpoints of one run, got {names}: {listed(problems)}")


def _start(directory: Path, saved: Manifest) -> Start:
    return Start(saved.step, layout.prefix(directory, saved.step), saved)


def _begin(directory: Path, first: int | None, saved: Sequence[Manifest]) -> Start:
    """Return the start of a single segment, whose checkpoints have these manifests."""
    if saved[0].step == first:
        return _start(directory, saved[0])
    origin = _origin(directory, saved[0])
    if first is not None and first != origin.step:
        lookup.choose_checkpoint(directory, first)  # raises, and lists the steps that there are
    return origin


def _origin(directory: Path, saved: Manifest) -> Start:
    """Return the state at which a run began.

    Args:
      directory: the train_dir.
      saved: manifest of one of the run's checkpoints.

    Raises:
      CheckpointError: the checkpoint that it started from is missing or has changed.
    """
    try:
        if saved.started_from is not None:
            prefix = _restored_source(directory, saved.started_from)
            return Start(_step_in(prefix), prefix)
        return Start(0, warm_start=_warm_source(directory) if "warm_start" in saved.settings else None)
    except SourceError as error:
        error.hint = _WITHOUT_SOURCE
        raise


def _warm_source(directory: Path) -> SourceCheckpoint:
    source = run_identity.read_source(directory)
    if source is None or source.flag != "warm_start_from":
        path = directory / layout.ORIGIN
        raise SourceError(f"{path}: expected the checkpoint that the first weights were taken from, got none")
    source.check()
    return source


def _restored_source(directory: Path, index_sha256: str) -> Path:
    """Return the prefix of the checkpoint that a run started from: another run's, or one that it adopted."""
    source = run_identity.read_source(directory)
    if source is not None and source.index_sha256 == index_sha256:
        source.check()
        return source.prefix
    for prefix in layout.prefixes_in(directory):
        if not lookup.is_ours(prefix) and file_sha256(layout.index_path(prefix)) == index_sha256:
            return prefix
    raise SourceError(f"{directory}: the checkpoint that the run started from (index sha256 {index_sha256}) not found")


def _step_in(prefix: Path) -> int:
    """Return the step that a checkpoint of any program holds.

    Raises:
      CheckpointError: it holds none.
    """
    bundle = verification.open_bundle(prefix)
    if _STEP_VARIABLE not in bundle.entries:
        raise CheckpointError(f"{prefix}: expected a variable {_STEP_VARIABLE}, got none")
    return int(bundle.tensor(_STEP_VARIABLE))
