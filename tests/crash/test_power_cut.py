"""A power cut at any moment loses no checkpoint of CheckpointManager; a plain Saver loses some.

power_cut.py describes the model of the disk and the states that are built; recording.py records the saves.
`pytest tests/crash/test_power_cut.py --log-cli-level=INFO` shows the numbers.
"""

import functools
import logging
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pytest
import tensorflow as tf

from checkpointing.protocol import manifest
from checkpointing.storage import layout
from tests import programs
from tests.crash import finding, power_cut, recording, saves
from tests.crash.operations import Operation, Rename, Sync, Unlink, Write, replay, tree
from tests.crash.power_cut import Cut, Judge, Loss, cuts

_log = logging.getLogger(__name__)

LAST = saves.STEPS
RESTORED_BY_TENSORFLOW = 20
# Files in memory are created and deleted in microseconds.
MEMORY = Path("/dev/shm")  # noqa: S108 - only below a directory of its own

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing: apt-get install strace")


class Recorded(NamedTuple):
    """What a process did below `root`, and the tree that it left there."""

    operations: list[Operation]
    root: Path
    left: power_cut.Tree


def record(module: str, *arguments: str, root: Path) -> Recorded:
    """Run `python -m tests.crash.<module> <arguments>`, and record its operations below `root`."""
    command = [sys.executable, "-m", f"tests.crash.{module}", *arguments]
    operations = recording.record(command, root, cwd=programs.ROOT)
    return Recorded(operations, root, tree(root))


def record_saves(kind: str, max_to_keep: int, root: Path) -> Recorded:
    """Record the saves of steps 1, 2 and 3, starting with an empty directory."""
    root.mkdir()
    return record("saves", kind, str(root), str(max_to_keep), root=root)


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """Yield a directory in memory, if there is a file system in memory."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as made:
        yield Path(made)


@pytest.fixture(scope="module")
def ours(memory: Path) -> Recorded:
    """Record our saves, each of which deletes the checkpoint before."""
    return record_saves("ours", 1, memory / "ours")


@pytest.fixture(scope="module")
def plain(memory: Path) -> Recorded:
    """Record the same saves by a plain Saver."""
    return record_saves("plain", 1, memory / "plain")


@pytest.fixture(scope="module")
def judge(ours: Recorded) -> Judge:
    """Return a Judge of our saves, whose cache all tests share."""
    return Judge(finding.find_step, ours.root)


@pytest.fixture(autouse=True)
def quiet(caplog):
    """Thousands of restarts would log what they delete."""
    caplog.set_level(logging.CRITICAL, logger="checkpointing")
    caplog.set_level(logging.CRITICAL, logger="tensorflow")


@pytest.fixture(autouse=True)
def hashed_without_threads(monkeypatch):
    """For files of a few kilobytes, threads only cost time."""
    monkeypatch.setattr(manifest, "HASHING_THREADS", 1)


class Commit(NamedTuple):
    """A checkpoint's commit: the rename, and the fsync of the directory that makes it durable."""

    step: int
    rename: Rename
    sync: Sync


def commits(operations: Sequence[Operation]) -> list[Commit]:
    """Return the commits of a recording of our saves, in order."""
    renames = [each for each in operations if isinstance(each, Rename) and each.target.name.endswith(".manifest.json")]
    return [Commit(layout.step_of(each.target.name), each, _sync_of_directory(operations, each)) for each in renames]


def _sync_of_directory(operations: Sequence[Operation], rename: Rename) -> Sync:
    directory = rename.target.parent
    return next(
        each for each in operations if isinstance(each, Sync) and each.path == directory and each.began > rename.ended
    )


def promised(operations: Sequence[Operation]) -> Callable[[Operation], int]:
    """Return a function from an operation to the last step that was committed by then."""
    made = commits(operations)
    return lambda cut: max((commit.step for commit in made if commit.sync.ended <= cut.ended), default=0)


def split(operations: Sequence[Operation]) -> tuple[list[Operation], list[Operation]]:
    """Split a recording before the last save, which begins with the metrics of its step."""
    first = next(number for number, each in enumerate(operations) if layout.step_of(each.path.name) == LAST)
    while operations[first - 1].path.name == layout.METRICS:
        first -= 1
    return list(operations[:first]), list(operations[first:])


def described(losses: Iterable[Loss]) -> list[str]:
    """Describe the first losses."""
    return [str(loss) for loss in islice(losses, 3)]


