import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
from google.protobuf import text_format

from checkpointing import __main__
from checkpointing.format import tensor_io
from checkpointing.format.tensor_bundle import Bundle
from checkpointing.graphs import saved_model
from checkpointing.protocol import resume, verification
from checkpointing.protocol.manager import CheckpointManager
from checkpointing.storage import layout
from mnist.model import signatures, training_graph
from tests import checkpoints, digit_graph, hostile, programs
from tests.checkpoints import is_one_error

v1 = tf.compat.v1
TRAIN = digit_graph.RANDOM
IMAGES = TRAIN.images
DEFAULT = "serving_default"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A train_dir with checkpoints after 2 and 4 steps, and the classes that the last one predicts."""
    train_dir = tmp_path_factory.mktemp("run[1]")
    built = digit_graph.build_softmax()
    start, given = resume.open_train_dir(train_dir, {}), signatures.training_signatures(built)
    manager = CheckpointManager(built.graph, start, variables=built.saved, step=built.step, signatures=given)
    with v1.Session(graph=built.graph) as session, manager:
        training_graph.initialize(session, built, TRAIN)
        for _ in range(2):
            session.run(built.run_steps, {built.steps_per_execution: 2})
            manager.save(session)
        return train_dir, session.run(built.inference.classes, {built.inference.images: IMAGES})


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A plain Saver's checkpoint of y = 2 x, whose graph has no signature."""
    directory = tmp_path_factory.mktemp("plain")
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], name="x")
        factor = v1.get_variable("factor", initializer=2.0)
        tf.multiply(x, factor, name="y")
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(directory / "model"), 1)
    return directory / "model-1"


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """A checkpoint of tf.train.Checkpoint, which holds its object graph as a string."""
    return tf.train.Checkpoint(v=tf.Variable([1.0, 2.0])).write(str(tmp_path_factory.mktemp("objects") / "object"))


@pytest.fixture
def run(capsys):
    """A function that runs a command, checks its status and returns its output, or its error."""

    def run_one(*arguments, status=0):
        assert __main__.main(list(map(str, arguments))) == status
        out, err = capsys.readouterr()
        if not status:
            assert err == ""
            return out.strip()
        assert out == ""
        assert is_one_error(err)
        return err.strip()

    return run_one


def classes_of(directory, tag="serve"):
    """The classes that a SavedModel predicts for IMAGES."""
    with tf.Graph().as_default(), v1.Session() as session:
        signature = saved_model.load(session, directory, [tag]).signature_def[DEFAULT]
        return session.run(signature.outputs["classes"].name, {signature.inputs["images"].name: IMAGES})


def assert_same(found, expected):
    """Check that names, dtypes, shapes and bits are equal."""
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


def test_a_run_is_exported(run, tmp_path, trained):
    """A directory means its newest checkpoint; the export predicts what training did, and is verified."""
    train_dir, classes = trained
    text = run("export", train_dir, tmp_path / "out")
    assert text.endswith(f"model.ckpt-4 to {tmp_path / 'out'}: tags serve with signatures serving_default")
    assert np.array_equal(classes_of(tmp_path / "out"), classes)
    assert verification.verify_saved_model(tmp_path / "out").startswith("sha256")
    record = json.loads(run("export", layout.prefix(train_dir, 2), tmp_path / "two", "--json", "--as_text"))
    assert record["checkpoint"] == str(layout.prefix(train_dir, 2))
    assert (tmp_path / "two" / "saved_model.pbtxt").is_file()


def test_an_export_for_training_can_be_trained(run, tmp_path, trained):
    """With the tag `train`, data are loaded and steps made by signatures; the graph of `serve` is pruned."""
    train_dir, classes = trained
    run("export", train_dir, tmp_path / "out", "--tags", "serve", "--tags", "train")
    assert np.array_equal(classes_of(tmp_path / "out"), classes)
    assert np.array_equal(classes_of(tmp_path / "out", "train"), classes)
    with tf.Graph().as_default(), v1.Session() as session:
        signatures = saved_model.load(session, tmp_path / "out", ["train"]).signature_def
        data = signatures["load_data"].inputs
        feed = {data["train_images"].name: TRAIN.images, data["train_labels"].name: TRAIN.labels}
        session.run(v1.local_variables_initializer(), feed)
        train = signatures["train"]
        for expected in (7, 10):
            step = session.run(train.outputs["step"].name, {train.inputs["steps_to_run"].name: 3})
            assert step == expected


