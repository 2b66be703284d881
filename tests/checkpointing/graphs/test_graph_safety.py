import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.op_def_pb2 import OpList
from tensorflow.python.client import pywrap_tf_session

from checkpointing.errors import CheckpointError
from checkpointing.graphs import graph_safety, meta_graphs, predictor, saved_model
from checkpointing.graphs.graph_scan import TRUST_HINT, Run
from checkpointing.graphs.op_policy import HARMLESS, REFUSED
from checkpointing.storage import layout
from mnist.model import signatures
from tests import digit_graph, hostile

v1 = tf.compat.v1
IMAGES = np.zeros((3, 28, 28), np.uint8)

# Registered by TensorFlow 2.21 and refused without a family: its own tests, and parts of runtimes.
UNCLASSIFIED = """
    A Attr AttrBool AttrBoolList AttrDefault AttrEmptyListDefault AttrEnum AttrEnumList AttrFloat AttrListDefault
    AttrListMin AttrListTypeDefault AttrMin AttrPartialShape AttrPartialShapeList AttrShape AttrShapeList
    AttrTypeDefault B Binary ComplexStruct ConstructionFails CopyOp DefaultAttrs DeviceIndex DevicePlacementOp
    DtypeWithDefaultOp FakeQueue FiveFloatOutputs FloatInput FloatOutput FloatOutputStringOutput Foo1 Foo2 Foo3 FuncAttr
    FuncListAttr GetDeadline GetOptions GraphDefVersion InPolymorphicTwice Int64Output IntAttr IntInput
    IntInputFloatInput IntInputIntOutput IntOutput IntOutputFloatOutput IsResourceHandleRefCounting KernelLabel
    KernelLabelRequired ListInput ListOutput MakeWeakResourceHandle MixedStruct MlirPassthroughOp NInPolymorphicTwice
    NInTwice NInTwoTypeVariables NIntsIn NIntsOut NIntsOutDefault NPolymorphicIn NPolymorphicOut NPolymorphicOutDefault
    NPolymorphicRestrictIn NPolymorphicRestrictOut Namespace>TestStringOutput None Old OpWithDefaultAttr
    OpWithFutureDefaultAttr OutT OutTypeList OutTypeListRestrict Polymorphic PolymorphicDefaultOut PolymorphicOut RefIn
    RefInputFloatInput RefInputFloatInputIntOutput RefInputIntInput RefOut RefOutput RefOutputFloatOutput
    RequiresOlderGraphVersion ReservedAttr ReservedInput ResourceCreateOp ResourceInitializedOp ResourceUsingOp Restrict
    Simple SimpleStruct SleepIdentityOp SleepOp StringListAttr StubResourceHandleOp TestAttr TestStringOutput
    TwoFloatInputs TwoFloatInputsFloatOutput TwoFloatInputsIntOutput TwoFloatOutputs TwoIntInputs TwoIntOutputs
    TwoRefsIn TypeList TypeListRestrict TypeListTwice Unary
    RiscAbs RiscAdd RiscBinaryArithmetic RiscBinaryComparison RiscBitcast RiscBroadcast RiscCast RiscCeil RiscCholesky
    RiscConcat RiscCondition RiscConv RiscCos RiscDiv RiscDot RiscExp RiscFft RiscFloor RiscGather RiscImag RiscIsFinite
    RiscLog RiscLogicalAnd RiscLogicalNot RiscLogicalOr RiscMax RiscMin RiscMul RiscNeg RiscPad RiscPool RiscPow
    RiscRandomUniform RiscReal RiscReduce RiscRem RiscReshape RiscReverse RiscScatter RiscShape RiscSign RiscSlice
    RiscSort RiscSqueeze RiscSub RiscTranspose RiscTriangularSolve RiscUnary RiscWhile
    CheckPinned CompressElement ComputeDedupDataSize ComputeDedupDataSizeV2 ComputeDedupDataTupleMask
    ComputeDedupDataTupleMaskV2 ConvertToCooTensor ConvertToListOfSparseCoreCooTensors
    ConvertToSparseCoreCsrWrappedCooTensor GetElementAtIndex GetMinibatchSplitsWithPhysicalReplica
    GetMinibatchesInCsrWithPhysicalReplica GetStatsFromListOfSparseCoreCooTensors GlobalIterId MergeDedupData
    SortListOfSparseCoreCooTensors SplitDedupData StochasticCastToInt SyncDevice UncompressElement
    UpdateTaskIdAndGlobalCoreArray WindowOp
"""


