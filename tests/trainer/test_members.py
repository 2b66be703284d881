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
from tests.ensembles import FLAGS, disturbed


def probabilities(export_dir, images):
    """What an exported model answers."""
    signature = tf.saved_model.load(str(export_dir)).signatures["serving_default"]
    return signature(images=tf.constant(images))["probabilities"].numpy()


def test_one_model_answers_the_average_of_its_members(small_data, ensemble, capsys):
    """Its accuracy is the one that was told, and each member is a run of its own, of the seeds asked for."""
    images = dataset.load(small_data, 200).test.images
    result = programs.result(ensemble)
    members = [programs.result(ensemble / f"seed-{seed}") for seed in (3, 4)]
    wanted = np.mean([probabilities(each["export_dir"], images) for each in members], axis=0)
    assert probabilities(result["export_dir"], images) == pytest.approx(wanted, rel=1e-3, abs=1e-5)
    assert [each["weights_sha256"] for each in result["members"]] == [each["weights_sha256"] for each in members]
    assert members[0]["weights_sha256"] != members[1]["weights_sha256"]
    for subject in (f"--saved_model={result['export_dir']}", f"--train_dir={ensemble}"):
        assert evaluate.main([subject, f"--data_dir={small_data}", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["accuracy"] == result["test_accuracy"]


def test_what_a_run_tells_an_ensemble_tells(ensemble):
    """Programs read the same names."""
    result = programs.result(ensemble)
    assert set(programs.result(ensemble / "seed-3")) == set(result) - {"members"}
    assert result["step"] == 60
    assert result["validation_accuracy"] is not None
    parts = {name: seconds for name, seconds in result["seconds"].items() if name != "total"}
    assert 0 < parts["train"] < sum(parts.values()) <= result["seconds"]["total"]


def test_the_report_of_the_whole_shows_the_members(ensemble, small_data, tmp_path):
    """Their curves and what each reached alone, besides the mistakes of the whole."""
    train_dir = shutil.copytree(ensemble, tmp_path / "run")
    programs.train("cnn", train_dir, f"--data_dir={small_data}", *FLAGS, "--report")
    page = (train_dir / "report.html").read_text()
    for each in programs.result(ensemble)["members"]:
        assert each["weights_sha256"] in page
    assert "2 members" in page
    assert "attempt" not in page
    pictures = {path.stem for path in (train_dir / "report").iterdir()}
    assert pictures >= {"learning-of-the-members", "mistakes-by-digit", "calibration"}


def test_killed_the_networks_end_as_a_run_does_that_is_left_alone(tmp_path, small_data, ensemble):
    """Each is such a run; its command line is the ensemble's, but for seed, train_dir and members."""
    alone = programs.train("cnn", tmp_path, f"--data_dir={small_data}", *FLAGS, "--members=1", "--seed=4")
    assert alone["weights_sha256"] == programs.result(ensemble)["members"][1]["weights_sha256"]


@pytest.mark.slow
def test_sigterm_reaches_whoever_is_at_work(tmp_path, small_data, ensemble):
    """Its state is saved, the status is 75, and the same command ends with the same weights."""
    status, _ = disturbed(tmp_path, small_data, signal.SIGTERM)
    assert status == 75
    assert programs.result(tmp_path)["weights_sha256"] == programs.result(ensemble)["weights_sha256"]


@pytest.mark.slow
def test_all_members_begin_with_the_same_weights(tmp_path, small_data, ensemble):
    """The directory that they come from is searched once, though a newer checkpoint appears there meanwhile."""
    source = shutil.copytree(ensemble / "seed-3", tmp_path / "source")
    flags = [f"--train_dir={tmp_path / 'run'}", f"--data_dir={small_data}", *FLAGS, f"--warm_start_from={source}"]
    run = programs.Watched("cnn", *flags)
    run.wait_for("seed-3/model.ckpt-20")
    checkpoints.make_checkpoint(source, 999)  # which no network fits
    assert run.end() == 0, run.said
    assert run.said.count(f"warm start from {source / 'model.ckpt-60'}: taken") == 2


@pytest.mark.slow
def test_run_again_it_finds_all_done(tmp_path, small_data, ensemble):
    """No checkpoint is written twice, and the model is compared, not exported again."""
    train_dir = shutil.copytree(ensemble, tmp_path / "run")
    files = {path: path.stat().st_mtime_ns for path in train_dir.glob("model.ckpt-*")}
    before = programs.result(train_dir)
    programs.train("cnn", train_dir, f"--data_dir={small_data}", *FLAGS)
    assert files
    assert {path: path.stat().st_mtime_ns for path in train_dir.glob("model.ckpt-*")} == files
    assert programs.result(train_dir)["test_accuracy"] == before["test_accuracy"]


def test_a_member_that_fails_ends_the_run_with_its_sentence(tmp_path, small_data):
    """And with its status."""
    flags = [f"--train_dir={tmp_path}", f"--data_dir={small_data}", *FLAGS, "--validation_size=5000"]
    ended = programs.run("cnn", *flags)
    assert ended.returncode == 1
    assert ended.stderr.count("error:") == 1


@pytest.mark.parametrize(
    ("flags", "status", "said"),
    [
        (["--restore_from=model.ckpt-1"], 2, "error: --restore_from found with --members=2"),
        (["--members=3"], 1, "members"),
        (["--train_steps=120"], 1, "train_steps"),
    ],
)
def test_what_cannot_be_joined_is_not_trained(small_data, ensemble, flags, status, said):
    """One sentence, at once, and all is as it was."""
    before = sorted(ensemble.rglob("*"))
    ended = programs.run("cnn", f"--train_dir={ensemble}", f"--data_dir={small_data}", *FLAGS, *flags)
    assert ended.returncode == status
    assert said in ended.stderr
    assert sorted(ensemble.rglob("*")) == before


def test_a_place_for_the_model_that_is_taken_is_refused_at_once(tmp_path, small_data):
    """Before anything is trained."""
    (tmp_path / "taken").mkdir()
    flags = [f"--train_dir={tmp_path}/run", f"--export_dir={tmp_path}/taken", f"--data_dir={small_data}"]
    ended = programs.run("cnn", *flags, *FLAGS)
    assert ended.returncode == 1
    assert "taken: exists already" in ended.stderr
    assert not list(tmp_path.glob("run/seed-*"))


def test_a_damaged_export_of_the_whole_is_made_again(tmp_path, small_data, ensemble):
    """The damaged one is in the quarantine of the whole's train_dir."""
    train_dir = shutil.copytree(ensemble, tmp_path / "run")
    target = train_dir / "saved_model" / "60"
    checkpoints.flip_a_bit(target / "saved_model.pb")
    damaged = checkpoints.tree(target)
    programs.train("cnn", train_dir, f"--data_dir={small_data}", *FLAGS)
    assert checkpoints.tree(target) == checkpoints.tree(ensemble / "saved_model" / "60")
    assert checkpoints.tree(train_dir / "quarantine" / "saved_model-60" / "60") == damaged
