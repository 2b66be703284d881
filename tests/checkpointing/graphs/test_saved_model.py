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
from checkpointing.graphs import saved_model
from checkpointing.graphs.saved_model import TaggedGraph
from checkpointing.protocol import verification
from checkpointing.storage import durable, layout
from checkpointing.storage.staging import TargetExistsError
from mnist.model import networks, signatures
from tests import checkpoints

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 28, 28), np.uint8)
INPUTS = np.arange(6, dtype=np.float32).reshape(3, 2)
EXAMPLE = saved_model.Example({"x": INPUTS}, {"y": INPUTS * 2, "positive": INPUTS > 0})


def build_signatures():
    """A model that doubles."""
    x = tf.compat.v1.placeholder(tf.float32, [None, 2], name="x")
    factor = tf.compat.v1.get_variable("factor", initializer=1.0)
    return {"serving_default": ({"x": x}, {"y": x * factor, "positive": x > 0})}


@pytest.fixture
def prefix(tmp_path):
    """A checkpoint in which the factor is 2."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        factor = tf.compat.v1.get_variable("factor", initializer=2.0)
        session.run(factor.initializer)
        tf.compat.v1.train.Saver().save(session, str(tmp_path / "model"))
    return tmp_path / "model"


@pytest.mark.parametrize("name", ["7", "run[1]", "größe 数字"])
def test_an_exported_model_answers(tmp_path, prefix, name):
    """TensorFlow 2's loader and a session get the example's answers from it."""
    target = tmp_path / "new" / name
    saved_model.export_saved_model(target, prefix, build_signatures, EXAMPLE)
    assert [path.name for path in target.parent.iterdir()] == [name]
    target = target.rename(tmp_path / "1")  # TensorFlow's own loaders do not find what is in "run[1]"
    answers = tf.saved_model.load(str(target)).signatures["serving_default"](x=tf.constant(INPUTS))
    assert np.array_equal(answers["y"], INPUTS * 2)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.saved_model.load(session, ["serve"], str(target))
        assert session.run("factor/Read/ReadVariableOp:0") == 2


def test_what_exists_is_not_overwritten(tmp_path, prefix):
    """Neither a directory, nor a file, nor a link that leads nowhere."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("directory", "file", "link"):
        with pytest.raises(CheckpointError, match=f"{name}: exists already"):
            saved_model.export_saved_model(tmp_path / name, prefix, build_signatures, EXAMPLE)


def test_a_model_that_answers_otherwise_is_not_put_in_place(tmp_path, prefix):
    """The target appears only once the model was loaded back and gave the example's outputs."""
    wrong = saved_model.Example({"x": INPUTS}, {"y": INPUTS * 3})
    with pytest.raises(CheckpointError, match="expected the trained model's y, got others"):
        saved_model.export_saved_model(tmp_path / "1", prefix, build_signatures, wrong)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_model_with_other_inputs_is_told(tmp_path, prefix):
    """The error says what was expected."""
    saved_model.export_saved_model(tmp_path / "1", prefix, build_signatures, EXAMPLE)
    other = saved_model.Example({"pixels": INPUTS}, {"digits": INPUTS})
    with pytest.raises(CheckpointError, match="expected a model with the trained one's signature"):
        saved_model.check_saved_model(tmp_path / "1", other)


