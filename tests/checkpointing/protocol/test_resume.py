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

from checkpointing.errors import LATER, CheckpointError, DamagedError
from checkpointing.protocol import cleanup, manifest, resume
from checkpointing.storage import layout
from checkpointing.storage.fingerprint import file_sha256
from tests import checkpoints
from tests.checkpoints import AWKWARD, KINDS, SETTINGS, every_kill, make_checkpoint, make_files, mark, tree

CAUSE = DamagedError("model.ckpt-100: TensorFlow cannot read it (a reason)")


@pytest.fixture(autouse=True)
def opened(monkeypatch):
    """Yield all ResumePoints that a test opens; close them afterwards."""
    starts = []
    open_train_dir = resume.open_train_dir
    monkeypatch.setattr(
        resume,
        "open_train_dir",
        lambda *args, **options: starts.append(open_train_dir(*args, **options)) or starts[-1],
    )
    yield starts
    for start in starts:
        start.close()


def refuse_to_open(patched, name, number):
    """Make opening the files whose paths end with a name fail with an error number."""
    real_open = os.open

    def refuse(path, *args, **options):
        if str(path).endswith(name):
            raise OSError(number, os.strerror(number), str(path))
        return real_open(path, *args, **options)

    patched.setattr(os, "open", refuse)


def open_start(
    directory, *, restore_from=None, warm_start_from=None, code=None, environment=None, defaults=None, **settings
):
    """Open a train_dir with SETTINGS and these; it stays locked."""
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


def resume_point(directory, **options):
    """Return where a run with these settings resumes; the train_dir is unlocked again."""
    start = open_start(directory, **options)
    start.close()
    return start


def is_fresh(start):
    """Return whether a run starts at step 0 with nothing to restore."""
    return (start.prefix, start.newest, start.older, start.started_from) == (None, None, (), None)


def complaint(directory, **options):
    """Return the message and the hint with which a train_dir is refused, twice, without changing it."""
    before = tree(directory)
    messages = []
    for _ in range(2):
        with pytest.raises(CheckpointError) as refused:
            resume_point(directory, **options)
        messages.append(with_hint(refused.value))
        assert tree(directory) == before
    assert messages[0] == messages[1]
    return messages[0]


def with_hint(error):
    """Return an error's message and hint, each of which is one line without a full stop, and names no flag."""
    for text in (str(error), error.hint or "x"):
        assert text
        assert not text.endswith(".")
        assert "\n" not in text
        assert "--" not in text
    return f"{error} ({error.hint})"


def quarantined(directory):
    """Return the reasons of the checkpoints in quarantine, by directory name."""
    return {
        path.name: (path / "reason.txt").read_text() for path in sorted(layout.quarantine_path(directory).iterdir())
    }


@pytest.mark.parametrize("name", AWKWARD)
def test_a_new_train_dir_is_fresh(tmp_path, name):
    """It is created with its parents; as long as nothing is saved, it stays fresh."""
    directory = tmp_path / name / "cnn"
    for _ in range(2):
        assert is_fresh(resume_point(directory))
        assert directory.is_dir()


@pytest.mark.parametrize("name", AWKWARD)
def test_a_run_resumes_from_its_newest_checkpoint(tmp_path, name):
    """Newest by step, not by name or age, for any name of the train_dir."""
    directory = tmp_path / name
    for step in (100, 20, 9):
        make_checkpoint(directory, step)
    start = resume_point(directory)
    assert start.prefix == layout.prefix(directory, 100)
    assert start.newest.step == 100
    assert start.newest.settings == SETTINGS


def test_other_files_in_a_train_dir_do_not_matter(tmp_path):
    """State file, metrics, result and notes do not change where a run resumes, and are not changed."""
    make_checkpoint(tmp_path, 50)
    for name in ("checkpoint", "metrics.jsonl", "result.json", "notes.txt", "model.ckpt-60.txt"):
        (tmp_path / name).write_text("garbage that names model.ckpt-999")
    before = tree(tmp_path)
    assert resume_point(tmp_path).prefix == layout.prefix(tmp_path, 50)
    assert tree(tmp_path) == before


def test_a_train_dir_may_be_relative(tmp_path, monkeypatch):
    """A relative path is relative to the current directory."""
    make_checkpoint(tmp_path / "runs", 50)
    monkeypatch.chdir(tmp_path)
    assert resume_point(Path("runs")).prefix == Path("runs/model.ckpt-50")


def test_all_differences_of_settings_are_listed(tmp_path):
    """The message lists each setting with both values."""
    make_checkpoint(tmp_path, 50)
    message = complaint(tmp_path, seed=1, learning_rate=0.2, model="adder")
    assert message.startswith(f"{tmp_path}: ")
    assert "learning_rate 0.1 (now 0.2), model counter (now adder), seed 0 (now 1)" in message
    assert "train_steps" not in message


def test_a_new_setting_without_a_default_is_a_difference(tmp_path):
    """A setting that the record lacks, and that has no default, is listed."""
    make_checkpoint(tmp_path, 50)
    assert "dropout_rate None (now 0.5)" in complaint(tmp_path, dropout_rate=0.5)


def test_a_removed_setting_without_a_default_is_a_difference(tmp_path):
    """A recorded setting that the run lacks, and that has no default, is listed, too."""
    make_checkpoint(tmp_path, 50, settings=SETTINGS | {"dropout_rate": 0.5})
    assert "dropout_rate 0.5 (now None)" in complaint(tmp_path)


def test_a_checkpoint_from_before_the_newest_setting_is_resumed(tmp_path):
    """A manifest that lacks a setting was saved with the setting's default; any other value is refused, with a list."""
    prefix = make_checkpoint(tmp_path, 50)
    defaults = {"newest": 0.0, "second": "off"}
    assert resume_point(tmp_path, newest=0.0, second="off", defaults=defaults).prefix == prefix
    message = complaint(tmp_path, newest=0.5, second="on", defaults=defaults)
    assert "newest 0.0 (now 0.5), second off (now on)" in message


def test_a_removed_setting_at_its_default_is_resumed(tmp_path):
    """A setting that a release removed has its default from then on; a checkpoint with another value is refused."""
    prefix = make_checkpoint(tmp_path / "default", 50, settings=SETTINGS | {"removed": 0.0})
    make_checkpoint(tmp_path / "other", 50, settings=SETTINGS | {"removed": 2.0})
    assert resume_point(tmp_path / "default", defaults={"removed": 0.0}).prefix == prefix
    assert "removed 2.0 (now 0.0)" in complaint(tmp_path / "other", defaults={"removed": 0.0})


def test_the_newest_checkpoint_has_the_settings(tmp_path):
    """A run that was extended may not be shortened to what it was before."""
    make_checkpoint(tmp_path, 50)
    make_checkpoint(tmp_path, 150, settings=SETTINGS | {"train_steps": 200})
    assert "train_steps 200 (now 100)" in complaint(tmp_path)
    assert resume_point(tmp_path, train_steps=200).newest.step == 150


