import json
import os
from pathlib import Path
from unittest import mock

import pytest
import tensorflow as tf

from checkpointing.protocol import resume, run_identity
from checkpointing.protocol.cleanup import Cleanup, delete_unless_pinned, kept
from checkpointing.protocol.manifest import Manifest
from checkpointing.protocol.retention import RetentionPolicy
from checkpointing.storage import layout
from tests import checkpoints
from tests.checkpoints import SETTINGS, calls, every_kill, make_checkpoint, make_files, tree

NAMES = [
    "plain",
    "run[1]",
    "with spaces",
    "star*?",
    "größe-数字",
    'double "quotes"',
    "single 'quotes'",
    "back\\slash",
    "escaped \\n \\x41 \\101",
    "line\nbreak",
    "tab\tand\rreturn",
    "colon: {braces} # hash",
    "\x01\x7f",
    "🙂",
]
KEEP_TWO = RetentionPolicy(2)
KEEP_ALL = RetentionPolicy(0)


@pytest.fixture(params=NAMES, ids=ascii)
def directory(request, tmp_path):
    """Yield a train_dir with an unusual name."""
    made = tmp_path / request.param
    made.mkdir()
    return made


def apply_retention(directory, retention, *, relative_paths):
    """Do what a run does with a train_dir when it starts."""
    Cleanup(directory, retention, relative_paths=relative_paths).apply_retention()


def state(directory):
    """Return what TensorFlow reads in its state file: newest checkpoint, all checkpoints, their times."""
    found = tf.train.get_checkpoint_state(str(directory))
    return (
        found.model_checkpoint_path,
        list(found.all_model_checkpoint_paths),
        list(found.all_model_checkpoint_timestamps),
    )


def steps_on_the_disk(directory):
    """Return the steps of the complete checkpoints; assert that no file has another step in its name."""
    steps = layout.steps_with(directory, "manifest.json")
    named = {layout.step_of(path.name) for path in directory.iterdir()} - {None}
    assert named == set(steps)
    return steps


def newest_step(directory):
    """Return the step at which a run resumes."""
    start = resume.open_train_dir(directory, SETTINGS)
    start.close()
    return start.newest.step


def make(directory, steps=(10, 20, 30, 40, 50)):
    """Make checkpoints, and TensorFlow's state file that lists them."""
    for step in steps:
        make_checkpoint(directory, step, saved_at=1_700_000_000.123456 + step)
    apply_retention(directory, KEEP_ALL, relative_paths=True)


@pytest.mark.parametrize("relative_paths", [True, False])
def test_tensorflow_reads_the_state_file(directory, relative_paths):
    """For any name of the train_dir, TensorFlow finds the kept checkpoints and their times."""
    for step in (5, 10, 15):
        make_checkpoint(directory, step, saved_at=1_700_000_000.123456 + step)
    apply_retention(directory, KEEP_TWO, relative_paths=relative_paths)
    paths = [str(directory / f"model.ckpt-{step}") for step in (10, 15)]
    # Not latest_checkpoint: for it, brackets and backslashes are a pattern.
    assert state(directory) == (paths[-1], paths, [1_700_000_010.123456, 1_700_000_015.123456])


def test_a_train_dir_with_relative_paths_can_be_moved(tmp_path):
    """The state file holds names, not paths."""
    (tmp_path / "before").mkdir()
    make(tmp_path / "before")
    (tmp_path / "before").rename(tmp_path / "after")
    assert tf.train.latest_checkpoint(str(tmp_path / "after")) == str(tmp_path / "after" / "model.ckpt-50")
    assert str(tmp_path) not in (tmp_path / "after" / "checkpoint").read_text()


@pytest.mark.parametrize("relative_paths", [True, False])
def test_a_train_dir_may_be_relative(tmp_path, monkeypatch, relative_paths):
    """Absolute paths in the state file are absolute nevertheless."""
    monkeypatch.chdir(tmp_path)
    make_checkpoint(Path("runs"), 10)
    apply_retention(Path("runs"), KEEP_ALL, relative_paths=relative_paths)
    monkeypatch.chdir("/")
    assert tf.train.latest_checkpoint(str(tmp_path / "runs")) == str(tmp_path / "runs" / "model.ckpt-10")