@pytest.mark.parametrize("saver", ["ours", "plain"])
def test_a_replayed_recording_gives_the_same_directory(saver, tmp_path, request):
    """Byte for byte, on a real disk and in the model: the recording is complete."""
    recorded = request.getfixturevalue(saver)
    replay(recorded.operations, tmp_path)
    disk = power_cut.Disk()
    for operation in recorded.operations:
        disk.apply(operation)
    assert tree(tmp_path) == disk.tree() == recorded.left
    assert any(path.endswith(f"-{LAST}.index") for path in recorded.left)


# Our saves


def check(recorded: Recorded, judge: Judge, moments: Iterable[Cut]) -> None:
    """Assert that a run of ours resumes from the last commit or a later one after each power cut."""
    losses = list(judge.losses(moments, promised(recorded.operations)))
    _log.info("ours: %d distinct states, %d losses", len(judge.found), len(losses))
    assert not described(losses)
    assert len(judge.found) > 500
    assert [commit.step for commit in commits(recorded.operations)] == [1, 2, 3]


def test_no_power_cut_loses_a_checkpoint_of_ours(ours, judge):
    """A run resumes from the last committed step or the next, with all its bytes and metrics.

    Only changes that were synced are durable, starting with an empty directory.
    """
    check(ours, judge, cuts(ours.operations))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "max_to_keep"), [("ours", 2), ("ours_sharded", 1)])
def test_no_power_cut_loses_a_checkpoint_with_other_options(memory, kind, max_to_keep):
    """With several checkpoints, or several data files, the last save loses nothing either."""
    recorded = record_saves(kind, max_to_keep, memory / f"{kind}-{max_to_keep}")
    durable, last_save = split(recorded.operations)
    check(recorded, Judge(finding.find_step, recorded.root), cuts(last_save, durable))


