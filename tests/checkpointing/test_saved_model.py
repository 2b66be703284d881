from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from checkpointing import inspection, saved_model, tensors
from checkpointing.errors import CheckpointError, DamagedError
from checkpointing.saved_model import TaggedGraph
from mnist import models, serving
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
    with pytest.raises(CheckpointError, match="other y than the trained one"):
        saved_model.export_saved_model(tmp_path / "1", prefix, build_signatures, wrong)
    assert not (tmp_path / "1").exists()


def test_what_a_crash_left_is_written_over(tmp_path, prefix):
    """A half-written model beside the target is no obstacle, and does not stay."""
    (tmp_path / "1.incomplete").mkdir()
    (tmp_path / "1.incomplete" / "saved_model.pb").write_bytes(b"half")
    saved_model.export_saved_model(tmp_path / "1", prefix, build_signatures, EXAMPLE)
    assert not (tmp_path / "1.incomplete").exists()


def test_a_directory_that_is_no_model_is_told(tmp_path):
    """One sentence names it."""
    (tmp_path / "1").mkdir()
    with pytest.raises(CheckpointError, match=r"1: no model that this run exported \(.*\); give another --export_dir"):
        saved_model.check_saved_model(tmp_path / "1", EXAMPLE)


def test_a_model_with_other_inputs_is_told(tmp_path, prefix):
    """Somebody else's model at the target is no reason for a riddle."""
    saved_model.export_saved_model(tmp_path / "1", prefix, build_signatures, EXAMPLE)
    other = saved_model.Example({"pixels": INPUTS}, {"digits": INPUTS})
    with pytest.raises(CheckpointError, match="no model that this run exported"):
        saved_model.check_saved_model(tmp_path / "1", other)


def test_a_target_that_cannot_be_made_is_told_before_training(tmp_path):
    """Below a file there is no room for a directory, and a name can be too long."""
    (tmp_path / "file").touch()
    for target in (tmp_path / "file" / "1", tmp_path / ("x" * 250)):
        with pytest.raises(CheckpointError, match="cannot be made"):
            saved_model.check_target(target)


def softmax_served():
    """Our softmax and its signatures, as they are exported."""
    return serving.build_signatures(models.Softmax())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The weights of a softmax and its graph, as a plain Saver leaves them; the labels of some images."""
    prefix = tmp_path_factory.mktemp("trained") / "model"
    weights = np.random.default_rng(1).normal(size=(784, 10)).astype(np.float32)
    biases = np.arange(10, dtype=np.float32)
    tensors.write(prefix, {"layer1/weights": weights, "layer1/biases": biases})
    logits = IMAGES.reshape(-1, 784).astype(np.float32) / 255 @ weights + biases
    return prefix, [str(digit).encode() for digit in logits.argmax(axis=1)]


def write_and_move(directory, prefix, tagged, **options):
    """Writes a SavedModel, puts it in place and then elsewhere, with the assets that it was made from out of reach."""
    saved_model.write(directory / "1.incomplete", prefix, tagged, **options)
    saved_model.put_in_place(directory / "1.incomplete", directory / "1", prefix)
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
        for name, wanted in tensors.read(prefix).items():
            [variable] = [each for each in graph.get_collection("variables") if each.op.name == name]
            assert session.run(variable).tobytes() == wanted.tobytes()


def test_every_changed_byte_is_found(tmp_path, prefix):
    """By the manifest that is exported with it; in each file, the first byte, the last, and one between."""
    saved_model.export_saved_model(tmp_path / "1", prefix, build_signatures, EXAMPLE)
    assert inspection.verify_saved_model(tmp_path / "1").startswith("sha256 of ")
    for path in [path for path in (tmp_path / "1").rglob("*") if path.is_file()]:
        content = path.read_bytes()
        for position in {0, len(content) // 2, len(content) - 1} if content else ():
            path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
            is_manifest = path.name == "manifest.json"
            if not (is_manifest and position == len(content) - 1):  # the line's end, which says nothing
                with pytest.raises(DamagedError, match=path.name):
                    inspection.verify_saved_model(tmp_path / "1")
        path.write_bytes(content)
    (tmp_path / "1" / "saved_model.pb").unlink()
    with pytest.raises(DamagedError, match=r"saved_model\.pb: nothing found"):
        inspection.verify_saved_model(tmp_path / "1")


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
    with pytest.raises(CheckpointError, match=r"1\.incomplete: could not be written \(No space left on device\)"):
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
            inspection.verify_saved_model(target)
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


def test_an_export_is_not_called_as_a_checkpoint(tmp_path):
    """What is unfinished of it would be taken for this package's mark, and the checkpoint for a rest."""
    with pytest.raises(CheckpointError, match="a checkpoint's name found"):
        saved_model.check_target(tmp_path / "model.ckpt-7")


def test_what_somebody_keeps_under_the_unfinished_name_stays(tmp_path):
    """Only what an interrupted export wrote is deleted; the sentence says what is in the way."""
    (tmp_path / "out.incomplete").mkdir()
    (tmp_path / "out.incomplete" / "thesis.tex").write_text("mine")
    with pytest.raises(CheckpointError, match=r"out\.incomplete: in the way"):
        saved_model.check_target(tmp_path / "out")
    assert (tmp_path / "out.incomplete" / "thesis.tex").read_text() == "mine"
