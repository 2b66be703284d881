import errno
import logging
import os
import shutil
import tempfile
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import pytest

from checkpointing.errors import CheckpointError, DamagedError
from checkpointing.protocol import manifest, resume
from checkpointing.storage import layout
from checkpointing.storage.fingerprint import file_sha256
from tests import checkpoints
from tests.checkpoints import AWKWARD, KINDS, SETTINGS, every_kill, make_checkpoint, make_files, mark, tree

CAUSE = DamagedError("model.ckpt-100: TensorFlow cannot read it (a reason)")


@pytest.fixture(autouse=True)
def opened(monkeypatch):
    """All starts that a test finds; afterwards they are closed."""
    starts = []
    really_find_start = resume.open_train_dir
    monkeypatch.setattr(
        resume,
        "open_train_dir",
        lambda *args, **options: starts.append(really_find_start(*args, **options)) or starts[-1],
    )
    yield starts
    for start in starts:
        start.close()


def open_start(
    directory, *, restore_from=None, warm_start_from=None, code=None, environment=None, defaults=None, **settings
):
    """Where a run with these settings goes on; the train_dir is the run's."""
    return resume.open_train_dir(
        directory,
        SETTINGS | settings,
        code=code,
        environment=environment,
        restore_from=restore_from,
        warm_start_from=warm_start_from,
        may_grow=("train_steps",),
        defaults=defaults,
    )


def find_start(directory, **options):
    """Where a run with these settings goes on; the train_dir is free again."""
    start = open_start(directory, **options)
    start.close()
    return start


def is_the_beginning(start):
    """Whether nothing is to be restored."""
    return (start.prefix, start.newest, start.older, start.started_from) == (None, None, (), None)


def complaint(directory, **options):
    """The one sentence with which a train_dir is refused; nothing in it has changed, and it is refused again."""
    before = tree(directory)
    sentences = []
    for _ in range(2):
        with pytest.raises(CheckpointError) as refused:
            find_start(directory, **options)
        sentences.append(str(refused.value))
        assert tree(directory) == before
    assert sentences[0] == sentences[1]
    assert sentences[0].endswith(".")
    assert "\n" not in sentences[0]
    return sentences[0]


def set_aside(directory):
    """The checkpoints in quarantine, each with the reason that lies beside it."""
    return {
        path.name: (path / "reason.txt").read_text() for path in sorted(layout.quarantine_path(directory).iterdir())
    }


@pytest.mark.parametrize("name", AWKWARD)
def test_a_new_train_dir_starts_from_the_beginning(tmp_path, name):
    """It is made with its parents, whatever its name; again it starts there, for nothing was saved."""
    directory = tmp_path / name / "cnn"
    for _ in range(2):
        assert is_the_beginning(find_start(directory))
        assert directory.is_dir()


@pytest.mark.parametrize("name", AWKWARD)
def test_the_newest_checkpoint_is_where_a_run_goes_on(tmp_path, name):
    """Newest by its step, not by its name or its age, and whatever the train_dir is called."""
    directory = tmp_path / name
    for step in (100, 20, 9):
        make_checkpoint(directory, step)
    start = find_start(directory)
    assert start.prefix == layout.prefix(directory, 100)
    assert start.newest.step == 100
    assert start.newest.settings == SETTINGS


def test_other_files_in_a_train_dir_do_not_matter(tmp_path):
    """State file, metrics, results, notes: none decides where a run goes on, and none is touched."""
    make_checkpoint(tmp_path, 50)
    for name in ("checkpoint", "metrics.jsonl", "result.json", "notes.txt", "model.ckpt-60.txt"):
        (tmp_path / name).write_text("garbage that names model.ckpt-999")
    before = tree(tmp_path)
    assert find_start(tmp_path).prefix == layout.prefix(tmp_path, 50)
    assert tree(tmp_path) == before


def test_a_relative_train_dir_will_do(tmp_path, monkeypatch):
    """A path without a beginning is one below the current directory."""
    make_checkpoint(tmp_path / "runs", 50)
    monkeypatch.chdir(tmp_path)
    assert find_start(Path("runs")).prefix == Path("runs/model.ckpt-50")


def test_all_other_settings_are_listed_at_once(tmp_path):
    """Who has to change three flags reads of three, with what each was and is."""
    make_checkpoint(tmp_path, 50)
    sentence = complaint(tmp_path, seed=1, learning_rate=0.2, model="adder")
    assert sentence.startswith(f"{tmp_path}: ")
    assert "learning_rate 0.1 (now 0.2), model counter (now adder), seed 0 (now 1)" in sentence
    assert "train_steps" not in sentence


def test_a_setting_that_is_new_is_a_difference(tmp_path):
    """What a checkpoint was made without is not taken for granted."""
    make_checkpoint(tmp_path, 50)
    assert "dropout_rate None (now 0.5)" in complaint(tmp_path, dropout_rate=0.5)


def test_a_setting_that_is_gone_is_a_difference(tmp_path):
    """A recorded setting that the run lacks, and that has no default, is listed, too."""
    make_checkpoint(tmp_path, 50, settings=SETTINGS | {"dropout_rate": 0.5})
    assert "dropout_rate 0.5 (now None)" in complaint(tmp_path)


def test_a_checkpoint_from_before_the_newest_setting_is_resumed(tmp_path):
    """A manifest that lacks a setting was saved with the setting's default; any other value is refused, with a list."""
    prefix = make_checkpoint(tmp_path, 50)
    defaults = {"newest": 0.0, "second": "off"}
    assert find_start(tmp_path, newest=0.0, second="off", defaults=defaults).prefix == prefix
    sentence = complaint(tmp_path, newest=0.5, second="on", defaults=defaults)
    assert "newest 0.0 (now 0.5), second off (now on)" in sentence


def test_a_removed_setting_at_its_default_is_resumed(tmp_path):
    """A setting that a release removed has its default from then on; a checkpoint with another value is refused."""
    prefix = make_checkpoint(tmp_path / "default", 50, settings=SETTINGS | {"removed": 0.0})
    make_checkpoint(tmp_path / "other", 50, settings=SETTINGS | {"removed": 2.0})
    assert find_start(tmp_path / "default", defaults={"removed": 0.0}).prefix == prefix
    assert "removed 2.0 (now 0.0)" in complaint(tmp_path / "other", defaults={"removed": 0.0})


def test_the_newest_checkpoint_tells_the_settings(tmp_path):
    """A run that was prolonged once may not be shortened to what it was before."""
    make_checkpoint(tmp_path, 50)
    make_checkpoint(tmp_path, 150, settings=SETTINGS | {"train_steps": 200})
    assert "train_steps 200 (now 100)" in complaint(tmp_path)
    assert find_start(tmp_path, train_steps=200).newest.step == 150