def test_every_registered_operation_is_classified_once():
    """Harmless, refused by one rule, or listed here: each operation that a new TensorFlow adds must be classified."""
    content = pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList())
    registered = {op.name for op in OpList.FromString(content).op}
    unclassified = set(UNCLASSIFIED.split())
    refused = {name: [what for pattern, what in REFUSED if pattern.fullmatch(name)] for name in registered}
    assert {name: rules for name, rules in refused.items() if len(rules) > 1} == {}
    assert {name for name in HARMLESS | unclassified if refused.get(name)} == set()
    assert {name for name, rules in refused.items() if not rules} == HARMLESS | unclassified
    assert HARMLESS & unclassified == set()


def py_function(tensor):
    """Return the tensor by way of Python."""
    return v1.py_func(lambda array: array, [tensor], tf.float32)


def in_function(tensor, path):
    """Write a file in a function that another function calls."""
    inner = tf.function(hostile.writing(path), autograph=False)
    return tf.function(lambda each: inner(each) * 1, autograph=False)(tensor)


def in_branch(tensor, path):
    """Write a file in a branch of an If."""
    return tf.cond(tf.size(tensor) > 0, lambda: hostile.writing(path)(tensor), lambda: tensor)


def in_loop(tensor, path):
    """Write a file in the body of a loop."""
    return tf.while_loop(lambda i, _: i < 1, lambda i, each: (i + 1, hostile.writing(path)(each)), [0, tensor])[1]


def in_map(tensor, path):
    """Write a file for each element."""
    return tf.map_fn(hostile.writing(path), tensor)


def reading(tensor, path):
    """Return a file's first bytes."""
    first = tf.io.decode_raw(tf.io.read_file(str(path)), tf.uint8)[:10]
    return tensor + tf.cast(first, tf.float32)


def reading_a_table(tensor, path):
    """Fill a table in an operation that runs with the model, not in an initializer."""
    table = tf.raw_ops.HashTableV2(key_dtype=tf.int64, value_dtype=tf.string)
    fill = tf.raw_ops.InitializeTableFromTextFileV2(
        table_handle=table, filename=str(path), key_index=-1, value_index=-2
    )
    with tf.control_dependencies([fill]):
        return tf.identity(tensor)


def reading_a_checkpoint(tensor, path):
    """Read numbers from another checkpoint."""
    return (
        tensor
        + tf.raw_ops.RestoreV2(prefix=str(path), tensor_names=["x"], shape_and_slices=[""], dtypes=[tf.float32])[0]
    )


def printing(tensor, path):
    """Print to a file."""
    with tf.control_dependencies([tf.print("x", output_stream=f"file://{path}")]):
        return tf.identity(tensor)


def debugging(tensor, path):
    """Copy the tensor to a file."""
    return tf.raw_ops.DebugIdentity(input=tensor, debug_urls=[f"file://{path}"])


HOSTILE = {
    "outputs": (lambda tensor, path: hostile.writing(path)(tensor), "WriteFile"),
    "nested function": (in_function, "WriteFile"),
    "branch": (in_branch, "WriteFile"),
    "loop": (in_loop, "WriteFile"),
    "map": (in_map, "WriteFile"),
    "read": (reading, "ReadFile"),
    "table": (reading_a_table, "InitializeTableFromTextFileV2"),
    "checkpoint": (reading_a_checkpoint, "RestoreV2"),
    "python": (lambda tensor, _: py_function(tensor), "PyFunc"),
    "print": (printing, "PrintV2"),
    "debug": (debugging, "DebugIdentity"),
}


@pytest.fixture(params=[False, True], ids=["plain", "v2"])
def control_flow(request):
    """Branches and loops as nodes (v1) or as functions (v2)."""
    enabled = v1.control_flow_v2_enabled()
    (v1.enable_control_flow_v2 if request.param else v1.disable_control_flow_v2)()
    yield
    (v1.enable_control_flow_v2 if enabled else v1.disable_control_flow_v2)()


