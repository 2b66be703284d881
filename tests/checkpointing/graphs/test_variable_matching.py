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
    """Match the graph's variables."""
    return variable_matching.match(prefix, graph.get_collection("variables"), *args, **options)


def restored(prefix, graph, found, **options):
    """Return the variables' values after a warm start."""
    with graph.as_default(), tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.global_variables_initializer())
        variable_matching.restore(session, prefix, found, **options)
        return session.run({variable.op.name: variable for variable in tf.compat.v1.global_variables()})


def test_matching_variables_are_restored_and_the_rest_is_reported(prefix):
    """Each variable and each tensor is in the summary: restored, mismatched, missing or unexpected."""
    graph = graph_of(layer1__weights=[2, 3], layer1__biases=[4], layer3__biases=[1])
    found = matched(prefix, graph)
    assert found.summary().splitlines() == [
        "restored: layer1/weights",
        "not restored, shape or dtype differs: layer1/biases (expected float32 [4], got float32 [3])",
        "not restored, missing or excluded: layer3/biases",
        "unexpected in the checkpoint: global_step, layer1/biases, layer2/weights",
    ]
    values = restored(prefix, graph, found)
    assert values["layer1/weights"].tolist() == STATE["layer1/weights"].tolist()
    assert values["layer1/biases"].tolist() == [0, 0, 0, 0]
    assert values["layer3/biases"].tolist() == [0]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("", ["layer1/biases", "layer1/weights", "layer2/weights"]),
        ("layer1", ["layer1/biases", "layer1/weights"]),
        (".*/weights$", ["layer1/weights", "layer2/weights"]),
        ("(?!layer1/w)", ["layer1/biases", "layer2/weights"]),
    ],
)
def test_a_pattern_selects_variables(prefix, pattern, names):
    """A regular expression must match the beginning of the name."""
    graph = graph_of(layer1__weights=[2, 3], layer1__biases=[3], layer2__weights=[3, 4])
    found = matched(prefix, graph, pattern)
    assert sorted(found.restored) == names
    values = restored(prefix, graph, found)
    assert sorted(name for name, value in values.items() if value.any()) == names


@pytest.mark.parametrize("renames", [{"layer1": "hidden"}, {"layer1/weights": "hidden/weights", "layer1": "hidden"}])
def test_names_may_have_changed(prefix, renames):
    """Of a scope or of one tensor; the summary has both names, and the pattern applies to the new ones."""
    graph = graph_of(hidden__weights=[2, 3], layer2__weights=[3, 4])
    found = matched(prefix, graph, "hidden", renames=renames)
    assert found.summary().splitlines()[0] == "restored: layer1/weights as hidden/weights"
    assert restored(prefix, graph, found)["hidden/weights"].tolist() == STATE["layer1/weights"].tolist()


def test_a_rename_of_a_missing_tensor_is_an_error(prefix):
    """A typing error in a rename does not silently leave a layer at its initial value."""
    graph = graph_of(hidden__weights=[2, 3], layer2__weights=[3, 4])
    with pytest.raises(CheckpointError, match="old: no tensor or scope is called layr1; there are global_step, layer1"):
        matched(prefix, graph, renames={"layr1": "hidden"})


def test_two_tensors_for_one_variable_are_an_error(prefix):
    """The choice between them would be arbitrary."""
    with pytest.raises(CheckpointError, match="old: two tensors would be called layer2/weights"):
        matched(prefix, graph_of(layer2__weights=[3, 4]), renames={"layer1": "layer2"})


@pytest.mark.parametrize("shape", [[3, 2], [6], [1, 6]])
def test_another_shape_matches_only_with_reshape(prefix, shape):
    """The number of elements must be the same; they keep their order."""
    graph = graph_of(layer1__weights=shape, layer2__weights=[3, 4])
    assert list(matched(prefix, graph).mismatched) == ["layer1/weights"]
    found = matched(prefix, graph, reshape=True)
    assert not found.mismatched
    values = restored(prefix, graph, found, reshape=True)
    assert values["layer1/weights"].tolist() == STATE["layer1/weights"].reshape(shape).tolist()


def test_another_dtype_does_not_match(prefix):
    """Even if the shape is the same."""
    graph = graph_of(tf.float64, layer1__weights=[2, 3], global_step=[])
    found = matched(prefix, graph, reshape=True)
    assert found.mismatched == {"layer1/weights": "expected float64 [2, 3], got float32 [2, 3]"}
    assert restored(prefix, graph, found)["global_step"] == 7