def test_a_run_may_be_extended(tmp_path):
    """train_steps may grow."""
    prefix = make_checkpoint(tmp_path, 100)
    assert resume_point(tmp_path, train_steps=101).prefix == prefix


def test_a_run_may_not_be_shortened(tmp_path):
    """train_steps may not shrink: the schedule of the trained steps was another one."""
    make_checkpoint(tmp_path, 50)
    assert "train_steps 100 (now 99)" in complaint(tmp_path, train_steps=99)


def test_other_versions_are_logged(tmp_path, caplog):
    """Another TensorFlow may change the last bits: the run resumes with a warning of both versions."""
    make_checkpoint(tmp_path, 50, versions=manifest.versions() | {"tensorflow": "1.15.5"})
    assert resume_point(tmp_path).newest.step == 50
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "1.15.5" in record.getMessage()
    assert manifest.versions()["tensorflow"] in record.getMessage()


def test_other_code_is_logged(tmp_path, caplog):
    """The code that computes the weights has changed: the run resumes with a warning."""
    make_checkpoint(tmp_path, 50, code="before")
    assert resume_point(tmp_path, code="after").newest.step == 50
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "other code" in record.getMessage()


def test_another_environment_is_a_warning_that_names_each_variable(tmp_path, caplog):
    """The run resumes with a warning that holds both values of each variable."""
    make_checkpoint(tmp_path, 100, environment={"SAME": "1", "GONE": "2", "CHANGED": "3"})
    assert resume_point(tmp_path, environment={"SAME": "1", "CHANGED": "4", "NEW": "5"}).newest.step == 100
    (record,) = caplog.records
    changes = "CHANGED 3 (now 4), GONE 2 (now unset), NEW unset (now 5)"
    assert record.getMessage() == (
        f"{tmp_path} was made with environment variables {changes}: the last bits may differ"
    )


def test_another_instruction_set_is_a_warning_that_names_the_remedy(tmp_path, caplog):
    """The last bits may differ on this processor; with instruction_set=avx2 they do not."""
    make_checkpoint(tmp_path, 100, environment={"processor": "P", "instruction_set": "avx2"})
    environment = {"processor": "Q", "instruction_set": "avx512_core"}
    assert resume_point(tmp_path, environment=environment).newest.step == 100
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{tmp_path} was made with the processor's instruction set avx2, now avx512_core: the last bits may differ; "
        "those of a run with instruction_set=avx2 do not depend on the processor"
    )


@pytest.mark.parametrize("recorded", [{"processor": "P", "instruction_set": "avx2"}, {}])
def test_another_processor_with_the_same_instruction_set_is_no_warning(tmp_path, caplog, recorded):
    """Nor is one in a manifest that does not name the processor, as before 0.10.0."""
    make_checkpoint(tmp_path, 100, environment=recorded)
    resume_point(tmp_path, environment={"processor": "Q", "instruction_set": "avx2"})
    assert not caplog.records


@pytest.mark.parametrize(("recorded", "now"), [({"A": "1"}, {"A": "1"}), (None, {"A": "1"}), ({"A": "1"}, None)])
def test_the_same_environment_or_an_unknown_one_is_no_warning(tmp_path, caplog, recorded, now):
    """Manifests of older formats have no environment, and some programs pass none."""
    make_checkpoint(tmp_path, 100, environment=recorded)
    resume_point(tmp_path, environment=now)
    assert not caplog.records


def test_equal_versions_and_code_log_nothing(tmp_path, caplog):
    """No difference, no warning."""
    make_checkpoint(tmp_path, 50, code="the same")
    resume_point(tmp_path, code="the same")
    assert caplog.records == []


def test_a_resume_point_holds_the_arguments(tmp_path):
    """The manager records them in the next manifests."""
    start = resume_point(tmp_path, code="abc", seed=7)
    assert (start.directory, start.code, start.settings) == (tmp_path, "abc", SETTINGS | {"seed": 7})


@pytest.mark.parametrize("name", AWKWARD)
def test_files_of_an_interrupted_save_are_deleted(tmp_path, name):
    """Marked files without a manifest are deleted, TensorFlow's temporary ones, too."""
    directory = tmp_path / name
    make_checkpoint(directory, 50)
    whole = tree(directory)
    mark(make_files(directory, 100, [*KINDS, "index.tempstate12", "manifest.json.tmp"]))
    (directory / "model.ckpt-100_temp").mkdir()
    (directory / "model.ckpt-100_temp" / "part-00000-of-00001.data-00000-of-00001").touch()
    assert resume_point(directory).newest.step == 50
    assert tree(directory) == whole
    assert not (directory / "model.ckpt-100_temp").exists()


def test_after_an_interrupted_first_save_a_run_is_fresh(tmp_path):
    """If the only save was interrupted, the run starts at step 0."""
    mark(make_files(tmp_path, 10, ["index"]))
    assert is_fresh(resume_point(tmp_path))
    assert tree(tmp_path) == {}