def softmax_served():
    """Our softmax and its signatures, as they are exported."""
    return signatures.build_signatures(networks.Softmax())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The weights of a softmax and its graph, as a plain Saver leaves them; the labels of some images."""
    prefix = tmp_path_factory.mktemp("trained") / "model"
    weights = np.random.default_rng(1).normal(size=(784, 10)).astype(np.float32)
    biases = np.arange(10, dtype=np.float32)
    tensor_io.write(prefix, {"layer1/weights": weights, "layer1/biases": biases})
    logits = IMAGES.reshape(-1, 784).astype(np.float32) / 255 @ weights + biases
    return prefix, [str(digit).encode() for digit in logits.argmax(axis=1)]


def write_and_move(directory, prefix, tagged, **options):
    """Writes a SavedModel, puts it in place and then elsewhere, with the assets that it was made from out of reach."""
    saved_model.write(directory / "1.incomplete", prefix, tagged, **options)
    saved_model.seal(directory / "1.incomplete", prefix)
    saved_model.publish(directory / "1.incomplete", directory / "1")
    return (directory / "1").rename(directory / "moved")


def test_assets_come_with_the_model(tmp_path, trained):
    """The file of the labels is in assets/, and the moved model's `labels` signature answers from it alone."""
    prefix, labels = trained
    moved = write_and_move(tmp_path, prefix, [TaggedGraph(["serve"], softmax_served)])
    asset = moved / "assets" / "labels.txt"
    assert asset.read_text().split() == list("0123456789")
    asset.write_text("".join(f"digit {number}\n" for number in range(10)))
    names = [b"digit " + label for label in labels]
    answers = tf.saved_model.load(str(moved)).signatures["labels"](images=tf.constant(IMAGES))
    assert answers["labels"].numpy().tolist() == names
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signature = saved_model.load(session, moved, ["serve"]).signature_def["labels"]
        fetch = signature.outputs["labels"].name
        assert session.run(fetch, {signature.inputs["images"].name: IMAGES}).tolist() == names


def train_graph():
    """A graph of its own for training: what is served, and an update of it."""
    served = build_signatures()
    factor = tf.compat.v1.get_collection("variables")[0]
    with tf.device("/device:CPU:0"):
        update = tf.identity(factor.assign_add(1.0))
    return {**served, "train": ({}, {"factor": update})}


@pytest.mark.parametrize("as_text", [False, True])
def test_each_graph_is_found_by_its_tags(tmp_path, prefix, as_text):
    """With the signatures that it has, without devices, in one file for programs or for people."""
    tagged = [TaggedGraph(["train"], train_graph), TaggedGraph(["serve", "cpu"], build_signatures)]
    saved_model.write(tmp_path / "1", prefix, tagged, as_text=as_text)
    assert (tmp_path / "1" / ("saved_model.pbtxt" if as_text else "saved_model.pb")).is_file()
    found = {tuple(sorted(each.meta_info_def.tags)): each for each in saved_model.read(tmp_path / "1")}
    assert {tags: sorted(each.signature_def) for tags, each in found.items()} == {
        ("train",): ["serving_default", "train"],
        ("cpu", "serve"): ["serving_default"],
    }
    assert not [node.name for each in found.values() for node in each.graph_def.node if node.device]
    for tags in (["train"], ["cpu", "serve"]):
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            signatures = saved_model.load(session, tmp_path / "1", tags).signature_def
            assert (
                session.run(signatures["serving_default"].outputs["y"].name, {"x:0": INPUTS}).tolist()
                == (2 * INPUTS).tolist()
            )
            if "train" in signatures:
                assert session.run(signatures["train"].outputs["factor"].name) == 3
    assert saved_model.described(saved_model.read(tmp_path / "1")) == (
        "tags train with signatures serving_default, train; tags cpu,serve with signatures serving_default"
    )


@pytest.mark.parametrize("tags", [["serve"], ["train", "serve"], ["gpu"], []])
def test_wrong_tags_are_answered_by_those_that_there_are(tmp_path, prefix, tags):
    """And by their signatures."""
    saved_model.write(tmp_path / "1", prefix, [TaggedGraph(["serve", "cpu"], build_signatures)])
    told = f"1: tags {','.join(tags)} wanted; there are: tags cpu,serve with signatures serving_default"
    with tf.Graph().as_default(), tf.compat.v1.Session() as session, pytest.raises(CheckpointError, match=told):
        saved_model.load(session, tmp_path / "1", tags)


