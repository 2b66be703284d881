import numpy as np
import pytest
import tensorflow as tf

from checkpointing.errors import CheckpointError
from checkpointing.format import tensor_io
from checkpointing.format.tensor_bundle import Bundle
from checkpointing.graphs import variable_matching
from tests.checkpoints import AWKWARD, flip_a_bit

STATE = {
    "layer1/weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "layer1/biases": np.arange(3, dtype=np.float32),
    "layer2/weights": np.arange(12, dtype=np.float32).reshape(3, 4),
    "global_step": np.array(7, np.int64),
}


@pytest.fixture
def prefix(tmp_path):
    """A checkpoint of two layers."""
    tensor_io.write(tmp_path / "old", STATE)
    return tmp_path / "old"


def graph_of(dtype=tf.float32, **shapes):
    """A graph with variables of zeros of these shapes; their names have / for __."""
    with tf.Graph().as_default() as graph:
        for name, shape in shapes.items():
            start = tf.zeros(shape, tf.int64 if name == "global_step" else dtype)
            tf.compat.v1.get_variable(name.replace("__", "/"), initializer=start, use_resource=True)
    return graph


def matched(prefix, graph, *args, **options):
    """What matches among the graph's variables."""
    return variable_matching.match(prefix, graph.get_collection("variables"), *args, **options)


def restored(prefix, graph, found, **options):
    """The variables' values after a warm start."""
    with graph.as_default(), tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.global_variables_initializer())
        variable_matching.restore(session, prefix, found, **options)
        return session.run({variable.op.name: variable for variable in tf.compat.v1.global_variables()})


def test_what_fits_is_taken_and_the_rest_is_told(prefix):
    """Each variable and each tensor is in the report: taken, not fitting (with found and wanted), left, unused."""
    graph = graph_of(layer1__weights=[2, 3], layer1__biases=[4], layer3__biases=[1])
    found = matched(prefix, graph)
    assert found.told().splitlines() == [
        "taken: layer1/weights",
        "not taken, for they do not fit: layer1/biases (float32 [3] found, float32 [4] wanted)",
        "left at their start: layer3/biases",
        "in the checkpoint, but not taken: global_step, layer1/biases, layer2/weights",
    ]
    values = restored(prefix, graph, found)
    assert values["layer1/weights"].tolist() == STATE["layer1/weights"].tolist()
    assert values["layer1/biases"].tolist() == [0, 0, 0, 0]
    assert values["layer3/biases"].tolist() == [0]


@pytest.mark.parametrize(
    ("pattern", "taken"),
    [
        ("", ["layer1/biases", "layer1/weights", "layer2/weights"]),
        ("layer1", ["layer1/biases", "layer1/weights"]),
        (".*/weights$", ["layer1/weights", "layer2/weights"]),
        ("(?!layer1/w)", ["layer1/biases", "layer2/weights"]),
    ],
)
def test_a_pattern_says_which(prefix, pattern, taken):
    """A regular expression that a name matches from its beginning on."""
    graph = graph_of(layer1__weights=[2, 3], layer1__biases=[3], layer2__weights=[3, 4])
    found = matched(prefix, graph, pattern)
    assert sorted(found.taken) == taken
    values = restored(prefix, graph, found)
    assert sorted(name for name, value in values.items() if value.any()) == taken


@pytest.mark.parametrize("renames", [{"layer1": "hidden"}, {"layer1/weights": "hidden/weights", "layer1": "hidden"}])
def test_names_may_have_changed(prefix, renames):
    """Of a scope or of one tensor; the report tells both names, and the pattern is of the new ones."""
    graph = graph_of(hidden__weights=[2, 3], layer2__weights=[3, 4])
    found = matched(prefix, graph, "hidden", renames=renames)
    assert found.told().splitlines()[0] == "taken: layer1/weights as hidden/weights"
    assert restored(prefix, graph, found)["hidden/weights"].tolist() == STATE["layer1/weights"].tolist()


def test_a_name_that_is_not_in_the_checkpoint_is_told(prefix):
    """A slip of the pen in a rename does not leave a layer at its start in silence."""
    graph = graph_of(hidden__weights=[2, 3], layer2__weights=[3, 4])
    with pytest.raises(CheckpointError, match="old: no tensor or scope is called layr1; there are global_step, layer1"):
        matched(prefix, graph, renames={"layr1": "hidden"})


def test_no_two_tensors_are_meant_for_one_variable(prefix):
    """Which one would be taken is nothing to guess."""
    with pytest.raises(CheckpointError, match="old: two tensors would be called layer2/weights"):
        matched(prefix, graph_of(layer2__weights=[3, 4]), renames={"layer1": "layer2"})


