import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from checkpointing.errors import CheckpointError
from checkpointing.format import tensor_io
from checkpointing.graphs import meta_graphs
from checkpointing.protocol import resume
from checkpointing.protocol.manager import CheckpointManager
from checkpointing.storage import layout
from mnist.model import signatures, training_graph
from tests import digit_graph
from tests.checkpoints import Killed, cut_in_half, flip_a_bit

v1 = tf.compat.v1
TRAIN = digit_graph.RANDOM
IMAGES = TRAIN.images
DEFAULT = "serving_default"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A softmax after five steps: its checkpoint's prefix, and its predictions."""
    train_dir = tmp_path_factory.mktemp("trained")
    built = digit_graph.build_softmax("adam", learning_rate=0.01)
    start = resume.open_train_dir(train_dir, {})
    defs = signatures.training_signatures(built)
    manager = CheckpointManager(built.graph, start, variables=built.saved, step=built.step, signatures=defs)
    with v1.Session(graph=built.graph) as session, manager:
        training_graph.initialize(session, built, TRAIN)
        session.run(built.run_steps, {built.steps_per_execution: 5})
        outputs = {"classes": built.inference.classes, "probabilities": built.inference.probabilities}
        return manager.save(session), session.run(outputs, {built.inference.images: IMAGES})


@pytest.fixture(scope="module")
def meta_graph(trained):
    """The MetaGraphDef in its .meta file."""
    return meta_graphs.read_meta_graph(layout.meta_path(trained[0]))


def predict(session, signature):
    """Run a signature on IMAGES."""
    fetches = {name: info.name for name, info in signature.outputs.items()}
    return session.run(fetches, {signature.inputs["images"].name: IMAGES})