def assert_refused(problem, op, source, victim):
    """Check that the error names operation, node and file, has the hint, and that nothing was written."""
    message = str(problem.value)
    assert message.startswith(f"{source}: expected a graph that only computes, got operation {op} at node ")
    assert problem.value.hint == TRUST_HINT
    assert "--trust" in TRUST_HINT
    assert "\n" not in message
    assert not victim.exists()


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.usefixtures("control_flow")
def test_a_signature_that_does_more_than_compute_is_refused(tmp_path, kind):
    """In any place of a graph, in a SavedModel and in a `.meta`."""
    build, op = HOSTILE[kind]
    victim = tmp_path / "victim"
    directory = hostile.save(tmp_path / "1", lambda tensor: build(tensor, victim))
    with pytest.raises(CheckpointError) as problem, predictor.open_predictor(directory, *hostile.NAMES):
        pass
    assert_refused(problem, op, directory, victim)
    prefix = hostile.save_checkpoint(tmp_path / "model", lambda tensor: build(tensor, victim))
    with pytest.raises(CheckpointError) as problem, predictor.open_predictor(prefix, *hostile.NAMES):
        pass
    assert_refused(problem, op, layout.meta_path(prefix), victim)


def test_a_trusted_model_runs_as_it_is(tmp_path):
    """It may write files."""
    victim = tmp_path / "victim"
    directory = hostile.save(tmp_path / "1", hostile.writing(victim))
    with predictor.open_predictor(directory, *hostile.NAMES, trusted=True) as model:
        assert model.predict({"images": IMAGES})["classes"].tolist() == [9, 9, 9]
    assert victim.read_text() == "x"


def test_an_initializer_that_does_more_than_compute_is_refused(tmp_path):
    """The main operation, and control inputs of the restore operation or a variable, whatever signature is run."""
    victim = tmp_path / "victim"
    main = hostile.save(tmp_path / "1", tf.identity, initialise=lambda: tf.io.write_file(str(victim), "x"))
    restore = hostile.save(tmp_path / "2", tf.identity, edit=hostile.write_before("save/restore_all", victim))
    variable = hostile.save(tmp_path / "3", tf.identity, edit=hostile.write_before("weights", victim))
    for directory in (main, restore, variable):
        with pytest.raises(CheckpointError) as problem:
            saved_model.check_loads(directory, ["serve"])
        assert_refused(problem, "WriteFile", directory, victim)
        saved_model.check_loads(directory, ["serve"], trusted=True)
        assert victim.exists()
        victim.unlink()


def test_a_restore_operation_that_does_more_than_compute_is_refused(tmp_path):
    """In a `.meta`, although no signature depends on it."""
    victim = tmp_path / "victim"
    edit = hostile.write_before("save/restore_all", victim)
    prefix = hostile.save_checkpoint(tmp_path / "model", tf.identity, edit=edit)
    meta_graph = meta_graphs.read_meta_graph(layout.meta_path(prefix))
    with pytest.raises(CheckpointError) as problem, meta_graphs.restored(meta_graph, prefix):
        pass
    assert_refused(problem, "WriteFile", layout.meta_path(prefix), victim)
    with meta_graphs.restored(meta_graph, prefix, trusted=True):
        assert victim.exists()


def debugged(tensor, victim):
    """Return the tensor, and write it to a file."""
    return tf.raw_ops.DebugIdentity(input=tensor, tensor_name="x:0", debug_urls=[f"file://{victim}"])


@pytest.mark.parametrize("through", ["constant", "shape"])
def test_an_operation_that_the_import_evaluates_is_refused(tmp_path, through):
    """TensorFlow runs operations that a shape depends on, although nothing that is fetched does."""
    victim = tmp_path / "victim"

    def spoil(tensor):
        numbers = v1.placeholder(tf.float32, [2, 5])
        shape = [2, 5] if through == "constant" else tf.raw_ops.Shape(input=numbers)
        tf.reshape(numbers, debugged(shape, victim))
        return tensor

    directory = hostile.save(tmp_path / "1", spoil)
    shutil.rmtree(victim)  # building the graph has written there, too
    with pytest.raises(CheckpointError) as problem:
        saved_model.check_loads(directory, ["serve"])
    assert_refused(problem, "DebugIdentity", directory, victim)
    saved_model.check_loads(directory, ["serve"], trusted=True)
    assert victim.exists()


