import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from checkpointing import kernel_environment, processor
from checkpointing.graphs import meta_graphs
from checkpointing.protocol.manifest import Manifest
from checkpointing.storage import layout
from mnist.evaluate import main
from mnist.input import dataset
from mnist.model import networks
from tests import hostile, programs
from tests.checkpoints import flip_a_bit

SHORT = ["--train_steps=10"]
FLAGS = ["--validation_size=200", "--batch_size=20", "--save_every_steps=10", "--evaluate_every_steps=10"]


@pytest.fixture(scope="module")
def softmax(tmp_path_factory, small_data):
    """Return the train_dir of a finished softmax run whose checkpoints all have scores. Tests must not change it."""
    train_dir = tmp_path_factory.mktemp("softmax") / "run"
    programs.train("softmax", train_dir, f"--data_dir={small_data}", "--train_steps=40", *FLAGS)
    return train_dir


@pytest.fixture(scope="module")
def cnn(tmp_path_factory, small_data):
    """Return the same of the convolutional network."""
    train_dir = tmp_path_factory.mktemp("cnn") / "run"
    programs.train("cnn", train_dir, f"--data_dir={small_data}", "--train_steps=20", *FLAGS)
    return train_dir


@pytest.fixture(params=["softmax", "cnn"])
def run(request):
    """Return each of the two train_dirs with its result.json."""
    train_dir = request.getfixturevalue(request.param)
    return train_dir, programs.result(train_dir)


@pytest.fixture
def copy(softmax, tmp_path):
    """Return a copy of the softmax train_dir, which the test may change."""
    return shutil.copytree(softmax, tmp_path / "run")


@pytest.fixture
def evaluate(small_data, capsys):
    """Run the program on the small data; return its JSON, or its standard error if it `fails`."""

    def call(*arguments, fails=False):
        status = main([*map(str, arguments), f"--data_dir={small_data}", "--json"])
        printed = capsys.readouterr()
        assert status == int(fails), printed.err
        if not fails:
            return json.loads(printed.out)
        assert re.fullmatch(r"(warning: .*\n)*error: .*\n(hint: .*\n)?", printed.err), printed.err
        return printed.err

    return call


def steps_of(result):
    """Return the steps of --checkpoint=all --json."""
    return [each["step"] for each in result["checkpoints"]]


# Runs of this project.


def test_the_accuracy_is_that_of_result_json(run, evaluate):
    """The newest checkpoint has exactly the accuracies in result.json, on both splits."""
    train_dir, result = run
    record = evaluate(f"--train_dir={train_dir}")
    assert (record["step"], record["split"], record["images"]) == (result["step"], "test", 300)
    assert record["accuracy"] == result["test_accuracy"]
    assert record["accuracy"] == (300 - record["wrong"]) / 300
    assert evaluate(f"--train_dir={train_dir}", "--split=validation")["accuracy"] == result["validation_accuracy"]


def test_each_checkpoint_has_the_accuracy_that_training_logged(run, evaluate):
    """The accuracies of all checkpoints, in the order of steps, are those in metrics.jsonl and in the manifests."""
    train_dir, result = run
    record = evaluate(f"--train_dir={train_dir}", "--checkpoint=all", "--split=validation")
    logged = {each["step"]: each["validation_accuracy"] for each in programs.metrics(train_dir)}
    assert steps_of(record) == list(range(10, result["step"] + 1, 10))
    assert {each["step"]: each["accuracy"] for each in record["checkpoints"]} == logged
    best = max(logged, key=lambda step: (logged[step], -step))
    assert [each["step"] for each in record["checkpoints"] if "best" in each["notes"]] == [best]
    assert "latest" in record["checkpoints"][-1]["notes"]