def test_a_run_may_be_prolonged(tmp_path):
    """More train_steps than before are fine."""
    prefix = make_checkpoint(tmp_path, 100)
    assert find_start(tmp_path, train_steps=101).prefix == prefix


def test_a_run_may_not_be_shortened(tmp_path):
    """Fewer are not: the schedule of what is trained already was another."""
    make_checkpoint(tmp_path, 50)
    assert "train_steps 100 (now 99)" in complaint(tmp_path, train_steps=99)


def test_other_versions_are_warned_of(tmp_path, caplog):
    """Another TensorFlow may give other last bits: the run goes on, and says so with both versions."""
    make_checkpoint(tmp_path, 50, versions=manifest.versions() | {"tensorflow": "1.15.5"})
    assert find_start(tmp_path).newest.step == 50
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "1.15.5" in record.getMessage()
    assert manifest.versions()["tensorflow"] in record.getMessage()


def test_other_code_is_warned_of(tmp_path, caplog):
    """What computes the weights has changed: the run goes on, and says so."""
    make_checkpoint(tmp_path, 50, code="before")
    assert find_start(tmp_path, code="after").newest.step == 50
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "other code" in record.getMessage()


def test_another_environment_is_a_warning_that_names_each_variable(tmp_path, caplog):
    """The run goes on, and one sentence gives the values of before and of now."""
    make_checkpoint(tmp_path, 100, environment={"SAME": "1", "GONE": "2", "CHANGED": "3"})
    assert find_start(tmp_path, environment={"SAME": "1", "CHANGED": "4", "NEW": "5"}).newest.step == 100
    (record,) = caplog.records
    changes = "CHANGED 3 (now 4), GONE 2 (now unset), NEW unset (now 5)"
    assert record.getMessage() == (
        f"{tmp_path} was made with environment variables {changes}: the last bits may differ"
    )


@pytest.mark.parametrize(("recorded", "now"), [({"A": "1"}, {"A": "1"}), (None, {"A": "1"}), ({"A": "1"}, None)])
def test_the_same_environment_or_an_unknown_one_is_no_warning(tmp_path, caplog, recorded, now):
    """Manifests of an older format have none, nor do programs that pass none."""
    make_checkpoint(tmp_path, 100, environment=recorded)
    find_start(tmp_path, environment=now)
    assert not caplog.records


def test_the_same_versions_and_code_are_not_warned_of(tmp_path, caplog):
    """Where nothing differs, nothing is said."""
    make_checkpoint(tmp_path, 50, code="the same")
    find_start(tmp_path, code="the same")
    assert caplog.records == []


def test_what_was_told_is_at_hand(tmp_path):
    """Whoever makes the next checkpoints finds what to record in them."""
    start = find_start(tmp_path, code="abc", seed=7)
    assert (start.directory, start.code, start.settings) == (tmp_path, "abc", SETTINGS | {"seed": 7})


@pytest.mark.parametrize("name", AWKWARD)
def test_what_an_interrupted_save_left_is_deleted(tmp_path, name):
    """Marked files without a manifest go, TensorFlow's temporary ones too, and the run goes on from before."""
    directory = tmp_path / name
    make_checkpoint(directory, 50)
    whole = tree(directory)
    mark(make_files(directory, 100, [*KINDS, "index.tempstate12", "manifest.json.tmp"]))
    (directory / "model.ckpt-100_temp").mkdir()
    (directory / "model.ckpt-100_temp" / "part-00000-of-00001.data-00000-of-00001").touch()
    assert find_start(directory).newest.step == 50
    assert tree(directory) == whole
    assert not (directory / "model.ckpt-100_temp").exists()


def test_an_interrupted_first_save_starts_anew(tmp_path):
    """Where the only save was interrupted, the run starts from the beginning."""
    mark(make_files(tmp_path, 10, ["index"]))
    assert is_the_beginning(find_start(tmp_path))
    assert tree(tmp_path) == {}