@pytest.mark.parametrize("seconds", [0.0, 1.0, 1e-7, 1e18, -1.5, 1_700_000_000, 1_700_000_000.1234567])
def test_times_are_exact(tmp_path, seconds):
    """The state file holds every digit of a time."""
    make_checkpoint(tmp_path, 10, saved_at=seconds)
    apply_retention(tmp_path, KEEP_ALL, relative_paths=True)
    assert state(tmp_path)[2] == [seconds]


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 200, b"\xff\xfe", b"garbage", b'model_checkpoint_path: "model.ckpt-999"\n']
)
def test_a_damaged_state_file_is_written_again(tmp_path, content):
    """It is a cache of the manifests."""
    make_checkpoint(tmp_path, 10)
    (tmp_path / "checkpoint").write_bytes(content)
    apply_retention(tmp_path, KEEP_ALL, relative_paths=True)
    assert state(tmp_path)[0] == str(tmp_path / "model.ckpt-10")


def test_a_directory_at_the_path_of_the_state_file_is_moved(tmp_path):
    """It may hold a user's files, so it goes to quarantine, every time."""
    make_checkpoint(tmp_path, 10)
    for content in ("mine", "mine, too"):
        (tmp_path / "checkpoint").unlink(missing_ok=True)
        (tmp_path / "checkpoint").mkdir()
        (tmp_path / "checkpoint" / "notes").write_text(content)
        apply_retention(tmp_path, KEEP_ALL, relative_paths=True)
        assert state(tmp_path)[0] == str(tmp_path / "model.ckpt-10")
        assert content.encode() in tree(tmp_path / "quarantine").values()
    assert b"mine" in tree(tmp_path / "quarantine").values()


@pytest.mark.parametrize("target", ["nowhere", "elsewhere"])
def test_a_link_at_the_path_of_the_state_file_is_replaced(tmp_path, target):
    """Its target is not changed."""
    (tmp_path / "elsewhere").write_text("mine")
    make_checkpoint(tmp_path / "run", 10)
    (tmp_path / "run" / "checkpoint").symlink_to(tmp_path / target)
    apply_retention(tmp_path / "run", KEEP_ALL, relative_paths=True)
    assert state(tmp_path / "run")[0] == str(tmp_path / "run" / "model.ckpt-10")
    assert (tmp_path / "elsewhere").read_text() == "mine"


def test_an_equal_state_file_is_not_written(tmp_path):
    """If nothing changes, nothing is written."""
    make(tmp_path)
    before = (tmp_path / "checkpoint").stat()
    apply_retention(tmp_path, KEEP_ALL, relative_paths=True)
    after = (tmp_path / "checkpoint").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_without_checkpoints_nothing_is_written(tmp_path):
    """There is nothing to list."""
    apply_retention(tmp_path, KEEP_TWO, relative_paths=True)
    assert list(tmp_path.iterdir()) == []


def test_the_retention_policy_is_applied(tmp_path):
    """By step, score, hours of training and pin; all files of the others are deleted."""
    for step in range(1, 10):
        make_checkpoint(tmp_path, step, score={2: 0.9}.get(step), training_seconds=step * 1000.0)
    layout.pinned_path(layout.prefix(tmp_path, 3)).touch()
    apply_retention(tmp_path, RetentionPolicy(2, 1.5, 1), relative_paths=True)
    assert steps_on_the_disk(tmp_path) == [2, 3, 6, 8, 9]
    assert state(tmp_path)[1] == [str(tmp_path / f"model.ckpt-{step}") for step in (2, 3, 6, 8, 9)]


def test_kept_returns_the_reasons(tmp_path):
    """Nothing is changed."""
    make(tmp_path, [10, 20])
    before = tree(tmp_path)
    manifests = [Manifest.read(layout.manifest_path(layout.prefix(tmp_path, step))) for step in (10, 20)]
    assert kept(manifests, RetentionPolicy(1), {10}) == {10: "pinned", 20: "newest"}
    assert tree(tmp_path) == before