@pytest.mark.parametrize("through", ["constant", "function", "zeros"])
def test_an_operation_that_constant_folding_evaluates_is_refused(tmp_path, through):
    """Grappler runs operations that only a fed tensor depends on, too."""
    victim = tmp_path / "victim"
    make = {
        "constant": lambda _: debugged(tf.ones([2]), victim),
        "function": lambda _: tf.function(lambda: debugged(tf.ones([2]), victim), autograph=False)(),
        "zeros": lambda x: debugged(tf.raw_ops.ZerosLike(x=x), victim),
    }[through]
    with tf.Graph().as_default():
        fed = tf.identity(make(v1.placeholder(tf.float32, [2])), name="fed")
        tf.add(fed, 1.0, name="y")
        meta_graph = v1.train.export_meta_graph()
    shutil.rmtree(victim, ignore_errors=True)
    runs = [Run(["y:0"], ["fed:0"])]
    with pytest.raises(CheckpointError, match="operation DebugIdentity at node DebugIdentity"):
        graph_safety.check(meta_graph, tmp_path / "x.meta", runs)
    assert not victim.exists()
    with meta_graphs.restored(meta_graph, tmp_path / "x", trusted=True) as session:
        session.run("y:0", {"fed:0": [1.0, 2.0]})
    assert victim.exists()


def test_a_scan_changes_nothing():
    """In a graph whose attributes have default values, and so are absent."""
    meta_graph = filled_from_variable()
    before = meta_graph.SerializeToString(deterministic=True)
    graph_safety.check(meta_graph, Path("1"), [Run(["read"])])
    assert meta_graph.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("name", ["../../names.txt", "/etc/passwd"])
def test_an_asset_outside_of_the_model_is_refused(tmp_path, name):
    """The loader would read the file into a table."""
    (tmp_path / "names.txt").write_text("zero\none\n")

    def build():
        kinds = (tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE)
        x = v1.placeholder(tf.int64, [None], name="x")
        initializer = tf.lookup.TextFileInitializer(str(tmp_path / "names.txt"), *kinds)
        return {"serving_default": ({"x": x}, {"y": tf.lookup.StaticHashTable(initializer, "?").lookup(x)})}

    with tf.Graph().as_default(), v1.Session() as session:
        session.run(v1.variables_initializer([v1.get_variable("v", initializer=1.0)]))
        v1.train.Saver().save(session, str(tmp_path / "model"))
    saved_model.write(tmp_path / "1", tmp_path / "model", [saved_model.TaggedGraph(["serve"], build)])
    saved_model.check_loads(tmp_path / "1", ["serve"])
    hostile.change(tmp_path / "1", hostile.rename_asset(name))
    with pytest.raises(CheckpointError, match="expected the assets of the graph in its directory, got") as problem:
        saved_model.check_loads(tmp_path / "1", ["serve"])
    assert name in str(problem.value)


def test_an_alternative_implementation_of_a_function_is_scanned(tmp_path):
    """Grappler chooses among functions with the same `api_implements`."""
    victim = tmp_path / "victim"
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [], name="x")
        good = tf.function(lambda each: each * 2, experimental_attributes={"api_implements": "double"}, autograph=False)
        bad = tf.function(
            hostile.writing(victim), experimental_attributes={"api_implements": "double"}, autograph=False
        )
        bad.get_concrete_function(tf.TensorSpec([], tf.float32)).add_to_graph(graph)
        tf.identity(good(x), name="y")
        meta_graph = v1.train.export_meta_graph()
    with pytest.raises(CheckpointError, match="operation WriteFile at node WriteFile of function"):
        graph_safety.check(meta_graph, Path("x.meta"), [Run(["y:0"], ["x:0"])])


def test_an_unknown_operation_is_refused():
    """TensorFlow may have loaded a library that registers it."""
    meta_graph = v1.MetaGraphDef()
    meta_graph.graph_def.node.add(name="y", op="RunShell")
    with pytest.raises(CheckpointError, match="RunShell at node y, which is not on the list of harmless operations"):
        graph_safety.check(meta_graph, Path("x.meta"), [Run(["y"])])


def test_functions_that_call_each_other_are_scanned_once():
    """The scan ends for a thousand levels, a cycle of calls, and a cycle of Identities."""
    meta_graph = v1.MetaGraphDef()
    for level in range(1000):
        function = meta_graph.graph_def.library.function.add()
        function.signature.name = f"f{level}"
        for _ in range(3):
            function.node_def.add(name="call", op=f"f{(level + 1) % 1000}")
    meta_graph.graph_def.node.add(name="y", op="f0")
    meta_graph.graph_def.node.add(name="a", op="Identity", input=["b"])
    meta_graph.graph_def.node.add(name="b", op="Identity", input=["a"])
    meta_graph.graph_def.node.add(name="restore", op="RestoreV2", input=["a"])
    graph_safety.check(meta_graph, Path("x.meta"), [Run(["y", "a"])])
    with pytest.raises(CheckpointError, match="operation RestoreV2 at node restore, which reads files"):
        graph_safety.check(meta_graph, Path("x.meta"), [Run(["restore"], [], ["file:0"])])


