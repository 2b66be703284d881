"""--warm_start_from: a run whose first weights come from another run's checkpoint."""

import logging
import re
import shutil

import numpy as np
import pytest

import train_cnn
import train_softmax
from checkpointing.errors import CheckpointError
from checkpointing.format import tensor_io
from checkpointing.storage import layout
from configs import flags
from tests import programs
from trainer import app

# A learning rate of 0 leaves the restored weights unchanged.
STAY = ["--learning_rate=0", "--train_steps=4", "--save_every_steps=2", "--batch_size=10"]


def train(train_dir, data_dir, *arguments, program="softmax"):
    """Run a program in this process; return its last checkpoint, tensors by name."""
    arguments = [
        f"--train_dir={train_dir}",
        f"--data_dir={data_dir}",
        "--validation_size=200",
        "--noreport",
        *arguments,
    ]
    options = flags.parse(program, ["train.py", *arguments])
    make_model = {"softmax": train_softmax, "cnn": train_cnn}[program].make_model
    assert app.main(options, make_model, program) == 0
    return tensor_io.read(layout.prefix(train_dir, options.settings.train_steps))


@pytest.fixture(scope="module")
def source(tmp_path_factory, small_data):
    """A checkpoint of a softmax after ten steps with momentum."""
    train_dir = tmp_path_factory.mktemp("source") / "run"
    train(train_dir, small_data, "--train_steps=10", "--optimizer=momentum", "--batch_size=10")
    return layout.prefix(train_dir, 10)


@pytest.fixture(autouse=True)
def messages(caplog):
    """The log."""
    caplog.set_level(logging.INFO)
    return caplog


def test_weights_are_restored_and_step_and_optimizer_are_not(tmp_path, small_data, source, messages):
    """They have their initial values; one log line lists what was restored, another what was not."""
    state = train(tmp_path, small_data, *STAY, "--optimizer=adam", f"--warm_start_from={source}")
    for name in ("layer1/weights", "layer1/biases"):
        assert state[name].tobytes() == tensor_io.read(source)[name].tobytes()
        assert state[name].any()
    assert state["global_step"] == 4
    assert [record["step"] for record in programs.metrics(tmp_path)][-1] == 4
    told = f"warm start from {re.escape(str(source))}: "
    assert re.search(told + "restored: layer1/weights, layer1/biases\n", messages.text)
    assert re.search(told + "unexpected in the checkpoint: global_step, .*Momentum", messages.text)
    assert programs.result(tmp_path)["resumed_from"] is None


def test_a_directory_stands_for_its_newest_checkpoint(tmp_path, small_data, source, messages):
    """Of a directory the newest checkpoint is used."""
    train(tmp_path, small_data, *STAY, f"--warm_start_from={source.parent}")
    assert f"warm start from {source}: restored" in messages.text


def test_a_pattern_selects_and_renames_map_names(tmp_path, small_data, source, messages):
    """The pattern matches names in this graph; other variables keep their initial values."""
    old = tensor_io.renamed(tensor_io.read(source), {"layer1": "hidden"})
    tensor_io.write(tmp_path / "old", old)
    flags = [f"--warm_start_from={tmp_path / 'old'}", "--warm_start_renames=hidden=layer1", "--warm_start_vars=.*/w"]
    state = train(tmp_path / "run", small_data, *STAY, *flags)
    assert state["layer1/weights"].tobytes() == old["hidden/weights"].tobytes()
    assert not state["layer1/biases"].any()
    assert "restored: hidden/weights as layer1/weights" in messages.text
    assert "not restored, missing or excluded: layer1/biases" in messages.text


def test_variables_of_equal_shape_are_restored_from_another_model(tmp_path, small_data, messages):
    """A log line lists the variables of other shapes with both shapes."""
    biases = np.linspace(0, 1, 32, dtype=np.float32)
    tensor_io.write(tmp_path / "old", {"layer1/biases": biases, "layer1/weights": np.zeros((784, 10), np.float32)})
    flags = ["--learning_rate=0", "--train_steps=1", "--batch_size=2", f"--warm_start_from={tmp_path / 'old'}"]
    state = train(tmp_path / "run", small_data, *flags, program="cnn")
    assert state["layer1/biases"].tobytes() == biases.tobytes()
    told = "shape or dtype differs: layer1/weights (expected float32 [5, 5, 1, 32], got float32 [784, 10])"
    assert told in messages.text