def test_a_tag_given_twice_is_one(run, tmp_path, trained):
    """Two graphs with the same tags could not be distinguished."""
    run("export", trained[0], tmp_path / "out", "--tags", "serve", "--tags", "serve")
    assert len(saved_model.read(tmp_path / "out")) == 1


def test_a_graph_without_a_signature_needs_the_flags(run, tmp_path, plain):
    """Without --input and --output, or with unknown names, the error says what to use."""
    assert "--input=NAME=TENSOR" in run("export", plain, tmp_path / "out", status=1)
    assert "its placeholders are x:0" in run(
        "export", plain, tmp_path / "out", "--input=a=z:0", "--output=b=y:0", status=1
    )
    assert list(tmp_path.iterdir()) == []
    run("export", plain, tmp_path / "out", "--input=a=x:0", "--output=b=y:0")
    outputs = tf.saved_model.load(str(tmp_path / "out")).signatures[DEFAULT](a=tf.constant([1.5]))
    assert outputs["b"].numpy().tolist() == [3.0]
    run("freeze", plain, tmp_path / "out.pb", "--input=a=x:0", "--output=b=y:0")
    graph_def = v1.GraphDef.FromString((tmp_path / "out.pb").read_bytes())
    with tf.Graph().as_default(), v1.Session() as session:
        [y] = tf.import_graph_def(graph_def, {"x:0": tf.constant([2.5])}, ["y:0"])
        assert session.run(y).tolist() == [5.0]


def test_tables_are_exported(run, tmp_path):
    """With the asset files that initialize them."""
    (tmp_path / "names.txt").write_text("zero\none\n")
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.int64, [None], name="x")
        kinds = (tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE)
        table = tf.lookup.StaticHashTable(tf.lookup.TextFileInitializer(str(tmp_path / "names.txt"), *kinds), "?")
        tf.identity(table.lookup(x + v1.get_variable("offset", initializer=tf.constant(1, tf.int64))), name="y")
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "model"))
    run("export", tmp_path / "model", tmp_path / "out", "--input=x=x:0", "--output=y=y:0")
    (tmp_path / "names.txt").unlink()
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    outputs = tf.saved_model.load(str(moved)).signatures[DEFAULT](x=tf.constant([0, 5], tf.int64))
    assert outputs["y"].numpy().tolist() == [b"one", b"?"]


@pytest.mark.parametrize("name", ["model.pb", "model.pbtxt"])
def test_a_run_is_frozen(run, tmp_path, trained, name):
    """One file, binary or text, in a new directory; its classes are those of training."""
    train_dir, classes = trained
    path = tmp_path / "new" / name
    assert run("freeze", train_dir, path).startswith(f"froze {layout.prefix(train_dir, 4)} into {path}, ")
    graph_def = v1.GraphDef()
    if name.endswith("txt"):
        text_format.Parse(path.read_text(), graph_def)
    else:
        graph_def.ParseFromString(path.read_bytes())
    with tf.Graph().as_default(), v1.Session() as session:
        tf.import_graph_def(graph_def, name="")
        assert np.array_equal(session.run("classes:0", {"images:0": IMAGES}), classes)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("ending", tensor_io.ARCHIVES)
def test_a_run_is_converted_and_back(run, tmp_path, trained, ending):
    """Bit-identical, and a Saver restores the result."""
    prefix = layout.prefix(trained[0], 4)
    archive = tmp_path / f"größe{ending}"
    run("convert", prefix, archive)
    assert_same(tensor_io.read_archive(archive), tensor_io.read(prefix))
    run("convert", archive, tmp_path / "back")
    assert_same(tensor_io.read(tmp_path / "back"), tensor_io.read(prefix))
    with tf.Graph().as_default(), v1.Session() as session:
        weights = v1.get_variable("layer1/weights", initializer=tf.zeros([784, 10]))
        v1.train.Saver([weights]).restore(session, str(tmp_path / "back"))
        assert session.run(weights).tobytes() == tensor_io.read(prefix)["layer1/weights"].tobytes()


