import json
import os
from pathlib import Path
from unittest import mock

import pytest
import tensorflow as tf

from checkpointing.protocol import resume
from checkpointing.protocol.cleanup import Cleanup, is_of_run, kept, retire
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
    """A train_dir of any name."""
    made = tmp_path / request.param
    made.mkdir()
    return made


def tidy_up(directory, retention, *, relative_paths):
    """What a run does with a train_dir when it starts."""
    Cleanup(directory, retention, relative_paths=relative_paths).apply_retention()


def state(directory):
    """What TensorFlow reads in its state file: the newest checkpoint, all of them, and when they were saved."""
    found = tf.train.get_checkpoint_state(str(directory))
    return (
        found.model_checkpoint_path,
        list(found.all_model_checkpoint_paths),
        list(found.all_model_checkpoint_timestamps),
    )


def steps_on_the_disk(directory):
    """Of the complete checkpoints; nothing else is named as one."""
    steps = layout.steps_with(directory, "manifest.json")
    named = {layout.step_of(path.name) for path in directory.iterdir()} - {None}
    assert named == set(steps)
    return steps


def newest_step(directory):
    """Where a run would go on."""
    start = resume.open_train_dir(directory, SETTINGS)
    start.close()
    return start.newest.step


def make(directory, steps=(10, 20, 30, 40, 50)):
    """A train_dir with these checkpoints and TensorFlow's state file of them."""
    for step in steps:
        make_checkpoint(directory, step, saved_at=1_700_000_000.123456 + step)
    tidy_up(directory, KEEP_ALL, relative_paths=True)


@pytest.mark.parametrize("relative_paths", [True, False])
def test_tensorflow_reads_the_state_file(directory, relative_paths):
    """Whatever the train_dir is called, it finds the checkpoints that are kept, and when they were saved."""
    for step in (5, 10, 15):
        make_checkpoint(directory, step, saved_at=1_700_000_000.123456 + step)
    tidy_up(directory, KEEP_TWO, relative_paths=relative_paths)
    paths = [str(directory / f"model.ckpt-{step}") for step in (10, 15)]
    # Not latest_checkpoint, which takes brackets and backslashes for a pattern, whoever wrote the file.
    assert state(directory) == (paths[-1], paths, [1_700_000_010.123456, 1_700_000_015.123456])


def test_relative_paths_can_be_moved(tmp_path):
    """Names, not paths, are in the state file: the train_dir may go elsewhere."""
    (tmp_path / "before").mkdir()
    make(tmp_path / "before")
    (tmp_path / "before").rename(tmp_path / "after")
    assert tf.train.latest_checkpoint(str(tmp_path / "after")) == str(tmp_path / "after" / "model.ckpt-50")
    assert str(tmp_path) not in (tmp_path / "after" / "checkpoint").read_text()


@pytest.mark.parametrize("relative_paths", [True, False])
def test_a_relative_train_dir_will_do(tmp_path, monkeypatch, relative_paths):
    """Absolute paths are absolute all the same."""
    monkeypatch.chdir(tmp_path)
    make_checkpoint(Path("runs"), 10)
    tidy_up(Path("runs"), KEEP_ALL, relative_paths=relative_paths)
    monkeypatch.chdir("/")
    assert tf.train.latest_checkpoint(str(tmp_path / "runs")) == str(tmp_path / "runs" / "model.ckpt-10")


@pytest.mark.parametrize("seconds", [0.0, 1.0, 1e-7, 1e18, -1.5, 1_700_000_000, 1_700_000_000.1234567])
def test_any_time_comes_back(tmp_path, seconds):
    """To the last digit, however it is written."""
    make_checkpoint(tmp_path, 10, saved_at=seconds)
    tidy_up(tmp_path, KEEP_ALL, relative_paths=True)
    assert state(tmp_path)[2] == [seconds]


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 200, b"\xff\xfe", b"garbage", b'model_checkpoint_path: "model.ckpt-999"\n']
)
def test_a_state_file_of_any_content_is_written_anew(tmp_path, content):
    """It is but a cache of the manifests."""
    make_checkpoint(tmp_path, 10)
    (tmp_path / "checkpoint").write_bytes(content)
    tidy_up(tmp_path, KEEP_ALL, relative_paths=True)
    assert state(tmp_path)[0] == str(tmp_path / "model.ckpt-10")


def test_a_directory_in_the_place_of_the_state_file_is_moved(tmp_path):
    """It is somebody's, so it is kept, and as often as somebody puts one there."""
    make_checkpoint(tmp_path, 10)
    for content in ("mine", "mine, too"):
        (tmp_path / "checkpoint").unlink(missing_ok=True)
        (tmp_path / "checkpoint").mkdir()
        (tmp_path / "checkpoint" / "notes").write_text(content)
        tidy_up(tmp_path, KEEP_ALL, relative_paths=True)
        assert state(tmp_path)[0] == str(tmp_path / "model.ckpt-10")
        assert content.encode() in tree(tmp_path / "quarantine").values()
    assert b"mine" in tree(tmp_path / "quarantine").values()