def test_a_mark_alone_is_deleted(tmp_path):
    """An interrupted deletion's last trace goes."""
    tmp_path.mkdir(exist_ok=True)
    mark(layout.prefix(tmp_path, 10))
    resume.remove_incomplete(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_committed_checkpoint_loses_but_its_mark(tmp_path):
    """A kill between the commit and the removal of the mark costs nothing."""
    prefix = make_checkpoint(tmp_path, 50)
    whole = tree(tmp_path)
    mark(prefix)
    assert find_start(tmp_path).prefix == prefix
    assert tree(tmp_path) == whole


def test_one_step_is_not_taken_for_another(tmp_path):
    """Sweeping step 1 leaves steps 10 and 11 alone."""
    make_checkpoint(tmp_path, 10)
    make_checkpoint(tmp_path, 11)
    whole = tree(tmp_path)
    mark(make_files(tmp_path, 1))
    resume.remove_incomplete(tmp_path)
    assert tree(tmp_path) == whole


def test_sweeping_is_told(tmp_path, caplog):
    """Nothing is deleted in silence."""
    caplog.set_level(logging.INFO)
    prefix = mark(make_files(tmp_path, 100))
    resume.remove_incomplete(tmp_path)
    assert [str(prefix) in record.getMessage() for record in caplog.records] == [True]


def test_a_sweep_that_was_killed_is_finished(tmp_path):
    """The mark goes last: whatever was deleted before it, the next run deletes the rest."""
    for count in range(len(KINDS) + 1):
        mark(make_files(tmp_path, 100, KINDS[:count]))
        resume.remove_incomplete(tmp_path)
        assert list(tmp_path.iterdir()) == []


# Damage.


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(tmp_path, caplog):
    """It goes to quarantine with the reason, which says what is made again; the run goes on from the one before."""
    for step in (20, 50):
        make_checkpoint(tmp_path, step)
    whole = tree(tmp_path)
    checkpoints.cut_short(layout.meta_path(make_checkpoint(tmp_path, 100)))
    damaged = {name: content for name, content in tree(tmp_path).items() if name not in whole}
    start = find_start(tmp_path)
    assert (start.prefix, start.newest.step) == (layout.prefix(tmp_path, 50), 50)
    told = set_aside(tmp_path)
    assert list(told) == ["model.ckpt-100"]
    assert told["model.ckpt-100"].startswith("model.ckpt-100.meta: ")
    assert told["model.ckpt-100"].endswith("; 50 steps are to be made again, from step 50\n")
    moved = {f"quarantine/model.ckpt-100/{name}": content for name, content in damaged.items()}
    reason = {"quarantine/model.ckpt-100/reason.txt": told["model.ckpt-100"].encode()}
    assert tree(tmp_path) == whole | moved | reason
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert told["model.ckpt-100"].strip() in record.getMessage()


@pytest.mark.parametrize("damage", checkpoints.DAMAGES)
@pytest.mark.parametrize("kind", [*KINDS, "manifest.json"])
def test_whatever_is_damaged_the_one_before_is_taken(tmp_path, kind, damage):
    """Any damage to any file of the newest is found before TensorFlow sees it, and no file stays under its name."""
    make_checkpoint(tmp_path, 50)
    damage(layout.prefix(tmp_path, 51).with_name(f"{make_checkpoint(tmp_path, 51).name}.{kind}"))
    for _ in range(2):
        assert find_start(tmp_path).newest.step == 50
        assert layout.files_of(layout.prefix(tmp_path, 51)) == []
        (told,) = set_aside(tmp_path).values()
        assert f"model.ckpt-51.{kind}" in told or told.startswith("model.ckpt-51: its manifest is missing")
        assert told.endswith("; 1 step is to be made again, from step 50\n")


def test_all_damaged_ones_are_set_aside_down_to_the_first_that_is_whole(tmp_path):
    """Each for its own reason, and with the steps that it would have saved."""
    for step in (10, 20, 30, 40):
        make_checkpoint(tmp_path, step)
    layout.manifest_path(layout.prefix(tmp_path, 40)).unlink()
    checkpoints.empty(layout.index_path(layout.prefix(tmp_path, 30)))
    checkpoints.zero(layout.manifest_path(layout.prefix(tmp_path, 20)))
    assert find_start(tmp_path).newest.step == 10
    told = set_aside(tmp_path)
    assert told["model.ckpt-20"].endswith("; 10 steps are to be made again, from step 10\n")
    assert told["model.ckpt-30"].endswith("; 20 steps are to be made again, from step 10\n")
    assert told["model.ckpt-40"] == (
        "model.ckpt-40: its manifest is missing; 30 steps are to be made again, from step 10\n"
    )
    assert layout.steps_with(tmp_path, "index") == [10]


def test_an_older_one_that_is_damaged_is_not_looked_for(tmp_path):
    """The newest is complete, and that is all that matters to go on."""
    checkpoints.flip_a_bit(layout.meta_path(make_checkpoint(tmp_path, 50)))
    make_checkpoint(tmp_path, 100)
    before = tree(tmp_path)
    assert find_start(tmp_path).newest.step == 100
    assert tree(tmp_path) == before


def test_what_is_newer_and_lacks_but_its_manifest_is_set_aside(tmp_path):
    """It may be ours, its manifest lost: the run comes to that step again, and must not meet it there."""
    make_checkpoint(tmp_path, 50)
    make_files(tmp_path, 100)
    assert find_start(tmp_path).newest.step == 50
    assert set_aside(tmp_path) == {
        "model.ckpt-100": "model.ckpt-100: its manifest is missing; 50 steps are to be made again, from step 50\n"
    }


def test_what_is_older_and_has_no_manifest_stays(tmp_path):
    """A run that goes on from a later step has nothing to do with it."""
    make_files(tmp_path, 50, content="somebody else's")
    make_checkpoint(tmp_path, 100)
    before = tree(tmp_path)
    assert find_start(tmp_path).newest.step == 100
    assert tree(tmp_path) == before


def test_pins_and_temporary_files_go_along(tmp_path):
    """All that is named after a damaged checkpoint leaves its name free."""
    make_checkpoint(tmp_path, 50)
    prefix = make_checkpoint(tmp_path, 100)
    checkpoints.empty(layout.index_path(prefix))
    layout.pinned_path(prefix).touch()
    layout.shards_directory(prefix).mkdir()
    assert find_start(tmp_path).newest.step == 50
    assert layout.files_of(prefix) == []
    assert (tmp_path / "quarantine" / "model.ckpt-100" / "model.ckpt-100.pinned").exists()


def test_a_step_may_be_damaged_more_than_once(tmp_path):
    """What is in quarantine already stays as it is; the next of that step gets a place of its own."""
    make_checkpoint(tmp_path, 50)
    for content in ("first", "second", "third"):
        checkpoints.empty(layout.index_path(make_checkpoint(tmp_path, 100, content=content)))
        find_start(tmp_path)
    assert list(set_aside(tmp_path)) == ["model.ckpt-100", "model.ckpt-100.2", "model.ckpt-100.3"]
    for place, content in (("model.ckpt-100", "first"), ("model.ckpt-100.3", "third")):
        kept = layout.quarantine_path(tmp_path) / place / "model.ckpt-100.meta"
        assert kept.read_text() == f"{content} meta at step 100"


def test_what_was_damaged_only_in_part_of_its_bytes_can_be_put_back(tmp_path):
    """Mended by hand and moved back, it is where the run goes on."""
    make_checkpoint(tmp_path, 50)
    prefix = make_checkpoint(tmp_path, 100)
    whole = tree(tmp_path)
    good = layout.index_path(prefix).read_bytes()
    checkpoints.cut_in_half(layout.index_path(prefix))
    assert find_start(tmp_path).newest.step == 50
    for path in (tmp_path / "quarantine" / "model.ckpt-100").glob("model.ckpt-100.*"):
        path.rename(tmp_path / path.name)
    layout.index_path(prefix).write_bytes(good)
    assert find_start(tmp_path).newest.step == 100
    assert whole.items() <= tree(tmp_path).items()


@pytest.mark.parametrize("damage", checkpoints.DAMAGES)
@pytest.mark.parametrize("steps", [[100], [50, 100]])
def test_where_all_are_damaged_nothing_is_moved_and_nothing_begun(tmp_path, steps, damage):
    """They may be somebody's only copy: the sentence lists them, and no second try starts from the beginning."""
    for step in steps:
        damage(layout.index_path(make_checkpoint(tmp_path, step)))
    sentence = complaint(tmp_path)
    assert sentence.startswith(f"{tmp_path}: only damaged checkpoints found (")
    assert all(f"model.ckpt-{step}.index: " in sentence for step in steps)
    assert "put a good copy back" in sentence


def test_a_lost_manifest_beside_damaged_ones_moves_nothing_either(tmp_path):
    """Nor is it taken for somebody else's and gone on from."""
    checkpoints.empty(layout.index_path(make_checkpoint(tmp_path, 50)))
    make_files(tmp_path, 100)
    assert "only damaged checkpoints found" in complaint(tmp_path)


def test_only_damaged_ones_do_not_make_way_for_another_start(tmp_path):
    """Also with --restore_from nothing is begun over them."""
    theirs = make_checkpoint(tmp_path / "theirs", 70)
    checkpoints.empty(layout.index_path(make_checkpoint(tmp_path / "ours", 80)))
    assert "only damaged checkpoints found" in complaint(tmp_path / "ours", restore_from=theirs)


def quarantine_all(directory):
    """Leaves a train_dir with a damaged checkpoint in quarantine, from which somebody has taken the good ones."""
    make_checkpoint(directory, 50)
    checkpoints.empty(layout.index_path(make_checkpoint(directory, 100)))
    find_start(directory)
    for path in layout.files_of(layout.prefix(directory, 50)):
        path.unlink()


def test_a_quarantine_alone_is_no_fresh_start(tmp_path):
    """A run that had checkpoints does not begin anew in silence."""
    quarantine_all(tmp_path)
    sentence = complaint(tmp_path)
    assert sentence.startswith(f"{tmp_path}: its checkpoints are all in quarantine/")
    assert "put a good copy back" in sentence


def test_a_quarantine_alone_is_no_fresh_start_from_elsewhere_either(tmp_path):
    """The same command with --restore_from began this run once: it does not begin it again in silence."""
    theirs = make_checkpoint(tmp_path / "theirs", 70)
    quarantine_all(tmp_path / "ours")
    assert "quarantine/" in complaint(tmp_path / "ours", restore_from=theirs)


def test_what_another_version_made_is_told_and_kept(tmp_path):
    """It is not damaged, so it goes nowhere, though older ones could be gone on from."""
    make_checkpoint(tmp_path, 50)
    path = layout.manifest_path(make_checkpoint(tmp_path, 100))
    path.write_text('{"format": 1, "step": 100}')
    sentence = complaint(tmp_path)
    assert "format 1 found, 4 wanted" in sentence
    assert f"--restore_from={tmp_path / 'model.ckpt-100'}" in sentence


def test_what_another_version_made_can_be_started_from(tmp_path):
    """In a train_dir of its own, as the sentence advises."""
    prefix = make_checkpoint(tmp_path / "theirs", 100)
    layout.manifest_path(prefix).write_text('{"format": 1, "step": 100}')
    assert find_start(tmp_path / "ours", restore_from=prefix).prefix == prefix


def make_damage(directory):
    """A complete checkpoint, and after it one damaged in a file, one in its manifest, and one that lost that."""
    make_checkpoint(directory, 50)
    checkpoints.empty(layout.index_path(make_checkpoint(directory, 60)))
    checkpoints.empty(layout.manifest_path(make_checkpoint(directory, 70)))
    make_files(directory, 80)


def contents(directory):
    """How often each content is below a directory, but for the lock and the reasons why something was set aside."""
    told = ("reason.txt", "lock")
    return Counter(content for name, content in tree(directory).items() if not Path(name).name.startswith(told))


def test_a_kill_while_damaged_ones_are_set_aside_loses_nothing(tmp_path):
    """Wherever it comes, the next run goes on from the same checkpoint, and no content is gone."""
    before = None
    for directory in every_kill(tmp_path, make_damage, lambda directory: find_start(directory).close()):
        before = before or contents(directory)
        left = contents(directory)
        assert find_start(directory).newest.step == 50
        assert contents(directory) == left == before
        assert layout.steps_with(directory, "manifest.json") == layout.steps_with(directory, "index") == [50]
        # Moved in part, it was still known to be damaged, and the rest followed.
        assert [layout.files_of(layout.prefix(directory, step)) for step in (60, 70)] == [[], []]


def make_litter(directory):
    """A complete checkpoint that lacks but the removal of its mark, and what an interrupted save left."""
    mark(make_checkpoint(directory, 50))
    mark(make_files(directory, 100, [*KINDS, "manifest.json.tmp"]))
    layout.shards_directory(layout.prefix(directory, 100)).mkdir()


def test_a_kill_while_litter_is_swept_leaves_what_the_next_run_sweeps(tmp_path):
    """Wherever it comes, in the end nothing but the complete checkpoint is there."""
    for directory in every_kill(tmp_path, make_litter, resume.remove_incomplete):
        assert find_start(directory).newest.step == 50
        assert layout.files_of(layout.prefix(directory, 100)) == []
        assert layout.steps_with(directory, "incomplete") == []


# Going back from one whose every byte is as written, and which cannot be restored.


def test_one_that_cannot_be_restored_is_set_aside(tmp_path):
    """The run goes on from the one before, and the reason says what TensorFlow said."""
    for step in (20, 50, 100):
        make_checkpoint(tmp_path, step, started_from="abc")
    start = open_start(tmp_path).fall_back(CAUSE)
    assert (start.prefix, start.newest.step, start.started_from) == (layout.prefix(tmp_path, 50), 50, "abc")
    assert set_aside(tmp_path) == {"model.ckpt-100": f"{CAUSE}; 50 steps are to be made again, from step 50\n"}
    start = start.fall_back(DamagedError("model.ckpt-50: no"))
    assert start.newest.step == 20
    assert list(set_aside(tmp_path)) == ["model.ckpt-100", "model.ckpt-50"]


def test_going_back_passes_over_damaged_ones(tmp_path):
    """The one before may be damaged, too; both go, each with its own reason."""
    make_checkpoint(tmp_path, 20)
    checkpoints.cut_short(layout.meta_path(make_checkpoint(tmp_path, 50)))
    make_checkpoint(tmp_path, 100)
    assert open_start(tmp_path).fall_back(CAUSE).newest.step == 20
    told = set_aside(tmp_path)
    assert told["model.ckpt-100"].startswith(str(CAUSE))
    assert told["model.ckpt-50"].startswith("model.ckpt-50.meta: ")


@pytest.mark.parametrize("damaged", [[], [50]], ids=["alone", "beside a damaged one"])
def test_the_last_one_is_not_set_aside(tmp_path, damaged):
    """Where there is none to go back to, nothing is moved, and the next try does not start from the beginning."""
    for step in damaged:
        checkpoints.empty(layout.index_path(make_checkpoint(tmp_path, step)))
    make_checkpoint(tmp_path, 100)
    before = tree(tmp_path)
    start = open_start(tmp_path)
    with pytest.raises(CheckpointError, match="only damaged checkpoints found") as refused:
        start.fall_back(CAUSE)
    assert str(CAUSE) in str(refused.value)
    assert tree(tmp_path) == before
    start.close()
    assert find_start(tmp_path).newest.step == 100


def test_going_back_keeps_the_train_dir(tmp_path):
    """It is the same owner's before and after, and free once that closes it."""
    for step in (50, 100):
        make_checkpoint(tmp_path, step)
    start = open_start(tmp_path).fall_back(CAUSE)
    with pytest.raises(CheckpointError, match="in use by"):
        find_start(tmp_path)
    start.close()
    assert find_start(tmp_path).newest.step == 50


def test_one_elsewhere_that_cannot_be_restored_is_the_end(tmp_path):
    """What was started from stays where it is, and there is no other."""
    theirs = make_checkpoint(tmp_path / "theirs", 70)
    before = tree(tmp_path)
    start = open_start(tmp_path / "ours", restore_from=theirs)
    with pytest.raises(CheckpointError) as refused:
        start.fall_back(CAUSE)
    assert str(refused.value).startswith(f"{theirs}: {CAUSE}")
    start.close()
    assert before.items() <= tree(tmp_path).items()
    assert not layout.quarantine_path(tmp_path / "theirs").exists()


def test_stepping_back_sets_the_newest_aside(tmp_path):
    """Whole as it is, for a reason that somebody else knows; who goes on does so from the one before."""
    for step in (20, 50, 100):
        make_checkpoint(tmp_path, step)
    assert resume.discard_latest(tmp_path, "the run died twice after it") == 50
    assert set_aside(tmp_path) == {"model.ckpt-100": "model.ckpt-100: the run died twice after it\n"}
    assert find_start(tmp_path).newest.step == 50


@pytest.mark.parametrize("steps", [[], [50]])
def test_the_last_one_is_not_stepped_back_from(tmp_path, steps):
    """Where there is none before it, nothing is moved."""
    for step in steps:
        make_checkpoint(tmp_path, step)
    make_files(tmp_path, 20)
    before = tree(tmp_path)
    assert resume.discard_latest(tmp_path, "the run died twice after it") is None
    assert tree(tmp_path) == before


def test_a_kill_while_stepping_back_loses_nothing(tmp_path):
    """Wherever it comes, the next run goes on from the newest or from the one before, and no content is gone."""

    def make(directory):
        for step in (50, 100):
            make_checkpoint(directory, step)

    def step_back(directory):
        with mock.patch.object(resume, "Lock"):  # which the kernel would take from the killed
            resume.discard_latest(directory, "why")

    for directory in every_kill(tmp_path, make, step_back):
        before = contents(directory)
        assert find_start(directory).newest.step in {50, 100}
        assert contents(directory) == before


def test_a_train_dir_in_use_is_not_stepped_back(tmp_path):
    """Nothing is moved under a run."""
    for step in (50, 100):
        make_checkpoint(tmp_path, step)
    start = open_start(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(CheckpointError, match="in use by"):
        resume.discard_latest(tmp_path, "why")
    assert tree(tmp_path) == before
    start.close()
    assert resume.discard_latest(tmp_path, "why") == 50


# The train_dir is one run's at a time.


def test_a_train_dir_is_one_runs_at_a_time(tmp_path):
    """While a run has it, another is refused before it looks, so that what is being saved is not swept."""
    make_checkpoint(tmp_path, 50)
    start = open_start(tmp_path)
    mark(make_files(tmp_path, 100))
    assert "in use by" in complaint(tmp_path)
    start.close()
    assert find_start(tmp_path).newest.step == 50


def test_a_train_dir_that_was_refused_is_free(tmp_path):
    """Who may not go on does not keep others from it."""
    make_checkpoint(tmp_path, 50)
    complaint(tmp_path, seed=1)
    assert find_start(tmp_path).newest.step == 50


def test_closing_twice_is_fine(tmp_path):
    """What has been let go of stays so."""
    start = open_start(tmp_path)
    start.close()
    start.close()
    other = open_start(tmp_path)
    start.close()
    with pytest.raises(CheckpointError, match="in use by"):
        open_start(tmp_path)
    other.close()


# What somebody else's Saver made.


@pytest.mark.parametrize("name", ["model.ckpt-100", "model-100", "weights", "a.b-7", "größe-3"])
def test_what_a_plain_saver_made_is_gone_on_from(tmp_path, name):
    """Whatever it is called; nothing is asked of its settings, and nothing is done to its files."""
    prefix = tmp_path / name
    for kind in KINDS:
        (tmp_path / f"{name}.{kind}").write_text(f"somebody else's {kind}")
    before = tree(tmp_path)
    start = find_start(tmp_path, seed=7)
    assert (start.prefix, start.newest, start.older) == (prefix, None, ())
    assert start.started_from == file_sha256(layout.index_path(prefix))
    assert tree(tmp_path) == before


def test_of_what_a_plain_saver_made_the_newest_is_taken(tmp_path):
    """By its number; where it cannot be restored, those before it are tried, newest first, and none is moved."""
    for name in ("model-9", "model-100", "weights", "model.ckpt-20"):
        (tmp_path / f"{name}.index").write_text(name)
    before = tree(tmp_path)
    start = find_start(tmp_path)
    for name in ("model-100", "model.ckpt-20", "model-9", "weights"):
        assert start.prefix == tmp_path / name
        assert start.started_from == file_sha256(tmp_path / f"{name}.index")
        with pytest.raises(CheckpointError) if name == "weights" else nullcontext():
            start = start.fall_back(CAUSE)
    assert tree(tmp_path) == before


def test_adopting_is_told(tmp_path, caplog):
    """Who wonders where the weights came from reads it in the log."""
    caplog.set_level(logging.INFO)
    prefix = make_files(tmp_path, 100)
    find_start(tmp_path)
    assert [str(prefix) in record.getMessage() for record in caplog.records] == [True]


def test_a_run_that_adopted_goes_on_from_its_own(tmp_path):
    """Once it has saved, what it began with is left alone, and does not decide any more."""
    make_files(tmp_path, 100, content="somebody else's")
    theirs = tree(tmp_path)
    lineage = find_start(tmp_path).started_from
    make_checkpoint(tmp_path, 150, started_from=lineage)
    start = find_start(tmp_path)
    assert (start.newest.step, start.started_from) == (150, lineage)
    assert theirs.items() <= tree(tmp_path).items()


def test_a_plain_saver_that_went_on_in_it_is_not_lost(tmp_path):
    """What it saved after our newest is not ours to delete: it lies in quarantine."""
    make_checkpoint(tmp_path, 50)
    make_files(tmp_path, 200, content="somebody else's")
    before = contents(tmp_path)
    assert find_start(tmp_path).newest.step == 50
    assert contents(tmp_path) == before


def test_a_warm_start_among_somebody_elses_is_refused(tmp_path):
    """It would be forgotten, for the run would go on from theirs."""
    source = make_checkpoint(tmp_path / "source", 70)
    make_files(tmp_path / "ours", 100)
    sentence = complaint(tmp_path / "ours", warm_start_from=source)
    assert "leave out --warm_start_from to go on from model.ckpt-100" in sentence


def test_another_start_among_somebody_elses_is_refused(tmp_path):
    """With --restore_from there are two places to go on from; the sentence says how to mean the one or the other."""
    theirs = make_checkpoint(tmp_path / "theirs", 70)
    make_files(tmp_path / "ours", 100)
    sentence = complaint(tmp_path / "ours", restore_from=theirs)
    assert "model.ckpt-100 found without a manifest" in sentence
    assert f"give a new --train_dir to start from {theirs}" in sentence
    assert "leave out --restore_from to go on from model.ckpt-100" in sentence


def test_half_of_ours_is_not_adopted(tmp_path):
    """What carries a mark is an interrupted save's, not somebody else's."""
    mark(make_files(tmp_path, 100))
    make_files(tmp_path, 50)
    assert find_start(tmp_path).prefix == layout.prefix(tmp_path, 50)
    assert layout.files_of(layout.prefix(tmp_path, 100)) == []


@pytest.mark.parametrize("below", [".", "cnn"])
def test_a_file_in_the_way_is_told_and_kept(tmp_path, below):
    """A train_dir whose name a file has, or whose parent's, is one sentence."""
    (tmp_path / "runs").write_text("mine")
    with pytest.raises(CheckpointError, match="cannot be made a directory") as refused:
        find_start(tmp_path / "runs" / below)
    assert str(refused.value).startswith(f"{tmp_path / 'runs' / below}: ")
    assert (tmp_path / "runs").read_text() == "mine"


@pytest.mark.parametrize("name", AWKWARD)
def test_a_run_can_start_from_a_checkpoint_elsewhere(tmp_path, name):
    """In a new train_dir, restore_from is where it starts; what it started from is known by its index file."""
    theirs = make_checkpoint(tmp_path / name, 70, settings={"model": "another"})
    start = find_start(tmp_path / "run", restore_from=theirs)
    assert (start.prefix, start.newest, start.older) == (theirs, None, ())
    assert start.started_from == file_sha256(layout.index_path(theirs))


def test_a_run_that_started_elsewhere_goes_on_from_its_own(tmp_path):
    """The same command again goes on from the run's newest checkpoint, and so does one without restore_from."""
    theirs = make_checkpoint(tmp_path / "theirs", 70)
    lineage = find_start(tmp_path / "ours", restore_from=theirs).started_from
    ours = make_checkpoint(tmp_path / "ours", 80, started_from=lineage)
    for restore_from in (theirs, None):
        start = find_start(tmp_path / "ours", restore_from=restore_from)
        assert (start.prefix, start.started_from) == (ours, lineage)


def test_where_a_run_started_is_known_wherever_that_lies_now(tmp_path):
    """It is the checkpoint that counts, not its path."""
    theirs = make_checkpoint(tmp_path / "theirs", 70)
    ours = make_checkpoint(tmp_path / "ours", 80, started_from=file_sha256(layout.index_path(theirs)))
    (tmp_path / "theirs").rename(tmp_path / "moved")
    assert find_start(tmp_path / "ours", restore_from=tmp_path / "moved" / theirs.name).prefix == ours


@pytest.mark.parametrize("started_from", [None, "0" * 64], ids=["from the beginning", "from another"])
def test_a_run_does_not_change_where_it_came_from(tmp_path, started_from):
    """A run that did not start from a checkpoint is not continued as if it had."""
    theirs = make_checkpoint(tmp_path / "theirs", 70, content="somebody else's")
    make_checkpoint(tmp_path / "ours", 80, started_from=started_from)
    sentence = complaint(tmp_path / "ours", restore_from=theirs)
    assert sentence.startswith(f"{tmp_path / 'ours'}: checkpoints up to step 80 found")
    assert str(theirs) in sentence


def test_a_run_does_not_go_back(tmp_path):
    """An older checkpoint of its own starts no second run among its files; the sentence says what to do."""
    for step in (50, 100):
        make_checkpoint(tmp_path, step)
    sentence = complaint(tmp_path, restore_from=layout.prefix(tmp_path, 50))
    assert "give a new --train_dir to start from there" in sentence
    assert "leave out --restore_from to go on from step 100" in sentence


def test_its_newest_checkpoint_is_known_by_any_path(tmp_path, monkeypatch):
    """Relative, through a link or by way of .., it is the one that the run goes on from anyway."""
    for step in (50, 100):
        make_checkpoint(tmp_path / "run", step)
    (tmp_path / "link").symlink_to("run")
    monkeypatch.chdir(tmp_path)
    for directory in (Path("run"), tmp_path / "link", tmp_path / "run" / ".." / "run"):
        start = find_start(tmp_path / "run", restore_from=layout.prefix(directory, 100))
        assert start.prefix.resolve() == layout.prefix(tmp_path / "run", 100)


def test_a_named_checkpoint_does_not_excuse_other_settings(tmp_path):
    """Also from a checkpoint of its own that is named, a run goes on with its own settings only."""
    prefix = make_checkpoint(tmp_path, 50)
    assert "seed 0 (now 1)" in complaint(tmp_path, restore_from=prefix, seed=1)


def test_a_wrong_prefix_is_told_with_those_that_are_there(tmp_path):
    """Who mistypes a step reads which there are, and the train_dir is not even made."""
    for step in (50, 100):
        make_checkpoint(tmp_path / "theirs", step)
    wrong = layout.prefix(tmp_path / "theirs", 75)
    with pytest.raises(CheckpointError) as refused:
        find_start(tmp_path / "ours", restore_from=wrong)
    sentence = str(refused.value)
    assert sentence.startswith(f"{wrong}: no checkpoint found")
    assert "model.ckpt-50" in sentence
    assert "model.ckpt-100" in sentence
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("suffix", [".index", ".meta", ".data-00000-of-00001", ".manifest.json"])
def test_a_file_name_for_a_prefix_is_told(tmp_path, suffix):
    """Who gives the name of one of its files reads the prefix."""
    prefix = make_checkpoint(tmp_path, 50)
    sentence = complaint(tmp_path, restore_from=prefix.with_name(prefix.name + suffix))
    assert "no checkpoint found" in sentence
    assert sentence.endswith("model.ckpt-50.")


def test_a_train_dir_for_a_prefix_is_told(tmp_path):
    """Who gives the directory reads, in order of steps, which prefixes lie in it."""
    for step in (100, 50):
        make_checkpoint(tmp_path / "theirs", step)
    with pytest.raises(CheckpointError, match=r"model\.ckpt-50, model\.ckpt-100\.$"):
        find_start(tmp_path / "ours", restore_from=tmp_path / "theirs")


@pytest.mark.parametrize("name", ["absent/model.ckpt-1", "model.ckpt-1"])
def test_a_place_without_checkpoints_is_told(tmp_path, name):
    """Where there is nothing to restore from, the sentence says so."""
    sentence = complaint(tmp_path, restore_from=tmp_path / name)
    assert sentence.startswith(f"{tmp_path / name}: no checkpoint found")
    assert f"in {(tmp_path / name).parent} there are none" in sentence


@pytest.mark.parametrize("path", [".", "/"])
def test_a_directory_is_no_prefix(tmp_path, path):
    """The current directory or the root for a prefix is one sentence, too."""
    assert "no checkpoint found" in complaint(tmp_path, restore_from=Path(path))


@pytest.mark.parametrize("others", [[], [50]], ids=["alone", "beside a whole one"])
def test_what_is_being_swept_cannot_be_restored_from(tmp_path, others):
    """A checkpoint of the train_dir that an interrupted save left half-made is no place to start from."""
    for step in others:
        make_checkpoint(tmp_path, step)
    half = mark(make_files(tmp_path, 100))
    with pytest.raises(CheckpointError) as refused:
        find_start(tmp_path, restore_from=half)
    assert str(half) in str(refused.value)


def test_half_a_checkpoint_elsewhere_cannot_be_restored_from(tmp_path):
    """Nor is what an interrupted save left in another train_dir, and that is not touched."""
    make_checkpoint(tmp_path / "theirs", 50)
    half = mark(make_files(tmp_path / "theirs", 100))
    before = tree(tmp_path)
    with pytest.raises(CheckpointError, match=r"model\.ckpt-50\.$"):
        find_start(tmp_path / "ours", restore_from=half)
    assert tree(tmp_path) == before


def test_a_directory_beside_a_checkpoint_does_not_hide_it(tmp_path):
    """A folder that somebody called as the prefix is called takes nothing from the checkpoint."""
    prefix = make_checkpoint(tmp_path / "theirs", 50)
    prefix.mkdir()
    assert find_start(tmp_path / "ours", restore_from=prefix).prefix == prefix


def test_a_directory_is_no_index_file(tmp_path):
    """A folder called as an index file is called is no checkpoint."""
    (tmp_path / "theirs" / "model.ckpt-50.index").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="no checkpoint found"):
        find_start(tmp_path / "ours", restore_from=layout.prefix(tmp_path / "theirs", 50))


def test_any_name_of_a_checkpoint_elsewhere_will_do(tmp_path):
    """Another program may have named its checkpoints otherwise."""
    prefix = tmp_path / "theirs" / "weights"
    prefix.parent.mkdir()
    layout.index_path(prefix).write_text("index")
    assert find_start(tmp_path / "ours", restore_from=prefix).prefix == prefix


def test_a_run_outlives_the_checkpoint_that_it_started_from(tmp_path, caplog):
    """Its owner has deleted it meanwhile: the same command goes on from the run's own, and says so."""
    theirs = make_checkpoint(tmp_path / "theirs", 50)
    started_from = file_sha256(layout.index_path(theirs))
    make_checkpoint(tmp_path / "ours", 60, started_from=started_from)
    for path in layout.files_of(theirs):
        path.unlink()
    assert find_start(tmp_path / "ours", restore_from=theirs).newest.step == 60
    assert f"{theirs}: is gone" in caplog.text


def test_stepping_back_wants_a_complete_checkpoint_to_step_to(tmp_path):
    """Where the one before is damaged, the newest stays: it may be the last one that is good."""
    checkpoints.cut_short(layout.index_path(make_checkpoint(tmp_path, 50)))
    make_checkpoint(tmp_path, 100)
    assert resume.discard_latest(tmp_path, "died twice") is None
    assert layout.steps_with(tmp_path, "manifest.json") == [50, 100]
    make_checkpoint(tmp_path, 20)
    assert resume.discard_latest(tmp_path, "died twice") == 20
    assert find_start(tmp_path).newest.step == 20


@pytest.mark.parametrize("name", ["checkpoint", "model.ckpt-7.meta", "weights.data-00000-of-00001"])
def test_what_hints_at_a_checkpoint_is_no_fresh_start(tmp_path, name):
    """Somebody's work lies there, though it cannot be read."""
    (tmp_path / name).write_text("somebody's")
    assert f"{name} found, but no .index file that goes with it" in complaint(tmp_path)


PUT = {
    "a symbolic link": lambda path: path.symlink_to(path.with_name("precious")),
    "a special file": os.mkfifo,
    "a directory": lambda path: make_files(path, 1),
}


@pytest.mark.parametrize("kind", PUT)
@pytest.mark.parametrize("name", [layout.METRICS, layout.HISTORY, layout.ATTEMPT, layout.RESULT])
def test_what_is_in_a_files_place_is_found_before_the_first_step(tmp_path, kind, name):
    """Not when the file is to be written, hours later; nothing is changed, and the sentence names it."""
    make_checkpoint(tmp_path, 100)
    (tmp_path / "precious").write_text("precious")
    PUT[kind](tmp_path / name)
    sentence = complaint(tmp_path)
    assert sentence.startswith(f"{tmp_path / name}: expected a regular file, got {kind}; move it away")
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_directory_in_the_place_of_a_temporary_file_is_found(tmp_path):
    """It could not be replaced at the end."""
    make_files(tmp_path / "result.json.tmp", 1)
    assert "result.json.tmp: expected no directory there" in complaint(tmp_path)


@pytest.mark.parametrize("kind", ["a symbolic link", "a special file", "a directory"])
def test_a_lock_file_that_is_none_is_one_sentence(tmp_path, kind):
    """It is not opened, changed or waited for."""
    (tmp_path / "precious").write_text("precious")
    PUT[kind](tmp_path / layout.LOCK)
    assert layout.LOCK in complaint(tmp_path)
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("put", [Path.touch, lambda path: path.symlink_to("precious")])
def test_a_quarantine_that_is_no_directory_is_one_sentence(tmp_path, put):
    """The damaged checkpoint stays where it is until it can be moved."""
    make_checkpoint(tmp_path, 50)
    (tmp_path / "precious").mkdir()
    checkpoints.flip_a_bit(layout.index_path(make_checkpoint(tmp_path, 100)))
    put(layout.quarantine_path(tmp_path))
    assert "quarantine: expected a directory, got a file or a symbolic link" in complaint(tmp_path)
    assert not list((tmp_path / "precious").iterdir())


NOT_ABOUT_BYTES = [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN]


@pytest.mark.parametrize("number", NOT_ABOUT_BYTES)
@pytest.mark.parametrize("kind", [*KINDS, "manifest.json"])
def test_what_cannot_be_read_just_now_is_left_where_it_is(tmp_path, monkeypatch, number, kind):
    """A shortage or the network's error is no damage: one sentence that names the file, and nothing is moved."""
    for step in (50, 100):
        make_checkpoint(tmp_path, step)
    really_open = os.open

    def refuse(path, *args, **options):
        if str(path).endswith(f"model.ckpt-100.{kind}"):
            raise OSError(number, os.strerror(number), str(path))
        return really_open(path, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        sentence = complaint(tmp_path)
    assert f"model.ckpt-100.{kind}: cannot be read ({os.strerror(number)})" in sentence
    assert find_start(tmp_path).newest.step == 100


def test_a_disk_that_has_lost_the_bytes_is_damage(tmp_path, monkeypatch):
    """The disk itself says so: the run goes on from the checkpoint before."""
    for step in (50, 100):
        make_checkpoint(tmp_path, step)
    really_open = os.open

    def refuse(path, *args, **options):
        if str(path).endswith("model.ckpt-100.index"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return really_open(path, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    assert find_start(tmp_path).newest.step == 50


def test_settings_of_another_kind_are_a_difference(tmp_path):
    """A number of steps in words is no smaller number."""
    make_checkpoint(tmp_path, 100, settings=SETTINGS | {"train_steps": "60"})
    assert "was made with train_steps 60 (now 100)" in complaint(tmp_path)


FLAGS = ["restore_from", "warm_start_from"]


def source(directory, *steps):
    """The train_dir of another run, and what to give for it."""
    prefixes = [make_checkpoint(directory, step, content=f"the source's, {step},") for step in steps]
    return {"restore_from": prefixes[-1], "warm_start_from": directory}


def first_weights(start):
    """The checkpoint that the first weights come from."""
    return start.prefix or start.warm_start.prefix


@pytest.mark.parametrize("flag", FLAGS)
def test_the_first_weights_come_from_what_was_found_first(tmp_path, flag):
    """A run killed before its first checkpoint takes the same ones again, whatever its source has saved meanwhile."""
    given = {flag: source(tmp_path / "source", 100)[flag]}
    assert first_weights(find_start(tmp_path / "run", **given)) == tmp_path / "source" / "model.ckpt-100"
    make_checkpoint(tmp_path / "source", 200)
    assert first_weights(find_start(tmp_path / "run", **given)) == tmp_path / "source" / "model.ckpt-100"


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("what", ["has changed", "is gone"])
def test_a_source_that_is_another_than_at_first_is_refused(tmp_path, flag, what):
    """The weights would be others; put back, the run begins with it."""
    given = {flag: source(tmp_path / "source", 100)[flag]}
    find_start(tmp_path / "run", **given)
    make_checkpoint(tmp_path / "source", 200)
    index = layout.index_path(tmp_path / "source" / "model.ckpt-100")
    content = index.read_bytes()
    if what == "is gone":
        index.rename(tmp_path / "elsewhere")
        if flag == "restore_from":  # found out before: the prefix given is no checkpoint
            with pytest.raises(CheckpointError, match="no checkpoint found"):
                find_start(tmp_path / "run", **given)
            return
    else:
        index.write_bytes(b"another")
    with pytest.raises(CheckpointError, match=f"model.ckpt-100.index: {what} since the run began") as refused:
        find_start(tmp_path / "run", **given)
    assert f"--{flag}={given[flag]}" in str(refused.value)
    index.write_bytes(content)
    assert first_weights(find_start(tmp_path / "run", **given)).name == "model.ckpt-100"


def test_another_source_before_the_first_checkpoint_is_another_run(tmp_path):
    """Nothing is lost, so nothing is refused."""
    find_start(tmp_path / "run", warm_start_from=source(tmp_path / "one", 100)["warm_start_from"])
    start = find_start(tmp_path / "run", warm_start_from=source(tmp_path / "two", 200)["warm_start_from"])
    assert start.warm_start.prefix == tmp_path / "two" / "model.ckpt-200"


def test_a_run_with_a_checkpoint_needs_its_source_no_more(tmp_path):
    """Its own checkpoint has the weights."""
    find_start(tmp_path / "run", warm_start_from=source(tmp_path / "source", 100)["warm_start_from"])
    make_checkpoint(tmp_path / "run", 10)
    shutil.rmtree(tmp_path / "source")
    start = find_start(tmp_path / "run", warm_start_from=tmp_path / "source")
    assert (start.newest.step, start.warm_start) == (10, None)


@pytest.mark.parametrize("content", [b"", b"{}", b"\0" * 50, b"[]", b'{"flag": 1}'])
def test_a_damaged_record_of_the_source_is_one_sentence(tmp_path, content):
    """It is not known any more which weights the run began with."""
    given = {"warm_start_from": source(tmp_path / "source", 100)["warm_start_from"]}
    find_start(tmp_path / "run", **given)
    (tmp_path / "run" / layout.ORIGIN).write_bytes(content)
    assert "from which checkpoint the run began is not known" in complaint(tmp_path / "run", **given)


@pytest.fixture
def shared():
    """A train_dir of root's that other users may enter."""
    if os.geteuid() != 0:
        pytest.skip("only root may become another user")
    with tempfile.TemporaryDirectory() as parent:  # others may not enter the directories of pytest's
        Path(parent).chmod(0o755)
        make_checkpoint(Path(parent) / "run", 100)
        find_start(Path(parent) / "run")
        yield Path(parent) / "run"


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        (0o755, "cannot be made a directory to write to (Permission denied); give another --train_dir."),
        (
            0o777,
            "its lock file cannot be written (Permission denied); run as root, to whom it belongs, or give another",
        ),
        (
            0o1777,
            "its lock file cannot be written (Permission denied); run as root, to whom it belongs, or give another",
        ),
    ],
    ids=["read-only", "shared", "sticky"],
)
def test_another_users_train_dir_is_one_sentence(shared, mode, said):
    """Before anything is computed."""
    shared.chmod(mode)
    os.seteuid(65534)
    try:
        assert said in complaint(shared)
    finally:
        os.seteuid(0)


def test_a_damaged_export_in_quarantine_is_no_checkpoint(tmp_path):
    """Without a checkpoint, the run begins at its beginning."""
    make_files(layout.quarantine_path(tmp_path) / "saved_model-100" / "100", 1)
    (layout.quarantine_path(tmp_path) / "saved_model-100" / layout.REASON).touch()
    assert is_the_beginning(find_start(tmp_path))


def test_another_spelling_of_the_source_is_the_same_source(tmp_path, monkeypatch):
    """Relative, absolute, or through a link: it was searched once."""
    find_start(tmp_path / "run", warm_start_from=source(tmp_path / "source", 100)["warm_start_from"])
    make_checkpoint(tmp_path / "source", 200)
    (tmp_path / "link").symlink_to("source")
    monkeypatch.chdir(tmp_path)
    for given in ("source", "./source", "link"):
        assert find_start(tmp_path / "run", warm_start_from=Path(given)).warm_start.prefix.name == "model.ckpt-100"


def test_what_cannot_be_read_now_does_not_end_a_step_back_silently(tmp_path, monkeypatch):
    """A supervisor must not take a shortage for there being none before."""
    for step in (50, 100):
        make_checkpoint(tmp_path, step)
    really_open = os.open

    def refuse(path, *args, **options):
        if str(path).endswith("model.ckpt-50.manifest.json"):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
        return really_open(path, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CheckpointError, match="Too many open files"):
        resume.discard_latest(tmp_path, "it died")


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ENOMEM, errno.EMFILE, errno.ENOSPC])
def test_a_lock_that_cannot_be_opened_just_now_is_no_reason_for_another_directory(tmp_path, monkeypatch, number):
    """Another train_dir would begin at step 0."""
    make_checkpoint(tmp_path, 100)
    really_open = os.open

    def refuse(path, *args, **options):
        if str(path).endswith(layout.LOCK):
            raise OSError(number, os.strerror(number), str(path))
        return really_open(path, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    sentence = complaint(tmp_path)
    assert sentence == f"{tmp_path / layout.LOCK}: {os.strerror(number)}; see to it, and run the same command again."