def test_a_fed_file_name_is_followed_through_calls():
    """Another argument, or an argument of a function that is called by way of an attribute, is not the fed name."""

    def meta_graph_with(call_inputs, attribute):
        meta_graph = v1.MetaGraphDef()
        library = meta_graph.graph_def.library
        function = library.function.add()
        function.signature.name = "restore"
        for name in ("prefix", "other"):
            function.signature.input_arg.add(name=name, type=tf.string.as_datatype_enum)
        function.node_def.add(name="read", op="RestoreV2", input=["prefix"])
        meta_graph.graph_def.node.add(name="file", op="Const")
        meta_graph.graph_def.node.add(name="evil", op="Const")
        call = meta_graph.graph_def.node.add(name="call", op="PartitionedCall", input=call_inputs)
        if attribute == "direct":
            call.attr["f"].func.name = "restore"
        else:
            library.function.add().signature.name = "outer"
            call.attr["f"].func.name = "outer"
            call.attr["f"].func.attr["g"].func.name = "restore"
        meta_graph.saver_def.restore_op_name = "call"
        meta_graph.saver_def.filename_tensor_name = "file:0"
        return meta_graph

    graph_safety.check(meta_graph_with(["file", "evil"], "direct"), Path("x.meta"), [])
    for inputs, attribute in ((["evil", "file"], "direct"), (["file", "evil"], "nested")):
        with pytest.raises(CheckpointError, match="operation RestoreV2 at node read of function restore"):
            graph_safety.check(meta_graph_with(inputs, attribute), Path("x.meta"), [])


def filled_from_variable(**changes):
    """A table filled from the file whose path is in a variable, as tf.saved_model.save writes it."""
    meta_graph = v1.MetaGraphDef()
    nodes = {
        "asset": ("Placeholder", []),
        "evil": ("Const", []),
        "path": ("VarHandleOp", []),
        "assign": ("AssignVariableOp", ["path", "asset"]),
        "read": ("ReadVariableOp", ["path", "^assign"]),
        "table": ("HashTableV2", []),
        "fill": ("InitializeTableFromTextFileV2", ["table", "read"]),
        **changes,
    }
    for name, (op, inputs) in nodes.items():
        node = meta_graph.graph_def.node.add(name=name, op=op, input=inputs)
        if name == "forged":
            node.attr["dtype"].type = tf.resource.as_datatype_enum
        if name == "alias":
            node.attr["shared_name"].s = b"path"
    meta_graph.asset_file_def.add(filename="names.txt").tensor_info.name = "asset:0"
    meta_graph.collection_def["saved_model_main_op"].node_list.value.append("fill")
    return meta_graph


@pytest.mark.parametrize(
    "changes",
    [
        {"assign": ("AssignVariableOp", ["path", "evil"])},
        {"assign_evil": ("AssignVariableOp", ["path", "evil"])},
        {"alias": ("VarHandleOp", []), "assign_evil": ("AssignVariableOp", ["alias", "evil"])},
        {"other": ("Identity", ["path"]), "assign_evil": ("AssignVariableOp", ["other", "evil"])},
        {"fill": ("InitializeTableFromTextFileV2", ["table", "evil"])},
    ],
)
def test_a_variable_holds_an_asset_path_only_if_nothing_else_is_assigned(changes):
    """Not even through another name of the variable."""
    graph_safety.check(filled_from_variable(), Path("1"), [])
    with pytest.raises(CheckpointError, match="operation InitializeTableFromTextFileV2 at node fill"):
        graph_safety.check(filled_from_variable(**changes), Path("1"), [])


def test_a_constant_that_forges_a_handle_is_refused():
    """With it, a graph could assign to a variable that nothing seems to use."""
    forged = {"forged": ("Const", []), "fill": ("AssignVariableOp", ["forged", "evil"])}
    with pytest.raises(CheckpointError, match="operation Const at node forged, which makes a handle out of bytes"):
        graph_safety.check(filled_from_variable(**forged), Path("1"), [])


