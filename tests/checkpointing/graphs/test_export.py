import errno
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from checkpointing.errors import CheckpointError, DamagedError
from checkpointing.format import tensor_io
from checkpointing.graphs import export, staged_export
from checkpointing.protocol import verification
from checkpointing.storage import durable, layout
from checkpointing.storage.staging import TargetExistsError
from tests import checkpoints
from tests.doubling_model import INPUTS, build_signatures, save_weights

EXAMPLE = export.Example({"x": INPUTS}, {"y": INPUTS * 2, "positive": INPUTS > 0})


@pytest.fixture
def prefix(tmp_path):
    """A checkpoint in which the factor is 2."""
    return save_weights(tmp_path / "model")


@pytest.mark.parametrize("name", ["7", "run[1]", "größe 数字"])
def test_an_exported_model_can_be_loaded(tmp_path, prefix, name):
    """By TensorFlow 2's loader and in a session; it gives the example's outputs."""
    target = tmp_path / "new" / name
    export.export_saved_model(target, prefix, build_signatures, EXAMPLE)
    assert [path.name for path in target.parent.iterdir()] == [name]
    target = target.rename(tmp_path / "1")  # TensorFlow's own loaders take "run[1]" for a pattern
    outputs = tf.saved_model.load(str(target)).signatures["serving_default"](x=tf.constant(INPUTS))
    assert np.array_equal(outputs["y"], INPUTS * 2)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.saved_model.load(session, ["serve"], str(target))
        assert session.run("factor/Read/ReadVariableOp:0") == 2


def test_an_existing_target_is_not_overwritten(tmp_path, prefix):
    """A directory, a file, or a dangling link."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("directory", "file", "link"):
        with pytest.raises(CheckpointError, match=f"{name}: exists already"):
            export.export_saved_model(tmp_path / name, prefix, build_signatures, EXAMPLE)


def test_a_model_with_other_outputs_is_not_published(tmp_path, prefix):
    """The target appears only after the model has been loaded and has given the example's outputs."""
    wrong = export.Example({"x": INPUTS}, {"y": INPUTS * 3})
    with pytest.raises(CheckpointError, match="its y differ from the trained model's"):
        export.export_saved_model(tmp_path / "1", prefix, build_signatures, wrong)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_model_with_another_signature_is_an_error(tmp_path, prefix):
    """The message says what was expected."""
    export.export_saved_model(tmp_path / "1", prefix, build_signatures, EXAMPLE)
    other = export.Example({"pixels": INPUTS}, {"digits": INPUTS})
    with pytest.raises(CheckpointError, match="cannot be run with the trained model's signature"):
        export.check_outputs(tmp_path / "1", other)