@pytest.mark.parametrize("target", ["nowhere", "elsewhere"])
def test_a_link_in_the_place_of_the_state_file_is_replaced(tmp_path, target):
    """What it led to stays as it was."""
    (tmp_path / "elsewhere").write_text("mine")
    make_checkpoint(tmp_path / "run", 10)
    (tmp_path / "run" / "checkpoint").symlink_to(tmp_path / target)
    tidy_up(tmp_path / "run", KEEP_ALL, relative_paths=True)
    assert state(tmp_path / "run")[0] == str(tmp_path / "run" / "model.ckpt-10")
    assert (tmp_path / "elsewhere").read_text() == "mine"


def test_a_state_file_that_is_right_is_not_written(tmp_path):
    """Where nothing changes, the disk is spared."""
    make(tmp_path)
    before = (tmp_path / "checkpoint").stat()
    tidy_up(tmp_path, KEEP_ALL, relative_paths=True)
    after = (tmp_path / "checkpoint").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_without_checkpoints_nothing_is_written(tmp_path):
    """There is nothing to tell."""
    tidy_up(tmp_path, KEEP_TWO, relative_paths=True)
    assert list(tmp_path.iterdir()) == []


def test_what_is_kept_is_what_rotation_says(tmp_path):
    """By step, by score, by the hours trained, by pin: all from the disk, and nothing is left of the others."""
    for step in range(1, 10):
        make_checkpoint(tmp_path, step, score={2: 0.9}.get(step), training_seconds=step * 1000.0)
    layout.pinned_path(layout.prefix(tmp_path, 3)).touch()
    tidy_up(tmp_path, RetentionPolicy(2, 1.5, 1), relative_paths=True)
    assert steps_on_the_disk(tmp_path) == [2, 3, 6, 8, 9]
    assert state(tmp_path)[1] == [str(tmp_path / f"model.ckpt-{step}") for step in (2, 3, 6, 8, 9)]


def test_why_each_is_kept_can_be_asked(tmp_path):
    """Without changing anything."""
    make(tmp_path, [10, 20])
    before = tree(tmp_path)
    manifests = [Manifest.read(layout.manifest_path(layout.prefix(tmp_path, step))) for step in (10, 20)]
    assert kept(manifests, RetentionPolicy(1), {10}) == {10: "pinned", 20: "newest"}
    assert tree(tmp_path) == before


def test_a_pin_is_kept_until_it_is_taken_away(tmp_path):
    """The mark alone decides, whatever is in it."""
    make(tmp_path)
    pin = layout.pinned_path(layout.prefix(tmp_path, 10))
    pin.write_text("the one of the paper")
    for _ in range(2):
        tidy_up(tmp_path, KEEP_TWO, relative_paths=True)
        assert steps_on_the_disk(tmp_path) == [10, 40, 50]
    pin.unlink()
    tidy_up(tmp_path, KEEP_TWO, relative_paths=True)
    assert steps_on_the_disk(tmp_path) == [40, 50]


def test_a_pin_without_a_checkpoint_keeps_nothing(tmp_path):
    """Nor does it disturb, and it stays for whoever made it."""
    make(tmp_path)
    layout.pinned_path(layout.prefix(tmp_path, 35)).touch()
    tidy_up(tmp_path, KEEP_TWO, relative_paths=True)
    assert layout.steps_with(tmp_path, "manifest.json") == [40, 50]
    assert layout.pinned_path(layout.prefix(tmp_path, 35)).exists()


def test_an_older_one_whose_manifest_is_damaged_is_set_aside(tmp_path):
    """Its turn to be retired never comes, for nobody knows what it is; the reason says that nothing is lost by it."""
    make(tmp_path)
    layout.manifest_path(layout.prefix(tmp_path, 20)).write_bytes(b"")
    tidy_up(tmp_path, KEEP_TWO, relative_paths=True)
    assert steps_on_the_disk(tmp_path) == [40, 50]
    aside = tmp_path / "quarantine" / "model.ckpt-20"
    assert (aside / "model.ckpt-20.index").exists()
    assert (aside / "reason.txt").read_text().endswith(": a newer one is complete\n")


def test_what_is_not_ours_stays(tmp_path):
    """A plain Saver's checkpoints, and what else somebody put there, are neither counted nor deleted."""
    make_files(tmp_path, 5, content="somebody else's")
    (tmp_path / "model.ckpt-10.notes").write_text("mine")
    before = tree(tmp_path)
    make(tmp_path)
    tidy_up(tmp_path, KEEP_TWO, relative_paths=True)
    assert layout.steps_with(tmp_path, "manifest.json") == [40, 50]
    assert before.items() <= tree(tmp_path).items()