def test_a_pinned_checkpoint_is_kept_until_it_is_unpinned(tmp_path):
    """The pin may have any content."""
    make(tmp_path)
    pin = layout.pinned_path(layout.prefix(tmp_path, 10))
    pin.write_text("the one of the paper")
    for _ in range(2):
        apply_retention(tmp_path, KEEP_TWO, relative_paths=True)
        assert steps_on_the_disk(tmp_path) == [10, 40, 50]
    pin.unlink()
    apply_retention(tmp_path, KEEP_TWO, relative_paths=True)
    assert steps_on_the_disk(tmp_path) == [40, 50]


def test_a_pin_without_a_checkpoint_keeps_nothing(tmp_path):
    """It stays, and has no effect."""
    make(tmp_path)
    layout.pinned_path(layout.prefix(tmp_path, 35)).touch()
    apply_retention(tmp_path, KEEP_TWO, relative_paths=True)
    assert layout.steps_with(tmp_path, "manifest.json") == [40, 50]
    assert layout.pinned_path(layout.prefix(tmp_path, 35)).exists()


def test_an_older_checkpoint_with_a_damaged_manifest_is_moved(tmp_path):
    """It could never be deleted; the reason says that no step is lost."""
    make(tmp_path)
    layout.manifest_path(layout.prefix(tmp_path, 20)).write_bytes(b"")
    apply_retention(tmp_path, KEEP_TWO, relative_paths=True)
    assert steps_on_the_disk(tmp_path) == [40, 50]
    aside = tmp_path / "quarantine" / "model.ckpt-20"
    assert (aside / "model.ckpt-20.index").exists()
    assert (aside / "reason.txt").read_text().endswith("; a newer one is complete\n")


def test_files_of_other_programs_stay(tmp_path):
    """A plain Saver's checkpoints and other files are neither counted nor deleted."""
    make_files(tmp_path, 5, content="another program's")
    (tmp_path / "model.ckpt-10.notes").write_text("mine")
    before = tree(tmp_path)
    make(tmp_path)
    apply_retention(tmp_path, KEEP_TWO, relative_paths=True)
    assert layout.steps_with(tmp_path, "manifest.json") == [40, 50]
    assert before.items() <= tree(tmp_path).items()


def test_applying_retention_twice_changes_nothing(tmp_path):
    """All that is left is to be kept."""
    make(tmp_path)
    apply_retention(tmp_path, KEEP_TWO, relative_paths=True)
    before = tree(tmp_path)
    apply_retention(tmp_path, KEEP_TWO, relative_paths=True)
    assert tree(tmp_path) == before


def make_work(directory):
    """Make a damaged, a pinned and too many checkpoints, all listed in the state file."""
    make(directory)
    layout.manifest_path(layout.prefix(directory, 10)).write_bytes(b"")
    layout.pinned_path(layout.prefix(directory, 20)).touch()


def test_a_kill_while_retention_is_applied_is_recovered(tmp_path):
    """The newest is complete, the state file names existing checkpoints, and the next run does the rest."""

    def apply(directory):
        apply_retention(directory, KEEP_TWO, relative_paths=True)

    for directory in every_kill(tmp_path, make_work, apply):
        kept_in_any_case = layout.steps_with(directory, "manifest.json")
        assert {20, 40, 50} <= set(kept_in_any_case)
        named = [Path(path) for path in state(directory)[1] if not path.endswith("-10")]  # it was damaged before
        assert [layout.index_path(path).exists() for path in named] == [True] * len(named)
        assert newest_step(directory) == 50
        apply(directory)
        assert steps_on_the_disk(directory) == [20, 40, 50]
        assert state(directory)[1] == [str(directory / f"model.ckpt-{step}") for step in (20, 40, 50)]
        aside = [each for name, each in tree(directory / "quarantine").items() if name.endswith("-10.index")]
        assert aside == [b"this run's index at step 10"]


def test_a_checkpoint_that_is_pinned_at_the_last_moment_stays(tmp_path):
    """With all files, and without a mark."""
    prefix = make_checkpoint(tmp_path, 100)
    layout.pinned_path(prefix).touch()
    whole = tree(tmp_path)
    delete_unless_pinned(prefix)
    assert tree(tmp_path) == whole