def test_every_changed_byte_is_found(tmp_path, prefix):
    """By the export's manifest; in each file the first byte, the last, and one between."""
    export.export_saved_model(tmp_path / "1", prefix, build_signatures, EXAMPLE)
    assert verification.verify_saved_model(tmp_path / "1").startswith("sha256 of ")
    for path in [path for path in (tmp_path / "1").rglob("*") if path.is_file()]:
        content = path.read_bytes()
        for position in {0, len(content) // 2, len(content) - 1} if content else ():
            path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
            is_manifest = path.name == "manifest.json"
            if not (is_manifest and position == len(content) - 1):  # the line end, which is not significant
                with pytest.raises(DamagedError, match=path.name):
                    verification.verify_saved_model(tmp_path / "1")
        path.write_bytes(content)
    (tmp_path / "1" / "saved_model.pb").unlink()
    with pytest.raises(DamagedError, match=r"saved_model\.pb: expected [\d,]+ bytes, got no file"):
        verification.verify_saved_model(tmp_path / "1")


@pytest.mark.parametrize("harm", [checkpoints.flip_a_bit, checkpoints.cut_in_half, Path.unlink])
def test_a_damaged_checkpoint_is_not_exported(tmp_path, prefix, harm):
    """The error names it."""
    harm(prefix.with_name("model.data-00000-of-00001"))
    with pytest.raises(CheckpointError, match="model: "):
        export.export_saved_model(tmp_path / "1", prefix, build_signatures, EXAMPLE)
    assert not (tmp_path / "1").exists()


def test_a_full_disk_is_an_error(tmp_path, prefix, monkeypatch):
    """The message names the directory."""

    def refuse(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.compat.v1.saved_model.Builder, "save", refuse)
    with pytest.raises(CheckpointError, match=r"1\.incomplete-.*: could not be written \(No space left on device\)"):
        export.export_saved_model(tmp_path / "1", prefix, build_signatures, EXAMPLE)
    assert not (tmp_path / "1").exists()


def test_killed_anywhere_an_export_is_complete_or_absent(tmp_path, prefix):
    """At the target is a complete export or nothing; then the next export succeeds."""

    def act(directory):
        export.export_saved_model(directory / "models" / "1", prefix, build_signatures, EXAMPLE)

    kills = 0
    for directory in checkpoints.every_kill(tmp_path / "kills", lambda _: None, act):
        kills += 1
        target = directory / "models" / "1"
        if target.exists():
            verification.verify_saved_model(target)
        elif kills % 4 == 0:
            act(directory)
            assert [path.name for path in target.parent.iterdir()] == ["1"]
    assert kills > 10


def test_a_model_without_variables_can_be_exported(tmp_path, prefix):
    """Such a model has no variables file."""

    def build():
        x = tf.compat.v1.placeholder(tf.float32, [None, 2], name="x")
        return {"serving_default": ({"x": x}, {"y": x * 2, "positive": x > 0})}

    export.export_saved_model(tmp_path / "1", prefix, build, EXAMPLE)
    export.check_outputs(tmp_path / "1", EXAMPLE)


STEP = 7


def double_in_run(directory, **options):
    """Export the model of a run to the default place, or keep the export there; return the place."""
    target = layout.export_path(directory / "run", STEP)
    double(directory, target, **options)
    return target


def double(directory, target, *, factor=2.0):
    """Export the model of the run in `directory`/run, or keep the export at the target; return the target."""
    prefix = directory / "run" / f"model-{factor}"
    if not layout.index_path(prefix).exists():
        tensor_io.write(prefix, {"factor": np.float32(factor), "momentum": np.float32(0.5)})
    example = export.Example({"x": INPUTS}, {"y": INPUTS * np.float32(factor), "positive": INPUTS > 0})
    notes = {"MODEL_CARD.md": f"multiplies by {factor}"}
    build = build_signatures
    export.ensure_exported(target, prefix, build, example, notes, train_dir=directory / "run", step=STEP)
    return target


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A directory with a run, and its export at the default place."""
    directory = tmp_path_factory.mktemp("undisturbed")
    double_in_run(directory)
    return directory


@pytest.fixture
def copied(tmp_path, undisturbed):
    """A copy of `undisturbed`."""
    return shutil.copytree(undisturbed, tmp_path / "copied")


FILES = [
    *("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"),
    *("assets.extra/MODEL_CARD.md", "assets.extra/manifest.json"),
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", checkpoints.DAMAGES)
def test_a_damaged_export_of_this_run_is_moved_and_exported_again(copied, undisturbed, caplog, name, harm):
    """For damage of any kind to any file; a warning names it, and where the export is now."""
    target = layout.export_path(copied / "run", STEP)
    harm(target / name)
    damaged = checkpoints.tree(target)
    double_in_run(copied)
    assert checkpoints.tree(target) == checkpoints.tree(layout.export_path(undisturbed / "run", STEP))
    place = copied / "run" / "quarantine" / f"saved_model-{STEP}"
    assert checkpoints.tree(place / str(STEP)) == damaged
    [warning] = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert warning.startswith(f"{target}: the export is damaged ({'manifest.json' if 'manifest' in name else name}: ")
    assert warning.endswith(f"moved to {place}")
    assert (place / "reason.txt").read_text() in f"{warning}\n".replace("; moved to", "\n")
    assert [path.name for path in target.parent.iterdir()] == [str(STEP)]


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_export_outside_the_train_dir_is_moved_beside_itself(copied, undisturbed, name):
    """It is recognized by its manifest or, if that is damaged, by the weights or the model card."""
    target = shutil.copytree(layout.export_path(copied / "run", STEP), copied / "out")
    for number in ("", ".2"):
        checkpoints.flip_a_bit(target / name)
        damaged = checkpoints.tree(target)
        double(copied, target)
        assert checkpoints.tree(target) == checkpoints.tree(layout.export_path(undisturbed / "run", STEP))
        assert checkpoints.tree(copied / f"out.damaged{number}" / "out") == damaged


def test_an_intact_export_is_kept(copied):
    """No file is written; a file that a user has added to `assets.extra` is fine."""
    target = layout.export_path(copied / "run", STEP)
    (target / "assets.extra" / "tf_serving_warmup_requests").write_text("a user's")
    times = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    double_in_run(copied)
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == times


def test_a_file_that_was_added_is_reported_and_kept(copied, caplog):
    """A file added anywhere else may be a mistake: a warning names it."""
    target = layout.export_path(copied / "run", STEP)
    (target / "variables" / "notes.txt").write_text("a user's")
    before = checkpoints.tree(copied)
    double_in_run(copied)
    assert f"{target}: variables/notes.txt: not in its manifest; left unchanged" in caplog.text
    assert checkpoints.tree(copied) == before


def stranger(directory):
    """Make a directory that has nothing to do with this program."""
    directory.mkdir(parents=True)
    (directory / "thesis.tex").write_text("mine")


def empty(directory):
    """Make an empty directory."""
    directory.mkdir(parents=True)


def file(path):
    """Make a file in the place of a directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")


def others_saved_model(directory):
    """Make a SavedModel of another program."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None])
        y = x * tf.compat.v1.get_variable("factor", initializer=3.0)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.saved_model.simple_save(session, str(directory), {"x": x}, {"y": y})


def another_runs(directory):
    """Make an intact export of other weights."""
    double(directory.parent / "another", directory, factor=3.0)


def another_runs_damaged(directory):
    """Make one in which a bit has flipped."""
    another_runs(directory)
    checkpoints.flip_a_bit(directory / "saved_model.pb")


NOT_OURS = {
    stranger: "expected nothing or an export of .*model-2.0, got something else .manifest.json: cannot be read",
    empty: "expected nothing or an export of .*model-2.0, got something else .manifest.json: cannot be read",
    file: "expected nothing or an export of .*model-2.0, got something else .manifest.json: cannot be read",
    others_saved_model: "expected nothing or an export of .*model-2.0, got something else .manifest.json: cannot be",
    another_runs: "expected an export of .*model-2.0, got one of another run's model-3.0 .factor differ",
    another_runs_damaged: "expected nothing or an export of .*model-2.0, got something else .saved_model.pb: some of",
}


@pytest.mark.parametrize("put", NOT_OURS)
def test_anything_but_an_export_of_this_run_stays(tmp_path, put):
    """The error says what was found; nothing is moved, deleted or written."""
    put(tmp_path / "out")
    before = checkpoints.tree(tmp_path / "out")
    with pytest.raises(CheckpointError, match=NOT_OURS[put]) as error:
        double(tmp_path, tmp_path / "out")
    assert error.value.hint.startswith("nothing was changed")
    assert checkpoints.tree(tmp_path / "out") == before
    assert {path.name for path in tmp_path.iterdir()} <= {"run", "out", "another"}


@pytest.mark.parametrize("put", [stranger, empty, file, another_runs, another_runs_damaged])
def test_the_default_place_is_no_proof_of_an_own_export(tmp_path, put):
    """A stranger's file, or an intact manifest of other weights, stays there, too."""
    target = layout.export_path(tmp_path / "run", STEP)
    put(target)
    before = checkpoints.tree(target)
    with pytest.raises(TargetExistsError) as error:
        double_in_run(tmp_path)
    assert error.value.hint.startswith("nothing was changed")
    assert checkpoints.tree(target) == before
    assert not (tmp_path / "run" / "quarantine").exists()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EACCES, errno.ESTALE, errno.ETIMEDOUT])