@pytest.mark.parametrize(("wrong", "right"), [(".", "1"), ("1/variables", None), ("nowhere", None), ("1/x/y", None)])
def test_a_wrong_directory_is_answered_by_those_nearby(tmp_path, prefix, wrong, right):
    """A server's base path holds models, a train_dir holds such a path; below a file there is nothing."""
    saved_model.write(tmp_path / "1", prefix, [TaggedGraph(["serve"], build_signatures)])
    with pytest.raises(CheckpointError, match="no SavedModel found") as error:
        saved_model.check_loads(tmp_path / wrong, ["serve"])
    assert (f"there is {tmp_path / '1'}" in str(error.value)) == (right is not None)


@pytest.mark.parametrize("name", ["variables.index", "variables.data-00000-of-00001", "saved_model.pb"])
@pytest.mark.parametrize("harm", [checkpoints.cut_in_half, checkpoints.zero, checkpoints.empty, Path.unlink])
def test_a_damaged_model_is_told(tmp_path, prefix, name, harm):
    """In one sentence that names it, whichever file it is."""
    saved_model.write(tmp_path / "1", prefix, [TaggedGraph(["serve"], build_signatures)])
    [path] = (tmp_path / "1").rglob(name)
    harm(path)
    with pytest.raises(CheckpointError, match="1: "):
        saved_model.check_loads(tmp_path / "1", ["serve"])


def test_weights_have_the_values_of_training(tmp_path, trained):
    """A tensor of the loaded graph, fetched alone, is the variable's value in the checkpoint."""
    prefix, _ = trained
    saved_model.write(tmp_path / "1", prefix, [TaggedGraph(["serve"], softmax_served)])
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        saved_model.load(session, tmp_path / "1", ["serve"])
        for name, wanted in tensor_io.read(prefix).items():
            [variable] = [each for each in graph.get_collection("variables") if each.op.name == name]
            assert session.run(variable).tobytes() == wanted.tobytes()