@pytest.mark.parametrize("shape", [[3, 2], [6], [1, 6]])
def test_another_shape_fits_only_if_it_may(prefix, shape):
    """With `reshape` as many elements are enough; the values come in their order."""
    graph = graph_of(layer1__weights=shape, layer2__weights=[3, 4])
    assert list(matched(prefix, graph).mismatched) == ["layer1/weights"]
    found = matched(prefix, graph, reshape=True)
    assert not found.mismatched
    values = restored(prefix, graph, found, reshape=True)
    assert values["layer1/weights"].tolist() == STATE["layer1/weights"].reshape(shape).tolist()


def test_another_dtype_does_not_fit(prefix):
    """Whatever the shape."""
    graph = graph_of(tf.float64, layer1__weights=[2, 3], global_step=[])
    found = matched(prefix, graph, reshape=True)
    assert found.mismatched == {"layer1/weights": "float32 [2, 3] found, float64 [2, 3] wanted"}
    assert restored(prefix, graph, found)["global_step"] == 7


@pytest.mark.parametrize(
    ("graph", "options", "told"),
    [
        (graph_of(other=[3]), {}, "left at their start: other"),
        (graph_of(layer1__biases=[4]), {}, r"layer1/biases \(float32 \[3\] found, float32 \[4\] wanted\)"),
        (graph_of(layer1__biases=[3]), {"pattern": "layer2"}, "left at their start: layer1/biases"),
    ],
)
def test_nothing_is_too_little(prefix, graph, options, told):
    """A warm start that takes no variable is an error, with the same report, in one line."""
    with pytest.raises(CheckpointError, match=f"old: none of the variables wanted can be taken.*{told}") as error:
        matched(prefix, graph, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", AWKWARD)
def test_directories_may_look_like_patterns(tmp_path, name):
    """Brackets and stars mean themselves."""
    tensor_io.write(tmp_path / name / "old", STATE)
    graph = graph_of(layer1__biases=[3])
    found = matched(tmp_path / name / "old", graph)
    assert restored(tmp_path / name / "old", graph, found)["layer1/biases"].tolist() == [0, 1, 2]


def test_a_damaged_checkpoint_is_told(prefix):
    """In a sentence that names it, and no variable has changed."""
    graph = graph_of(layer1__biases=[3], layer2__weights=[3, 4])
    found = matched(prefix, graph)
    flip_a_bit(prefix.with_name("old.data-00000-of-00001"))  # of layer2/weights
    with graph.as_default(), tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.global_variables_initializer())
        with pytest.raises(CheckpointError, match="old: cannot be restored"):
            variable_matching.restore(session, prefix, found)
        assert session.run("layer1/biases/Read/ReadVariableOp:0").tolist() == [0, 0, 0]


def test_a_shape_that_nobody_knows_takes_any(prefix):
    """As TensorFlow's own restore does; a known part of it must be so."""
    with tf.Graph().as_default() as graph:
        for name, shape in (("layer1/weights", None), ("layer1/biases", [None]), ("layer2/weights", [None, 5])):
            zeros = np.zeros([size or 1 for size in shape or []], np.float32)
            start = tf.compat.v1.placeholder_with_default(zeros, shape)
            tf.compat.v1.Variable(start, validate_shape=False, shape=shape, name=name, use_resource=True)
    found = matched(prefix, graph)
    assert sorted(found.taken) == ["layer1/biases", "layer1/weights"]
    assert found.mismatched == {"layer2/weights": "float32 [3, 4] found, float32 [None, 5] wanted"}
    assert restored(prefix, graph, found)["layer1/weights"].tolist() == STATE["layer1/weights"].tolist()


def test_what_a_graph_needs_is_checked_by_name(prefix):
    """The first variable that is missing, or another one, is named with found and wanted, and with what is there."""
    entries = Bundle(prefix).entries
    variables = graph_of(layer1__biases=[4], other=[3]).get_collection("variables")
    for variable, told in zip(
        variables, (r"layer1/biases: float32 \[3\] found, float32 \[4\]", r"other: no such variable found"), strict=True
    ):
        with pytest.raises(CheckpointError, match=f"old: variable {told}.*it holds global_step, layer1/biases"):
            variable_matching.check_variables(prefix, entries, {variable.op.name: variable})
    [flat] = graph_of(weights=[6]).get_collection("variables")
    variable_matching.check_variables(prefix, entries, {"layer1/weights": flat}, reshape=True)