@pytest.mark.parametrize("ending", tensor_io.ARCHIVES)
def test_strings_are_left_out_and_named(run, tmp_path, objects, ending):
    """tf.train.Checkpoint writes one; the tensors are converted."""
    archive = tmp_path / f"x{ending}"
    text = run("convert", objects, archive)
    assert text.endswith(f"left out, because {ending} has no strings: _CHECKPOINTABLE_OBJECT_GRAPH")
    assert tensor_io.read_archive(archive)["v/.ATTRIBUTES/VARIABLE_VALUE"].tolist() == [1, 2]


@pytest.mark.parametrize("ending", tensor_io.ARCHIVES)
def test_a_checkpoint_of_strings_only_is_not_converted(run, tmp_path, ending):
    """One error that names them, and no file without arrays."""
    tensor_io.write(tmp_path / "x", {f"s{number}": np.array([b"text"], object) for number in range(12)})
    before = checkpoints.tree(tmp_path)
    error = run("convert", tmp_path / "x", tmp_path / f"x{ending}", status=1)
    assert f"x: expected tensors that {ending} can store, got strings only: s0, s1, s10, s11, s2" in error
    assert error.endswith("s7 and 2 more")
    assert checkpoints.tree(tmp_path) == before


@pytest.mark.parametrize("ending", tensor_io.ARCHIVES)
@pytest.mark.parametrize(
    ("arrays", "problem"),
    [({"": np.ones(3), "b": np.ones(3)}, "expected a name for each tensor"), ({}, "expected at least one tensor")],
)
def test_an_archive_that_cannot_be_a_checkpoint_is_an_error(run, tmp_path, ending, arrays, problem):
    """TensorFlow would end the process at an empty name; no file and no directory is left."""
    if ending == ".npz":
        np.savez(tmp_path / "x.npz", **arrays)
    else:
        safetensors.numpy.save_file(arrays, tmp_path / "x.safetensors")
    error = run("convert", tmp_path / f"x{ending}", tmp_path / "out" / "x", status=1)
    assert error.startswith(f"error: {tmp_path / 'out' / 'x'}: {problem}")
    assert [path.name for path in tmp_path.iterdir()] == [f"x{ending}"]


def test_a_graph_restores_its_quantized_variables_from_an_average(run, tmp_path):
    """The `.meta` that is copied expects the dtypes of the checkpoints."""
    with tf.Graph().as_default(), v1.Session() as session:
        variable = v1.Variable(tf.bitcast(tf.constant([1, -2], tf.int8), tf.qint8), name="q", use_resource=False)
        session.run(variable.initializer)
        source = v1.train.Saver([variable]).save(session, str(tmp_path / "q"))
    run("average", source, source, "--output", tmp_path / "mean")
    assert "bit-identical" in run("diff", source, tmp_path / "mean")
    with tf.Graph().as_default(), v1.Session() as session:
        v1.train.import_meta_graph(str(tmp_path / "mean.meta")).restore(session, str(tmp_path / "mean"))
        assert session.run(tf.bitcast(v1.global_variables()[0], tf.int8)).tolist() == [1, -2]


def test_a_dtype_that_a_format_lacks_is_an_error(run, tmp_path):
    """The error names the format that has it."""
    tensor_io.write(tmp_path / "x", {"a": np.ones(2, ml_dtypes.bfloat16)})
    told = run("convert", tmp_path / "x", tmp_path / "x.npz", status=1)
    assert "tensor a is bfloat16, which .npz cannot store\nhint: use .safetensors" in told
    run("convert", tmp_path / "x", tmp_path / "x.safetensors")
    run("convert", tmp_path / "x.safetensors", tmp_path / "y")
    assert_same(tensor_io.read(tmp_path / "y"), tensor_io.read(tmp_path / "x"))


@pytest.mark.parametrize("names", [("a", "b"), ("a.npz", "b.safetensors"), ("a.npz", "a.npz"), ("a.NPZ", "b")])
def test_a_conversion_is_between_a_checkpoint_and_an_archive(run, tmp_path, names):
    """Other combinations are an error."""
    error = run("convert", *(tmp_path / name for name in names), status=1)
    assert "expected one .npz or .safetensors file and one checkpoint's prefix" in error