def test_every_changed_byte_is_found(tmp_path, prefix):
    """By the manifest that is exported with it; in each file, the first byte, the last, and one between."""
    saved_model.export_saved_model(tmp_path / "1", prefix, build_signatures, EXAMPLE)
    assert verification.verify_saved_model(tmp_path / "1").startswith("sha256 of ")
    for path in [path for path in (tmp_path / "1").rglob("*") if path.is_file()]:
        content = path.read_bytes()
        for position in {0, len(content) // 2, len(content) - 1} if content else ():
            path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
            is_manifest = path.name == "manifest.json"
            if not (is_manifest and position == len(content) - 1):  # the line's end, which says nothing
                with pytest.raises(DamagedError, match=path.name):
                    verification.verify_saved_model(tmp_path / "1")
        path.write_bytes(content)
    (tmp_path / "1" / "saved_model.pb").unlink()
    with pytest.raises(DamagedError, match=r"saved_model\.pb: nothing found"):
        verification.verify_saved_model(tmp_path / "1")


@pytest.mark.parametrize("harm", [checkpoints.flip_a_bit, checkpoints.cut_in_half, Path.unlink])
def test_a_checkpoint_that_is_damaged_is_not_exported(tmp_path, prefix, harm):
    """One sentence names it."""
    harm(prefix.with_name("model.data-00000-of-00001"))
    with pytest.raises(CheckpointError, match="model: "):
        saved_model.export_saved_model(tmp_path / "1", prefix, build_signatures, EXAMPLE)
    assert not (tmp_path / "1").exists()


def test_a_disk_that_is_full_is_told(tmp_path, prefix, monkeypatch):
    """In one sentence that names the model."""

    def refuse(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.compat.v1.saved_model.Builder, "save", refuse)
    with pytest.raises(CheckpointError, match=r"1\.incomplete-.*: could not be written \(No space left on device\)"):
        saved_model.export_saved_model(tmp_path / "1", prefix, build_signatures, EXAMPLE)
    assert not (tmp_path / "1").exists()


def test_killed_anywhere_a_model_is_whole_or_not_there(tmp_path, prefix):
    """What is at the target can be loaded, and each byte is as recorded; otherwise the next export makes it."""

    def act(directory):
        saved_model.export_saved_model(directory / "models" / "1", prefix, build_signatures, EXAMPLE)

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
    """It is rare, but no riddle."""

    def build():
        x = tf.compat.v1.placeholder(tf.float32, [None, 2], name="x")
        return {"serving_default": ({"x": x}, {"y": x * 2, "positive": x > 0})}

    saved_model.export_saved_model(tmp_path / "1", prefix, build, EXAMPLE)
    saved_model.check_saved_model(tmp_path / "1", EXAMPLE)


STEP = 7


def double_in_run(directory, **options):
    """Exports the model of a run to its own place, or keeps what is there."""
    target = layout.export_path(directory / "run", STEP)
    double(directory, target, **options)
    return target


def double(directory, target, *, factor=2.0):
    """Exports the model of the run in `directory`/run, or keeps the export that is at the target."""
    prefix = directory / "run" / f"model-{factor}"
    if not layout.index_path(prefix).exists():
        tensor_io.write(prefix, {"factor": np.float32(factor), "momentum": np.float32(0.5)})
    example = saved_model.Example({"x": INPUTS}, {"y": INPUTS * np.float32(factor), "positive": INPUTS > 0})
    notes = {"MODEL_CARD.md": f"multiplies by {factor}"}
    build = build_signatures
    saved_model.ensure_exported(target, prefix, build, example, notes, train_dir=directory / "run", step=STEP)
    return target


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A directory with a run, and its export in its own place."""
    directory = tmp_path_factory.mktemp("undisturbed")
    double_in_run(directory)
    return directory


@pytest.fixture
def copied(tmp_path, undisturbed):
    """A copy of it."""
    return shutil.copytree(undisturbed, tmp_path / "copied")


FILES = [
    *("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"),
    *("assets.extra/MODEL_CARD.md", "assets.extra/manifest.json"),
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", checkpoints.DAMAGES)
def test_a_damaged_export_of_this_run_is_set_aside_and_made_again(copied, undisturbed, caplog, name, harm):
    """Whichever file it is, and whatever happened to it; a warning says what, and where it is now."""
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
def test_a_damaged_export_outside_the_train_dir_is_set_aside_beside_itself(copied, undisturbed, name):
    """It is known by its manifest, or by the weights or the card where the manifest is what is damaged."""
    target = shutil.copytree(layout.export_path(copied / "run", STEP), copied / "out")
    for number in ("", ".2"):
        checkpoints.flip_a_bit(target / name)
        damaged = checkpoints.tree(target)
        double(copied, target)
        assert checkpoints.tree(target) == checkpoints.tree(layout.export_path(undisturbed / "run", STEP))
        assert checkpoints.tree(copied / f"out.damaged{number}" / "out") == damaged


def test_an_intact_export_is_kept(copied):
    """No file is written again; one that somebody has added to `assets.extra` is nobody's business."""
    target = layout.export_path(copied / "run", STEP)
    (target / "assets.extra" / "tf_serving_warmup_requests").write_text("a user's")
    times = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    double_in_run(copied)
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == times


def test_a_file_that_was_added_is_reported_and_kept(copied, caplog):
    """One anywhere else may be a mistake: a warning names it."""
    target = layout.export_path(copied / "run", STEP)
    (target / "variables" / "notes.txt").write_text("a user's")
    before = checkpoints.tree(copied)
    double_in_run(copied)
    assert f"{target}: expected the files of its manifest, got also variables/notes.txt; left" in caplog.text
    assert checkpoints.tree(copied) == before


def stranger(directory):
    """A directory of somebody who has nothing to do with this program."""
    directory.mkdir(parents=True)
    (directory / "thesis.tex").write_text("mine")


def empty(directory):
    """A directory that says nothing."""
    directory.mkdir(parents=True)


def file(path):
    """A file in the place of a directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")


def others_saved_model(directory):
    """A SavedModel of another program."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None])
        y = x * tf.compat.v1.get_variable("factor", initializer=3.0)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.saved_model.simple_save(session, str(directory), {"x": x}, {"y": y})


def another_runs(directory):
    """An intact export of other weights."""
    double(directory.parent / "another", directory, factor=3.0)


def another_runs_damaged(directory):
    """One of which a bit has flipped."""
    another_runs(directory)
    checkpoints.flip_a_bit(directory / "saved_model.pb")


WHAT_IS_NOT_OURS = {
    stranger: "expected nothing or an export of .*model-2.0, got something else .manifest.json: cannot be read",
    empty: "expected nothing or an export of .*model-2.0, got something else .manifest.json: cannot be read",
    file: "expected nothing or an export of .*model-2.0, got something else .manifest.json: cannot be read",
    others_saved_model: "expected nothing or an export of .*model-2.0, got something else .manifest.json: cannot be",
    another_runs: "expected an export of .*model-2.0, got one of another run's model-3.0 .factor differ",
    another_runs_damaged: "expected nothing or an export of .*model-2.0, got something else .saved_model.pb: some of",
}


@pytest.mark.parametrize("put", WHAT_IS_NOT_OURS)
def test_what_is_not_an_export_of_this_run_stays(tmp_path, put):
    """One sentence says what was found; nothing is moved, deleted or written."""
    put(tmp_path / "out")
    before = checkpoints.tree(tmp_path / "out")
    with pytest.raises(CheckpointError, match=WHAT_IS_NOT_OURS[put]) as error:
        double(tmp_path, tmp_path / "out")
    assert "nothing was changed" in str(error.value)
    assert checkpoints.tree(tmp_path / "out") == before
    assert {path.name for path in tmp_path.iterdir()} <= {"run", "out", "another"}


@pytest.mark.parametrize("put", [stranger, empty, file, another_runs, another_runs_damaged])
def test_the_runs_own_place_proves_nothing_against_what_is_in_it(tmp_path, put):
    """A stranger's file, or a whole record of other weights, is left where it is."""
    target = layout.export_path(tmp_path / "run", STEP)
    put(target)
    before = checkpoints.tree(target)
    with pytest.raises(CheckpointError, match="nothing was changed"):
        double_in_run(tmp_path)
    assert checkpoints.tree(target) == before
    assert not (tmp_path / "run" / "quarantine").exists()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EACCES, errno.ESTALE, errno.ETIMEDOUT])
