"""Faults of the disk during a run: it continues or ends with one error, and no complete checkpoint is lost."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from checkpointing.protocol import manifest
from checkpointing.protocol.manifest import Manifest
from checkpointing.storage import layout
from tests import programs

# Forty saves, each after a few milliseconds of training.
FLAGS = ["--train_steps=20000", "--save_every_steps=500", "--log_every_steps=500", "--evaluate_every_steps=0"]
FLAGS += ["--validation_size=200", "--max_failed_saves=1000000"]


@pytest.fixture(scope="module")
def flags(small_data: Path) -> list[str]:
    """The flags of a run on the small data."""
    return [f"--data_dir={small_data}", *FLAGS]


@pytest.fixture(scope="module")
def undisturbed(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights_sha256 of a run without faults."""
    return str(programs.train("softmax", tmp_path_factory.mktemp("undisturbed"), *flags)["weights_sha256"])


def fill(disk: Path) -> Path:
    """Fill a disk to the last byte; return the file whose deletion frees the space."""
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
    """Every checkpoint with a manifest is complete; return their steps."""
    steps = layout.steps_with(train_dir, "manifest.json")
    for step in steps:
        prefix = layout.prefix(train_dir, step)
        manifest.check_files(prefix, Manifest.read(layout.manifest_path(prefix)))
    return steps


def finish(train_dir: Path, flags: list[str], undisturbed: str) -> None:
    """Run again without faults: the weights and the logged steps are those of the undisturbed run."""
    assert programs.train("softmax", train_dir, *flags)["weights_sha256"] == undisturbed
    logged = [record["step"] for record in programs.metrics(train_dir)]
    assert logged == list(range(500, 20001, 500))


def error_of(run: programs.Watched) -> str:
    """Return the error line at the end of the output; a hint may follow it."""
    *_, line, last = ["", *run.said.splitlines()]
    error = line if last.startswith("hint: ") else last
    assert error.startswith("error: "), run.said
    assert "Traceback" not in run.said
    return error


def test_a_disk_that_is_full_for_some_time_changes_no_bit(small_disk, flags, undisturbed):
    """The run logs one warning, continues, and saves again when there is space; no record is missing."""
    run = programs.Watched("softmax", f"--train_dir={small_disk / 'run'}", *flags)
    run.wait_for("saved ")
    ballast = fill(small_disk)
    run.wait_for("could not be saved")
    assert check_all_complete(small_disk / "run")
    time.sleep(0.3)  # training continues
    ballast.unlink()
    run.wait_for("saving works again")
    assert run.end() == 0, run.said
    assert run.said.count("could not be saved") == 1
    assert not list((small_disk / "run").glob("*temp*"))
    finish(small_disk / "run", flags, undisturbed)


def test_a_disk_that_stays_full_ends_the_run_with_an_error(small_disk, flags, undisturbed):
    """The last save fails: exit status 1. With space, the same command resumes from the last complete checkpoint."""
    run = programs.Watched("softmax", f"--train_dir={small_disk / 'run'}", *flags)
    run.wait_for("saved ")
    run.wait_for("saved ")
    ballast = fill(small_disk)
    assert run.end() == 1
    assert "model.ckpt-20000: could not be saved" in error_of(run)
    assert "the last complete checkpoint is" in error_of(run)
    assert check_all_complete(small_disk / "run")
    ballast.unlink()
    finish(small_disk / "run", flags, undisturbed)


@pytest.mark.slow
def test_many_failed_saves_end_the_run(small_disk, flags, undisturbed):
    """The run ends when more saves in a row fail than --max_failed_saves."""
    run = programs.Watched("softmax", f"--train_dir={small_disk / 'run'}", *flags, "--max_failed_saves=3")
    run.wait_for("saved ")
    ballast = fill(small_disk)
    assert run.end() == 1
    assert "like the 3 saves before it" in error_of(run)
    ballast.unlink()
    finish(small_disk / "run", flags, undisturbed)


def test_a_disk_that_is_full_from_the_start_is_an_error(small_disk, flags):
    """The output is the error: nothing is trained."""
    fill(small_disk)
    run = programs.Watched("softmax", f"--train_dir={small_disk / 'run'}", *flags)
    assert run.end() == 1
    assert run.said.startswith("error: ")
    assert "No space left on device" in error_of(run)


def test_a_disk_that_is_read_only_for_some_time_changes_no_bit(small_disk, flags, undisturbed):
    """Some file systems become read-only after an error, until they are remounted."""
    run = programs.Watched("softmax", f"--train_dir={small_disk / 'run'}", *flags)
    run.wait_for("saved ")
    remount(small_disk, "ro")
    run.wait_for("could not be saved (Read-only file system)")
    assert check_all_complete(small_disk / "run")
    remount(small_disk, "rw")
    run.wait_for("saving works again")
    assert run.end() == 0, run.said
    finish(small_disk / "run", flags, undisturbed)


def remount(disk: Path, mode: str) -> None:
    """Remount the disk "ro" or "rw"; retry, because it is busy while a file is open for writing."""
    for _ in range(10_000):
        if subprocess.run(["mount", "-o", f"remount,{mode}", disk], check=False, capture_output=True).returncode == 0:
            return
    raise AssertionError(f"{disk}: still busy")


def test_a_train_dir_deleted_during_the_run_is_made_again(tmp_path, flags, undisturbed):
    """The run logs a warning, and ends with the same weights as without the deletion."""
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
def test_files_deleted_during_the_run_cost_only_steps(tmp_path, flags, undisturbed):
    """A run continues without older files; without the newest data, the next run resumes from the checkpoint before."""
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
    again.wait_for("got no file")
    assert f"{newest.name}.data-00000-of-00001" in again.said
    assert again.end() == 0, again.said
    assert (layout.quarantine_path(train_dir) / newest.name / layout.REASON).exists()
    finish(train_dir, flags, undisturbed)


# strace's option --inject, and the files to which it is limited; none for all files. Faults of write(2) are limited to
# files, because standard error would fail, too.
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
    """Run with the fault, then without; no complete checkpoint is damaged."""
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
        assert error_of(run)
    check_all_complete(train_dir)
    finish(train_dir, flags, undisturbed)


needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace injects the faults")


@needs_strace
@pytest.mark.parametrize(("fault", "files"), FAULTS)
def test_a_failing_system_call_costs_no_checkpoint(tmp_path, flags, undisturbed, fault, files):
    """The run ends with success or one error, and every checkpoint with a manifest is complete."""
    check_fault(tmp_path, flags, undisturbed, fault, files)


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize(("fault", "files"), SLOW_FAULTS)
def test_more_failing_system_calls_cost_no_checkpoint(tmp_path, flags, undisturbed, fault, files):
    """Early or late, once or repeatedly."""
    check_fault(tmp_path, flags, undisturbed, fault, files)