def test_checkpoints_are_averaged(run, tmp_path, trained):
    """The mean of the weights, with the step and the graph of the last one; it can be exported."""
    train_dir, _ = trained
    run("average", layout.prefix(train_dir, 2), train_dir, "--output", tmp_path / "mean")
    states = [tensor_io.read(layout.prefix(train_dir, step)) for step in (2, 4)]
    mean = tensor_io.read(tmp_path / "mean")
    assert mean["global_step"] == 4
    for name in ("layer1/weights", "layer1/biases"):
        expected = np.mean([state[name].astype(float) for state in states], axis=0).astype(np.float32)
        assert mean[name].tobytes() == expected.tobytes()
    run("export", tmp_path / "mean", tmp_path / "out")
    assert classes_of(tmp_path / "out").shape == (40,)


def test_others_checkpoints_are_averaged_and_renamed(run, tmp_path, plain, objects):
    """A plain Saver's, and tf.train.Checkpoint's, whose object graph is kept."""
    for number, prefix in enumerate([plain, objects]):
        run("average", prefix, prefix, "--output", tmp_path / f"mean{number}")
        before, after = tensor_io.read(Path(prefix)), tensor_io.read(tmp_path / f"mean{number}")
        assert {name: array.tolist() for name, array in after.items()} == {
            name: array.tolist() for name, array in before.items()
        }
    run("rename", plain, "factor=f", "--output", tmp_path / "renamed")
    assert tensor_io.read(tmp_path / "renamed")["f"] == 2
    value = tf.Variable([0.0, 0.0])
    tf.train.Checkpoint(v=value).read(str(tmp_path / "mean1")).assert_consumed()
    assert value.numpy().tolist() == [1, 2]


def test_a_variant_is_an_error(run, tmp_path):
    """For example the state of a dataset's iterator, which tf.train.Checkpoint can save."""
    iterator = iter(tf.data.Dataset.range(10).shuffle(5, seed=1))
    next(iterator)
    source = tf.train.Checkpoint(it=iterator).write(str(tmp_path / "data"))
    for words in (["convert", source, tmp_path / "x.npz"], ["average", source, "--output", tmp_path / "x"]):
        assert "tensor it/.ATTRIBUTES/ITERATOR_STATE: expected an array, got a variant" in run(*words, status=1)


def test_other_models_are_not_averaged(run, tmp_path, trained, plain):
    """The first tensor that differs is named."""
    told = run("average", plain, trained[0], "--output", tmp_path / "mean", status=1)
    assert "tensor factor: expected no such tensor as in the last checkpoint, got float32 []" in told


def test_tensors_are_renamed(run, tmp_path, trained):
    """The new checkpoint has no graph. The error about an unknown name lists the known ones."""
    prefix = layout.prefix(trained[0], 4)
    run("rename", prefix, "layer1=größe/hidden", "global_step=step", "--output", tmp_path / "new")
    state = tensor_io.read(tmp_path / "new")
    assert state["größe/hidden/weights"].tobytes() == tensor_io.read(prefix)["layer1/weights"].tobytes()
    assert state["step"] == 4
    assert not layout.meta_path(tmp_path / "new").exists()
    told = run("rename", prefix, "layer2=x", "--output", tmp_path / "newer", status=1)
    assert "no tensor or scope is called layer2; there are global_step, layer1/biases" in told


COMMANDS = {
    "export": (["export", "{source}", "{target}"], "out"),
    "freeze": (["freeze", "{source}", "{target}"], "out.pb"),
    "convert": (["convert", "{source}", "{target}"], "out.npz"),
    "average": (["average", "{source}", "{source}", "--output", "{target}"], "out"),
    "rename": (["rename", "{source}", "layer1=x", "--output", "{target}"], "out"),
}


def arguments(command, source, directory):
    """Return a command's arguments, and its target."""
    words, name = COMMANDS[command]
    return [word.format(source=source, target=directory / name) for word in words], directory / name


@pytest.mark.parametrize("command", COMMANDS)
def test_existing_targets_are_not_overwritten(run, tmp_path, trained, command):
    """The command fails and changes no byte."""
    words, target = arguments(command, trained[0], tmp_path)
    run(*words)
    before = checkpoints.tree(tmp_path)
    assert f"{target}: exists already" in run(*words, status=1)
    assert checkpoints.tree(tmp_path) == before