@pytest.mark.parametrize("name", FILES)
def test_an_export_that_cannot_be_read_just_now_stays(copied, monkeypatch, name, number):
    """No shortage, permission or network error is damage: one error names the file, and nothing is moved."""
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
    """It protects itself, blanks and line ends included."""
    target = layout.export_path(copied / "run", STEP)
    path = layout.export_manifest_path(target)
    content = path.read_bytes()
    for position in range(len(content)):
        for bit in range(8):
            path.write_bytes(content[:position] + bytes([content[position] ^ 1 << bit]) + content[position + 1 :])
            assert saved_model.find_damage(target) is not None, (position, bit)


def test_an_export_that_cannot_be_set_aside_stays(copied):
    """A file in the quarantine's place is one clear error."""
    target = layout.export_path(copied / "run", STEP)
    checkpoints.flip_a_bit(target / "saved_model.pb")
    (copied / "run" / "quarantine").touch()
    before = checkpoints.tree(copied)
    with pytest.raises(CheckpointError, match=r"the export is damaged .*, and cannot be moved to .*; move it away"):
        double_in_run(copied)
    assert checkpoints.tree(copied) == before


def test_an_export_that_cannot_be_moved_leaves_nothing_in_quarantine(copied, monkeypatch):
    """The same command, given again, finds what it found."""
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


