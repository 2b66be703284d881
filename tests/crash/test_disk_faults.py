"""A disk that is full, fails, turns read-only or loses files under a run: training goes on, no checkpoint is lost."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkpointing.protocol import manifest
from checkpointing.protocol.manifest import Manifest
from checkpointing.storage import layout
from tests import programs

# Seconds of training with hundreds of saves, each with a few milliseconds of computing around it.
FLAGS = ["--train_steps=20000", "--save_every_steps=500", "--log_every_steps=500", "--evaluate_every_steps=0"]
FLAGS += ["--validation_size=200", "--max_failed_saves=1000000"]


@pytest.fixture(scope="module")
def flags(small_data: Path) -> list[str]:
    """A run on the small data."""
    return [f"--data_dir={small_data}", *FLAGS]


@pytest.fixture(scope="module")
def undisturbed(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights of the run that meets no fault."""
    return str(programs.train("softmax", tmp_path_factory.mktemp("undisturbed"), *flags)["weights_sha256"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own of 3 MB, room for some forty checkpoints."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a disk")
    directory = tmp_path / "disk"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", directory], check=True)
    yield directory
    subprocess.run(["umount", "--lazy", directory], check=True)


def fill(disk: Path) -> Path:
    """Leaves not a byte; gives the file to delete for room."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                continue
    return ballast


def check_all_complete(train_dir: Path) -> list[int]:
    """Every checkpoint with a manifest is whole; gives their steps."""
    steps = layout.steps_with(train_dir, "manifest.json")
    for step in steps:
        prefix = layout.prefix(train_dir, step)
        manifest.check_files(prefix, Manifest.read(layout.manifest_path(prefix)))
    return steps


def finish(train_dir: Path, flags: list[str], undisturbed: str) -> None:
    """Run again without a fault, it ends with the weights of the undisturbed run."""
    assert programs.train("softmax", train_dir, *flags)["weights_sha256"] == undisturbed
    steps = [record["step"] for record in programs.metrics(train_dir)]
    assert steps == list(range(500, 20001, 500))


def test_a_full_disk_that_gets_room_again_changes_no_bit(small_disk, flags, undisturbed):
    """The run says it once, trains on, saves again once it can, and even has all its records."""
    run = programs.Watched("softmax", f"--train_dir={small_disk / 'run'}", *flags)
    run.wait_for("saved ")
    ballast = fill(small_disk)
    run.wait_for("could not be saved")
    kept = check_all_complete(small_disk / "run")
    assert kept
    time.sleep(0.3)  # it trains on
    ballast.unlink()
    run.wait_for("saving works again")
    assert run.end() == 0, run.said
    assert run.said.count("could not be saved") == 1
    assert not list((small_disk / "run").glob("*temp*"))
    finish(small_disk / "run", flags, undisturbed)


def test_a_disk_that_stays_full_ends_the_run_with_a_sentence(small_disk, flags, undisturbed):
    """The last save cannot be made: exit 1; what was complete is, and with room the same command goes on from it."""
    run = programs.Watched("softmax", f"--train_dir={small_disk / 'run'}", *flags)
    run.wait_for("saved ")
    run.wait_for("saved ")
    ballast = fill(small_disk)
    assert run.end() == 1
    assert "error: " in run.said.splitlines()[-1]
    assert "model.ckpt-20000: could not be saved" in run.said.splitlines()[-1]
    assert "the last complete checkpoint is" in run.said.splitlines()[-1]
    assert "Traceback" not in run.said
    assert check_all_complete(small_disk / "run")
    ballast.unlink()
    finish(small_disk / "run", flags, undisturbed)


@pytest.mark.slow
def test_a_run_that_cannot_save_for_long_gives_up(small_disk, flags, undisturbed):
    """--max_failed_saves bounds what is computed in vain."""
    run = programs.Watched("softmax", f"--train_dir={small_disk / 'run'}", *flags, "--max_failed_saves=3")
    run.wait_for("saved ")
    ballast = fill(small_disk)
    assert run.end() == 1
    assert "like the 3 saves before it" in run.said
    ballast.unlink()
    finish(small_disk / "run", flags, undisturbed)


def test_a_disk_that_is_full_from_the_start_is_told(small_disk, flags):
    """One sentence, before anything is computed."""
    fill(small_disk)
    run = programs.Watched("softmax", f"--train_dir={small_disk / 'run'}", *flags)
    assert run.end() == 1
    assert run.said.startswith("error: ")
    assert "No space left on device" in run.said


def test_a_disk_that_turns_read_only_changes_no_bit(small_disk, flags, undisturbed):
    """As some do after an error; and back, once somebody has mended it."""
    run = programs.Watched("softmax", f"--train_dir={small_disk / 'run'}", *flags)
    run.wait_for("saved ")
    remount(small_disk, "ro")
    run.wait_for("could not be saved (Read-only file system)")
    assert check_all_complete(small_disk / "run")
    remount(small_disk, "rw")
    run.wait_for("saving works again")
    assert run.end() == 0, run.said
    finish(small_disk / "run", flags, undisturbed)


def remount(disk: Path, how: str) -> None:
    """Changes what may be done with the disk; it is busy while a file is being written."""
    for _ in range(10_000):
        if subprocess.run(["mount", "-o", f"remount,{how}", disk], check=False, capture_output=True).returncode == 0:
            return
    raise AssertionError(f"{disk} stays busy")


def test_a_train_dir_deleted_under_the_run_is_made_again(tmp_path, flags, undisturbed):
    """The run says so, and ends with its result and its model as if nothing had happened."""
    train_dir = tmp_path / "run"
    run = programs.Watched("softmax", f"--train_dir={train_dir}", *flags)
    run.wait_for("saved ")
    run.wait_for("saved ")
    train_dir.rename(tmp_path / "gone")
    assert run.end() == 0, run.said
    assert "was deleted during the run" in run.said
    assert programs.result(train_dir)["weights_sha256"] == undisturbed
    assert check_all_complete(train_dir)


@pytest.mark.slow
def test_files_that_vanish_under_the_run_cost_no_more_than_steps(tmp_path, flags, undisturbed):
    """Old checkpoints and the state file: the run goes on. The newest one's data, then a kill: from the one before."""
    train_dir = tmp_path / "run"
    run = programs.Watched("softmax", f"--train_dir={train_dir}", *flags)
    for _ in range(4):
        run.wait_for("saved ")
    oldest, *_ = layout.steps_with(train_dir, "manifest.json")
    for path in (train_dir / layout.STATE_FILE, *layout.files_of(layout.prefix(train_dir, oldest))):
        path.unlink(missing_ok=True)
    for _ in range(6):
        run.wait_for("saved ")
    run.process.kill()
    run.end()
    newest = layout.prefix(train_dir, layout.steps_with(train_dir, "manifest.json")[-1])
    newest.with_name(f"{newest.name}.data-00000-of-00001").unlink()
    again = programs.Watched("softmax", f"--train_dir={train_dir}", *flags)
    again.wait_for("nothing found")
    assert f"{newest.name}.data-00000-of-00001" in again.said
    assert again.end() == 0, again.said
    assert (layout.quarantine_path(train_dir) / newest.name / layout.REASON).exists()
    finish(train_dir, flags, undisturbed)


# Which call of each thread fails, and on which files; everywhere where there are none. (A failing write(2) must not hit
# standard error, which is no disk.)
FAULTS = [("fsync:error=EIO:when=20+7", [])]
SLOW_FAULTS = [
    ("write:error=EIO:when=3+5", ["metrics.jsonl", "attempt.json.tmp", "model.ckpt-5000.meta"]),
    *((f"fsync:error=EIO:when={number}", []) for number in (2, 5, 30)),
    *((f"rename:error=EIO:when={number}", []) for number in (3, 20)),
    ("unlink:error=EIO:when=10+5", []),
    ("write:error=ENOSPC:when=1", [f"model.ckpt-{step}.manifest.json.tmp" for step in (500, 5000, 20000)]),
    ("write:error=ENOSPC:when=5..20", ["metrics.jsonl", "checkpoint.tmp"]),
]


def check_fault(tmp_path: Path, flags: list[str], undisturbed: str, fault: str, files: list[str]) -> None:
    """Runs with the fault, and once more without."""
    train_dir = tmp_path / "run"
    call = fault.partition(":")[0]
    strace = ["strace", "--follow-forks", "--seccomp-bpf", "--quiet=all", f"--output={tmp_path / 'trace'}"]
    strace += [f"--trace={call}", f"--inject={fault}", *(f"--trace-path={train_dir / name}" for name in files)]
    run = programs.Watched("softmax", f"--train_dir={train_dir}", *flags, under=tuple(strace))
    status = run.end()
    assert "INJECTED" in (tmp_path / "trace").read_text()
    assert status in {0, 1}, run.said
    assert "Traceback" not in run.said
    if status == 1:
        assert "error: " in run.said
    check_all_complete(train_dir)
    finish(train_dir, flags, undisturbed)


needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace injects the faults")


@needs_strace
@pytest.mark.parametrize(("fault", "files"), FAULTS)
def test_a_call_that_fails_costs_no_checkpoint(tmp_path, flags, undisturbed, fault, files):
    """Whichever it is: the run ends well, or says in one sentence why not; every checkpoint is whole."""
    check_fault(tmp_path, flags, undisturbed, fault, files)


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize(("fault", "files"), SLOW_FAULTS)
def test_more_calls_that_fail_cost_no_checkpoint(tmp_path, flags, undisturbed, fault, files):
    """Early and late, once and again and again."""
    check_fault(tmp_path, flags, undisturbed, fault, files)
