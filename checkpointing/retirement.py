"""What follows a commit: TensorFlow's state file is rewritten, checkpoints that are not to be kept are deleted."""

from pathlib import Path

from checkpointing import durable, layout, manifest, quarantine, rotation
from checkpointing.manifest import Manifest
from checkpointing.rotation import Candidate, Retention


def tidy_up(directory: Path, retention: Retention, *, relative_paths: bool) -> None:
    """Computes from the disk which checkpoints stay, and makes it so.

    Args:
      directory: the train_dir; its newest checkpoint is known to be complete.
      retention: what to keep.
      relative_paths: whether the state file holds names or absolute paths.
    """
    readable, damaged = manifest.read_all(directory)
    manifests = {each.step: each for each in readable}
    for step, error in damaged.items():
        quarantine.set_aside(layout.prefix(directory, step), f"{error}: a newer one is complete")
    keep = kept(directory, readable, retention)
    if keep:
        # First the state file, so that it never names a checkpoint that is gone.
        _write_state_file(directory, [manifests[step] for step in keep], relative_paths=relative_paths)
    for step in sorted(manifests.keys() - keep.keys()):
        retire(layout.prefix(directory, step))


def kept(directory: Path, manifests: list[Manifest], retention: Retention) -> dict[int, str]:
    """The steps of the checkpoints to keep, in order, each with the reason why."""
    pinned = set(layout.steps_with(directory, "pinned"))
    candidates = [
        Candidate(each.step, each.training_seconds, each.score, pinned=each.step in pinned) for each in manifests
    ]
    return rotation.survivors(candidates, retention)


def retire(prefix: Path) -> None:
    """Deletes a checkpoint, its manifest first: from then on it does not exist."""
    mark = layout.incomplete_path(prefix)
    durable.write(mark, b"")
    if layout.pinned_path(prefix).exists():  # meanwhile; whoever pins looks for the mark in turn
        durable.delete([mark])
        return
    durable.sync(prefix.parent)
    delete(prefix)


def delete(prefix: Path) -> None:
    """Deletes what carries the mark, and the mark last."""
    mark = layout.incomplete_path(prefix)
    durable.delete([layout.manifest_path(prefix)])
    durable.sync(prefix.parent)
    durable.delete(path for path in layout.files_of(prefix) if path != mark)
    durable.sync(prefix.parent)  # or the mark could be gone after a power cut, and the files not
    durable.delete([mark])


def _write_state_file(directory: Path, kept: list[Manifest], *, relative_paths: bool) -> None:
    """Writes TensorFlow's `checkpoint`, which tf.train.latest_checkpoint and others read.

    It is a CheckpointState protocol buffer in text form.
    """
    prefixes = [layout.prefix(directory.absolute(), each.step) for each in kept]
    paths = [_quoted(prefix.name if relative_paths else str(prefix)) for prefix in prefixes]
    lines = [
        f"model_checkpoint_path: {paths[-1]}",
        *(f"all_model_checkpoint_paths: {path}" for path in paths),
        *(f"all_model_checkpoint_timestamps: {each.saved_at!r}" for each in kept),
    ]
    content = "".join(f"{line}\n" for line in lines).encode()
    state_file = directory / layout.STATE_FILE
    if state_file.is_dir():
        durable.move([state_file], quarantine.place_for(directory, state_file.name))
    if not state_file.exists() or state_file.read_bytes() != content:
        durable.replace(state_file, content)


def _quoted(text: str) -> str:
    """A string as protocol buffers write it: whatever is not plain ASCII as octal bytes."""
    plain = set(range(32, 127)) - set(b'"\\')
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode()) + '"'
