"""Replace the train_dir by another run's directory during a run: neither run loses anything."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from checkpointing.protocol import checkpoint_state
from checkpointing.storage import layout
from tests import programs
from tests.checkpoints import tree

FLAGS = ["--train_steps=20000", "--save_every_steps=500", "--log_every_steps=500", "--evaluate_every_steps=5000"]


def swap_by_link(place: Path, other: Path) -> Callable[[], object]:
    """Replace the link to the train_dir by one to another directory; return a function that undoes it."""
    own = place.readlink()

    def link_to(directory: Path) -> None:
        link = place.with_name("new link")
        link.symlink_to(directory)
        link.rename(place)

    link_to(other)
    return lambda: link_to(own)


def swap_by_names(place: Path, other: Path) -> Callable[[], object]:
    """Rename another directory to the train_dir's name; return a function that undoes it."""
    aside = place.with_name("aside")
    place.rename(aside)
    other.rename(place)

    def undo() -> None:
        place.rename(other)
        aside.rename(place)

    return undo


def stop_between_saves(run: programs.Watched, train_dir: Path) -> None:
    """Stop a process while it writes nothing: no file is checked before the swap and opened after it."""
    for _ in range(1000):
        os.kill(run.process.pid, signal.SIGSTOP)
        saved = layout.steps_with(train_dir, "manifest.json")
        marked = layout.steps_with(train_dir, "incomplete")
        listed = [layout.step_of(f"{prefix.name}.index") for prefix in checkpoint_state.read(train_dir)]
        if not marked and len(saved) > 1 and saved == listed:
            return
        os.kill(run.process.pid, signal.SIGCONT)
        time.sleep(0.003)
    raise AssertionError("the process is always saving")


@pytest.fixture(scope="module")
def flags(small_data: Path) -> list[str]:
    """Return the flags of a run that saves many times in a second."""
    return [f"--data_dir={small_data}", "--validation_size=200", *FLAGS]


@pytest.fixture(scope="module")
def undisturbed(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the train_dir of a finished run with the same settings."""
    train_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    programs.train("softmax", train_dir, *flags)
    return train_dir


@pytest.mark.parametrize("swap", [swap_by_link, swap_by_names])
def test_a_swapped_train_dir_ends_the_run(tmp_path, flags, undisturbed, swap):
    """No file of the other run changes, although its settings are the same, and the error says why the run ends."""
    place, other = tmp_path / "run", tmp_path / "other"
    shutil.copytree(undisturbed, other)
    before = tree(other)
    if swap is swap_by_link:
        (tmp_path / "own").mkdir()
        place.symlink_to(tmp_path / "own")
    run = programs.Watched("softmax", f"--train_dir={place}", *flags)
    run.wait_for("saved ")
    stop_between_saves(run, place)
    undo = swap(place, other)
    os.kill(run.process.pid, signal.SIGCONT)
    assert run.end() == 1
    assert "another directory is in its place" in run.said.splitlines()[-2]
    assert run.said.splitlines()[-1].startswith("hint: put the run's own directory back")
    assert "Traceback" not in run.said
    undo()
    assert tree(other) == before
    assert programs.train("softmax", place, *flags)["weights_sha256"] == programs.result(undisturbed)["weights_sha256"]