@pytest.mark.parametrize("harm", [checkpoints.flip_a_bit, checkpoints.cut_in_half, checkpoints.empty, os.unlink])
@pytest.mark.parametrize("harmed", [(each, kind) for each in COMMANDS for kind in checkpoints.KINDS[:2]])
def test_damaged_checkpoints_are_refused(run, tmp_path, trained, harmed, harm):
    """The error names the file or the checkpoint, and nothing is written."""
    command, kind = harmed
    shutil.copytree(trained[0], tmp_path / "run")
    prefix = layout.prefix(tmp_path / "run", 4)
    harm(prefix.with_name(f"{prefix.name}.{kind}"))
    words, target = arguments(command, prefix, tmp_path)
    assert "model.ckpt-4" in run(*words, status=1)
    assert not target.exists()
    assert not layout.index_path(target).exists()


@pytest.mark.parametrize("harm", [checkpoints.cut_in_half, checkpoints.empty, os.unlink])
@pytest.mark.parametrize("command", ["export", "freeze"])
def test_a_damaged_graph_is_an_error(run, tmp_path, trained, command, harm):
    """The error names its file."""
    shutil.copytree(trained[0], tmp_path / "run")
    harm(layout.meta_path(layout.prefix(tmp_path / "run", 4)))
    words, target = arguments(command, tmp_path / "run", tmp_path)
    assert "model.ckpt-4.meta: " in run(*words, status=1)
    assert not target.exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_checkpoint_is_an_error(run, tmp_path, trained, command):
    """The error lists the existing ones. A target below a file is an error, too."""
    words, _ = arguments(command, layout.prefix(trained[0], 3), tmp_path)
    assert "there are model.ckpt-2, model.ckpt-4" in run(*words, status=1)
    (tmp_path / "file").touch()
    words, _ = arguments(command, trained[0], tmp_path / "file" / "deeper")
    run(*words, status=1)


@pytest.mark.parametrize("command", ["average", "rename", "convert"])
def test_the_names_of_a_runs_checkpoints_are_refused(run, tmp_path, trained, command):
    """A run that found one there would resume from it."""
    tensor_io.write_archive(tmp_path / "x.npz", {"layer1": np.zeros(1)})
    source = tmp_path / "x.npz" if command == "convert" else trained[0]
    words, _ = arguments(command, source, tmp_path)
    words[-1] = str(tmp_path / "model.ckpt-9")
    assert "the name of a run's own checkpoint cannot be used" in run(*words, status=1)
    assert not list(tmp_path.glob("model.ckpt*"))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_kill_leaves_no_partial_target(tmp_path, trained, command):
    """At every point, the target is complete or missing."""

    def act(directory):
        words, _ = arguments(command, trained[0], directory / "out")
        assert __main__.main(words) == 0

    kills = 0
    act(tmp_path)
    whole = checkpoints.tree(tmp_path / "out")
    for directory in checkpoints.every_kill(tmp_path / "kills", lambda _: None, act):
        kills += 1
        _, target = arguments(command, "", directory / "out")
        if (layout.index_path(target) if command in {"average", "rename"} else target).exists():
            assert whole.keys() <= checkpoints.tree(directory / "out").keys()
    assert kills > 3


