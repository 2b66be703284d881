"""Settings of recipes (averages, normalization, augmentation) from the command line to the exported model."""

import json

import pytest
import tensorflow as tf

from mnist import evaluate
from tests import programs

EVERYTHING = [
    *("--architecture=small", "--optimizer=adam", "--learning_rate=0.01", "--learning_rate_schedule=one_cycle"),
    *("--label_smoothing=0.1", "--l2=1e-4", "--clip_gradient_norm=5", "--ema_decay=0.9", "--dropout_rate=0.1"),
    *("--augment_rotation=10", "--augment_zoom=0.1", "--augment_shear=0.1", "--augment_shift=2"),
    *("--validation_size=200", "--batch_size=50"),
    *("--train_steps=120", "--save_every_steps=20", "--evaluate_every_steps=40", "--log_every_steps=10"),
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, small_data):
    """The train_dir of an uninterrupted run with all these settings."""
    train_dir = tmp_path_factory.mktemp("everything") / "run"
    programs.train("cnn", train_dir, f"--data_dir={small_data}", *EVERYTHING)
    return train_dir


def test_a_resumed_run_has_the_state_of_an_undisturbed_one(tmp_path, small_data, undisturbed):
    """After SIGKILL: weights, averages, normalization and Adam's variables have the same digest."""
    killed = programs.Watched("cnn", f"--train_dir={tmp_path}", f"--data_dir={small_data}", *EVERYTHING)
    killed.wait_for("model.ckpt-40")
    killed.process.kill()
    killed.end()
    result = programs.train("cnn", tmp_path, f"--data_dir={small_data}", *EVERYTHING)
    assert result["resumed_from"]
    expected = programs.result(undisturbed)
    assert result["weights_sha256"] == expected["weights_sha256"]
    assert result["test_accuracy"] == expected["test_accuracy"]
    digests = [
        json.loads((train_dir / "model.ckpt-120.manifest.json").read_text())["state_digest"]
        for train_dir in (tmp_path, undisturbed)
    ]
    assert digests[0] == digests[1]


def test_the_exported_model_uses_the_averages(small_data, undisturbed, capsys):
    """It has the accuracy of the run, and only the averages as variables."""
    result = programs.result(undisturbed)
    flags = [f"--saved_model={result['export_dir']}", f"--data_dir={small_data}", "--json"]
    assert evaluate.main(flags) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == result["test_accuracy"]
    names = [name for name, _ in tf.train.list_variables(f"{result['export_dir']}/variables/variables")]
    assert names
    assert all(name.endswith("/ExponentialMovingAverage") for name in names)
    assert any("moving_variance" in name for name in names)


@pytest.mark.parametrize("program", ["softmax", "cnn"])
def test_an_unsupported_precision_is_an_error(tmp_path, small_data, program):
    """On a machine that supports it, the run succeeds."""
    flags = [f"--train_dir={tmp_path}/run", f"--data_dir={small_data}", "--precision=bfloat16"]
    ended = programs.run(program, *flags, "--train_steps=2", "--validation_size=200", "--batch_size=20")
    if ended.returncode == 0:
        assert programs.result(tmp_path / "run")["step"] == 2
    else:
        assert ended.returncode == 1
        assert ended.stderr.startswith("error: --precision=bfloat16:")
        assert ended.stderr.splitlines()[1:] == ["hint: train with --precision=float32, or on another machine"]