def assert_equal(found, expected, tolerance=0.0):
    """Check that the outputs are the same."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert np.abs(found[name] - array).max() <= tolerance, name


@pytest.mark.parametrize(("name", "as_text"), [("graph.pbtxt", True), ("graph.pb", False)])
def test_a_graph_is_written_as_tensorflow_writes_it(tmp_path, meta_graph, name, as_text):
    """Byte for byte, as text and binary."""
    meta_graphs.write_graph(meta_graph.graph_def, tmp_path / name)
    tf.io.write_graph(meta_graph.graph_def, str(tmp_path / "theirs"), name, as_text=as_text)
    assert (tmp_path / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()


def test_a_graph_is_written_atomically(tmp_path, meta_graph, monkeypatch):
    """A kill in the middle leaves the old file."""
    path = tmp_path / "graph.pb"
    path.write_bytes(b"old")

    def die(_):
        raise Killed

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(Killed):
        meta_graphs.write_graph(meta_graph.graph_def, path)
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("name", ["graph.pbtxt", "graph.pb"])
def test_a_written_graph_can_be_imported(tmp_path, meta_graph, name):
    """By import_graph_def, with input_map and return_elements."""
    meta_graphs.write_graph(meta_graph.graph_def, tmp_path / name)
    graph_def = v1.GraphDef()
    if name.endswith("txt"):
        text_format.Parse((tmp_path / name).read_text(), graph_def)
    else:
        graph_def.ParseFromString((tmp_path / name).read_bytes())
    with tf.Graph().as_default(), v1.Session() as session:
        mine = tf.zeros([2, 28, 28], tf.uint8, name="mine")
        weights = tf.zeros([784, 10])
        found = tf.import_graph_def(
            graph_def,
            input_map={"images:0": mine, "layer1/weights/Read/ReadVariableOp:0": weights},
            return_elements=["classes:0", "probabilities", "steps_to_run:0"],
            name="imported",
        )
        assert [each.name for each in found] == [
            "imported/classes:0",
            "imported/probabilities",
            "imported/steps_to_run:0",
        ]
        assert found[0].shape.as_list() == [2]  # the number of images in `mine`
        variables = [op for op in session.graph.get_operations() if op.type == "VarHandleOp"]
        for op in variables:  # a GraphDef has no collections, so no initializer finds them
            zeros = tf.zeros(op.get_attr("shape"), op.get_attr("dtype"))
            session.run(tf.raw_ops.AssignVariableOp(resource=op.outputs[0], value=zeros))
        assert session.run(found[0]).tolist() == [0, 0]


@pytest.mark.parametrize("clear_devices", [False, True])
@pytest.mark.parametrize("scope", [None, "imported"])
def test_our_meta_can_be_imported(trained, scope, clear_devices):
    """With or without a scope and devices; its Saver restores, and its predictions are those of training."""
    prefix, answers = trained
    with tf.Graph().as_default() as built, v1.Session() as session:
        saver = v1.train.import_meta_graph(f"{prefix}.meta", import_scope=scope, clear_devices=clear_devices)
        saver.restore(session, str(prefix))
        inside = f"{scope}/" if scope else ""
        assert_equal(
            {"classes": session.run(f"{inside}classes:0", {f"{inside}images:0": IMAGES})},
            {"classes": answers["classes"]},
        )
        assert all(op.name.startswith(inside) for op in built.get_operations())
        assert len(v1.trainable_variables()) == 2
        assert [op.name for op in v1.get_collection("train_op")] == [f"{inside}run_steps"]


@pytest.mark.parametrize("as_text", [False, True])
def test_our_graph_can_be_exported(tmp_path, trained, as_text):
    """With chosen collections, as text or binary, without devices and old Savers; and training continues from it."""
    prefix, answers = trained
    with tf.Graph().as_default():
        with tf.device("/device:CPU:0"):
            v1.train.import_meta_graph(f"{prefix}.meta")
        saver_def = v1.train.Saver(name="another").saver_def
        exported = v1.train.export_meta_graph(
            str(tmp_path / "new.meta"),
            as_text=as_text,
            collection_list=["variables", "trainable_variables", "local_variables"],
            clear_devices=True,
            clear_extraneous_savers=True,
            saver_def=saver_def,
        )
    read = meta_graphs.read_meta_graph(tmp_path / "new.meta")
    assert read == exported
    assert set(read.collection_def) == {"variables", "trainable_variables", "local_variables"}
    assert not [node.name for node in read.graph_def.node if node.device]
    assert len([node for node in read.graph_def.node if node.op == "SaveV2"]) == 1
    with meta_graphs.restored(read, prefix) as session:
        assert_equal({"classes": session.run("classes:0", {"images:0": IMAGES})}, {"classes": answers["classes"]})
        data = {"train_images_to_load:0": TRAIN.images, "train_labels_to_load:0": TRAIN.labels}
        session.run(v1.local_variables_initializer(), data)
        session.run("run_steps", {"steps_to_run:0": 3})
        assert session.run("global_step/Read/ReadVariableOp:0") == 8


def test_signatures_name_tensors_of_the_graph(meta_graph):
    """Inputs and outputs by public names."""
    with tf.Graph().as_default() as built:
        v1.train.import_meta_graph(meta_graph)
        found = meta_graphs.signatures_of(meta_graph)
    names = {name: (sorted(inputs), sorted(outputs)) for name, (inputs, outputs) in found.items()}
    assert names == {
        DEFAULT: (["images"], ["classes", "probabilities"]),
        "train": (["steps_to_run"], ["learning_rate", "loss", "step"]),
        "load_data": (["train_images", "train_labels"], []),
    }
    assert found[DEFAULT][0]["images"] is built.get_tensor_by_name("images:0")


def test_signatures_predict_bit_for_bit(trained, meta_graph):
    """The whole graph and the pruned one give the predictions of training."""
    prefix, answers = trained
    for each in (meta_graph, meta_graphs.pruned(meta_graph, [DEFAULT])):
        with meta_graphs.restored(each, prefix) as session:
            assert_equal(predict(session, each.signature_def[DEFAULT]), answers)


def test_a_pruned_graph_holds_nothing_of_training(meta_graph):
    """No loop, optimizer, training data, function or device; only the weights and the operations between."""
    before = meta_graph.SerializeToString(deterministic=True)
    found = meta_graphs.pruned(meta_graph, [DEFAULT])
    assert meta_graph.SerializeToString(deterministic=True) == before
    ops = {node.op for node in found.graph_def.node}
    names = [node.name for node in found.graph_def.node]
    assert not [op for op in ops if "While" in op or op in {"SaveV2", "RestoreV2"}]
    assert not [name for name in names if "train_images" in name or "Adam" in name or "global_step" in name]
    assert list(found.graph_def.library.function) == []
    assert [node.name for node in found.graph_def.node if node.op == "VarHandleOp"] == [
        "layer1/weights",
        "layer1/biases",
    ]
    assert [node.name for node in found.graph_def.node if node.op == "Placeholder"] == ["images"]
    assert set(found.collection_def) == {"variables", "trainable_variables"}
    assert set(found.signature_def) == {DEFAULT}
    assert not [node for node in found.graph_def.node if node.device]
    assert found.graph_def.versions == meta_graph.graph_def.versions


def test_a_graph_pruned_to_its_training_signature_trains(trained, meta_graph):
    """It keeps the loop, its functions, the optimizer's state and the training data."""
    prefix, _ = trained
    weights = []
    whole = meta_graphs.pruned(meta_graph, sorted(meta_graph.signature_def))
    for each in (meta_graph, whole):
        with meta_graphs.restored(each, prefix) as session:
            signatures = meta_graphs.signatures_of(each)
            inputs, _ = signatures["load_data"]
            data = {inputs["train_images"]: TRAIN.images, inputs["train_labels"]: TRAIN.labels}
            session.run(v1.local_variables_initializer(), data)
            inputs, outputs = signatures["train"]
            found = session.run(outputs, {inputs["steps_to_run"]: 4})
            assert found["step"] == 9
            weights.append(session.run(v1.trainable_variables()))
    for one, other in zip(*weights, strict=True):
        assert one.tobytes() == other.tobytes()
    assert {node.op for node in whole.graph_def.node} & {"While", "StatelessWhile"}