def exporting(prefix, target):
    """Start a process that exports a checkpoint; return it when it has started to write."""
    words = [sys.executable, "-m", "checkpointing", "export", str(prefix), str(target)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(words, cwd=programs.ROOT, stdout=pipe, stderr=pipe, text=True)
    while not list(target.parent.glob(f"{target.name}.incomplete-*/output/saved_model.pb")):
        assert process.poll() is None, process.communicate()
    return process


def test_an_export_can_be_repeated_after_a_kill(tmp_path, trained):
    """After a real SIGKILL the same command succeeds, and deletes the leftovers."""
    process = exporting(trained[0], tmp_path / "out")
    process.kill()
    process.communicate()
    assert not (tmp_path / "out").exists()
    assert __main__.main(["export", str(trained[0]), str(tmp_path / "out")]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_of_two_exports_to_one_target_the_slower_fails(tmp_path, trained, run):
    """Stopped while it writes, it continues when the target exists: an error, and the target is unchanged."""
    process = exporting(layout.prefix(trained[0], 2), tmp_path / "out")
    process.send_signal(signal.SIGSTOP)
    run("export", trained[0], tmp_path / "out")
    before = checkpoints.tree(tmp_path / "out")
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate()
    assert (process.returncode, out) == (1, "")
    error, hint = err.splitlines()
    assert error == f"error: {tmp_path / 'out'}: exists already; exported models are not overwritten"
    assert hint == "hint: use another directory"
    assert checkpoints.tree(tmp_path / "out") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_wrong_usage_has_status_two(capsys):
    """A name without = is not a pair."""
    with pytest.raises(SystemExit) as ended:
        __main__.main(["rename", "x", "layer1", "--output", "y"])
    assert ended.value.code == 2
    assert "expected OLD=NEW or NAME=TENSOR, got 'layer1'" in capsys.readouterr().err


def test_a_renamed_checkpoint_has_no_object_graph(run, tmp_path, objects):
    """tf.train.Checkpoint's object graph holds the old names; the output says that it was left out."""
    text = run("rename", objects, "v=w", "--output", tmp_path / "renamed")
    assert "left out: _CHECKPOINTABLE_OBJECT_GRAPH" in text
    assert "w/.ATTRIBUTES/VARIABLE_VALUE" in Bundle(tmp_path / "renamed").entries
    assert "_CHECKPOINTABLE_OBJECT_GRAPH" not in Bundle(tmp_path / "renamed").entries


def test_two_new_names_for_one_are_refused(run, tmp_path, trained):
    """Neither is silently chosen."""
    assert "got two for one of them" in run(
        "rename", trained[0], "layer1=a", "layer1=b", "--output", tmp_path / "out", status=1
    )


@pytest.mark.parametrize("command", ["export", "freeze"])
def test_half_a_signature_is_refused(run, tmp_path, trained, command):
    """A signature needs inputs and outputs."""
    words = [command, trained[0], tmp_path / "out", "--input", "x=images:0"]
    assert "--input and --output: expected both, got one of them" in run(*words, status=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["export", "freeze"])
def test_a_graph_that_writes_files_is_refused(run, tmp_path, command):
    """Before anything is written; with --trust it is accepted."""
    victim = tmp_path / "victim"
    edit = hostile.write_before("save/restore_all", victim)
    own = hostile.save_checkpoint(tmp_path / "own", hostile.writing(victim))
    other = hostile.save_checkpoint(tmp_path / "other", hostile.writing(victim), edit=edit, signature=False)
    for prefix, flags in ((own, []), (other, ["--input=images=images:0", "--output=probabilities=probabilities:0"])):
        target = tmp_path / f"{prefix.name}-{command}.pb"
        error = run(command, prefix, target, *flags, status=1)
        assert re.fullmatch(
            rf"error: {prefix}.meta: expected a graph that only computes, got operation WriteFile at node \w+, "
            r"which writes files\nhint: pass --trust .*if you trust the author of the graph",
            error,
        )
        assert not victim.exists()
        assert not target.exists()
        run(command, prefix, target, *flags, "--trust")
        assert target.exists()


def test_an_asset_from_elsewhere_is_not_exported(run, tmp_path):
    """A graph may name any file of this machine, and exports are published."""
    (tmp_path / "secret.txt").write_text("zero\none\n")
    (tmp_path / "sent").mkdir()
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.int64, [None], name="x")
        kinds = (tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE)
        table = tf.lookup.StaticHashTable(tf.lookup.TextFileInitializer(str(tmp_path / "secret.txt"), *kinds), "?")
        tf.identity(table.lookup(x + v1.get_variable("offset", initializer=tf.constant(1, tf.int64))), name="y")
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "sent" / "model"))
    command = ("export", tmp_path / "sent" / "model", tmp_path / "out", "--input=x=x:0", "--output=y=y:0")
    assert f"got {tmp_path / 'secret.txt'} at node" in run(*command, status=1)
    assert not (tmp_path / "out").exists()
    run(*command, "--trust")
    assert list((tmp_path / "out" / "assets").iterdir()) != []
