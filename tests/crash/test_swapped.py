"""Another run's directory put in the place of the train_dir while a run goes on: neither run loses anything."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import programs
from tests.checkpoints import tree

FLAGS = ["--train_steps=20000", "--save_every_steps=500", "--log_every_steps=500", "--evaluate_every_steps=5000"]


def swap_by_link(place: Path, other: Path) -> Callable[[], object]:
    """Has the link of the train_dir lead to another directory; gives what undoes it."""
    own = place.readlink()

    def lead_to(directory: Path) -> None:
        link = place.with_name("new link")
        link.symlink_to(directory)
        link.rename(place)

    lead_to(other)
    return lambda: lead_to(own)


def swap_by_names(place: Path, other: Path) -> Callable[[], object]:
    """Gives the other directory the train_dir's name; gives what undoes it."""
    aside = place.with_name("aside")
    place.rename(aside)
    other.rename(place)

    def undo() -> None:
        place.rename(other)
        aside.rename(place)

    return undo


@pytest.fixture(scope="module")
def flags(small_data: Path) -> list[str]:
    """A run on the small data, of which a second is enough to swap its train_dir."""
    return [f"--data_dir={small_data}", "--validation_size=200", *FLAGS]


@pytest.fixture(scope="module")
def undisturbed(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The train_dir of a run that has ended, with the same settings."""
    train_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    programs.train("softmax", train_dir, *flags)
    return train_dir


@pytest.mark.parametrize("swap", [swap_by_link, swap_by_names])
def test_a_swapped_train_dir_ends_the_run_and_harms_neither(tmp_path, flags, undisturbed, swap):
    """Though its settings are the same: nothing in the other one changes, and one sentence says why the run ends."""
    place, other = tmp_path / "run", tmp_path / "other"
    shutil.copytree(undisturbed, other)
    before = tree(other)
    if swap is swap_by_link:
        (tmp_path / "own").mkdir()
        place.symlink_to(tmp_path / "own")
    run = programs.Watched("softmax", f"--train_dir={place}", *flags)
    run.wait_for("saved ")
    run.wait_for("saved ")
    os.kill(run.process.pid, signal.SIGSTOP)  # the moments between are the machine's, not the test's
    undo = swap(place, other)
    os.kill(run.process.pid, signal.SIGCONT)
    assert run.end() == 1
    assert "is not the directory in which the run started" in run.said.splitlines()[-2]
    assert run.said.splitlines()[-1].startswith("hint: put the run's own directory back")
    assert "Traceback" not in run.said
    undo()
    assert tree(other) == before
    assert programs.train("softmax", place, *flags)["weights_sha256"] == programs.result(undisturbed)["weights_sha256"]