def test_delete_unless_pinned_deletes_all_files_of_a_checkpoint(tmp_path):
    """And no file of another one."""
    make_checkpoint(tmp_path, 1)
    make_checkpoint(tmp_path, 10)
    whole = tree(tmp_path)
    prefix = make_checkpoint(tmp_path, 100)
    layout.shards_directory(prefix).mkdir()
    prefix.with_name(f"{prefix.name}.index.tempstate12").touch()
    delete_unless_pinned(prefix)
    assert tree(tmp_path) == whole
    assert not layout.shards_directory(prefix).exists()


@pytest.mark.parametrize("suffix", [".index", "_temp"])
def test_a_directory_at_the_path_of_a_file_is_moved(tmp_path, suffix):
    """It may hold a user's files, so it goes to quarantine."""
    prefix = make_files(tmp_path, 100, ["meta"])
    directory = prefix.with_name(prefix.name + suffix)
    directory.mkdir()
    (directory / "notes.txt").write_text("mine")
    delete_unless_pinned(prefix)
    assert tree(tmp_path) == {f"quarantine/model.ckpt-100/model.ckpt-100{suffix}/notes.txt": b"mine"}


def test_a_kill_during_a_deletion_leaves_a_checkpoint_complete_or_marked(tmp_path):
    """It is complete, or the next run deletes the rest."""

    def make_two(directory):
        for step in (10, 20):
            make_checkpoint(directory, step)

    outcomes = []
    for directory in every_kill(
        tmp_path, make_two, lambda directory: delete_unless_pinned(layout.prefix(directory, 20))
    ):
        left = set(tree(directory))
        if "model.ckpt-20.manifest.json" not in left and "model.ckpt-20.index" in left:
            assert "model.ckpt-20.incomplete" in left
        outcomes.append(newest_step(directory))
        assert steps_on_the_disk(directory) == [10, 20][: outcomes[-1] // 10]
        assert not layout.quarantine_path(directory).exists()  # nothing looked damaged
    assert outcomes == sorted(outcomes, reverse=True)
    assert set(outcomes) == {10, 20}


def test_an_incomplete_checkpoint_can_be_deleted(tmp_path):
    """Missing files are no error."""
    for kinds in (checkpoints.KINDS, ["index"], []):
        delete_unless_pinned(make_files(tmp_path, 10, kinds))
        assert tree(tmp_path) == {}


def test_the_state_file_is_ascii(tmp_path):
    """One field per line, for any path."""
    directory = tmp_path / "größe\n数字"
    make_checkpoint(directory, 10, saved_at=1.5)
    apply_retention(directory, KEEP_ALL, relative_paths=False)
    lines = (directory / "checkpoint").read_text(encoding="ascii").splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        "model_checkpoint_path",
        "all_model_checkpoint_paths",
        "all_model_checkpoint_timestamps",
    ]
    assert json.loads(lines[2].partition(": ")[2]) == 1.5


def cleanup(directory, retention, **options):
    """Return the Cleanup of a run that has just started."""
    made = Cleanup(directory, retention, relative_paths=True, **options)
    made.apply_retention()
    return made


def commit(made, directory, step, **fields):
    """Do what a save does."""
    prefix = make_checkpoint(directory, step, **fields)
    made.add(Manifest.read(layout.manifest_path(prefix)))


@pytest.mark.parametrize("retention", [KEEP_ALL, KEEP_TWO, RetentionPolicy(2, keep_best=1)])
def test_the_cost_of_a_save_does_not_depend_on_the_number_of_checkpoints(tmp_path, retention):
    """Neither the manifests nor the directory are read again."""
    counts = []
    for number in (10, 100):
        directory = tmp_path / str(number)
        for step in range(number):
            make_checkpoint(directory, step)
            make_checkpoint(directory, step + 1000, settings={"model": "another"})
        made = cleanup(directory, retention, is_of_run=lambda saved: saved.settings == SETTINGS)
        commit(made, directory, 5000)
        with (
            mock.patch.object(os, "scandir", side_effect=AssertionError),
            mock.patch.object(os, "listdir", side_effect=AssertionError),
        ):
            counts.append(calls(made.apply_retention))
    assert counts[1] < counts[0] + 30


