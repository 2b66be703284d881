"""Where a restarted run goes on, as the power cuts ask it; also a process of its own, whose disk can be recorded.

python -m tests.crash.finding ROOT
"""

import sys
from pathlib import Path

from checkpointing.protocol import manifest, resume
from checkpointing.protocol.manifest import Manifest
from checkpointing.storage import layout
from checkpointing.storage.jsonl import Journal

SETTINGS = {"model": "counter"}


def train_dir(root: Path) -> Path:
    """The recorded directory is the one above, for to make the train_dir is a change too."""
    return root / "run"


def find_step(root: Path, *, damage_expected: bool = False) -> int:
    """The step from which a restarted run goes on, once all that it relies on has proved to be whole.

    Raises:
      CheckpointError: it could not go on.
      ValueError: it goes on, but something is damaged.
    """
    directory = train_dir(root)
    start = resume.open_train_dir(directory, SETTINGS)
    try:
        _check_every_checkpoint(directory)
        _check_nothing_is_left_over(directory)
        if not damage_expected:
            _check_nothing_was_set_aside(directory)
        if start.newest is None:
            if start.prefix is not None:
                raise ValueError(f"{start.prefix.name} is taken for somebody else's checkpoint")
            return 0
        _check_metrics(directory, start.newest.step)
        return start.newest.step
    finally:
        start.close()


def _check_every_checkpoint(directory: Path) -> None:
    """Whatever has a manifest is whole, those that are older than the newest too."""
    for step in layout.steps_with(directory, "manifest.json"):
        prefix = layout.prefix(directory, step)
        manifest.check_files(prefix, Manifest.read(layout.manifest_path(prefix)))


def _check_nothing_is_left_over(directory: Path) -> None:
    """What has neither manifest nor mark, nobody will ever delete."""
    complete = layout.steps_with(directory, "manifest.json")
    left_over = sorted(path.name for path in directory.iterdir() if layout.step_of(path.name) not in {None, *complete})
    if left_over:
        raise ValueError(f"{', '.join(left_over)} will stay for good, with neither a manifest nor a mark")


def _check_nothing_was_set_aside(directory: Path) -> None:
    """A power cut never makes a checkpoint look damaged."""
    if layout.quarantine_path(directory).exists():
        found = sorted(path.name for path in layout.quarantine_path(directory).iterdir())
        raise ValueError(f"{', '.join(found)} was taken to be damaged")


def _check_metrics(directory: Path, step: int) -> None:
    """A checkpoint is never ahead of the records of its steps."""
    journal = Journal(directory / layout.METRICS)
    journal.rewind(lambda record: record["step"] <= step)
    found = [record["step"] for record in journal.records()]
    if found != list(range(1, step + 1)):
        raise ValueError(f"metrics of steps {found} found with the checkpoint of step {step}")


if __name__ == "__main__":
    find_step(Path(sys.argv[1]), damage_expected=True)