def test_nothing_to_take_is_an_error(tmp_path, small_data, source):
    """A cnn finds nothing of a softmax that fits: it does not train from its own start in silence."""
    message = r"no variable of the model can be restored.*layer1/biases \(expected float32 \[32\], got float32 \[10\]"
    with pytest.raises(CheckpointError, match=message):
        train(tmp_path, small_data, f"--warm_start_from={source}", program="cnn")
    assert not list(tmp_path.glob("model.ckpt*"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--warm_start_from={missing}"], "no checkpoint found; in .* there are model.ckpt-10"),
        (["--warm_start_from={source}", "--warm_start_renames=layr1=layer1"], "no tensor or scope is called layr1"),
        (["--warm_start_from={source}", "--warm_start_vars=nothing"], "no variable of the model can be restored"),
    ],
)
def test_a_wrong_name_is_an_error(tmp_path, small_data, source, flags, message):
    """The message lists what there is."""
    flags = [flag.format(source=source, missing=source.with_name("model.ckpt-11")) for flag in flags]
    with pytest.raises(CheckpointError, match=message):
        train(tmp_path, small_data, *STAY, *flags)


def test_the_same_command_resumes_and_another_is_refused(tmp_path, small_data, source):
    """The run's own checkpoint is used, though its origin is gone; other flags are listed as differences."""
    copy = tmp_path / "copy" / "model"
    copy.parent.mkdir()
    for path in layout.contents_of(source):
        shutil.copy(path, copy.with_name(path.name.replace(source.name, copy.name)))
    flags = ["--train_steps=6", "--save_every_steps=2", "--batch_size=10", f"--warm_start_from={copy}"]
    expected = train(tmp_path / "run", small_data, *flags)
    for path in layout.files_of(layout.prefix(tmp_path / "run", 6)):  # as a kill before the last save leaves it
        path.unlink()
    (tmp_path / "run" / "result.json").unlink()
    shutil.rmtree(copy.parent)
    found = train(tmp_path / "run", small_data, *flags)
    assert programs.result(tmp_path / "run")["resumed_from"].endswith("model.ckpt-4")
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in expected.items()
    }
    before = sorted(tmp_path.rglob("*"))
    others = ([*flags[:-1]], [*flags[:-1], f"--warm_start_from={source}"], [*flags, "--warm_start_vars=layer1/b"])
    for other in others:
        with pytest.raises(CheckpointError, match=r"was made with warm_start .*\(now ") as refused:
            train(tmp_path / "run", small_data, *other)
        assert "recorded settings" in refused.value.hint
        assert str(copy) in str(refused.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_killed_warm_start_ends_with_the_same_weights(tmp_path, small_data, source):
    """Killed before its first checkpoint it starts from the origin again, after it from its own checkpoint."""
    flags = ["--train_steps=2000", "--save_every_steps=500", "--evaluate_every_steps=0", f"--warm_start_from={source}"]
    flags += [f"--data_dir={small_data}", "--validation_size=200"]
    undisturbed = programs.train("softmax", tmp_path / "undisturbed", *flags)
    for line in ("warm start from", "saved "):
        run = programs.Watched("softmax", *flags, f"--train_dir={tmp_path / 'killed'}")
        run.wait_for(line)
        run.process.kill()
        run.end()
    found = programs.train("softmax", tmp_path / "killed", *flags)
    assert found["weights_sha256"] == undisturbed["weights_sha256"]
    assert found["restarts"] in {1, 2}  # the first kill may come before the attempt is recorded


def test_killed_before_its_first_checkpoint_it_restores_the_same_weights_again(tmp_path, small_data, source):
    """Though the origin's directory has a newer checkpoint meanwhile."""
    elsewhere = tmp_path / "source"
    shutil.copytree(source.parent, elsewhere, ignore=shutil.ignore_patterns("saved_model"))
    flags = [f"--data_dir={small_data}", "--validation_size=200", "--train_steps=40000", "--save_every_steps=20000"]
    flags += ["--evaluate_every_steps=0", "--log_every_steps=1000", "--batch_size=10", f"--warm_start_from={elsewhere}"]
    undisturbed = programs.train("softmax", tmp_path / "undisturbed", *flags)
    run = programs.Watched("softmax", f"--train_dir={tmp_path / 'run'}", *flags)
    run.wait_for("step 1000/")
    run.process.kill()
    run.end()
    assert not layout.steps_with(tmp_path / "run", "manifest.json")
    more = [f"--data_dir={small_data}", "--train_steps=20", "--optimizer=momentum", "--batch_size=10"]
    programs.train("softmax", elsewhere, *more, "--validation_size=200")
    assert layout.steps_with(elsewhere, "manifest.json")[-1] == 20
    again = programs.train("softmax", tmp_path / "run", *flags)
    assert again["weights_sha256"] == undisturbed["weights_sha256"]
    fresh = programs.train("softmax", tmp_path / "fresh", *flags)
    assert fresh["weights_sha256"] != undisturbed["weights_sha256"]  # otherwise the test could not fail