def test_retention_during_a_run_equals_that_of_a_restart(tmp_path):
    """A run that has read the manifests once keeps the same checkpoints as a restart."""
    retention = RetentionPolicy(2, 1.5, 1)
    made = cleanup(tmp_path, retention)
    for step in range(1, 12):
        commit(made, tmp_path, step, score={2: 0.9}.get(step), training_seconds=step * 1000.0)
        if step == 3:
            layout.pinned_path(layout.prefix(tmp_path, 3)).touch()  # by another process
        made.apply_retention()
    there = steps_on_the_disk(tmp_path)
    assert there == [2, 3, 6, 10, 11]
    assert state(tmp_path)[1] == [str(tmp_path / f"model.ckpt-{step}") for step in there]
    before = tree(tmp_path)
    apply_retention(tmp_path, retention, relative_paths=True)
    assert tree(tmp_path) == before


def test_with_max_to_keep_0_the_state_file_lists_one(tmp_path):
    """The newest, as TensorFlow's Saver does: a list of all would grow with each save."""
    make(tmp_path)
    made = cleanup(tmp_path, KEEP_ALL)
    commit(made, tmp_path, 60)
    made.apply_retention()
    assert state(tmp_path)[1] == [str(tmp_path / "model.ckpt-60")]
    assert steps_on_the_disk(tmp_path) == [10, 20, 30, 40, 50, 60]


def test_a_checkpoint_deleted_by_hand_is_not_counted(tmp_path):
    """Nor listed; as many stay as are to be kept."""
    made = cleanup(tmp_path, RetentionPolicy(3))
    for step in (10, 20, 30):
        commit(made, tmp_path, step)
        made.apply_retention()
    for path in layout.files_of(layout.prefix(tmp_path, 30)):
        path.unlink()
    commit(made, tmp_path, 40)
    made.apply_retention()
    assert steps_on_the_disk(tmp_path) == [10, 20, 40]
    assert state(tmp_path)[1] == [str(tmp_path / f"model.ckpt-{step}") for step in (10, 20, 40)]


def test_checkpoints_of_another_run_are_neither_counted_nor_deleted(tmp_path):
    """Another run has other settings or another source; an extended run is the same."""
    for step in (1, 2, 3):
        make_checkpoint(tmp_path, step, settings={**SETTINGS, "seed": 1})
        make_checkpoint(tmp_path, step + 10, started_from="00ff")
        make_checkpoint(tmp_path, step + 20, settings={**SETTINGS, "train_steps": 50})
        make_checkpoint(tmp_path, step + 30)

    def ours(saved):
        return saved.started_from is None and not run_identity.diff(saved.settings, SETTINGS, may_grow=("train_steps",))

    cleanup(tmp_path, RetentionPolicy(4), is_of_run=ours)
    assert steps_on_the_disk(tmp_path) == [1, 2, 3, 11, 12, 13, 23, 31, 32, 33]
    assert state(tmp_path)[1] == [str(tmp_path / f"model.ckpt-{step}") for step in (23, 31, 32, 33)]


def test_a_manifest_that_names_other_files_deletes_none_of_them(tmp_path):
    """Its hash may match; only files with the checkpoint's prefix are deleted."""
    (tmp_path / "notes.txt").write_text("mine")
    other = make_files(tmp_path, 7, content="another's")
    prefix = make_checkpoint(tmp_path, 10)
    files = Manifest.read(layout.manifest_path(prefix)).files
    files |= {name: {"bytes": 4, "sha256": ""} for name in ("notes.txt", layout.index_path(other).name)}
    make_checkpoint(tmp_path, 10, files=files)
    for step in (20, 30):
        make_checkpoint(tmp_path, step)
    apply_retention(tmp_path, KEEP_TWO, relative_paths=True)
    assert layout.steps_with(tmp_path, "manifest.json") == [20, 30]
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert layout.index_path(other).exists()
    assert not layout.index_path(prefix).exists()


def test_retention_continues_if_quarantine_is_a_file(tmp_path, caplog):
    """A damaged checkpoint stays where it is; the others are deleted, and the file stays."""
    make(tmp_path)
    layout.manifest_path(layout.prefix(tmp_path, 20)).write_bytes(b"")
    (tmp_path / "quarantine").write_text("mine")
    apply_retention(tmp_path, KEEP_TWO, relative_paths=True)
    assert layout.steps_with(tmp_path, "manifest.json") == [20, 40, 50]
    assert (tmp_path / "quarantine").read_text() == "mine"
    assert "expected a directory" in caplog.text