def test_tidying_twice_changes_nothing(tmp_path):
    """What is left is what is to be kept."""
    make(tmp_path)
    tidy_up(tmp_path, KEEP_TWO, relative_paths=True)
    before = tree(tmp_path)
    tidy_up(tmp_path, KEEP_TWO, relative_paths=True)
    assert tree(tmp_path) == before


def make_work(directory):
    """What has everything to be done: damaged, pinned and too many, and the state file names them all."""
    make(directory)
    layout.manifest_path(layout.prefix(directory, 10)).write_bytes(b"")
    layout.pinned_path(layout.prefix(directory, 20)).touch()


def test_a_kill_while_tidying_leaves_what_a_run_can_go_on_from(tmp_path):
    """Wherever it comes: the newest is complete, the state file names none that is gone, the next run ends the work."""

    def tidy(directory):
        tidy_up(directory, KEEP_TWO, relative_paths=True)

    for directory in every_kill(tmp_path, make_work, tidy):
        kept_in_any_case = layout.steps_with(directory, "manifest.json")
        assert {20, 40, 50} <= set(kept_in_any_case)
        named = [Path(path) for path in state(directory)[1] if not path.endswith("-10")]  # that was not whole before
        assert [layout.index_path(path).exists() for path in named] == [True] * len(named)
        assert newest_step(directory) == 50
        tidy(directory)
        assert steps_on_the_disk(directory) == [20, 40, 50]
        assert state(directory)[1] == [str(directory / f"model.ckpt-{step}") for step in (20, 40, 50)]
        aside = [each for name, each in tree(directory / "quarantine").items() if name.endswith("-10.index")]
        assert aside == [b"this run's index at step 10"]


def test_a_checkpoint_that_is_pinned_at_the_last_moment_stays(tmp_path):
    """Whole, and without a mark."""
    prefix = make_checkpoint(tmp_path, 100)
    layout.pinned_path(prefix).touch()
    whole = tree(tmp_path)
    retire(prefix)
    assert tree(tmp_path) == whole


def test_a_retired_checkpoint_is_gone(tmp_path):
    """With all that is named after it, and nothing of another."""
    make_checkpoint(tmp_path, 1)
    make_checkpoint(tmp_path, 10)
    whole = tree(tmp_path)
    prefix = make_checkpoint(tmp_path, 100)
    layout.shards_directory(prefix).mkdir()
    prefix.with_name(f"{prefix.name}.index.tempstate12").touch()
    retire(prefix)
    assert tree(tmp_path) == whole
    assert not layout.shards_directory(prefix).exists()


@pytest.mark.parametrize("suffix", [".index", "_temp"])
def test_a_directory_that_is_not_ours_is_moved_not_deleted(tmp_path, suffix):
    """A directory in the place of a checkpoint's file may hold a user's files: they go to quarantine."""
    prefix = make_files(tmp_path, 100, ["meta"])
    directory = prefix.with_name(prefix.name + suffix)
    directory.mkdir()
    (directory / "notes.txt").write_text("mine")
    retire(prefix)
    assert tree(tmp_path) == {f"quarantine/model.ckpt-100/model.ckpt-100{suffix}/notes.txt": b"mine"}


def test_a_kill_while_retiring_leaves_it_whole_or_marked(tmp_path):
    """It exists with every byte, or it does not exist, and what is left of it is swept."""

    def make_two(directory):
        for step in (10, 20):
            make_checkpoint(directory, step)

    outcomes = []
    for directory in every_kill(tmp_path, make_two, lambda directory: retire(layout.prefix(directory, 20))):
        left = set(tree(directory))
        if "model.ckpt-20.manifest.json" not in left and "model.ckpt-20.index" in left:
            assert "model.ckpt-20.incomplete" in left
        outcomes.append(newest_step(directory))
        assert steps_on_the_disk(directory) == [10, 20][: outcomes[-1] // 10]
        assert not layout.quarantine_path(directory).exists()  # nothing looked damaged
    assert outcomes == sorted(outcomes, reverse=True)
    assert set(outcomes) == {10, 20}


def test_what_never_was_whole_can_be_retired(tmp_path):
    """A failed save's files go in the same way, and what is not there is gone already."""
    for kinds in (checkpoints.KINDS, ["index"], []):
        retire(make_files(tmp_path, 10, kinds))
        assert tree(tmp_path) == {}


def test_the_state_file_is_plain_text(tmp_path):
    """Whatever is in a path, the file is ASCII, a field a line, as people and other programs expect it."""
    directory = tmp_path / "größe\n数字"
    make_checkpoint(directory, 10, saved_at=1.5)
    tidy_up(directory, KEEP_ALL, relative_paths=False)
    lines = (directory / "checkpoint").read_text(encoding="ascii").splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        "model_checkpoint_path",
        "all_model_checkpoint_paths",
        "all_model_checkpoint_timestamps",
    ]
    assert json.loads(lines[2].partition(": ")[2]) == 1.5