def test_a_mark_alone_is_deleted(tmp_path):
    """An interrupted deletion may leave the mark only."""
    tmp_path.mkdir(exist_ok=True)
    mark(layout.prefix(tmp_path, 10))
    cleanup.remove_incomplete(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_mark_on_a_committed_checkpoint_is_deleted(tmp_path):
    """A kill between the commit and the deletion of the mark costs nothing."""
    prefix = make_checkpoint(tmp_path, 50)
    whole = tree(tmp_path)
    mark(prefix)
    assert resume_point(tmp_path).prefix == prefix
    assert tree(tmp_path) == whole


def test_steps_with_a_common_prefix_are_distinct(tmp_path):
    """Deleting the files of step 1 leaves steps 10 and 11 alone."""
    make_checkpoint(tmp_path, 10)
    make_checkpoint(tmp_path, 11)
    whole = tree(tmp_path)
    mark(make_files(tmp_path, 1))
    cleanup.remove_incomplete(tmp_path)
    assert tree(tmp_path) == whole


def test_deleting_incomplete_files_is_logged(tmp_path, caplog):
    """The log names the prefix of the deleted files."""
    caplog.set_level(logging.INFO)
    prefix = mark(make_files(tmp_path, 100))
    cleanup.remove_incomplete(tmp_path)
    assert [str(prefix) in record.getMessage() for record in caplog.records] == [True]


def test_an_interrupted_deletion_is_finished(tmp_path):
    """The mark is deleted last, so the next run deletes the files that are left."""
    for count in range(len(KINDS) + 1):
        mark(make_files(tmp_path, 100, KINDS[:count]))
        cleanup.remove_incomplete(tmp_path)
        assert list(tmp_path.iterdir()) == []


# Damage


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(tmp_path, caplog):
    """It is moved to quarantine with the reason and the number of steps to redo."""
    for step in (20, 50):
        make_checkpoint(tmp_path, step)
    whole = tree(tmp_path)
    checkpoints.cut_short(layout.meta_path(make_checkpoint(tmp_path, 100)))
    damaged = {name: content for name, content in tree(tmp_path).items() if name not in whole}
    start = resume_point(tmp_path)
    assert (start.prefix, start.newest.step) == (layout.prefix(tmp_path, 50), 50)
    reasons = quarantined(tmp_path)
    assert list(reasons) == ["model.ckpt-100"]
    assert reasons["model.ckpt-100"].startswith("model.ckpt-100.meta: ")
    assert reasons["model.ckpt-100"].endswith("; 50 steps are to be trained again, from step 50\n")
    moved = {f"quarantine/model.ckpt-100/{name}": content for name, content in damaged.items()}
    reason = {"quarantine/model.ckpt-100/reason.txt": reasons["model.ckpt-100"].encode()}
    assert tree(tmp_path) == whole | moved | reason
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert reasons["model.ckpt-100"].strip() in record.getMessage()


@pytest.mark.parametrize("damage", checkpoints.DAMAGES)
@pytest.mark.parametrize("kind", [*KINDS, "manifest.json"])
def test_any_damage_is_found(tmp_path, kind, damage):
    """Any damage to any file of the newest is found before TensorFlow reads it; all its files are moved."""
    make_checkpoint(tmp_path, 50)
    damage(layout.prefix(tmp_path, 51).with_name(f"{make_checkpoint(tmp_path, 51).name}.{kind}"))
    for _ in range(2):
        assert resume_point(tmp_path).newest.step == 50
        assert layout.files_of(layout.prefix(tmp_path, 51)) == []
        (reasons,) = quarantined(tmp_path).values()
        assert f"model.ckpt-51.{kind}" in reasons or reasons.startswith("model.ckpt-51: its manifest is missing")
        assert reasons.endswith("; 1 step is to be trained again, from step 50\n")


def test_all_damaged_checkpoints_newer_than_a_complete_one_are_moved(tmp_path):
    """Each with its own reason and number of steps to redo."""
    for step in (10, 20, 30, 40):
        make_checkpoint(tmp_path, step)
    layout.manifest_path(layout.prefix(tmp_path, 40)).unlink()
    checkpoints.empty(layout.index_path(layout.prefix(tmp_path, 30)))
    checkpoints.zero(layout.manifest_path(layout.prefix(tmp_path, 20)))
    assert resume_point(tmp_path).newest.step == 10
    reasons = quarantined(tmp_path)
    assert reasons["model.ckpt-20"].endswith("; 10 steps are to be trained again, from step 10\n")
    assert reasons["model.ckpt-30"].endswith("; 20 steps are to be trained again, from step 10\n")
    assert reasons["model.ckpt-40"] == (
        "model.ckpt-40: its manifest is missing; 30 steps are to be trained again, from step 10\n"
    )
    assert layout.steps_with(tmp_path, "index") == [10]


def test_damage_of_an_older_checkpoint_is_not_searched_for(tmp_path):
    """If the newest is complete, no other is read."""
    checkpoints.flip_a_bit(layout.meta_path(make_checkpoint(tmp_path, 50)))
    make_checkpoint(tmp_path, 100)
    before = tree(tmp_path)
    assert resume_point(tmp_path).newest.step == 100
    assert tree(tmp_path) == before


def test_a_newer_checkpoint_without_a_manifest_is_moved(tmp_path):
    """Its manifest may be lost, and the run will save this step again."""
    make_checkpoint(tmp_path, 50)
    make_files(tmp_path, 100)
    assert resume_point(tmp_path).newest.step == 50
    assert quarantined(tmp_path) == {
        "model.ckpt-100": "model.ckpt-100: its manifest is missing; 50 steps are to be trained again, from step 50\n"
    }


def test_an_older_checkpoint_without_a_manifest_stays(tmp_path):
    """Its step is not saved again."""
    make_files(tmp_path, 50, content="another program's")
    make_checkpoint(tmp_path, 100)
    before = tree(tmp_path)
    assert resume_point(tmp_path).newest.step == 100
    assert tree(tmp_path) == before


def test_pins_and_temporary_files_are_moved_too(tmp_path):
    """No file keeps the name of a damaged checkpoint."""
    make_checkpoint(tmp_path, 50)
    prefix = make_checkpoint(tmp_path, 100)
    checkpoints.empty(layout.index_path(prefix))
    layout.pinned_path(prefix).touch()
    layout.shards_directory(prefix).mkdir()
    assert resume_point(tmp_path).newest.step == 50
    assert layout.files_of(prefix) == []
    assert (tmp_path / "quarantine" / "model.ckpt-100" / "model.ckpt-100.pinned").exists()


def test_a_step_may_be_damaged_more_than_once(tmp_path):
    """Each damaged checkpoint of a step has a separate directory in quarantine."""
    make_checkpoint(tmp_path, 50)
    for content in ("first", "second", "third"):
        checkpoints.empty(layout.index_path(make_checkpoint(tmp_path, 100, content=content)))
        resume_point(tmp_path)
    assert list(quarantined(tmp_path)) == ["model.ckpt-100", "model.ckpt-100.2", "model.ckpt-100.3"]
    for place, content in (("model.ckpt-100", "first"), ("model.ckpt-100.3", "third")):
        kept = layout.quarantine_path(tmp_path) / place / "model.ckpt-100.meta"
        assert kept.read_text() == f"{content} meta at step 100"


def test_a_repaired_checkpoint_can_be_put_back(tmp_path):
    """Moved back with its bytes repaired, it is resumed from."""
    make_checkpoint(tmp_path, 50)
    prefix = make_checkpoint(tmp_path, 100)
    whole = tree(tmp_path)
    good = layout.index_path(prefix).read_bytes()
    checkpoints.cut_in_half(layout.index_path(prefix))
    assert resume_point(tmp_path).newest.step == 50
    for path in (tmp_path / "quarantine" / "model.ckpt-100").glob("model.ckpt-100.*"):
        path.rename(tmp_path / path.name)
    layout.index_path(prefix).write_bytes(good)
    assert resume_point(tmp_path).newest.step == 100
    assert whole.items() <= tree(tmp_path).items()


@pytest.mark.parametrize("damage", checkpoints.DAMAGES)
@pytest.mark.parametrize("steps", [[100], [50, 100]])
def test_if_all_are_damaged_nothing_is_moved(tmp_path, steps, damage):
    """The error lists them; a second attempt is refused, too, and does not start at step 0."""
    for step in steps:
        damage(layout.index_path(make_checkpoint(tmp_path, step)))
    message = complaint(tmp_path)
    assert message.startswith(f"{tmp_path}: only damaged checkpoints found (")
    assert all(f"model.ckpt-{step}.index: " in message for step in steps)
    assert "put a good copy back" in message


def test_a_lost_manifest_is_not_adopted_if_others_are_damaged(tmp_path):
    """Nothing is moved, and the checkpoint without a manifest is not a plain Saver's."""
    checkpoints.empty(layout.index_path(make_checkpoint(tmp_path, 50)))
    make_files(tmp_path, 100)
    assert "only damaged checkpoints found" in complaint(tmp_path)


def test_restore_from_does_not_replace_damaged_checkpoints(tmp_path):
    """With restore_from, too, only damaged checkpoints are an error."""
    theirs = make_checkpoint(tmp_path / "theirs", 70)
    checkpoints.empty(layout.index_path(make_checkpoint(tmp_path / "ours", 80)))
    assert "only damaged checkpoints found" in complaint(tmp_path / "ours", restore_from=theirs)


def quarantine_all(directory):
    """Make a train_dir whose only checkpoint is in quarantine, because the good one was deleted by hand."""
    make_checkpoint(directory, 50)
    checkpoints.empty(layout.index_path(make_checkpoint(directory, 100)))
    resume_point(directory)
    for path in layout.files_of(layout.prefix(directory, 50)):
        path.unlink()


def test_a_quarantine_alone_is_no_fresh_start(tmp_path):
    """A run whose checkpoints are all in quarantine does not start at step 0."""
    quarantine_all(tmp_path)
    message = complaint(tmp_path)
    assert message.startswith(f"{tmp_path}: its checkpoints are all in quarantine/")
    assert "put a good copy back" in message


def test_a_quarantine_alone_prevents_restore_from(tmp_path):
    """Nor does it start again from restore_from."""
    theirs = make_checkpoint(tmp_path / "theirs", 70)
    quarantine_all(tmp_path / "ours")
    assert "quarantine/" in complaint(tmp_path / "ours", restore_from=theirs)


def test_a_checkpoint_of_another_format_is_refused(tmp_path):
    """It is not damaged: nothing is moved, although an older one could be resumed from."""
    make_checkpoint(tmp_path, 50)
    path = layout.manifest_path(make_checkpoint(tmp_path, 100))
    path.write_text('{"format": 1, "step": 100}')
    message = complaint(tmp_path)
    assert "expected format 4, got 1" in message
    assert message.startswith(f"{tmp_path / 'model.ckpt-100.manifest.json'}: ")
    assert "start from this checkpoint in another directory" in message


def test_a_checkpoint_of_another_format_can_start_a_run(tmp_path):
    """In another train_dir, as the hint says."""
    prefix = make_checkpoint(tmp_path / "theirs", 100)
    layout.manifest_path(prefix).write_text('{"format": 1, "step": 100}')
    assert resume_point(tmp_path / "ours", restore_from=prefix).prefix == prefix


def make_damage(directory):
    """Make a complete checkpoint, and newer ones with a damaged file, a damaged manifest and no manifest."""
    make_checkpoint(directory, 50)
    checkpoints.empty(layout.index_path(make_checkpoint(directory, 60)))
    checkpoints.empty(layout.manifest_path(make_checkpoint(directory, 70)))
    make_files(directory, 80)


def contents(directory):
    """Count each file content below a directory, without locks and reasons."""
    reasons = ("reason.txt", "lock")
    return Counter(content for name, content in tree(directory).items() if not Path(name).name.startswith(reasons))


def test_a_kill_while_damaged_checkpoints_are_moved_loses_nothing(tmp_path):
    """After a kill at any change, the next run resumes from the same checkpoint, and no content is lost."""
    before = None
    for directory in every_kill(tmp_path, make_damage, lambda directory: resume_point(directory).close()):
        before = before or contents(directory)
        left = contents(directory)
        assert resume_point(directory).newest.step == 50
        assert contents(directory) == left == before
        assert layout.steps_with(directory, "manifest.json") == layout.steps_with(directory, "index") == [50]
        # A checkpoint of which some files were moved is still damaged, so the others are moved, too.
        assert [layout.files_of(layout.prefix(directory, step)) for step in (60, 70)] == [[], []]


def make_incomplete(directory):
    """Make a complete checkpoint with a mark, and the files of an interrupted save."""
    mark(make_checkpoint(directory, 50))
    mark(make_files(directory, 100, [*KINDS, "manifest.json.tmp"]))
    layout.shards_directory(layout.prefix(directory, 100)).mkdir()


def test_a_kill_while_incomplete_files_are_deleted_is_recovered(tmp_path):
    """After a kill at any change, the next run deletes the rest."""
    for directory in every_kill(tmp_path, make_incomplete, cleanup.remove_incomplete):
        assert resume_point(directory).newest.step == 50
        assert layout.files_of(layout.prefix(directory, 100)) == []
        assert layout.steps_with(directory, "incomplete") == []


# Falling back from a checkpoint that is intact but cannot be restored


def test_falling_back_moves_a_checkpoint_to_quarantine(tmp_path):
    """The run resumes from the one before; the reason holds TensorFlow's message."""
    for step in (20, 50, 100):
        make_checkpoint(tmp_path, step, started_from="abc")
    start = open_start(tmp_path).fall_back(CAUSE)
    assert (start.prefix, start.newest.step, start.started_from) == (layout.prefix(tmp_path, 50), 50, "abc")
    assert quarantined(tmp_path) == {"model.ckpt-100": f"{CAUSE}; 50 steps are to be trained again, from step 50\n"}
    start = start.fall_back(DamagedError("model.ckpt-50: no"))
    assert start.newest.step == 20
    assert list(quarantined(tmp_path)) == ["model.ckpt-100", "model.ckpt-50"]


def test_falling_back_skips_damaged_checkpoints(tmp_path):
    """Each is moved with its own reason."""
    make_checkpoint(tmp_path, 20)
    checkpoints.cut_short(layout.meta_path(make_checkpoint(tmp_path, 50)))
    make_checkpoint(tmp_path, 100)
    assert open_start(tmp_path).fall_back(CAUSE).newest.step == 20
    reasons = quarantined(tmp_path)
    assert reasons["model.ckpt-100"].startswith(str(CAUSE))
    assert reasons["model.ckpt-50"].startswith("model.ckpt-50.meta: ")


@pytest.mark.parametrize("damaged", [[], [50]], ids=["alone", "with a damaged one"])
def test_falling_back_needs_an_older_checkpoint(tmp_path, damaged):
    """Without one nothing is moved, and the next attempt does not start at step 0."""
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
    assert resume_point(tmp_path).newest.step == 100


def test_falling_back_keeps_the_lock(tmp_path):
    """The train_dir is locked until the new ResumePoint is closed."""
    for step in (50, 100):
        make_checkpoint(tmp_path, step)
    start = open_start(tmp_path).fall_back(CAUSE)
    with pytest.raises(CheckpointError, match="in use by"):
        resume_point(tmp_path)
    start.close()
    assert resume_point(tmp_path).newest.step == 50


def test_a_source_that_cannot_be_restored_is_an_error(tmp_path):
    """It stays where it is."""
    theirs = make_checkpoint(tmp_path / "theirs", 70)
    before = tree(tmp_path)
    start = open_start(tmp_path / "ours", restore_from=theirs)
    with pytest.raises(CheckpointError) as refused:
        start.fall_back(CAUSE)
    assert str(refused.value) == f"{theirs}: cannot be restored ({CAUSE})"
    start.close()
    assert before.items() <= tree(tmp_path).items()
    assert not layout.quarantine_path(tmp_path / "theirs").exists()


def test_discard_latest_moves_the_newest_to_quarantine(tmp_path):
    """The next run resumes from the one before."""
    for step in (20, 50, 100):
        make_checkpoint(tmp_path, step)
    assert resume.discard_latest(tmp_path, "the run crashed twice after it") == 50
    assert quarantined(tmp_path) == {"model.ckpt-100": "model.ckpt-100: the run crashed twice after it\n"}
    assert resume_point(tmp_path).newest.step == 50


@pytest.mark.parametrize("steps", [[], [50]])
def test_discard_latest_needs_an_older_checkpoint(tmp_path, steps):
    """Without one, nothing is moved."""
    for step in steps:
        make_checkpoint(tmp_path, step)
    make_files(tmp_path, 20)
    before = tree(tmp_path)
    assert resume.discard_latest(tmp_path, "the run crashed twice after it") is None
    assert tree(tmp_path) == before


def test_a_kill_during_discard_latest_loses_nothing(tmp_path):
    """The next run resumes from the newest or the one before, and no content is lost."""

    def make(directory):
        for step in (50, 100):
            make_checkpoint(directory, step)

    def discard(directory):
        with mock.patch.object(resume, "Lock"):  # the kernel would release the lock of a killed process
            resume.discard_latest(directory, "why")

    for directory in every_kill(tmp_path, make, discard):
        before = contents(directory)
        assert resume_point(directory).newest.step in {50, 100}
        assert contents(directory) == before


def test_discard_latest_needs_the_lock(tmp_path):
    """No checkpoint of a running process is moved."""
    for step in (50, 100):
        make_checkpoint(tmp_path, step)
    start = open_start(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(CheckpointError, match="in use by"):
        resume.discard_latest(tmp_path, "why")
    assert tree(tmp_path) == before
    start.close()
    assert resume.discard_latest(tmp_path, "why") == 50


# The lock


def test_a_train_dir_is_locked(tmp_path):
    """A second run is refused before it deletes the files of a save in progress."""
    make_checkpoint(tmp_path, 50)
    start = open_start(tmp_path)
    mark(make_files(tmp_path, 100))
    assert "in use by" in complaint(tmp_path)
    start.close()
    assert resume_point(tmp_path).newest.step == 50


def test_a_refused_train_dir_is_unlocked(tmp_path):
    """An error releases the lock."""
    make_checkpoint(tmp_path, 50)
    complaint(tmp_path, seed=1)
    assert resume_point(tmp_path).newest.step == 50


def test_closing_twice_is_fine(tmp_path):
    """A second `close` does not release the lock of the next owner."""
    start = open_start(tmp_path)
    start.close()
    start.close()
    other = open_start(tmp_path)
    start.close()
    with pytest.raises(CheckpointError, match="in use by"):
        open_start(tmp_path)
    other.close()


# Checkpoints of a plain Saver


@pytest.mark.parametrize("name", ["model.ckpt-100", "model-100", "weights", "a.b-7", "größe-3"])
def test_a_checkpoint_of_a_plain_saver_is_adopted(tmp_path, name):
    """Under any name and with any settings; its files are not changed."""
    prefix = tmp_path / name
    for kind in KINDS:
        (tmp_path / f"{name}.{kind}").write_text(f"another program's {kind}")
    before = tree(tmp_path)
    start = resume_point(tmp_path, seed=7)
    assert (start.prefix, start.newest, start.older) == (prefix, None, ())
    assert start.started_from == file_sha256(layout.index_path(prefix))
    assert tree(tmp_path) == before


def test_the_newest_checkpoint_of_a_plain_saver_is_adopted(tmp_path):
    """Newest by its number; if it cannot be restored, those before it are tried, and none is moved."""
    for name in ("model-9", "model-100", "weights", "model.ckpt-20"):
        (tmp_path / f"{name}.index").write_text(name)
    before = tree(tmp_path)
    start = resume_point(tmp_path)
    for name in ("model-100", "model.ckpt-20", "model-9", "weights"):
        assert start.prefix == tmp_path / name
        assert start.started_from == file_sha256(tmp_path / f"{name}.index")
        with pytest.raises(CheckpointError) if name == "weights" else nullcontext():
            start = start.fall_back(CAUSE)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(("named", "tried"), [(200, [200, 100]), (100, [100]), (500, [500, 200, 100])])
def test_the_checkpoint_that_the_state_file_names_is_adopted(tmp_path, caplog, named, tried):
    """A higher step, of an earlier run or after a user's edit, is not used; one log line names it. No file changes."""
    for step in (100, 200, 500):
        make_files(tmp_path, step, content="another program's")
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "model.ckpt-{named}"\n')
    before = tree(tmp_path)
    start = resume_point(tmp_path)
    assert [prefix.name for prefix in (*start.older, start.prefix)] == [f"model.ckpt-{step}" for step in tried[::-1]]
    assert start.started_from == file_sha256(layout.index_path(layout.prefix(tmp_path, named)))
    unused = [f"model.ckpt-{step}" for step in (200, 500) if step > named]
    said = f"not used, because the state file names model.ckpt-{named}: {', '.join(unused)}"
    assert [said in record.getMessage() for record in caplog.records] == [True] * bool(unused)
    assert tree(tmp_path) == before


def test_without_a_useful_state_file_the_highest_step_is_adopted(tmp_path, caplog):
    """One warning says so."""
    for step in (100, 200):
        make_files(tmp_path, step)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-9"\n')
    assert resume_point(tmp_path).prefix == layout.prefix(tmp_path, 200)
    (record,) = caplog.records
    assert "expected a complete checkpoint in its directory, got 'model.ckpt-9'" in record.getMessage()


def test_adopting_is_logged(tmp_path, caplog):
    """The log names the adopted prefix."""
    caplog.set_level(logging.INFO)
    prefix = make_files(tmp_path, 100)
    resume_point(tmp_path)
    assert [str(prefix) in record.getMessage() for record in caplog.records] == [True]


def test_a_run_that_adopted_resumes_from_its_own(tmp_path):
    """After its first save, the adopted checkpoint is neither changed nor resumed from."""
    make_files(tmp_path, 100, content="another program's")
    theirs = tree(tmp_path)
    lineage = resume_point(tmp_path).started_from
    make_checkpoint(tmp_path, 150, started_from=lineage)
    start = resume_point(tmp_path)
    assert (start.newest.step, start.started_from) == (150, lineage)
    assert theirs.items() <= tree(tmp_path).items()


def test_a_newer_checkpoint_of_a_plain_saver_is_moved(tmp_path):
    """It is in quarantine, not deleted."""
    make_checkpoint(tmp_path, 50)
    make_files(tmp_path, 200, content="another program's")
    before = contents(tmp_path)
    assert resume_point(tmp_path).newest.step == 50
    assert contents(tmp_path) == before


def test_a_warm_start_beside_foreign_checkpoints_is_refused(tmp_path):
    """It would be ignored, because the run would resume from the foreign checkpoint."""
    source = make_checkpoint(tmp_path / "source", 70)
    make_files(tmp_path / "ours", 100)
    message = complaint(tmp_path / "ours", warm_start_from=source)
    assert "omit warm_start_from to resume from model.ckpt-100" in message


def test_restore_from_beside_foreign_checkpoints_is_refused(tmp_path):
    """There would be two checkpoints to start from; the hint says how to choose."""
    theirs = make_checkpoint(tmp_path / "theirs", 70)
    make_files(tmp_path / "ours", 100)
    message = complaint(tmp_path / "ours", restore_from=theirs)
    assert "model.ckpt-100 found without a manifest" in message
    assert f"use another directory to start from {theirs}" in message
    assert "omit restore_from to resume from model.ckpt-100" in message


def test_a_marked_checkpoint_is_not_adopted(tmp_path):
    """A mark shows an interrupted save of this package."""
    mark(make_files(tmp_path, 100))
    make_files(tmp_path, 50)
    assert resume_point(tmp_path).prefix == layout.prefix(tmp_path, 50)
    assert layout.files_of(layout.prefix(tmp_path, 100)) == []


@pytest.mark.parametrize("below", [".", "cnn"])
def test_a_file_at_the_path_of_a_train_dir_is_an_error(tmp_path, below):
    """The file, or a file in place of a parent directory, is not changed."""
    (tmp_path / "runs").write_text("mine")
    with pytest.raises(CheckpointError, match="expected a directory to write to") as refused:
        resume_point(tmp_path / "runs" / below)
    assert str(refused.value).startswith(f"{tmp_path / 'runs' / below}: ")
    assert (tmp_path / "runs").read_text() == "mine"


@pytest.mark.parametrize("name", AWKWARD)
def test_a_run_can_start_from_another_directory(tmp_path, name):
    """A new train_dir with restore_from records the sha256 of the source's index file."""
    theirs = make_checkpoint(tmp_path / name, 70, settings={"model": "another"})
    start = resume_point(tmp_path / "run", restore_from=theirs)
    assert (start.prefix, start.newest, start.older) == (theirs, None, ())
    assert start.started_from == file_sha256(layout.index_path(theirs))


def test_a_run_with_restore_from_resumes_from_its_own(tmp_path):
    """The same command resumes from the run's newest checkpoint, and so does one without restore_from."""
    theirs = make_checkpoint(tmp_path / "theirs", 70)
    lineage = resume_point(tmp_path / "ours", restore_from=theirs).started_from
    ours = make_checkpoint(tmp_path / "ours", 80, started_from=lineage)
    for restore_from in (theirs, None):
        start = resume_point(tmp_path / "ours", restore_from=restore_from)
        assert (start.prefix, start.started_from) == (ours, lineage)


def test_the_source_may_be_moved(tmp_path):
    """The content of the source identifies it, not its path."""
    theirs = make_checkpoint(tmp_path / "theirs", 70)
    ours = make_checkpoint(tmp_path / "ours", 80, started_from=file_sha256(layout.index_path(theirs)))
    (tmp_path / "theirs").rename(tmp_path / "moved")
    assert resume_point(tmp_path / "ours", restore_from=tmp_path / "moved" / theirs.name).prefix == ours


@pytest.mark.parametrize("started_from", [None, "0" * 64], ids=["from the beginning", "from another"])
def test_another_restore_from_is_refused(tmp_path, started_from):
    """A run that did not start from a checkpoint is not resumed as if it had."""
    theirs = make_checkpoint(tmp_path / "theirs", 70, content="another program's")
    make_checkpoint(tmp_path / "ours", 80, started_from=started_from)
    message = complaint(tmp_path / "ours", restore_from=theirs)
    assert message.startswith(f"{tmp_path / 'ours'}: checkpoints up to step 80 found")
    assert str(theirs) in message


def test_an_older_checkpoint_of_the_run_is_refused_as_restore_from(tmp_path):
    """It would start a second run in the same directory; the hint says what to do."""
    for step in (50, 100):
        make_checkpoint(tmp_path, step)
    message = complaint(tmp_path, restore_from=layout.prefix(tmp_path, 50))
    assert "use another directory to start from there" in message
    assert "omit restore_from to resume from step 100" in message


def test_restore_from_may_be_the_newest_checkpoint_of_the_run(tmp_path, monkeypatch):
    """By any path: relative, through a link or with `..`."""
    for step in (50, 100):
        make_checkpoint(tmp_path / "run", step)
    (tmp_path / "link").symlink_to("run")
    monkeypatch.chdir(tmp_path)
    for directory in (Path("run"), tmp_path / "link", tmp_path / "run" / ".." / "run"):
        start = resume_point(tmp_path / "run", restore_from=layout.prefix(directory, 100))
        assert start.prefix.resolve() == layout.prefix(tmp_path / "run", 100)


def test_settings_are_compared_also_with_restore_from(tmp_path):
    """Naming a checkpoint of the run does not allow other settings."""
    prefix = make_checkpoint(tmp_path, 50)
    assert "seed 0 (now 1)" in complaint(tmp_path, restore_from=prefix, seed=1)


def test_a_wrong_prefix_is_refused(tmp_path):
    """The error lists the prefixes in the directory, and the train_dir is not created."""
    for step in (50, 100):
        make_checkpoint(tmp_path / "theirs", step)
    wrong = layout.prefix(tmp_path / "theirs", 75)
    with pytest.raises(CheckpointError) as refused:
        resume_point(tmp_path / "ours", restore_from=wrong)
    message = with_hint(refused.value)
    assert message.startswith(f"{wrong}: no checkpoint found")
    assert "model.ckpt-50" in message
    assert "model.ckpt-100" in message
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("suffix", [".index", ".meta", ".data-00000-of-00001", ".manifest.json"])
def test_a_file_name_instead_of_a_prefix_is_refused(tmp_path, suffix):
    """The error lists the prefix."""
    prefix = make_checkpoint(tmp_path, 50)
    message = complaint(tmp_path, restore_from=prefix.with_name(prefix.name + suffix))
    assert "no checkpoint found" in message
    assert "there are model.ckpt-50 (use a prefix: " in message


def test_a_directory_instead_of_a_prefix_is_refused(tmp_path):
    """The error lists the prefixes in it, sorted by step."""
    for step in (100, 50):
        make_checkpoint(tmp_path / "theirs", step)
    with pytest.raises(CheckpointError, match=r"(?m)model\.ckpt-50, model\.ckpt-100$"):
        resume_point(tmp_path / "ours", restore_from=tmp_path / "theirs")


@pytest.mark.parametrize("name", ["absent/model.ckpt-1", "model.ckpt-1"])
def test_a_directory_without_checkpoints_is_refused(tmp_path, name):
    """The error says that there are none."""
    message = complaint(tmp_path, restore_from=tmp_path / name)
    assert message.startswith(f"{tmp_path / name}: no checkpoint found")
    assert f"in {(tmp_path / name).parent} there are none" in message


@pytest.mark.parametrize("path", [".", "/"])
def test_a_directory_is_no_prefix(tmp_path, path):
    """The current directory and the root are no prefixes."""
    assert "no checkpoint found" in complaint(tmp_path, restore_from=Path(path))


@pytest.mark.parametrize("others", [[], [50]], ids=["alone", "with a complete one"])
def test_an_incomplete_checkpoint_is_refused_as_restore_from(tmp_path, others):
    """The files of an interrupted save in the train_dir are no checkpoint."""
    for step in others:
        make_checkpoint(tmp_path, step)
    half = mark(make_files(tmp_path, 100))
    with pytest.raises(CheckpointError) as refused:
        resume_point(tmp_path, restore_from=half)
    assert str(half) in str(refused.value)


def test_an_incomplete_checkpoint_elsewhere_is_refused_as_restore_from(tmp_path):
    """Nor are those in another train_dir, which is not changed."""
    make_checkpoint(tmp_path / "theirs", 50)
    half = mark(make_files(tmp_path / "theirs", 100))
    before = tree(tmp_path)
    with pytest.raises(CheckpointError, match=r"(?m)model\.ckpt-50$"):
        resume_point(tmp_path / "ours", restore_from=half)
    assert tree(tmp_path) == before


def test_a_directory_named_like_the_prefix_does_not_hide_it(tmp_path):
    """A prefix is not a file name, so a directory may have it."""
    prefix = make_checkpoint(tmp_path / "theirs", 50)
    prefix.mkdir()
    assert resume_point(tmp_path / "ours", restore_from=prefix).prefix == prefix


def test_a_directory_is_no_index_file(tmp_path):
    """A directory whose name ends with .index is no checkpoint."""
    (tmp_path / "theirs" / "model.ckpt-50.index").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="no checkpoint found"):
        resume_point(tmp_path / "ours", restore_from=layout.prefix(tmp_path / "theirs", 50))


def test_restore_from_may_have_any_name(tmp_path):
    """Other programs use other names."""
    prefix = tmp_path / "theirs" / "weights"
    prefix.parent.mkdir()
    layout.index_path(prefix).write_text("index")
    assert resume_point(tmp_path / "ours", restore_from=prefix).prefix == prefix


def test_the_source_may_be_deleted(tmp_path, caplog):
    """The same command resumes from the run's own checkpoint, with a warning."""
    theirs = make_checkpoint(tmp_path / "theirs", 50)
    started_from = file_sha256(layout.index_path(theirs))
    make_checkpoint(tmp_path / "ours", 60, started_from=started_from)
    for path in layout.files_of(theirs):
        path.unlink()
    assert resume_point(tmp_path / "ours", restore_from=theirs).newest.step == 60
    assert f"{theirs}: is missing" in caplog.text


def test_discard_latest_needs_a_complete_older_checkpoint(tmp_path):
    """If the one before is damaged, the newest stays."""
    checkpoints.cut_short(layout.index_path(make_checkpoint(tmp_path, 50)))
    make_checkpoint(tmp_path, 100)
    assert resume.discard_latest(tmp_path, "crashed twice") is None
    assert layout.steps_with(tmp_path, "manifest.json") == [50, 100]
    make_checkpoint(tmp_path, 20)
    assert resume.discard_latest(tmp_path, "crashed twice") == 20
    assert resume_point(tmp_path).newest.step == 20


@pytest.mark.parametrize("name", ["checkpoint", "model.ckpt-7.meta", "weights.data-00000-of-00001"])
def test_files_of_a_lost_checkpoint_prevent_a_fresh_start(tmp_path, name):
    """A state file, a graph or a data file shows that there was a checkpoint."""
    (tmp_path / name).write_text("mine")
    assert f"{name} found, but no .index file that goes with it" in complaint(tmp_path)


PUT = {
    "a symbolic link": lambda path: path.symlink_to(path.with_name("precious")),
    "a special file": os.mkfifo,
    "a directory": lambda path: make_files(path, 1),
}


@pytest.mark.parametrize("kind", PUT)
@pytest.mark.parametrize("name", [layout.METRICS, layout.HISTORY, layout.ATTEMPT, layout.RESULT])
def test_a_name_that_is_occupied_is_found_at_the_start(tmp_path, kind, name):
    """Not when the file is written, hours later; nothing is changed, and the error names it."""
    make_checkpoint(tmp_path, 100)
    (tmp_path / "precious").write_text("precious")
    PUT[kind](tmp_path / name)
    message = complaint(tmp_path)
    assert message.startswith(f"{tmp_path / name}: expected a regular file, got {kind} (move it away")
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_directory_at_the_path_of_a_temporary_file_is_found(tmp_path):
    """It could not be replaced at the end."""
    make_files(tmp_path / "result.json.tmp", 1)
    assert "result.json.tmp: a directory has the name of a temporary file" in complaint(tmp_path)


@pytest.mark.parametrize("kind", ["a symbolic link", "a special file", "a directory"])
def test_a_lock_that_is_not_a_regular_file_is_an_error(tmp_path, kind):
    """It is not opened, changed or waited for."""
    (tmp_path / "precious").write_text("precious")
    PUT[kind](tmp_path / layout.LOCK)
    assert layout.LOCK in complaint(tmp_path)
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("put", [Path.touch, lambda path: path.symlink_to("precious")])
def test_a_quarantine_that_is_no_directory_is_an_error(tmp_path, put):
    """The damaged checkpoint stays where it is."""
    make_checkpoint(tmp_path, 50)
    (tmp_path / "precious").mkdir()
    checkpoints.flip_a_bit(layout.index_path(make_checkpoint(tmp_path, 100)))
    put(layout.quarantine_path(tmp_path))
    assert "quarantine: expected a directory, got a file or a symbolic link" in complaint(tmp_path)
    assert not list((tmp_path / "precious").iterdir())


NOT_ABOUT_BYTES = [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN]


@pytest.mark.parametrize("number", NOT_ABOUT_BYTES)
@pytest.mark.parametrize("kind", [*KINDS, "manifest.json"])
def test_a_file_that_cannot_be_read_now_is_not_damaged(tmp_path, monkeypatch, number, kind):
    """A shortage or a network error is an error that names the file; nothing is moved."""
    for step in (50, 100):
        make_checkpoint(tmp_path, step)
    with monkeypatch.context() as patched:
        refuse_to_open(patched, f"model.ckpt-100.{kind}", number)
        message = complaint(tmp_path)
    assert f"model.ckpt-100.{kind}: cannot be read ({os.strerror(number)})" in message
    assert resume_point(tmp_path).newest.step == 100


def test_an_io_error_is_damage(tmp_path, monkeypatch):
    """EIO means that the disk has lost the bytes: the run resumes from the checkpoint before."""
    for step in (50, 100):
        make_checkpoint(tmp_path, step)
    refuse_to_open(monkeypatch, "model.ckpt-100.index", errno.EIO)
    assert resume_point(tmp_path).newest.step == 50


def test_settings_of_another_type_are_a_difference(tmp_path):
    """A string is not a smaller number."""
    make_checkpoint(tmp_path, 100, settings=SETTINGS | {"train_steps": "60"})
    assert "was made with train_steps 60 (now 100)" in complaint(tmp_path)


FLAGS = ["restore_from", "warm_start_from"]


def source(directory, *steps):
    """Make a run with checkpoints; return the option values that name it."""
    prefixes = [make_checkpoint(directory, step, content=f"the source's, {step},") for step in steps]
    return {"restore_from": prefixes[-1], "warm_start_from": directory}


def first_weights(start):
    """Return the checkpoint that the first weights come from."""
    return start.prefix or start.warm_start.prefix


@pytest.mark.parametrize("flag", FLAGS)
def test_the_source_is_chosen_once(tmp_path, flag):
    """A run killed before its first checkpoint starts from the same one, although the source has a newer one."""
    option = {flag: source(tmp_path / "source", 100)[flag]}
    assert first_weights(resume_point(tmp_path / "run", **option)) == tmp_path / "source" / "model.ckpt-100"
    make_checkpoint(tmp_path / "source", 200)
    assert first_weights(resume_point(tmp_path / "run", **option)) == tmp_path / "source" / "model.ckpt-100"


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("what", ["has changed", "is missing"])
def test_a_source_that_has_changed_is_refused(tmp_path, flag, what):
    """The weights would differ; if it is put back, the run starts from it."""
    option = {flag: source(tmp_path / "source", 100)[flag]}
    resume_point(tmp_path / "run", **option)
    make_checkpoint(tmp_path / "source", 200)
    index = layout.index_path(tmp_path / "source" / "model.ckpt-100")
    content = index.read_bytes()
    if what == "is missing":
        index.rename(tmp_path / "elsewhere")
        if flag == "restore_from":  # the prefix is checked first
            with pytest.raises(CheckpointError, match="no checkpoint found"):
                resume_point(tmp_path / "run", **option)
            return
    else:
        index.write_bytes(b"another")
    with pytest.raises(CheckpointError, match=f"model.ckpt-100.index: {what} since the run started") as refused:
        resume_point(tmp_path / "run", **option)
    assert f"{flag}={option[flag]}" in with_hint(refused.value)
    index.write_bytes(content)
    assert first_weights(resume_point(tmp_path / "run", **option)).name == "model.ckpt-100"


def test_another_source_before_the_first_checkpoint_is_allowed(tmp_path):
    """Nothing is lost, so nothing is refused."""
    resume_point(tmp_path / "run", warm_start_from=source(tmp_path / "one", 100)["warm_start_from"])
    start = resume_point(tmp_path / "run", warm_start_from=source(tmp_path / "two", 200)["warm_start_from"])
    assert start.warm_start.prefix == tmp_path / "two" / "model.ckpt-200"


def test_a_run_with_a_checkpoint_does_not_need_its_source(tmp_path):
    """Its own checkpoint has the weights."""
    resume_point(tmp_path / "run", warm_start_from=source(tmp_path / "source", 100)["warm_start_from"])
    make_checkpoint(tmp_path / "run", 10)
    shutil.rmtree(tmp_path / "source")
    start = resume_point(tmp_path / "run", warm_start_from=tmp_path / "source")
    assert (start.newest.step, start.warm_start) == (10, None)


@pytest.mark.parametrize("content", [b"", b"{}", b"\0" * 50, b"[]", b'{"flag": 1}'])
def test_a_damaged_record_of_the_source_is_an_error(tmp_path, content):
    """Without it the source of the first weights is unknown."""
    option = {"warm_start_from": source(tmp_path / "source", 100)["warm_start_from"]}
    resume_point(tmp_path / "run", **option)
    (tmp_path / "run" / layout.ORIGIN).write_bytes(content)
    assert "the source of the run's first weights is unknown" in complaint(tmp_path / "run", **option)


@pytest.fixture
def shared():
    """Yield a train_dir of root's that other users may enter."""
    if os.geteuid() != 0:
        pytest.skip("only root may become another user")
    with tempfile.TemporaryDirectory() as parent:  # other users may not enter pytest's directories
        Path(parent).chmod(0o755)
        make_checkpoint(Path(parent) / "run", 100)
        resume_point(Path(parent) / "run")
        yield Path(parent) / "run"


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (0o755, "run: expected a directory to write to, got an error (Permission denied) (use another directory)"),
        (0o777, "lock: cannot be written (Permission denied); it belongs to user root (run as root, or use another"),
        (0o1777, "lock: cannot be written (Permission denied); it belongs to user root (run as root, or use another"),
    ],
    ids=["read-only", "shared", "sticky"],
)
def test_the_train_dir_of_another_user_is_an_error(shared, mode, expected):
    """It is found before the first step."""
    shared.chmod(mode)
    os.seteuid(65534)
    try:
        assert expected in complaint(shared)
    finally:
        os.seteuid(0)


