"""An ensemble, from the command line to the exported model."""

import json
import signal

import numpy as np
import pytest
import tensorflow as tf

from mnist import dataset, evaluate
from tests import programs

FLAGS = [
    *("--members=2", "--seed=3", "--architecture=small", "--optimizer=adam", "--learning_rate=0.01"),
    *("--crops=2", "--ema_decay=0.5", "--dropout_rate=0", "--validation_size=200", "--batch_size=50"),
    *("--train_steps=60", "--save_every_steps=20", "--evaluate_every_steps=0", "--log_every_steps=10"),
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, small_data):
    """The train_dir of an ensemble that nobody disturbed."""
    train_dir = tmp_path_factory.mktemp("ensemble") / "run"
    programs.train("cnn", train_dir, f"--data_dir={small_data}", *FLAGS)
    return train_dir


def probabilities(export_dir, images):
    """What an exported model answers."""
    signature = tf.saved_model.load(str(export_dir)).signatures["serving_default"]
    return signature(images=tf.constant(images))["probabilities"].numpy()


def test_one_model_answers_the_average_of_its_members(small_data, undisturbed, capsys):
    """Its accuracy is the one that was told, and each member is a run of its own, of the seeds asked for."""
    images = dataset.load(small_data, 200).test.images
    result = programs.result(undisturbed)
    members = [programs.result(undisturbed / f"seed-{seed}") for seed in (3, 4)]
    wanted = np.mean([probabilities(each["export_dir"], images) for each in members], axis=0)
    assert probabilities(result["export_dir"], images) == pytest.approx(wanted, rel=1e-3, abs=1e-5)
    assert [each["weights_sha256"] for each in result["members"]] == [each["weights_sha256"] for each in members]
    assert members[0]["weights_sha256"] != members[1]["weights_sha256"]
    for subject in (f"--saved_model={result['export_dir']}", f"--train_dir={undisturbed}"):
        assert evaluate.main([subject, f"--data_dir={small_data}", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["accuracy"] == result["test_accuracy"]


def test_what_a_run_tells_an_ensemble_tells(undisturbed):
    """Programs read the same names."""
    result = programs.result(undisturbed)
    assert set(programs.result(undisturbed / "seed-3")) == set(result) - {"members"}
    assert result["step"] == 60
    assert result["validation_accuracy"] is not None
    parts = {name: seconds for name, seconds in result["seconds"].items() if name != "total"}
    assert 0 < parts["train"] < sum(parts.values()) <= result["seconds"]["total"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_or_killed_while_the_second_is_trained_it_ends_with_the_same_weights(
    tmp_path, small_data, undisturbed, number
):
    """The first is not trained again. SIGTERM reaches whoever is at work, and its state is saved."""
    train_dir = tmp_path / "run"
    flags = [f"--train_dir={train_dir}", f"--data_dir={small_data}", *FLAGS]
    watched = programs.Watched("cnn", *flags)
    watched.wait_for("seed-4/model.ckpt-20")
    watched.process.send_signal(number)
    assert watched.end() == (75 if number == signal.SIGTERM else -number)
    again = programs.run("cnn", *flags)
    assert again.returncode == 0, again.stderr
    assert "finished already: step 60" in again.stderr
    assert programs.result(train_dir)["weights_sha256"] == programs.result(undisturbed)["weights_sha256"]


def test_run_again_it_finds_all_done(small_data, undisturbed):
    """No checkpoint is written twice, and the model is compared, not exported again."""
    files = {path: path.stat().st_mtime_ns for path in undisturbed.glob("model.ckpt-*")}
    before = programs.result(undisturbed)
    programs.train("cnn", undisturbed, f"--data_dir={small_data}", *FLAGS)
    assert files
    assert {path: path.stat().st_mtime_ns for path in undisturbed.glob("model.ckpt-*")} == files
    assert programs.result(undisturbed)["test_accuracy"] == before["test_accuracy"]


def test_a_member_that_fails_ends_the_run_with_its_sentence(tmp_path, small_data):
    """And with its status."""
    flags = [f"--train_dir={tmp_path}", f"--data_dir={small_data}", *FLAGS, "--validation_size=5000"]
    ended = programs.run("cnn", *flags)
    assert ended.returncode == 1
    assert ended.stderr.count("error:") == 1