@pytest.mark.parametrize(
    ("graph", "options", "report"),
    [
        (graph_of(other=[3]), {}, "missing or excluded: other"),
        (graph_of(layer1__biases=[4]), {}, r"layer1/biases \(expected float32 \[4\], got float32 \[3\]\)"),
        (graph_of(layer1__biases=[3]), {"pattern": "layer2"}, "missing or excluded: layer1/biases"),
    ],
)
def test_no_match_at_all_is_an_error(prefix, graph, options, report):
    """The message holds the summary, in one line."""
    with pytest.raises(CheckpointError, match=f"old: no variable of the model can be restored.*{report}") as error:
        matched(prefix, graph, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", AWKWARD)
def test_directories_may_look_like_patterns(tmp_path, name):
    """Brackets and stars stand for themselves."""
    tensor_io.write(tmp_path / name / "old", STATE)
    graph = graph_of(layer1__biases=[3])
    found = matched(tmp_path / name / "old", graph)
    assert restored(tmp_path / name / "old", graph, found)["layer1/biases"].tolist() == [0, 1, 2]


def test_a_damaged_checkpoint_is_an_error(prefix):
    """The message names it, and no variable has changed."""
    graph = graph_of(layer1__biases=[3], layer2__weights=[3, 4])
    found = matched(prefix, graph)
    flip_a_bit(prefix.with_name("old.data-00000-of-00001"))  # of layer2/weights
    with graph.as_default(), tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.global_variables_initializer())
        with pytest.raises(CheckpointError, match="old: cannot be restored"):
            variable_matching.restore(session, prefix, found)
        assert session.run("layer1/biases/Read/ReadVariableOp:0").tolist() == [0, 0, 0]


def test_an_unknown_shape_matches_any(prefix):
    """As in TensorFlow's own restore; known dimensions must match."""
    with tf.Graph().as_default() as graph:
        for name, shape in (("layer1/weights", None), ("layer1/biases", [None]), ("layer2/weights", [None, 5])):
            zeros = np.zeros([size or 1 for size in shape or []], np.float32)
            start = tf.compat.v1.placeholder_with_default(zeros, shape)
            tf.compat.v1.Variable(start, validate_shape=False, shape=shape, name=name, use_resource=True)
    found = matched(prefix, graph)
    assert sorted(found.restored) == ["layer1/biases", "layer1/weights"]
    assert found.mismatched == {"layer2/weights": "expected float32 [None, 5], got float32 [3, 4]"}
    assert restored(prefix, graph, found)["layer1/weights"].tolist() == STATE["layer1/weights"].tolist()


def test_check_variables_names_the_first_difference(prefix):
    """The message has the expected and the found tensor, and lists the checkpoint's tensors."""
    entries = Bundle(prefix).entries
    variables = graph_of(layer1__biases=[4], other=[3]).get_collection("variables")
    for variable, message in zip(
        variables,
        (r"layer1/biases: expected float32 \[4\], got float32 \[3\]", r"other: expected .*, got no such variable"),
        strict=True,
    ):
        with pytest.raises(CheckpointError, match=f"old: variable {message}; it holds global_step, layer1/biases"):
            variable_matching.check_variables(prefix, entries, {variable.op.name: variable})
    [flat] = graph_of(weights=[6]).get_collection("variables")
    variable_matching.check_variables(prefix, entries, {"layer1/weights": flat}, reshape=True)


def test_a_checkpoint_of_many_tensors_has_short_messages(tmp_path):
    """Each list of names has at most ten, and says how many more there are."""
    names = [f"v{number}" for number in range(300)]
    prefix = tmp_path / "many"
    tensor_io.write(prefix, {name: np.zeros(1, np.float32) for name in names})
    graph = graph_of(missing=[1], **{name: [1] for name in names})
    variables = {each.op.name: each for each in graph.get_collection("variables")}
    with pytest.raises(CheckpointError, match=r"variable missing: .* and 290 more"):
        variable_matching.check_variables(prefix, Bundle(prefix).entries, variables)
    assert (
        matched(prefix, graph).summary().startswith("restored: v0, v1, v2, v3, v4, v5, v6, v7, v8, v9 and 290 more\n")
    )
    with pytest.raises(CheckpointError, match=r"no tensor or scope is called x; there are v0, .* and 290 more"):
        matched(prefix, graph, renames={"x": "y"})