def test_no_function_has_the_name_of_an_operation():
    """TensorFlow rejects such a graph, so a harmless body cannot hide an operation that writes."""
    graph_def = v1.GraphDef()
    graph_def.library.function.add().signature.name = "WriteFile"
    with tf.Graph().as_default(), pytest.raises((ValueError, tf.errors.OpError), match="WriteFile"):
        tf.import_graph_def(graph_def)


class Labelled(tf.Module):
    """A module for tf.saved_model.save: functions, variables of objects, a table and its asset."""

    def __init__(self, names):
        """Fill the table with the lines of a file."""
        super().__init__()
        self.weights = tf.Variable(tf.ones([784, 10]))
        kinds = (tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE)
        self.table = tf.lookup.StaticHashTable(tf.lookup.TextFileInitializer(str(names), *kinds), "?")

    @tf.function(input_signature=[tf.TensorSpec([None, 28, 28], tf.uint8, name="images")])
    def serve(self, images):
        """Return classes, probabilities and names."""
        logits = tf.reshape(tf.cast(images, tf.float32), [-1, 784]) @ self.weights
        classes = tf.argmax(logits, 1)
        tf.print("called")
        return {"classes": classes, "probabilities": tf.nn.softmax(logits), "names": self.table.lookup(classes)}


def test_an_object_based_saved_model_is_loaded(tmp_path):
    """Its restore function gets the checkpoint's name, its table's initializer the asset's path."""
    (tmp_path / "names.txt").write_text("zero\none\n")
    module = Labelled(tmp_path / "names.txt")
    tf.saved_model.save(module, str(tmp_path / "1"), signatures=module.serve)
    with predictor.open_predictor(tmp_path / "1", {"images"}, {"classes", "probabilities", "names"}) as model:
        assert model.predict({"images": IMAGES})["names"].tolist() == [b"zero"] * 3


def test_a_keras_model_is_loaded(tmp_path):
    """One written by Keras' `model.export`."""
    keras = tf.keras
    model = keras.Sequential([keras.layers.Input([28, 28]), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")])
    model.export(tmp_path / "1", verbose=False)
    saved_model.check_loads(tmp_path / "1", ["serve"])


def test_a_training_graph_with_queues_and_readers_is_restored(tmp_path):
    """Operations that read and write files are allowed if the fetched tensors do not depend on them."""
    with tf.Graph().as_default(), v1.Session() as session:
        v1.train.match_filenames_once(str(tmp_path / "*.bin"))
        names = v1.train.string_input_producer([str(tmp_path / "0.bin")], shuffle=False)
        _, record = v1.FixedLengthRecordReader(784).read(names)
        image = tf.reshape(tf.cast(tf.io.decode_raw(record, tf.uint8), tf.float32), [784])
        label = tf.io.decode_raw(tf.io.read_file(names.dequeue()), tf.uint8)[0]
        x, _ = v1.train.batch([image, label], 4)
        weights = v1.get_variable("weights", initializer=tf.ones([784, 10]))
        y = tf.matmul(x, weights, name="y")
        tf.io.write_file(str(tmp_path / "log"), "x")
        session.run([v1.global_variables_initializer(), v1.local_variables_initializer()])
        v1.train.Saver().save(session, str(tmp_path / "model"))
    meta_graph = meta_graphs.read_meta_graph(tmp_path / "model.meta")
    runs = [Run([y.name], [x.name])]
    with meta_graphs.restored(meta_graph, tmp_path / "model", runs=lambda _: runs) as session:
        assert session.run("y:0", {x.name: np.ones((4, 784), np.float32)}).shape == (4, 10)
    with pytest.raises(CheckpointError, match=r"operation (ReadFile|ReaderReadV2|FixedLengthRecordReaderV2) at node"):
        graph_safety.check(meta_graph, tmp_path / "model.meta", [Run([image.name])])


def test_a_scan_takes_milliseconds():
    """For one of our training graphs."""
    built = digit_graph.build_softmax()
    with built.graph.as_default():
        meta_graph = v1.train.export_meta_graph()
        added = meta_graphs.signature_defs(signatures.training_signatures(built))
    for name, signature in added.items():
        meta_graph.signature_def[name].CopyFrom(signature)
    began = time.perf_counter()
    graph_safety.check(meta_graph, Path("x.meta"), graph_safety.signature_runs(meta_graph))
    assert time.perf_counter() - began < 0.2
