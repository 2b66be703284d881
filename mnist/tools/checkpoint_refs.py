"""Which checkpoints to evaluate, and whether they are complete. Needs neither TensorFlow nor NumPy."""

from pathlib import Path
from typing import NamedTuple

from checkpointing.cli import print_warning
from checkpointing.errors import CheckpointError, DamagedError, listed
from checkpointing.protocol import lookup, manifest
from checkpointing.protocol.manifest import Manifest
from checkpointing.storage import layout


class CheckpointRef(NamedTuple):
    """A checkpoint to evaluate.

    prefix: of its files. meta: the file of the graph, normally its own.
    notes: "best", "latest", "damaged", "not evaluated".
    manifest: None if another program wrote the checkpoint.
    problem: why it cannot be evaluated.
    """

    prefix: Path
    meta: Path
    notes: tuple[str, ...] = ()
    manifest: Manifest | None = None
    problem: CheckpointError | None = None

    @property
    def step(self) -> int | None:
        """The step, from the manifest or from the file names."""
        return self.manifest.step if self.manifest else layout.step_at_the_end(self.prefix)


def from_path(path: Path, meta: Path | None) -> CheckpointRef:
    """Return the checkpoint that a path names.

    Args:
      path: a prefix or one of the checkpoint's files.
      meta: the file of the graph; None: the checkpoint's own.

    Raises:
      CheckpointError: there is none, or it is not complete.
    """
    prefix = layout.prefix_of(path) or path
    if not layout.index_path(prefix).is_file():
        directory = prefix if prefix.is_dir() else prefix.parent
        there = listed(each.name for each in lookup.checkpoints_in(directory))
        hint = f"give the name of its files without .index or .data; checkpoints in {directory}: {there}"
        raise CheckpointError(f"{prefix}: no checkpoint found", hint=hint)
    if layout.incomplete_path(prefix).exists() and not lookup.is_ours(prefix):
        raise CheckpointError(f"{prefix}: expected a complete checkpoint, got one that is being written or deleted")
    return CheckpointRef(prefix, meta or layout.meta_path(prefix))


def in_train_dir(directory: Path, which: str) -> list[CheckpointRef]:
    """Return checkpoints of a train_dir, in the order of their steps.

    Args:
      directory: the train_dir.
      which: "latest", "best", "all" or a step.

    Raises:
      CheckpointError: there is no such checkpoint.
    """
    latest = lookup.choose_checkpoint(directory, "latest", warn=print_warning)
    if which == "all":
        prefixes = lookup.checkpoints_in(directory)
        best = lookup.best_checkpoint(directory, warn=print_warning)
    else:
        prefixes = [latest if which == "latest" else lookup.choose_checkpoint(directory, which, warn=print_warning)]
        best = prefixes[0] if which == "best" else None
    named = {"best": best, "latest": latest}
    return [
        CheckpointRef(each, layout.meta_path(each), tuple(name for name, prefix in named.items() if prefix == each))
        for each in prefixes
    ]


def verify(ref: CheckpointRef) -> CheckpointRef:
    """Verify the files against the manifest, if there is one; return the reference with manifest and problem."""
    try:
        _verify_meta(ref)
        if not lookup.is_ours(ref.prefix):
            return ref
        ref = ref._replace(manifest=Manifest.read(layout.manifest_path(ref.prefix)))
        assert ref.manifest is not None
        manifest.check_files(ref.prefix, ref.manifest)
    except DamagedError as error:
        problem = CheckpointError(f"{ref.prefix.parent}: {error}", hint="put a good copy back, or give another")
        return ref._replace(problem=problem, notes=(*ref.notes, "damaged"))
    except CheckpointError as error:
        return ref._replace(problem=error, notes=(*ref.notes, "not evaluated"))
    return ref


def _verify_meta(ref: CheckpointRef) -> None:
    """Verify a graph that belongs to another checkpoint than the weights, if that has a manifest."""
    source = ref.meta.with_suffix("")
    if source != ref.prefix and lookup.is_ours(source):
        files = Manifest.read(layout.manifest_path(source)).files
        manifest.check_described(source.parent, {name: file for name, file in files.items() if name == ref.meta.name})


def was_deleted(prefix: Path) -> bool:
    """Whether a run has deleted a checkpoint: a mark is set, then the manifest goes first."""
    deleting = layout.incomplete_path(prefix).exists() or not layout.index_path(prefix).exists()
    return deleting and not layout.manifest_path(prefix).exists()