def test_a_damaged_export_that_another_run_replaces_meanwhile_is_kept(copied, monkeypatch):
    """It is looked at again before it is moved."""
    target = shutil.copytree(layout.export_path(copied / "run", STEP), copied / "out")
    checkpoints.flip_a_bit(target / "saved_model.pb")
    really_check = saved_model.check_saved_model

    def check(directory, example):
        really_check(directory, example)
        monkeypatch.undo()
        double(copied, target)

    monkeypatch.setattr(saved_model, "check_saved_model", check)
    double(copied, target)
    assert sorted(path.name for path in copied.iterdir()) == ["out", "out.damaged", "run"]


def test_a_name_that_the_disk_loses_is_an_error(tmp_path, prefix, monkeypatch):
    """The export is there, but its name may be gone after a power cut."""
    really_sync = durable.fsync

    def sync(path):
        if path == tmp_path and (tmp_path / "1").exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        really_sync(path)

    monkeypatch.setattr(durable, "fsync", sync)
    with pytest.raises(CheckpointError, match=r"1: could not be written \(Input/output error\)"):
        saved_model.export_saved_model(tmp_path / "1", prefix, build_signatures, EXAMPLE)


def test_killed_anywhere_a_damaged_export_is_replaced_by_the_next_run(tmp_path, undisturbed):
    """Whatever was killed before, the damaged files are kept, and the target ends as in an undisturbed run."""

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


def test_an_export_that_changes_while_it_is_compared_is_not_put_in_place(tmp_path, monkeypatch):
    """Its hashes are taken when it has been written, and compared immediately before it gets its name."""
    really_check = saved_model.check_saved_model

    def check(directory, example):
        really_check(directory, example)
        checkpoints.flip_a_bit(directory / "saved_model.pb")

    monkeypatch.setattr(saved_model, "check_saved_model", check)
    with pytest.raises(CheckpointError, match=r"a file changed while it was being exported \(saved_model.pb: some of"):
        double_in_run(tmp_path)
    assert not list(layout.export_path(tmp_path / "run", STEP).parent.iterdir())


@pytest.mark.parametrize("factor", [2.0, 3.0])
def test_where_another_export_was_faster_its_weights_decide(tmp_path, monkeypatch, factor):
    """The same weights are as good; others are an error. Neither export is replaced, and nothing else is left."""
    target, really_check = tmp_path / "out", saved_model.check_saved_model

    def check(directory, example):
        really_check(directory, example)
        monkeypatch.undo()
        double(tmp_path / "faster", target, factor=factor)

    monkeypatch.setattr(saved_model, "check_saved_model", check)
    if factor == 2:
        double(tmp_path, target)
    else:
        with pytest.raises(CheckpointError, match=r"got one of another run's model-3\.0"):
            double(tmp_path, target)
    assert (target / "assets.extra" / "MODEL_CARD.md").read_text() == f"multiplies by {factor}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faster", "out", "run"]


@pytest.mark.parametrize("put", [Path.mkdir, Path.touch, stranger])
def test_what_appears_at_the_target_meanwhile_is_not_replaced(tmp_path, prefix, monkeypatch, put):
    """Not even an empty directory, over which the system would rename another one."""
    really_check = saved_model.check_saved_model

    def check(directory, example):
        really_check(directory, example)
        put(tmp_path / "1")

    monkeypatch.setattr(saved_model, "check_saved_model", check)
    with pytest.raises(TargetExistsError, match="1: exists already"):
        saved_model.export_saved_model(tmp_path / "1", prefix, build_signatures, EXAMPLE)
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith("model")} == {"1", "checkpoint"}
    assert not (tmp_path / "1" / "saved_model.pb").exists()