def test_tensorflow_restores_the_values_of_the_found_step(ours, judge):
    """In a sample of the states."""
    described(judge.losses(cuts(ours.operations), promised(ours.operations)))
    whole = [(judge.states[key], step) for key, step in judge.found.items() if isinstance(step, int)]
    for state, step in whole[:: len(whole) // RESTORED_BY_TENSORFLOW]:
        state.materialise(ours.root)
        graph, manager = saves.restored(ours.root)
        with manager, graph.session:
            assert graph.state() == saves.state_at(step), str(state)


def interrupted_save(ours: Recorded) -> list[Operation]:
    """Return the operations up to the last commit, without it."""
    rename = commits(ours.operations)[-1].rename
    return ours.operations[: ours.operations.index(rename)]


def interrupted_deletion(ours: Recorded) -> list[Operation]:
    """Return the operations up to a half-finished deletion: the manifest is gone, not all files."""
    unlinks = [each for each in ours.operations if isinstance(each, Unlink) and each.path.name == "model.ckpt-2.index"]
    return ours.operations[: ours.operations.index(unlinks[-1]) + 1]


def damaged_checkpoint(ours: Recorded) -> list[Operation]:
    """Return the operations up to the last commit, and some that damage the last checkpoint."""
    commit = commits(ours.operations)[-1]
    index = commit.rename.target.with_name(f"model.ckpt-{LAST}.index")
    damage = Write(path=index, offset=0, data=b"damaged")
    return [*ours.operations[: ours.operations.index(commit.sync) + 1], damage]


@pytest.mark.parametrize(
    ("before", "step"), [(interrupted_save, LAST - 1), (interrupted_deletion, LAST), (damaged_checkpoint, LAST - 1)]
)
def test_no_power_cut_during_a_restart_loses_a_checkpoint(ours, tmp_path, before, step):
    """If the power fails while a restart deletes incomplete files or moves damaged ones, the next one succeeds."""
    durable = before(ours)
    replay(durable, tmp_path)
    restarted = record("finding", str(tmp_path), root=tmp_path)
    restart = functools.partial(finding.find_step, damage_expected=before is damaged_checkpoint)
    judge = Judge(restart, tmp_path)
    losses = list(judge.losses(cuts(restarted.operations, durable), lambda _: step))
    _log.info("restart: %d distinct states, %d losses", len(judge.found), len(losses))
    assert not described(losses)
    assert len(judge.found) > 1


# The plain Saver


def restart_plain(root: Path) -> int:
    """Return the step that tf.train.latest_checkpoint finds, if all values are those of that step.

    Raises:
      Exception: it finds nothing, or the checkpoint cannot be read, or its values are wrong.
    """
    latest = tf.train.latest_checkpoint(str(finding.train_dir(root)))
    if latest is None:
        raise FileNotFoundError("latest_checkpoint finds nothing, so the run starts at step 0")
    reader = tf.train.load_checkpoint(latest)
    step, value = int(reader.get_tensor("global_step")), reader.get_tensor("value").tolist()
    if (step, value) != saves.state_at(step):
        raise ValueError(f"{Path(latest).name} is restored without an error, and its values are wrong")
    return step


def test_a_plain_saver_loses_its_checkpoint_in_at_least_one_power_cut(plain):
    """Although everything before its last save is durable: a cut during the save, or after it, can lose both."""
    durable, last_save = split(plain.operations)
    judge = Judge(restart_plain, plain.root)
    losses = list(judge.losses(cuts(last_save, durable), lambda _: LAST - 1))
    assert losses, "a plain Saver lost nothing: either Saver syncs its files now, or the harness finds no losses"
    after_the_save = [loss for loss in losses if loss.after == last_save[-1]]
    assert after_the_save, "a plain Saver's checkpoint is durable when save() returns"
    example = min(after_the_save, key=how_much_is_lost)
    _log.info("plain Saver: %d distinct states, %d losses, as: %s", len(judge.found), len(losses), example)
    _log.info("plain Saver: %s", Counter(loss.found.partition(":")[0] for loss in losses))


def how_much_is_lost(loss: Loss) -> int:
    """Return the number of names and files that differ from before the power cut."""
    return len(loss.state.missing) + sum(way != "whole" for way in loss.state.ways.values())


# The harness: our last save without some of its fsyncs


def losses_of(judge: Judge, ours: Recorded, last_save: Iterable[Operation]) -> Iterator[Loss]:
    """Yield the losses if the last save were another one, and everything before it durable."""
    durable, _ = split(ours.operations)
    return judge.losses(cuts(last_save, durable), promised(ours.operations))


def without_fsync(ours: Recorded, name: str = "") -> list[Operation]:
    """Return the last save without the fsyncs of a file; without all of them if no name is given."""
    _, last_save = split(ours.operations)
    kept = [each for each in last_save if not (isinstance(each, Sync) and name in {"", each.path.name})]
    assert len(kept) < len(last_save)
    return kept


@pytest.mark.parametrize("kind", ["data-00000-of-00001", "index", "meta", "manifest.json.tmp"])
def test_without_the_fsync_of_a_file_checkpoints_would_be_lost(ours, judge, kind):
    """Each file of a checkpoint must be synced before its commit."""
    assert described(losses_of(judge, ours, without_fsync(ours, f"model.ckpt-{LAST}.{kind}")))


def test_without_the_fsync_of_the_metrics_a_checkpoint_would_be_ahead_of_them(ours, judge):
    """The metrics of steps that are not repeated could be missing."""
    assert described(losses_of(judge, ours, without_fsync(ours, layout.METRICS)))


def test_without_any_fsync_checkpoints_would_be_lost(ours, judge):
    """Saver does not sync the files that it writes."""
    assert described(losses_of(judge, ours, without_fsync(ours)))


def test_with_the_commit_before_the_fsync_of_the_data_checkpoints_would_be_lost(ours, judge):
    """The order matters, not only that everything is synced in the end."""
    _, last_save = split(ours.operations)
    rename = commits(ours.operations)[-1].rename
    of_data = [each for each in last_save if isinstance(each, Sync) and ".data-" in each.path.name]
    late = [replace(sync, began=rename.ended, ended=rename.ended) for sync in of_data]
    others = [each for each in last_save if each not in of_data]
    after_commit = others.index(rename) + 1
    assert late
    assert described(losses_of(judge, ours, [*others[:after_commit], *late, *others[after_commit:]]))


def test_the_directory_must_be_synced_before_and_after_the_commit(ours, judge):
    """For each fsync, the log says whether the last save needs it."""
    _, last_save = split(ours.operations)
    commit = commits(ours.operations)[-1]
    syncs = [each for each in last_save if isinstance(each, Sync)]
    needed = {}
    for sync in syncs:
        losses = list(losses_of(judge, ours, [each for each in last_save if each != sync]))
        needed[sync] = bool(losses)
        before = next(each for each in reversed(last_save[: last_save.index(sync)]) if not isinstance(each, Sync))
        _log.info("without '%s' after '%s': %d losses %s", sync, before, len(losses), described(losses)[:1])
    before_commit = [sync for sync in syncs if sync.path == commit.sync.path and sync.ended < commit.rename.began]
    assert needed[before_commit[-1]]
    assert needed[commit.sync]
