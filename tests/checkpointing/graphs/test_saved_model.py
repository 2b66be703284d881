from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from checkpointing.errors import CheckpointError
from checkpointing.format import tensor_io
from checkpointing.graphs import saved_model, staged_export
from checkpointing.graphs.saved_model import TaggedGraph
from mnist.model import networks, signatures
from tests import checkpoints
from tests.doubling_model import INPUTS, build_signatures, save_weights

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 28, 28), np.uint8)


@pytest.fixture
def prefix(tmp_path):
    """A checkpoint in which the factor is 2."""
    return save_weights(tmp_path / "model")


def softmax_served():
    """Build our softmax and its signatures, as they are exported."""
    return signatures.build_signatures(networks.Softmax())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint with the weights of a softmax; the labels that it predicts for IMAGES."""
    prefix = tmp_path_factory.mktemp("trained") / "model"
    weights = np.random.default_rng(1).normal(size=(784, 10)).astype(np.float32)
    biases = np.arange(10, dtype=np.float32)
    tensor_io.write(prefix, {"layer1/weights": weights, "layer1/biases": biases})
    logits = IMAGES.reshape(-1, 784).astype(np.float32) / 255 @ weights + biases
    return prefix, [str(digit).encode() for digit in logits.argmax(axis=1)]


def write_and_move(directory, prefix, tagged, **options):
    """Write and publish a SavedModel, then move it, so that only its own assets are in reach."""
    saved_model.write(directory / "1.incomplete", prefix, tagged, **options)
    staged_export.seal(directory / "1.incomplete", prefix)
    staged_export.publish(directory / "1.incomplete", directory / "1")
    return (directory / "1").rename(directory / "moved")


def test_assets_are_part_of_the_model(tmp_path, trained):
    """The file of labels is in assets/, and the moved model's `labels` signature reads it there."""
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
    """Build a graph for training: the served signatures, and an update."""
    served = build_signatures()
    factor = tf.compat.v1.get_collection("variables")[0]
    with tf.device("/device:CPU:0"):
        update = tf.identity(factor.assign_add(1.0))
    return {**served, "train": ({}, {"factor": update})}


@pytest.mark.parametrize("as_text", [False, True])
def test_graphs_are_loaded_by_their_tags(tmp_path, prefix, as_text):
    """With their signatures, without devices, from a binary file or from text format."""
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
    assert saved_model.describe(saved_model.read(tmp_path / "1")) == (
        "tags train with signatures serving_default, train; tags cpu,serve with signatures serving_default"
    )


@pytest.mark.parametrize("tags", [["serve"], ["train", "serve"], ["gpu"], []])
def test_wrong_tags_are_an_error(tmp_path, prefix, tags):
    """The message lists the graphs' tags and signatures."""
    saved_model.write(tmp_path / "1", prefix, [TaggedGraph(["serve", "cpu"], build_signatures)])
    message = f"1: expected a graph with tags {','.join(tags)}, got tags cpu,serve with signatures serving_default"
    with tf.Graph().as_default(), tf.compat.v1.Session() as session, pytest.raises(CheckpointError, match=message):
        saved_model.load(session, tmp_path / "1", tags)


@pytest.mark.parametrize(("wrong", "right"), [(".", "1"), ("1/variables", None), ("nowhere", None), ("1/x/y", None)])
def test_a_wrong_directory_is_an_error_with_a_hint(tmp_path, prefix, wrong, right):
    """The hint names SavedModels below it, as in a server's base path or a train_dir."""
    saved_model.write(tmp_path / "1", prefix, [TaggedGraph(["serve"], build_signatures)])
    with pytest.raises(CheckpointError, match="no SavedModel found") as error:
        saved_model.check_loads(tmp_path / wrong, ["serve"])
    assert error.value.hint == (f"there is {tmp_path / right}" if right else None)


@pytest.mark.parametrize("name", ["variables.index", "variables.data-00000-of-00001", "saved_model.pb"])
@pytest.mark.parametrize("harm", [checkpoints.cut_in_half, checkpoints.zero, checkpoints.empty, Path.unlink])
def test_a_damaged_model_is_an_error(tmp_path, prefix, name, harm):
    """The message names the directory, whichever file is damaged."""
    saved_model.write(tmp_path / "1", prefix, [TaggedGraph(["serve"], build_signatures)])
    [path] = (tmp_path / "1").rglob(name)
    harm(path)
    with pytest.raises(CheckpointError, match="1: "):
        saved_model.check_loads(tmp_path / "1", ["serve"])


def test_loaded_weights_equal_the_checkpoints(tmp_path, trained):
    """Bit for bit."""
    prefix, _ = trained
    saved_model.write(tmp_path / "1", prefix, [TaggedGraph(["serve"], softmax_served)])
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        saved_model.load(session, tmp_path / "1", ["serve"])
        for name, expected in tensor_io.read(prefix).items():
            [variable] = [each for each in graph.get_collection("variables") if each.op.name == name]
            assert session.run(variable).tobytes() == expected.tobytes()