@pytest.mark.parametrize("name", FILES)
def test_an_export_that_cannot_be_read_at_the_moment_stays(copied, monkeypatch, name, number):
    """A shortage, permission or network error is no damage: the error names the file, and nothing is moved."""
    path = layout.export_path(copied / "run", STEP) / name
    really_open = os.open

    def refuse(opened, *arguments, **options):
        if Path(opened) == path:
            raise OSError(number, os.strerror(number), str(opened))
        return really_open(opened, *arguments, **options)

    before = checkpoints.tree(copied)
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(CheckpointError, match=re.escape(f"{path}: cannot be read ({os.strerror(number)})")):
            double_in_run(copied)
    assert checkpoints.tree(copied) == before


def test_every_flipped_bit_of_the_manifest_is_damage(copied):
    """Its own hash covers blanks and line ends, too."""
    target = layout.export_path(copied / "run", STEP)
    path = layout.export_manifest_path(target)
    content = path.read_bytes()
    for position in range(len(content)):
        for bit in range(8):
            path.write_bytes(content[:position] + bytes([content[position] ^ 1 << bit]) + content[position + 1 :])
            assert staged_export.find_damage(target) is not None, (position, bit)


def test_a_damaged_export_that_cannot_be_moved_stays(copied):
    """A file in the quarantine's place is an error."""
    target = layout.export_path(copied / "run", STEP)
    checkpoints.flip_a_bit(target / "saved_model.pb")
    (copied / "run" / "quarantine").touch()
    before = checkpoints.tree(copied)
    with pytest.raises(CheckpointError, match=r"the export is damaged .*, and cannot be moved to ") as error:
        double_in_run(copied)
    assert error.value.hint.startswith("move it away")
    assert checkpoints.tree(copied) == before