def test_a_frozen_graph_needs_no_variables(trained, meta_graph):
    """In a session that restores and initializes nothing it gives the predictions of training."""
    prefix, answers = trained
    graph_def = meta_graphs.frozen(meta_graph, prefix)
    assert not [node.name for node in graph_def.node if "Variable" in node.op or "VarHandle" in node.op]
    with tf.Graph().as_default(), v1.Session() as session:
        tf.import_graph_def(graph_def, name="")
        assert not v1.global_variables()
        assert_equal(predict(session, meta_graph.signature_def[DEFAULT]), answers, tolerance=1e-6)


@pytest.mark.parametrize("use_resource", [True, False])
@pytest.mark.parametrize("partitioned", [True, False])
def test_any_graph_can_be_pruned_and_frozen(tmp_path, use_resource, partitioned):
    """With reference or resource variables, partitioned ones, devices, colocation, and control dependencies."""
    partitioner = v1.fixed_size_partitioner(2) if partitioned else None
    with tf.Graph().as_default(), v1.Session() as session, tf.device("/device:CPU:0"):
        x = v1.placeholder(tf.float32, [None, 4], name="x")
        start = v1.constant_initializer(1 / 7)
        weights = v1.get_variable(
            "weights", [4, 2], tf.float32, start, partitioner=partitioner, use_resource=use_resource
        )
        weights = tf.convert_to_tensor(weights)
        unrelated = v1.get_variable("unrelated", initializer=[0.0], use_resource=use_resource)
        with v1.colocate_with(unrelated.op):
            scaled = tf.multiply(x, 2.0, name="scaled")
        with tf.control_dependencies([tf.identity(weights)]):
            y = tf.matmul(scaled, weights, name="y")
        total = tf.while_loop(lambda i, _: i < 3, lambda i, t: (i + 1, t + y), (0, tf.zeros_like(y)))[1]
        v1.train.MomentumOptimizer(0.1, 0.9).minimize(tf.reduce_sum(y))
        total = tf.identity(total, name="total")
        session.run(v1.global_variables_initializer())
        prefix = tmp_path / "model"
        expected = session.run(total, {x: np.eye(4)})
        v1.train.Saver().save(session, str(prefix))
    meta_graph = meta_graphs.read_meta_graph(layout.meta_path(prefix))
    meta_graphs.add_signature(meta_graph, {"x": "x:0"}, {"y": "y:0", "total": "total:0"}, prefix)
    found = meta_graphs.pruned(meta_graph, [DEFAULT])
    assert not [node.name for node in found.graph_def.node if "Momentum" in node.name or "gradients" in node.name]
    with meta_graphs.restored(found, prefix) as session:
        assert session.run("total:0", {"x:0": np.eye(4)}).tolist() == expected.tolist()
    with tf.Graph().as_default(), v1.Session() as session:
        tf.import_graph_def(meta_graphs.frozen(meta_graph, prefix), name="")
        assert np.allclose(session.run("total:0", {"x:0": np.eye(4)}), expected, rtol=1e-6)


@pytest.fixture
def tabled(tmp_path):
    """A graph whose output comes from a table in a file, and from a variable: prefix and graph."""
    (tmp_path / "names.txt").write_text("zero\none\ntwo\n")
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.int64, [None], name="x")
        lines = tf.lookup.TextFileInitializer(
            str(tmp_path / "names.txt"),
            *(tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE),
        )
        offset = v1.get_variable("offset", initializer=tf.constant(1, tf.int64))
        tf.identity(tf.lookup.StaticHashTable(lines, "?").lookup(x + offset), name="y")
        other = tf.lookup.KeyValueTensorInitializer(["a"], [1])
        tf.lookup.StaticHashTable(other, 0)
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        v1.train.Saver().save(session, str(tmp_path / "model"))
    meta_graph = meta_graphs.read_meta_graph(tmp_path / "model.meta")
    meta_graphs.add_signature(meta_graph, {"x": "x:0"}, {"y": "y:0"}, tmp_path)
    return tmp_path / "model", meta_graph


