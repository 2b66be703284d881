"""An ensemble, from the command line to the exported model."""

import json
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf

from mnist import evaluate
from mnist.input import dataset
from tests import checkpoints, programs
from tests.ensembles import FLAGS, train_disturbed


def probabilities(export_dir, images):
    """Return the probabilities that an exported model predicts."""
    signature = tf.saved_model.load(str(export_dir)).signatures["serving_default"]
    return signature(images=tf.constant(images))["probabilities"].numpy()


def test_the_ensembles_probabilities_are_the_mean_of_its_members(small_data, ensemble, capsys):
    """Its accuracy is that of result.json, and each member is a run with its own seed."""
    images = dataset.load(small_data, 200).test.images
    result = programs.result(ensemble)
    members = [programs.result(ensemble / f"seed-{seed}") for seed in (3, 4)]
    expected = np.mean([probabilities(each["export_dir"], images) for each in members], axis=0)
    assert probabilities(result["export_dir"], images) == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert [each["weights_sha256"] for each in result["members"]] == [each["weights_sha256"] for each in members]
    assert members[0]["weights_sha256"] != members[1]["weights_sha256"]
    for subject in (f"--saved_model={result['export_dir']}", f"--train_dir={ensemble}"):
        assert evaluate.main([subject, f"--data_dir={small_data}", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["accuracy"] == result["test_accuracy"]


def test_an_ensembles_result_has_the_fields_of_a_run(ensemble):
    """With the members' results in addition."""
    result = programs.result(ensemble)
    assert set(programs.result(ensemble / "seed-3")) == set(result) - {"members"}
    assert result["step"] == 60
    assert result["validation_accuracy"] is not None
    parts = {name: seconds for name, seconds in result["seconds"].items() if name != "total"}
    assert 0 < parts["train"] < sum(parts.values()) <= result["seconds"]["total"]


def test_the_ensembles_report_shows_the_members(ensemble, small_data, tmp_path):
    """Their curves and accuracies, and the errors of the ensemble."""
    train_dir = shutil.copytree(ensemble, tmp_path / "run")
    programs.train("cnn", train_dir, f"--data_dir={small_data}", *FLAGS, "--report")
    page = (train_dir / "report.html").read_text()
    for each in programs.result(ensemble)["members"]:
        assert each["weights_sha256"] in page
    assert "2 members" in page
    assert "attempt" not in page
    pictures = {path.stem for path in (train_dir / "report").iterdir()}
    assert pictures >= {"learning-curves-of-the-members", "confusion-matrix", "reliability-diagram"}


def test_members_of_a_killed_ensemble_equal_undisturbed_runs(tmp_path, small_data, ensemble):
    """A member's command line is the ensemble's but for seed, train_dir and members."""
    alone = programs.train("cnn", tmp_path, f"--data_dir={small_data}", *FLAGS, "--members=1", "--seed=4")
    assert alone["weights_sha256"] == programs.result(ensemble)["members"][1]["weights_sha256"]


@pytest.mark.slow
def test_sigterm_stops_the_member_that_is_trained(tmp_path, small_data, ensemble):
    """Its state is saved, the exit status is 75, and the same command ends with the same weights."""
    status, _ = train_disturbed(tmp_path, small_data, signal.SIGTERM)
    assert status == 75
    assert programs.result(tmp_path)["weights_sha256"] == programs.result(ensemble)["weights_sha256"]


@pytest.mark.slow
def test_all_members_begin_with_the_same_weights(tmp_path, small_data, ensemble):
    """The source is pinned once, though a newer checkpoint appears in its directory meanwhile."""
    source = shutil.copytree(ensemble / "seed-3", tmp_path / "source")
    flags = [f"--train_dir={tmp_path / 'run'}", f"--data_dir={small_data}", *FLAGS, f"--warm_start_from={source}"]
    run = programs.Watched("cnn", *flags)
    run.wait_for("seed-3/model.ckpt-20")
    checkpoints.make_checkpoint(source, 999)  # of no network
    assert run.end() == 0, run.said
    assert run.said.count(f"warm start from {source / 'model.ckpt-60'}: restored") == 2


@pytest.mark.slow
def test_a_finished_ensemble_run_again_writes_no_checkpoint(tmp_path, small_data, ensemble):
    """The model is compared with the export, not exported again."""
    train_dir = shutil.copytree(ensemble, tmp_path / "run")
    files = {path: path.stat().st_mtime_ns for path in train_dir.glob("model.ckpt-*")}
    before = programs.result(train_dir)
    programs.train("cnn", train_dir, f"--data_dir={small_data}", *FLAGS)
    assert files
    assert {path: path.stat().st_mtime_ns for path in train_dir.glob("model.ckpt-*")} == files
    assert programs.result(train_dir)["test_accuracy"] == before["test_accuracy"]


def test_a_failed_member_ends_the_run_with_its_error(tmp_path, small_data):
    """And with its exit status."""
    flags = [f"--train_dir={tmp_path}", f"--data_dir={small_data}", *FLAGS, "--validation_size=5000"]
    ended = programs.run("cnn", *flags)
    assert ended.returncode == 1
    assert ended.stderr.count("error:") == 1


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--restore_from=model.ckpt-1"], 2, "error: --restore_from: expected no checkpoint with --members=2"),
        (["--members=3"], 1, "members"),
        (["--train_steps=120"], 1, "train_steps"),
    ],
)
def test_flags_that_cannot_be_joined_are_refused_before_training(small_data, ensemble, flags, status, message):
    """Nothing in the train_dir changes."""
    before = sorted(ensemble.rglob("*"))
    ended = programs.run("cnn", f"--train_dir={ensemble}", f"--data_dir={small_data}", *FLAGS, *flags)
    assert ended.returncode == status
    assert message in ended.stderr
    assert sorted(ensemble.rglob("*")) == before


def test_an_existing_export_dir_is_refused_before_training(tmp_path, small_data):
    """No member is started."""
    (tmp_path / "taken").mkdir()
    flags = [f"--train_dir={tmp_path}/run", f"--export_dir={tmp_path}/taken", f"--data_dir={small_data}"]
    ended = programs.run("cnn", *flags, *FLAGS)
    assert ended.returncode == 1
    assert "taken: exists already" in ended.stderr
    assert not list(tmp_path.glob("run/seed-*"))


def test_a_damaged_export_of_the_ensemble_is_exported_again(tmp_path, small_data, ensemble):
    """The damaged one is moved to the quarantine of the ensemble's train_dir."""
    train_dir = shutil.copytree(ensemble, tmp_path / "run")
    target = train_dir / "saved_model" / "60"
    checkpoints.flip_a_bit(target / "saved_model.pb")
    damaged = checkpoints.tree(target)
    programs.train("cnn", train_dir, f"--data_dir={small_data}", *FLAGS)
    assert checkpoints.tree(target) == checkpoints.tree(ensemble / "saved_model" / "60")
    assert checkpoints.tree(train_dir / "quarantine" / "saved_model-60" / "60") == damaged