def test_a_failed_move_leaves_nothing_in_quarantine(copied, monkeypatch):
    """All files are as before."""
    target = layout.export_path(copied / "run", STEP)
    checkpoints.flip_a_bit(target / "saved_model.pb")

    def refuse(*_):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    before = checkpoints.tree(copied)
    monkeypatch.setattr(durable, "move", refuse)
    with pytest.raises(CheckpointError, match=r"cannot be moved to .*saved_model-7 \(Invalid cross-device link\)"):
        double_in_run(copied)
    assert checkpoints.tree(copied) == before
    assert not list((copied / "run" / "quarantine").iterdir())


def test_a_damaged_export_that_another_run_has_replaced_is_kept(copied, monkeypatch):
    """It is verified again before it is moved."""
    target = shutil.copytree(layout.export_path(copied / "run", STEP), copied / "out")
    checkpoints.flip_a_bit(target / "saved_model.pb")
    really_check = export.check_outputs

    def check(directory, example):
        really_check(directory, example)
        monkeypatch.undo()
        double(copied, target)

    monkeypatch.setattr(export, "check_outputs", check)
    double(copied, target)
    assert sorted(path.name for path in copied.iterdir()) == ["out", "out.damaged", "run"]


def test_a_failed_sync_of_the_name_is_an_error(tmp_path, prefix, monkeypatch):
    """The export exists, but a power cut may undo the rename."""
    really_sync = durable.fsync

    def sync(path):
        if path == tmp_path and (tmp_path / "1").exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        really_sync(path)

    monkeypatch.setattr(durable, "fsync", sync)
    with pytest.raises(CheckpointError, match=r"1: could not be written \(Input/output error\)"):
        export.export_saved_model(tmp_path / "1", prefix, build_signatures, EXAMPLE)


def test_killed_anywhere_a_damaged_export_is_replaced_by_the_next_run(tmp_path, undisturbed):
    """The damaged files are kept, and the target is as in an undisturbed run."""

    def make(directory):
        shutil.copytree(undisturbed / "run", directory / "run")
        checkpoints.flip_a_bit(layout.export_path(directory / "run", STEP) / "saved_model.pb")

    kills = 0
    for directory in checkpoints.every_kill(tmp_path, make, double_in_run):
        kills += 1
        if kills % 6:
            continue
        target = double_in_run(directory)
        assert checkpoints.tree(target) == checkpoints.tree(layout.export_path(undisturbed / "run", STEP))
        assert [path.name for path in target.parent.iterdir()] == [str(STEP)]
        assert len(list((directory / "run" / "quarantine").glob(f"*/{STEP}/saved_model.pb"))) == 1
    assert kills > 30


def test_an_export_that_changes_after_its_seal_is_not_published(tmp_path, monkeypatch):
    """Its hashes are compared immediately before the rename."""
    really_check = export.check_outputs

    def check(directory, example):
        really_check(directory, example)
        checkpoints.flip_a_bit(directory / "saved_model.pb")

    monkeypatch.setattr(export, "check_outputs", check)
    with pytest.raises(CheckpointError, match=r"a file changed while it was being exported \(saved_model.pb: some of"):
        double_in_run(tmp_path)
    assert not list(layout.export_path(tmp_path / "run", STEP).parent.iterdir())


@pytest.mark.parametrize("factor", [2.0, 3.0])
def test_a_concurrent_export_counts_if_its_weights_are_the_same(tmp_path, monkeypatch, factor):
    """Other weights are an error. Neither export is replaced, and no other file is left."""
    target, really_check = tmp_path / "out", export.check_outputs

    def check(directory, example):
        really_check(directory, example)
        monkeypatch.undo()
        double(tmp_path / "faster", target, factor=factor)

    monkeypatch.setattr(export, "check_outputs", check)
    if factor == 2:
        double(tmp_path, target)
    else:
        with pytest.raises(CheckpointError, match=r"got one of another run's model-3\.0"):
            double(tmp_path, target)
    assert (target / "assets.extra" / "MODEL_CARD.md").read_text() == f"multiplies by {factor}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faster", "out", "run"]


@pytest.mark.parametrize("put", [Path.mkdir, Path.touch, stranger])
def test_a_target_that_appears_during_the_export_is_not_replaced(tmp_path, prefix, monkeypatch, put):
    """Not even an empty directory, which rename(2) would replace."""
    really_check = export.check_outputs

    def check(directory, example):
        really_check(directory, example)
        put(tmp_path / "1")

    monkeypatch.setattr(export, "check_outputs", check)
    with pytest.raises(TargetExistsError, match="1: exists already"):
        export.export_saved_model(tmp_path / "1", prefix, build_signatures, EXAMPLE)
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith("model")} == {"1", "checkpoint"}
    assert not (tmp_path / "1" / "saved_model.pb").exists()