def test_pruning_keeps_tables(tabled):
    """Those that the outputs need, with their initializers and asset files."""
    prefix, meta_graph = tabled
    found = meta_graphs.pruned(meta_graph, [DEFAULT])
    assert len(found.collection_def["table_initializer"].node_list.value) == 1
    with meta_graphs.restored(found, prefix) as session:
        session.run(v1.tables_initializer())
        assert session.run("y:0", {"x:0": [0, 1, 9]}).tolist() == [b"one", b"two", b"?"]
        assert len(v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS)) == 1


def test_a_graph_with_a_table_cannot_be_frozen(tabled):
    """A table cannot become a constant."""
    prefix, meta_graph = tabled
    with pytest.raises(CheckpointError, match="table"):
        meta_graphs.frozen(meta_graph, prefix)


def test_a_graph_as_text_is_read(tmp_path, meta_graph):
    """One that export_meta_graph writes with as_text=True."""
    (tmp_path / "x.meta").write_text(text_format.MessageToString(meta_graph))
    assert meta_graphs.read_meta_graph(tmp_path / "x.meta") == meta_graph


@pytest.mark.parametrize("content", [b"", b"\xff" * 99, b"no graph", b"graph_def {", b"graph_def { }", bytes(100)])
def test_a_file_without_a_graph_is_an_error(tmp_path, content):
    """So is a missing file; the message names it."""
    path = tmp_path / "x.meta"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.meta: expected a MetaGraphDef, got "):
        meta_graphs.read_meta_graph(path)
    with pytest.raises(CheckpointError, match=r"y\.meta: no graph can be read there \(No such file or directory\)"):
        meta_graphs.read_meta_graph(tmp_path / "y.meta")


@pytest.mark.parametrize("harm", [cut_in_half, flip_a_bit])
def test_a_damaged_graph_is_restored_or_a_checkpoint_error(tmp_path, trained, harm):
    """No other exception is raised."""
    path = tmp_path / "x.meta"
    path.write_bytes(layout.meta_path(trained[0]).read_bytes())
    harm(path)
    try:
        found = meta_graphs.read_meta_graph(path)
        with meta_graphs.restored(found, trained[0]):
            pass
    except CheckpointError as error:
        assert str(error)  # noqa: PT017 - either way is right


def test_a_signature_can_be_added(meta_graph):
    """For graphs without signatures."""
    other = v1.MetaGraphDef()
    other.graph_def.CopyFrom(meta_graph.graph_def)
    meta_graphs.add_signature(other, {"pixels": "images:0"}, {"digits": "classes:0"}, Path("x.meta"))
    info = other.signature_def[DEFAULT].inputs["pixels"]
    assert (info.name, info.dtype) == ("images:0", tf.uint8.as_datatype_enum)


@pytest.mark.parametrize("name", ["image:0", "images", "images:7", "", "a b"])
def test_a_signature_of_a_missing_tensor_is_an_error(meta_graph, name):
    """The hint lists the placeholders."""
    other = v1.MetaGraphDef()
    other.CopyFrom(meta_graph)
    with pytest.raises(CheckpointError, match=r"x\.meta: .+") as error:
        meta_graphs.add_signature(other, {"x": name}, {"y": "classes:0"}, Path("x.meta"))
    assert error.value.hint.startswith("its placeholders are ")
    assert "images:0" in error.value.hint
    assert other == meta_graph


def test_a_missing_signature_is_an_error(meta_graph):
    """The message lists those that there are."""
    with pytest.raises(CheckpointError, match="x: expected a signature png, got load_data, serving_default, train"):
        meta_graphs.check_signatures(meta_graph, [DEFAULT, "png"], Path("x"))


def test_a_checkpoint_of_another_graph_is_an_error(tmp_path, meta_graph):
    """It lacks the graph's variables."""
    tensor_io.write(tmp_path / "other", {"layer1/weights": np.zeros([3, 3], np.float32)})
    with (
        pytest.raises(CheckpointError, match="other: cannot be restored"),
        meta_graphs.restored(meta_graph, tmp_path / "other"),
    ):
        pass