@pytest.mark.parametrize("has_avx2", [True, False])
def test_the_instruction_set_is_that_of_the_run(tmp_path, small_data, capsys, monkeypatch, has_avx2):
    """On a processor without it the others are used, with a warning; the choice of this process is restored."""
    result = programs.train("softmax", tmp_path, f"--data_dir={small_data}", "--instruction_set=avx2", *SHORT, *FLAGS)
    monkeypatch.setattr(kernel_environment, "_instruction_set", "native")
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(processor, "has_avx2", lambda: has_avx2)
    assert main([f"--train_dir={tmp_path}", f"--data_dir={small_data}", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["accuracy"] == pytest.approx(result["test_accuracy"], abs=0.01)
    assert ("expected a processor with AVX2" in printed.err) == (not has_avx2)
    assert kernel_environment.choose_kernels()["instruction_set"] == "avx2" or not has_avx2


def test_the_graph_is_read_from_the_meta_file(softmax, evaluate, monkeypatch):
    """The code that built the graph is not needed."""
    monkeypatch.delattr(networks, "Softmax")
    monkeypatch.delattr(networks, "Cnn")
    assert evaluate(f"--train_dir={softmax}")["accuracy"] == programs.result(softmax)["test_accuracy"]


def test_equal_graphs_are_imported_once(softmax, tutorial, evaluate, monkeypatch):
    """Four checkpoints of one run need one import, and so do two of a plain Saver."""
    imports, restored = [], meta_graphs.restored
    monkeypatch.setattr(
        meta_graphs, "restored", lambda *args, **options: (imports.append(args), restored(*args, **options))[1]
    )
    assert len(evaluate(f"--train_dir={softmax}", "--checkpoint=all")["checkpoints"]) == 4
    assert len(imports) == 1
    evaluate(f"--train_dir={tutorial.parent}", "--checkpoint=all", *TENSORS, "--feed=keep_prob=1")
    assert len(imports) == 2


def test_checkpoints_with_different_graphs_are_evaluated(copy, evaluate, small_data):
    """The later checkpoints of a prolonged run have another graph."""
    flags = [f"--data_dir={small_data}", *FLAGS, "--train_steps=60"]
    result = programs.train("softmax", copy, *flags)
    record = evaluate(f"--train_dir={copy}", "--checkpoint=all")
    assert steps_of(record) == [20, 30, 40, 50, 60]
    assert record["checkpoints"][-1]["accuracy"] == result["test_accuracy"]
    before = evaluate(f"--train_dir={copy}", "--checkpoint=40")
    assert record["checkpoints"][2]["accuracy"] == before["accuracy"]


def test_best_is_the_highest_score_and_of_equal_ones_the_earliest(copy, evaluate):
    """This is the checkpoint that retention keeps as the best."""
    for step, score in ((10, 0.5), (20, 0.9), (30, 0.9), (40, 0.8)):
        path = layout.manifest_path(layout.prefix(copy, step))
        path.write_bytes(dataclasses.replace(Manifest.read(path), score=score).to_json())
    assert evaluate(f"--train_dir={copy}", "--checkpoint=best")["step"] == 20


def test_checkpoints_without_a_score_cannot_be_best(copy, capsys):
    """A warning counts those saved without a validation; if all were, it is an error."""
    for left, step in ((3, 10), (2, 20), (1, 30), (0, 40)):
        path = layout.manifest_path(layout.prefix(copy, step))
        path.write_bytes(dataclasses.replace(Manifest.read(path), score=None).to_json())
        assert main([f"--train_dir={copy}", "--checkpoint=best", "--data_dir=/nowhere"]) == 1
        output = capsys.readouterr().err
        assert f"best of {left} checkpoints; {4 - left} were saved without a validation" in output
    assert "error: " in output
    assert "no checkpoint with a validation score found; there are steps 10, 20, 30, 40\n" in output


def test_a_missing_step_is_an_error_that_lists_the_others(softmax, evaluate):
    """A step that exists is evaluated."""
    assert evaluate(f"--train_dir={softmax}", "--checkpoint", 20)["step"] == 20
    error = evaluate(f"--train_dir={softmax}", "--checkpoint=25", fails=True)
    assert "no checkpoint of step 25 found; there are steps 10, 20, 30, 40\n" in error


def test_a_missing_checkpoint_is_an_error(tmp_path, softmax, evaluate):
    """Directories without checkpoints, a prefix without files, and a checkpoint that is being written."""
    assert "no checkpoint found" in evaluate(f"--train_dir={tmp_path}", fails=True)
    assert "no checkpoint found" in evaluate(f"--train_dir={tmp_path / 'none'}", fails=True)
    missing = evaluate(f"--checkpoint={softmax / 'model'}", fails=True)
    assert f"checkpoints in {softmax}: model.ckpt-10, model.ckpt-20, model.ckpt-30, model.ckpt-40\n" in missing
    for kind in ("index", "incomplete"):
        (tmp_path / f"model.ckpt-5.{kind}").touch()
    assert "expected a complete checkpoint, got one that is being written or deleted" in evaluate(
        f"--checkpoint={tmp_path / 'model.ckpt-5'}", fails=True
    )
    assert "no checkpoint found" in evaluate(f"--train_dir={tmp_path}", fails=True)


@pytest.mark.parametrize("kind", ["data-00000-of-00001", "index", "meta", "manifest.json"])
def test_a_damaged_checkpoint_is_an_error(copy, evaluate, kind):
    """The error names the file. With --checkpoint=all the others are evaluated, and the exit status is 1."""
    flip_a_bit(copy / f"model.ckpt-30.{kind}")
    assert f"model.ckpt-30.{kind}: " in evaluate(f"--train_dir={copy}", "--checkpoint=30", fails=True)
    output = evaluate(f"--train_dir={copy}", "--checkpoint=all", fails=True)
    assert "error: 1 of 4 checkpoints could not be evaluated: " in output
    assert evaluate(f"--train_dir={copy}")["step"] == 40


def test_a_damaged_checkpoint_among_others_is_listed(copy, small_data, capsys):
    """In the JSON it has a problem and no accuracy; in the table it has a note."""
    flip_a_bit(copy / "model.ckpt-20.index")
    arguments = [f"--train_dir={copy}", "--checkpoint=all", f"--data_dir={small_data}"]
    assert main([*arguments, "--json"]) == 1
    checkpoints = json.loads(capsys.readouterr().out)["checkpoints"]
    assert [each["accuracy"] is None for each in checkpoints] == [False, True, False, False]
    assert "some of its bytes have changed" in checkpoints[1]["problem"]
    assert main(arguments) == 1
    row = capsys.readouterr().out.splitlines()[3]
    assert row.split() == ["20", "damaged"]


def test_a_checkpoint_that_retention_deletes_meanwhile_is_left_out(copy, evaluate, monkeypatch):
    """A run in progress may delete a checkpoint after it was listed."""
    read = meta_graphs.read_meta_graph

    def delete_and_read(path):
        if path.name == "model.ckpt-20.meta":
            for each in copy.glob("model.ckpt-20.*"):
                each.unlink()
        return read(path)

    monkeypatch.setattr(meta_graphs, "read_meta_graph", delete_and_read)
    assert steps_of(evaluate(f"--train_dir={copy}", "--checkpoint=all")) == [10, 30, 40]


def test_other_data_than_the_runs_give_a_warning(softmax, capsys):
    """The model is evaluated on them."""
    assert main([f"--train_dir={softmax}", "--checkpoint=10"]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("warning: the bundled MNIST: expected the run's data ")
    assert "images          10000\n" in printed.out


def test_the_validation_images_are_those_of_the_run(softmax, evaluate, capsys, small_data):
    """Their number is in the manifest; with more, a warning says that the model was trained on some."""
    assert evaluate(f"--train_dir={softmax}", "--split=validation")["images"] == 200
    arguments = [f"--train_dir={softmax}", "--split=validation", f"--data_dir={small_data}", "--validation_size=300"]
    assert main(arguments) == 0
    assert "expected at most the run's 200; the model was trained on some of these images" in capsys.readouterr().err


def test_a_graph_and_its_checkpoint_are_enough(softmax, tmp_path, evaluate):
    """Moved and renamed, without a manifest: the accuracy is the same, by the prefix and by the graph."""
    prefix = tmp_path / "my [model] 数" / "weights"
    prefix.parent.mkdir()
    for kind in ("meta", "index", "data-00000-of-00001"):
        shutil.copy(softmax / f"model.ckpt-40.{kind}", f"{prefix}.{kind}")
    for source in (f"--checkpoint={prefix}", f"--checkpoint={prefix}.index", f"--meta_graph={prefix}.meta"):
        record = evaluate(source)
        assert (record["accuracy"], record["step"]) == (programs.result(softmax)["test_accuracy"], None)


def test_the_graph_of_one_checkpoint_takes_the_weights_of_another(softmax, tmp_path, evaluate):
    """The graph may have any name, and the checkpoint may have no graph, as in a SavedModel."""
    shutil.copy(softmax / "model.ckpt-10.meta", tmp_path / "graph.bin")
    graph = f"--meta_graph={tmp_path / 'graph.bin'}"
    for prefix in (softmax / "model.ckpt-40", softmax / "saved_model" / "40" / "variables" / "variables"):
        assert evaluate(graph, f"--checkpoint={prefix}")["accuracy"] == programs.result(softmax)["test_accuracy"]


def test_a_damaged_graph_of_another_checkpoint_is_an_error(copy, evaluate):
    """Its hash is in the manifest of that checkpoint."""
    flip_a_bit(copy / "model.ckpt-10.meta")
    output = evaluate(
        f"--meta_graph={copy / 'model.ckpt-10.meta'}", f"--checkpoint={copy / 'model.ckpt-40'}", fails=True
    )
    assert "model.ckpt-10.meta: some of its bytes have changed" in output


def test_the_graph_of_another_model_is_an_error(cnn, softmax, evaluate):
    """The checkpoint lacks its variables."""
    graph, prefix = cnn / "model.ckpt-20.meta", softmax / "model.ckpt-40"
    assert "cannot be restored" in evaluate(f"--meta_graph={graph}", f"--checkpoint={prefix}", fails=True)


# SavedModels.


def test_the_exported_model_has_the_runs_accuracy(run, evaluate):
    """Accuracy and step of the SavedModel are those in result.json."""
    _, result = run
    record = evaluate(f"--saved_model={result['export_dir']}")
    assert (record["step"], record["accuracy"]) == (result["step"], result["test_accuracy"])


def test_errors_about_a_saved_model_list_its_contents(softmax, evaluate):
    """Tags, signatures, inputs, outputs, and SavedModels in the directories below."""
    model = f"--saved_model={softmax / 'saved_model' / '40'}"
    assert "expected a graph with tags train, got tags serve with" in evaluate(model, "--tags=train", fails=True)
    assert "no signature x; there are tags serve with" in evaluate(model, "--signature=x", fails=True)
    assert "got png:0 (string [None])" in evaluate(model, "--signature=png", fails=True)
    assert "one output of integers [N]" in evaluate(model, "--signature=labels", fails=True)
    assert "saved_model/40" in evaluate(f"--saved_model={softmax}", fails=True)


def test_a_damaged_export_is_an_error(copy, evaluate):
    """The export's manifest has the hashes."""
    flip_a_bit(copy / "saved_model" / "40" / "variables" / "variables.data-00000-of-00001")
    output = evaluate(f"--saved_model={copy / 'saved_model' / '40'}", fails=True)
    assert "variables.data-00000-of-00001: some of its bytes have changed" in output


@pytest.fixture(scope="module")
def weights(small_data):
    """Return a linear classifier made of the classes' mean images (float32 [784, 10] and [10]) and its accuracy."""
    data = dataset.load(small_data, 0)
    pixels = data.train.images.reshape(-1, 784).astype(np.float32) / 255
    means = np.stack([pixels[data.train.labels == digit].mean(axis=0) for digit in range(10)], axis=1)
    bias = -(means**2).sum(axis=0) / 2
    logits = data.test.images.reshape(-1, 784).astype(np.float32) / 255 @ means + bias
    accuracy = float(np.mean(logits.argmax(axis=1) == data.test.labels))
    assert 0.6 < accuracy < 0.9
    return means, bias, accuracy


@pytest.mark.parametrize("answer", ["classes", "digits", "logits"])
def test_a_model_of_plain_tensorflow_2(tmp_path, evaluate, weights, answer):
    """The signature of a tf.Module has one input, and outputs classes or ten scores."""
    means, bias, accuracy = weights

    class Linear(tf.Module):
        def __init__(self):
            super().__init__()
            self.means, self.bias = tf.Variable(means), tf.Variable(bias)

        @tf.function(input_signature=[tf.TensorSpec([None, 28, 28, 1], tf.float32, name="x")])
        def __call__(self, x):
            logits = tf.reshape(x, [-1, 784]) @ self.means + self.bias
            return {answer: logits if answer == "logits" else tf.argmax(logits, axis=1), "names": tf.as_string(logits)}

    model = Linear()
    tf.saved_model.save(model, str(tmp_path / "1"), signatures=model.__call__)
    record = evaluate(f"--saved_model={tmp_path / '1'}")
    assert record["accuracy"] == accuracy
    assert (record["scaled"], record["step"]) == (True, None)


def test_a_model_that_keras_exported(tmp_path, evaluate, weights):
    """The SavedModel of model.export() is evaluated by its signature."""
    means, bias, accuracy = weights
    layers = [tf.keras.layers.Input((28, 28)), tf.keras.layers.Flatten(), tf.keras.layers.Dense(10)]
    model = tf.keras.Sequential(layers)
    model.layers[-1].set_weights([means, bias])
    model.export(tmp_path / "1", verbose=False)
    assert evaluate(f"--saved_model={tmp_path / '1'}")["accuracy"] == accuracy


# Graphs of other programs.


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory, weights):
    """Return the newer of two checkpoints as the tutorial writes them: float pixels, dropout, a plain Saver."""
    prefix = tmp_path_factory.mktemp("tutorial") / "model.ckpt"
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 784], name="x")
        v1.placeholder(tf.float32, [None, 10], name="y_")
        keep_prob = v1.placeholder(tf.float32, [], name="keep_prob")
        means, bias = (
            v1.Variable(array, name=name, use_resource=False) for name, array in zip("Wb", weights, strict=False)
        )
        logits = tf.add(tf.nn.dropout(x, rate=1 - keep_prob, seed=1) @ means, bias, name="y")
        tf.argmax(logits, axis=1, name="digit")
        tf.reduce_max(logits, axis=1, name="largest")
        tf.constant([5], name="always")
        always_7 = means.assign(weights[0] * 0), bias.assign(np.eye(10)[7])
        # The names in the checkpoint are not those of the variables.
        saver = v1.train.Saver({"weights": means, "biases": bias})
        initialize = v1.global_variables_initializer()
        session.run(always_7)
        saver.save(session, str(prefix), global_step=5)
        session.run(initialize)
        saver.save(session, str(prefix), global_step=7)
    return prefix.with_name("model.ckpt-7")


