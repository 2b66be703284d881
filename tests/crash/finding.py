"""Find the step at which a restarted run resumes.

    python -m tests.crash.finding ROOT

Run as a process, its changes to the disk can be recorded.
"""

import sys
from pathlib import Path

from checkpointing.protocol import manifest, resume
from checkpointing.protocol.manifest import Manifest
from checkpointing.storage import layout
from checkpointing.storage.jsonl import Journal

SETTINGS = {"model": "counter"}


def train_dir(root: Path) -> Path:
    """Return the train_dir. The recorded directory is its parent, because creating it is a change, too."""
    return root / "run"


def find_step(root: Path, *, damage_expected: bool = False) -> int:
    """Return the step at which a restarted run resumes, after verifying all files that it relies on.

    Raises:
      CheckpointError: the run cannot resume.
      ValueError: it resumes, but something is damaged.
    """
    directory = train_dir(root)
    start = resume.open_train_dir(directory, SETTINGS)
    try:
        _check_every_checkpoint(directory)
        _check_nothing_is_left_over(directory)
        if not damage_expected:
            _check_quarantine_is_empty(directory)
        if start.newest is None:
            if start.prefix is not None:
                raise ValueError(f"{start.prefix.name} is adopted as a plain Saver's checkpoint")
            return 0
        _check_metrics(directory, start.newest.step)
        return start.newest.step
    finally:
        start.close()


def _check_every_checkpoint(directory: Path) -> None:
    """Verify all checkpoints that have a manifest, not only the newest."""
    for step in layout.steps_with(directory, "manifest.json"):
        prefix = layout.prefix(directory, step)
        manifest.check_files(prefix, Manifest.read(layout.manifest_path(prefix)))


def _check_nothing_is_left_over(directory: Path) -> None:
    """Check that no file is left that has neither a manifest nor a mark: nothing would delete it."""
    complete = layout.steps_with(directory, "manifest.json")
    left_over = sorted(path.name for path in directory.iterdir() if layout.step_of(path.name) not in {None, *complete})
    if left_over:
        raise ValueError(f"{', '.join(left_over)} has neither a manifest nor a mark, so nothing will delete it")


def _check_quarantine_is_empty(directory: Path) -> None:
    """Check that no checkpoint was moved to quarantine: a power cut damages none."""
    if layout.quarantine_path(directory).exists():
        found = sorted(path.name for path in layout.quarantine_path(directory).iterdir())
        raise ValueError(f"{', '.join(found)} is in quarantine")


def _check_metrics(directory: Path, step: int) -> None:
    """Check that the metrics of all steps up to the checkpoint's exist."""
    journal = Journal(directory / layout.METRICS)
    journal.rewind(lambda record: record["step"] <= step)
    found = [record["step"] for record in journal.records()]
    if found != list(range(1, step + 1)):
        raise ValueError(f"metrics of steps {found} found with the checkpoint of step {step}")


if __name__ == "__main__":
    find_step(Path(sys.argv[1]), damage_expected=True)