def test_a_damaged_export_in_quarantine_is_no_checkpoint(tmp_path):
    """A run without checkpoints starts at step 0, although there is a quarantine."""
    make_files(layout.quarantine_path(tmp_path) / "saved_model-100" / "100", 1)
    (layout.quarantine_path(tmp_path) / "saved_model-100" / layout.REASON).touch()
    assert is_fresh(resume_point(tmp_path))


def test_paths_of_the_source_are_resolved(tmp_path, monkeypatch):
    """Relative, absolute and linked paths mean the same source."""
    resume_point(tmp_path / "run", warm_start_from=source(tmp_path / "source", 100)["warm_start_from"])
    make_checkpoint(tmp_path / "source", 200)
    (tmp_path / "link").symlink_to("source")
    monkeypatch.chdir(tmp_path)
    for given in ("source", "./source", "link"):
        assert resume_point(tmp_path / "run", warm_start_from=Path(given)).warm_start.prefix.name == "model.ckpt-100"


def test_a_shortage_during_discard_latest_is_an_error(tmp_path, monkeypatch):
    """The supervisor must not conclude that there is no older checkpoint."""
    for step in (50, 100):
        make_checkpoint(tmp_path, step)
    refuse_to_open(monkeypatch, "model.ckpt-50.manifest.json", errno.EMFILE)
    with pytest.raises(CheckpointError, match="Too many open files"):
        resume.discard_latest(tmp_path, "it died")


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ENOMEM, errno.EMFILE, errno.ENOSPC])
def test_a_lock_that_cannot_be_opened_now_has_the_hint_to_try_again(tmp_path, monkeypatch, number):
    """The hint must not be another train_dir, which would start at step 0."""
    make_checkpoint(tmp_path, 100)
    refuse_to_open(monkeypatch, layout.LOCK, number)
    message = complaint(tmp_path)
    assert message == f"{tmp_path / layout.LOCK}: {os.strerror(number)} ({LATER})"