TENSORS = ["--images_tensor=x:0", "--answers_tensor=y:0"]


@pytest.mark.parametrize("answers", ["y:0", "digit"])
def test_the_tutorials_own_graph(tutorial, evaluate, weights, answers):
    """With its tensors named and dropout off, the accuracy is that of its weights."""
    flags = ["--images_tensor=x:0", f"--answers_tensor={answers}", "--feed=keep_prob:0=1.0"]
    for source in (f"--checkpoint={tutorial}", f"--train_dir={tutorial.parent}", f"--meta_graph={tutorial}.meta"):
        record = evaluate(source, *flags)
        assert (record["accuracy"], record["step"], record["scaled"]) == (weights[2], 7, True)


def test_the_newest_of_a_plain_saver_is_the_one_that_its_state_file_names(tutorial, evaluate, small_data, tmp_path):
    """Also with --checkpoint=latest; a user who edits the file goes back."""
    directory = shutil.copytree(tutorial.parent, tmp_path / "edited")
    (directory / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-5"\n')
    sevens = np.mean(dataset.load(small_data, 0).test.labels == 7)
    record = evaluate(f"--train_dir={directory}", *TENSORS, "--feed=keep_prob=1")
    assert (record["step"], record["accuracy"]) == (5, sevens)


def test_all_checkpoints_of_a_plain_saver(tutorial, evaluate, small_data, weights):
    """One checkpoint always predicts 7, the other is good; neither has a score."""
    source, flags = f"--train_dir={tutorial.parent}", [*TENSORS, "--feed=keep_prob=1"]
    record = evaluate(source, "--checkpoint=all", *flags)
    sevens = np.mean(dataset.load(small_data, 0).test.labels == 7)
    assert {each["step"]: each["accuracy"] for each in record["checkpoints"]} == {5: sevens, 7: weights[2]}
    assert "no checkpoint with a validation score found" in evaluate(source, "--checkpoint=best", *flags, fails=True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "no signature found\nhint: give --images_tensor"),
        (["--images_tensor=z", "--answers_tensor=y:0"], "no tensor z found"),
        (["--images_tensor=x:0", "--answers_tensor=z:0"], "no tensor z:0 found"),
        ([*TENSORS], "You must feed a value for placeholder tensor 'keep_prob'"),
        ([*TENSORS, "--feed=keep=1"], "no tensor keep found"),
        ([*TENSORS, "--feed=keep_prob=[1, 2]"], "--feed=keep_prob: expected a value of float32 [], got [1, 2]"),
        ([*TENSORS, "--feed=keep_prob=half"], "--feed=keep_prob: expected a value of float32 [], got half"),
        (["--images_tensor=y_", "--answers_tensor=y"], "got y_:0 (float32 [None, 10])"),
        (["--images_tensor=x", "--answers_tensor=largest"], "got largest:0 (float32 [None])"),
        (["--images_tensor=x", "--answers_tensor=always"], "expected predictions [300], one per image, got [1]"),
    ],
)
def test_errors_about_a_foreign_graph_list_its_tensors(tutorial, evaluate, arguments, sentence):
    """The error says what is wrong, and lists the tensors that could be named."""
    output = evaluate(f"--checkpoint={tutorial}", *arguments, fails=True)
    assert sentence in output
    if "a value of float32 []" not in output:
        assert (
            "its placeholders are x:0 (float32 [None, 784]), y_:0 (float32 [None, 10]), keep_prob:0 (float32 [])"
            in output
        )
        assert "y:0 (float32 [None, 10]), digit:0 (int64 [None])" in output