def cleanup(directory, retention, **options):
    """Of a run that has just started."""
    made = Cleanup(directory, retention, relative_paths=True, **options)
    made.apply_retention()
    return made


def commit(made, directory, step, **fields):
    """What a save does."""
    prefix = make_checkpoint(directory, step, **fields)
    made.add(Manifest.read(layout.manifest_path(prefix)))


@pytest.mark.parametrize("retention", [KEEP_ALL, KEEP_TWO, RetentionPolicy(2, keep_best=1)])
def test_a_save_costs_the_same_however_many_checkpoints_are_there(tmp_path, retention):
    """The run's own and others': neither their manifests nor the directory are read again."""
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


def test_a_run_of_saves_keeps_what_rotation_says(tmp_path):
    """Save after save, from what the run remembers, the same stay as a restart would keep."""
    retention = RetentionPolicy(2, 1.5, 1)
    made = cleanup(tmp_path, retention)
    for step in range(1, 12):
        commit(made, tmp_path, step, score={2: 0.9}.get(step), training_seconds=step * 1000.0)
        if step == 3:
            layout.pinned_path(layout.prefix(tmp_path, 3)).touch()  # another process, at any time
        made.apply_retention()
    there = steps_on_the_disk(tmp_path)
    assert there == [2, 3, 6, 10, 11]
    assert state(tmp_path)[1] == [str(tmp_path / f"model.ckpt-{step}") for step in there]
    before = tree(tmp_path)
    tidy_up(tmp_path, retention, relative_paths=True)
    assert tree(tmp_path) == before


def test_where_all_are_kept_the_newest_alone_is_listed(tmp_path):
    """As TensorFlow's Saver has it: a state file that lists all would grow with each save."""
    make(tmp_path)
    made = cleanup(tmp_path, KEEP_ALL)
    commit(made, tmp_path, 60)
    made.apply_retention()
    assert state(tmp_path)[1] == [str(tmp_path / "model.ckpt-60")]
    assert steps_on_the_disk(tmp_path) == [10, 20, 30, 40, 50, 60]


def test_what_was_deleted_by_hand_is_not_counted(tmp_path):
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
    """Other settings, or another origin, are another run's; a prolonged run's are its own."""
    for step in (1, 2, 3):
        make_checkpoint(tmp_path, step, settings={**SETTINGS, "seed": 1})
        make_checkpoint(tmp_path, step + 10, started_from="00ff")
        make_checkpoint(tmp_path, step + 20, settings={**SETTINGS, "train_steps": 50})
        make_checkpoint(tmp_path, step + 30)

    def ours(saved):
        return is_of_run(saved, settings=SETTINGS, started_from=None, may_grow=("train_steps",))

    cleanup(tmp_path, RetentionPolicy(4), is_of_run=ours)
    assert steps_on_the_disk(tmp_path) == [1, 2, 3, 11, 12, 13, 23, 31, 32, 33]
    assert state(tmp_path)[1] == [str(tmp_path / f"model.ckpt-{step}") for step in (23, 31, 32, 33)]


def test_a_manifest_that_names_other_files_deletes_none_of_them(tmp_path):
    """Its hash may be right; a checkpoint's files are those of its name."""
    (tmp_path / "notes.txt").write_text("mine")
    other = make_files(tmp_path, 7, content="another's")
    prefix = make_checkpoint(tmp_path, 10)
    files = Manifest.read(layout.manifest_path(prefix)).files
    files |= {name: {"bytes": 4, "sha256": ""} for name in ("notes.txt", layout.index_path(other).name)}
    make_checkpoint(tmp_path, 10, files=files)
    for step in (20, 30):
        make_checkpoint(tmp_path, step)
    tidy_up(tmp_path, KEEP_TWO, relative_paths=True)
    assert layout.steps_with(tmp_path, "manifest.json") == [20, 30]
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert layout.index_path(other).exists()
    assert not layout.index_path(prefix).exists()


def test_a_file_called_quarantine_stops_no_rotation(tmp_path, caplog):
    """What would go there stays where it is; the others are retired, and the file stays."""
    make(tmp_path)
    layout.manifest_path(layout.prefix(tmp_path, 20)).write_bytes(b"")
    (tmp_path / "quarantine").write_text("mine")
    tidy_up(tmp_path, KEEP_TWO, relative_paths=True)
    assert layout.steps_with(tmp_path, "manifest.json") == [20, 40, 50]
    assert (tmp_path / "quarantine").read_text() == "mine"
    assert "expected a directory" in caplog.text