def test_a_checkpoint_without_a_graph_is_an_error(tutorial, tmp_path, evaluate):
    """The error names the missing file."""
    shutil.copy(f"{tutorial}.index", tmp_path / "model.index")
    assert f"{tmp_path / 'model.meta'}: no graph can be read there" in evaluate(
        f"--checkpoint={tmp_path / 'model'}", fails=True
    )


# The command line.


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--split=train", "--train_dir=x"],
        ["--checkpoint=best"],
        ["--checkpoint=100"],
        ["--checkpoint="],
        ["--train_dir="],
        ["--train_dir=x", "--checkpoint=some/prefix"],
        ["--train_dir=x", "--saved_model=y"],
        ["--train_dir=x", "--meta_graph=y.meta"],
        ["--saved_model=x", "--checkpoint=y"],
        ["--meta_graph=graph.pb"],
        ["--meta_graph=x.meta", "--checkpoint=all"],
        ["--train_dir=x", "--tags=serve"],
        ["--train_dir=x", "--images_tensor=x:0"],
        ["--saved_model=x", "--signature=s", *TENSORS],
        ["--train_dir=x", "--feed=keep_prob"],
        ["--train_dir=x", "--validation_size=10"],
        ["--train_dir=x", "--split=validation", "--validation_size=0"],
        ["--train=x"],
    ],
)
def test_flags_that_contradict_each_other_are_a_usage_error(arguments, capsys):
    """The exit status is 2, before any file is read."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "python -m mnist.evaluate: error: " in capsys.readouterr().err


def test_help_imports_neither_tensorflow_nor_numpy():
    """--help answers at once."""
    command = [sys.executable, "-X", "importtime", "-m", "mnist.evaluate", "--help"]
    ended = subprocess.run(command, cwd=programs.ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert "--images_tensor" in ended.stdout
    assert not re.search(r"\| +(tensorflow|numpy)\b", ended.stderr)


def test_checkpoints_are_verified_before_tensorflow_is_imported(copy, monkeypatch, capsys):
    """A damaged checkpoint is an error before the data are read, too."""
    flip_a_bit(copy / "model.ckpt-40.index")
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.setitem(sys.modules, "mnist.input.dataset", None)
    assert main([f"--train_dir={copy}"]) == 1
    assert "model.ckpt-40.index" in capsys.readouterr().err


def test_the_output_is_a_few_lines(softmax, small_data):
    """In a new process, nothing is printed to standard error."""
    command = [sys.executable, "-m", "mnist.evaluate", "--train_dir", softmax, "--data_dir", small_data]
    ended = subprocess.run(command, cwd=programs.ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    accuracy = programs.result(softmax)["test_accuracy"]
    wrong = round(300 * (1 - accuracy))
    assert ended.stdout.splitlines() == [
        f"checkpoint      {softmax / 'model.ckpt-40'}",
        "step            40",
        "split           test",
        "images          300",
        f"accuracy        {accuracy:.4f}",
        f"errors          {wrong} of 300",
        f"standard error  {(accuracy * (1 - accuracy) / 300) ** 0.5:.4f}",
    ]
    ended = subprocess.run(
        [*command, "--checkpoint", "all"], cwd=programs.ROOT, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    header, _, *rows = ended.stdout.splitlines()
    assert header.split() == ["step", "test", "accuracy", "errors", "notes"]
    assert [row.split()[0] for row in rows] == ["10", "20", "30", "40"]
    assert rows[-1].split()[1:5] == [f"{accuracy:.4f}", str(wrong), "of", "300"]


def test_a_model_that_writes_files_is_refused(evaluate, tmp_path):
    """The scan covers what is run, by signature and by tensors; parts that are not run do no harm; --trust runs all."""
    victim = tmp_path / "victim"
    model = hostile.save(tmp_path / "1", hostile.writing(victim))
    prefix = hostile.save_checkpoint(tmp_path / "model", hostile.writing(victim))
    tensors = ("--images_tensor=images", "--answers_tensor=probabilities")
    harmless = ("--images_tensor=images", "--answers_tensor=ArgMax:0")
    for flag in (f"--saved_model={model}", f"--checkpoint={prefix}"):
        for how in ((), tensors):
            record = evaluate(flag, *how, fails=True)
            assert (
                "expected a graph that only computes, got operation WriteFile at node WriteFile, which writes" in record
            )
        assert evaluate(flag, *harmless)["images"] == 300
        assert not victim.exists()
        evaluate(flag, *tensors, "--trust")
        assert victim.exists()
        victim.unlink()
