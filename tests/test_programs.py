"""Both programs as a user runs them: train, stop, resume, export."""

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from checkpointing.storage.fingerprint import weights_sha256
from mnist.input import dataset
from tests import checkpoints as checkpoint_files
from tests import programs

# Seconds rather than minutes.
SHORT = {
    "softmax": ["--train_steps=60", "--batch_size=20", "--save_every_steps=10", "--log_every_steps=5"],
    "cnn": ["--train_steps=30", "--batch_size=20", "--save_every_steps=5", "--log_every_steps=5"],
}
# Long enough that a signal finds it training.
ENDLESS = ["--train_steps=100000000", "--save_every_steps=0", "--evaluate_every_steps=0", "--log_every_steps=1000"]

RESULT_FIELDS = {
    "config",
    "environment",
    "seed",
    "step",
    "train_images",
    "validation_accuracy",
    "test_accuracy",
    "weights_sha256",
    "checkpoint",
    "export_dir",
    "resumed_from",
    "images_per_second",
    "seconds",
    "steps_redone",
    "restarts",
    "versions",
    "machine",
}


def checkpoints(train_dir):
    """The names in TensorFlow's state file."""
    state = tf.train.get_checkpoint_state(str(train_dir))
    return [Path(path).name for path in state.all_model_checkpoint_paths]


def fails(program, *flags, anew=False):
    """Runs a program that must end with exit status 1; gives its one sentence."""
    ended = programs.run(program, *flags, anew=anew)
    assert ended.returncode == 1, ended.stdout
    lines = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    return lines[0]


def wait_for_training(process):
    """Waits until a run has logged a step."""
    while "step " not in (line := process.stderr.readline()):
        assert line, "the run ended before its first logged step"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_data):
    """A softmax run on small data that has ended; tests only read it, or copy it."""
    train_dir = tmp_path_factory.mktemp("finished") / "run"
    flags = [f"--data_dir={small_data}", "--validation_size=200", *SHORT["softmax"]]
    programs.train("softmax", train_dir, *flags)
    return train_dir, flags


def test_the_tutorials_softmax_reaches_its_accuracy(tmp_path):
    """1000 steps of 100 on real MNIST give at least 0.915 on the test set, and five whole checkpoints."""
    result = programs.train("softmax", tmp_path / "run", f"--data_dir={dataset.BUNDLED}")
    assert result["step"] == 1000
    assert result["test_accuracy"] >= 0.915
    assert result["train_images"] == 55_000
    assert checkpoints(tmp_path / "run") == [f"model.ckpt-{step}" for step in (200, 400, 600, 800, 1000)]
    for name in checkpoints(tmp_path / "run"):
        for kind in ("data-00000-of-00001", "index", "meta"):
            assert (tmp_path / "run" / f"{name}.{kind}").is_file()


@pytest.mark.slow
def test_the_tutorials_cnn_reaches_its_accuracy(tmp_path):
    """With its default settings the cnn gets at least 0.99 of the test set right."""
    assert programs.train("cnn", tmp_path / "run")["test_accuracy"] >= 0.99


@pytest.mark.parametrize("program", ["softmax", "cnn"])
def test_a_run_stopped_by_a_signal_goes_on_to_the_same_bits(tmp_path, small_data, program):
    """SIGTERM saves and exits 75; run again, the weights are those of a run left alone."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", "--save_every_steps=0", "--batch_size=20"]
    flags += {
        "softmax": ["--train_steps=20000", "--log_every_steps=200"],
        "cnn": ["--train_steps=120", "--log_every_steps=10"],
    }[program]
    undisturbed = programs.train(program, tmp_path / "undisturbed", *flags)
    process = programs.start(program, f"--train_dir={tmp_path / 'stopped'}", *flags, anew=True)
    wait_for_training(process)
    process.terminate()
    stdout, stderr = process.communicate()
    assert process.returncode == 75, stderr
    assert "stopped by SIGTERM" in stdout
    assert "run the same command again" in stdout
    [checkpoint] = checkpoints(tmp_path / "stopped")

    result = programs.train(program, tmp_path / "stopped", *flags, anew=True)
    assert result["weights_sha256"] == undisturbed["weights_sha256"]
    assert result["resumed_from"] == str(tmp_path / "stopped" / checkpoint)
    assert (result["restarts"], result["steps_redone"]) == (1, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_heard_within_a_second(tmp_path, small_data, number):
    """However long the run, the process ends within the call that is under way and the save that follows."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", f"--train_dir={tmp_path}", *ENDLESS]
    process = programs.start("softmax", *flags)
    wait_for_training(process)
    sent = time.monotonic()
    process.send_signal(number)
    process.communicate()
    assert process.returncode == 75
    assert time.monotonic() - sent < 3  # a generous bound for a busy machine; a call aims at 0.4 s


def test_a_signal_during_startup_is_heard(tmp_path, small_data):
    """A run asked to stop before its first step stops there, with exit status 75."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", f"--train_dir={tmp_path / 'run'}", *ENDLESS]
    process = programs.start("softmax", *flags, anew=True)
    while not (tmp_path / "run").exists():
        time.sleep(0.01)
    process.terminate()
    process.communicate()
    assert process.returncode == 75


@pytest.mark.parametrize(
    ("program", "variables"),
    [
        ("softmax", {"TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit", "DNNL_MAX_CPU_ISA": "SSE41"}),
        ("cnn", {"ONEDNN_MAX_CPU_ISA": "AVX2", "TF_ONEDNN_ASSUME_FROZEN_WEIGHTS": "1", "TF_ENABLE_ONEDNN_OPTS": "0"}),
    ],
)
def test_environment_variables_do_not_change_the_weights(tmp_path, small_data, monkeypatch, program, variables):
    """Those that would are ignored, in a process that supervises its run and in the run, and each warns of it once."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", *SHORT[program]]
    undisturbed = programs.train(program, tmp_path / "undisturbed", *flags)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ended = programs.run(program, f"--train_dir={tmp_path / 'run'}", *flags, "--max_restarts=1", anew=True)
    assert ended.returncode == 0, ended.stderr
    result = programs.result(tmp_path / "run")
    assert result["weights_sha256"] == undisturbed["weights_sha256"]
    assert result["environment"] == undisturbed["environment"]
    (warning,) = [line for line in ended.stderr.splitlines() if "ignored" in line]
    assert all(name in warning for name in variables)


def test_a_variable_that_differs_on_resume_is_reported(tmp_path, small_data, monkeypatch):
    """What cannot be undone once Python runs, as the choice among glibc's functions, is recorded and compared."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", f"--train_dir={tmp_path}", *SHORT["softmax"]]
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=1")
    assert "environment variables" not in programs.run("softmax", *flags).stderr
    assert "environment variables" not in programs.run("softmax", *flags).stderr
    monkeypatch.delenv("GLIBC_TUNABLES")
    said = programs.run("softmax", *flags).stderr
    change = "GLIBC_TUNABLES glibc.malloc.check=1 (now unset)"
    assert f"{tmp_path} was made with environment variables {change}: the last bits may differ" in said


@pytest.mark.parametrize("at", ["validation", "export"])
def test_a_signal_is_heard_wherever_the_run_is(tmp_path, small_data, at):
    """In the middle of a validation or of the export: exit 75, and the same command gives the undisturbed run."""
    flags = [f"--data_dir={small_data}", "--validation_size=600", "--batch_size=20", "--log_every_steps=10"]
    flags += {
        "validation": ["--train_steps=300", "--save_every_steps=0", "--evaluate_every_steps=1"],
        "export": ["--train_steps=600", "--save_every_steps=0", "--evaluate_every_steps=0"],
    }[at]
    undisturbed = programs.train("softmax", tmp_path / "undisturbed", *flags)
    run = programs.Watched("softmax", f"--train_dir={tmp_path / 'run'}", *flags)
    run.wait_for({"validation": "step 50/300", "export": "saved "}[at])
    run.process.terminate()
    assert run.end() == 75, run.said
    assert "stopped by SIGTERM, the state is saved" in run.said
    assert not (tmp_path / "run" / "result.json").exists()
    result = programs.train("softmax", tmp_path / "run", *flags)
    assert result["weights_sha256"] == undisturbed["weights_sha256"]
    for one, other in zip(programs.metrics(tmp_path / "run"), programs.metrics(tmp_path / "undisturbed"), strict=True):
        assert one | {"images_per_second": 0} == other | {"images_per_second": 0}


def test_a_second_run_in_the_same_train_dir_is_refused(tmp_path, small_data):
    """It says who holds it; the first goes on, and once it is dead its lock is taken."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", f"--train_dir={tmp_path}", *ENDLESS]
    first = programs.start("softmax", *flags)
    wait_for_training(first)
    second = programs.run("softmax", *flags)
    assert second.returncode == 1
    assert second.stderr.startswith(f"error: {tmp_path}: in use by process {first.pid} on ")
    first.kill()
    first.communicate()
    third = programs.start("softmax", *flags)
    wait_for_training(third)
    third.terminate()
    third.communicate()
    assert third.returncode == 75


def test_a_supervised_run_is_started_again_when_it_crashes(tmp_path, small_data):
    """The parent sees to it; the result is that of a run left alone, and says how often it was started again."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", "--train_steps=20000", "--save_every_steps=1000"]
    flags += ["--evaluate_every_steps=0", "--log_every_steps=1000"]
    undisturbed = programs.train("softmax", tmp_path / "undisturbed", *flags)
    run = programs.Watched("softmax", f"--train_dir={tmp_path / 'run'}", *flags, "--max_restarts=3")
    for _ in range(2):
        run.wait_for("saved ")
        os.kill(json.loads((tmp_path / "run" / "lock").read_text())["pid"], signal.SIGKILL)
        run.wait_for("the run died of SIGKILL")
    assert run.end() == 0, run.said
    result = programs.result(tmp_path / "run")
    assert result["weights_sha256"] == undisturbed["weights_sha256"]
    assert result["restarts"] == 2


def test_result_json_holds_what_programs_rely_on(finished):
    """Every field of the contract is there, with the values of this run."""
    train_dir, _ = finished
    result = programs.result(train_dir)
    assert result.keys() == RESULT_FIELDS
    assert (result["config"], result["seed"], result["step"], result["train_images"]) == ("softmax", 0, 60, 1000)
    assert result["checkpoint"] == str(train_dir / "model.ckpt-60")
    assert result["export_dir"] == str(train_dir / "saved_model" / "60")
    assert (result["resumed_from"], result["restarts"], result["steps_redone"]) == (None, 0, 0)
    stages = ["import", "data", "restore", "train", "save_stall", "evaluate", "export"]
    assert list(result["seconds"]) == [*stages, "total"]
    assert sum(result["seconds"][stage] for stage in stages) <= result["seconds"]["total"]
    assert result["versions"].keys() == {"python", "tensorflow", "numpy"}


def test_metrics_hold_each_logged_step_once(finished):
    """One object every five steps, the evaluated one among them."""
    train_dir, _ = finished
    records = programs.metrics(train_dir)
    assert [record["step"] for record in records] == list(range(5, 61, 5))
    assert "validation_accuracy" in records[-1]


def test_a_finished_run_says_so_and_changes_nothing(finished):
    """Run again it evaluates, exits 0, and gives the same results from the same files."""
    train_dir, flags = finished
    before = programs.result(train_dir)
    told_anew = {"result.json", "lock"}
    files = {path: path.read_bytes() for path in train_dir.rglob("*") if path.is_file() and path.name not in told_anew}
    ended = programs.run("softmax", f"--train_dir={train_dir}", *flags)
    assert ended.returncode == 0
    assert "finished already: step 60 of 60" in ended.stderr
    after = programs.result(train_dir)
    for field in ("weights_sha256", "test_accuracy", "validation_accuracy", "step", "restarts", "steps_redone"):
        assert after[field] == before[field]
    assert files == {path: path.read_bytes() for path in files}


def test_a_prolonged_run_equals_a_longer_one(tmp_path, small_data):
    """With a constant learning rate, 40 steps and then 60 are 60 steps."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", "--learning_rate_schedule=constant"]
    programs.train("softmax", tmp_path / "prolonged", *flags, "--train_steps=40")
    prolonged = programs.train("softmax", tmp_path / "prolonged", *flags, "--train_steps=60")
    straight = programs.train("softmax", tmp_path / "straight", *flags, "--train_steps=60")
    assert prolonged["weights_sha256"] == straight["weights_sha256"]
    assert (tmp_path / "prolonged" / "saved_model" / "40").is_dir()
    assert (tmp_path / "prolonged" / "saved_model" / "60").is_dir()


def test_prolonging_says_what_it_changes(finished, tmp_path):
    """Where the schedule depends on the number of steps, the program says that the result will."""
    train_dir, flags = finished
    shutil.copytree(train_dir, tmp_path / "run")
    ended = programs.run("softmax", f"--train_dir={tmp_path / 'run'}", *flags, "--train_steps=80")
    assert ended.returncode == 0
    assert "prolonged from 60 to 80 steps" in ended.stderr
    assert "the cosine schedule now ends at step 80" in ended.stderr


def test_other_settings_are_listed_and_refused(finished):
    """One sentence names each difference; nothing is changed."""
    train_dir, flags = finished
    files = sorted(train_dir.rglob("*"))
    sentence = fails("softmax", f"--train_dir={train_dir}", *flags, "--seed=3", "--batch_size=30", "--train_steps=50")
    for difference in ("seed 0 (now 3)", "batch_size 20 (now 30)", "train_steps 60 (now 50)"):
        assert difference in sentence
    assert sorted(train_dir.rglob("*")) == files


def test_other_data_are_refused(finished):
    """A run does not go on with data that it was not made with."""
    train_dir, flags = finished
    sentence = fails("softmax", f"--train_dir={train_dir}", *flags, f"--data_dir={dataset.BUNDLED}")
    assert "was made with data " in sentence


def test_another_model_is_refused(finished):
    """The cnn does not go on in a train_dir of the softmax."""
    train_dir, _ = finished
    assert "model softmax (now cnn)" in fails("cnn", f"--train_dir={train_dir}")


def test_settings_that_change_no_weight_may_differ(finished, tmp_path):
    """How often to log and how many checkpoints to keep is free."""
    train_dir, flags = finished
    shutil.copytree(train_dir, tmp_path / "run")
    programs.train("softmax", tmp_path / "run", *flags, "--max_to_keep=2", "--log_every_steps=7", "--threads=2")
    assert checkpoints(tmp_path / "run") == ["model.ckpt-50", "model.ckpt-60"]


def test_a_named_checkpoint_starts_a_run_of_its_own(finished, tmp_path):
    """From an older checkpoint, in a train_dir of its own, the run comes to the same end."""
    train_dir, flags = finished
    prefix = train_dir / "model.ckpt-30"
    result = programs.train("softmax", tmp_path / "run", *flags, f"--restore_from={prefix}")
    assert result["resumed_from"] == str(prefix)
    assert result["weights_sha256"] == programs.result(train_dir)["weights_sha256"]
    assert [record["step"] for record in programs.metrics(tmp_path / "run")] == list(range(35, 61, 5))


def test_a_killed_run_that_started_elsewhere_goes_on_by_the_same_command(finished, tmp_path):
    """--restore_from says where a new train_dir starts; once it has checkpoints, it goes on from those."""
    train_dir, flags = finished
    flags = [*flags, f"--restore_from={train_dir / 'model.ckpt-30'}"]
    programs.train("softmax", tmp_path / "run", *flags)
    for path in (tmp_path / "run").glob("model.ckpt-60*"):  # as a kill before the last save leaves it
        path.unlink()
    result = programs.train("softmax", tmp_path / "run", *flags)
    assert result["resumed_from"] == str(tmp_path / "run" / "model.ckpt-50")
    assert result["weights_sha256"] == programs.result(train_dir)["weights_sha256"]


def test_a_checkpoint_that_is_not_there_is_told_with_those_that_are(finished, tmp_path):
    """The sentence lists the prefixes to choose from."""
    train_dir, flags = finished
    missing = train_dir / "model.ckpt-31"
    sentence = fails("softmax", f"--train_dir={tmp_path / 'run'}", *flags, f"--restore_from={missing}")
    assert "model.ckpt-20, model.ckpt-30" in sentence
    assert not (tmp_path / "run").exists()


def test_the_exported_model_can_be_given_a_place(tmp_path, small_data):
    """--export_dir is where it goes; a place that exists is refused before training, not after."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", *SHORT["softmax"], f"--export_dir={tmp_path / 'out'}"]
    result = programs.train("softmax", tmp_path / "run", *flags)
    assert result["export_dir"] == str(tmp_path / "out")
    assert (tmp_path / "out" / "saved_model.pb").is_file()
    assert "out: exists already" in fails("softmax", f"--train_dir={tmp_path / 'other'}", *flags)
    assert not list((tmp_path / "other").glob("model.ckpt*"))


def test_what_lies_beside_the_place_of_the_exported_model_stays(tmp_path, small_data):
    """Directories whose names end as an unfinished export's do, with files whose names begin as those of an export."""
    for name in ("out.incomplete", "out.incomplete-01234567"):
        for part in ("variables-of-my-thesis", "assets", "assets-old"):
            (tmp_path / name / part).mkdir(parents=True)
            (tmp_path / name / part / "thesis.tex").write_text("mine")
    before = checkpoint_files.tree(tmp_path)
    flags = [f"--data_dir={small_data}", "--validation_size=200", *SHORT["softmax"], f"--export_dir={tmp_path / 'out'}"]
    programs.train("softmax", tmp_path / "run", *flags)
    assert before.items() <= checkpoint_files.tree(tmp_path).items()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out",
        "out.incomplete",
        "out.incomplete-01234567",
        "run",
    ]


@pytest.mark.parametrize("name", ["assets/labels.txt", "assets.extra/manifest.json"])
def test_a_damaged_export_is_made_again_by_the_same_command(finished, tmp_path, name):
    """The damaged one is in the quarantine, a warning says so, and the new one is as the old one was."""
    train_dir, flags = finished
    run = shutil.copytree(train_dir, tmp_path / "run")
    target = run / "saved_model" / "60"
    checkpoint_files.flip_a_bit(target / name)
    damaged = checkpoint_files.tree(target)
    ended = programs.run("softmax", f"--train_dir={run}", *flags)
    assert ended.returncode == 0, ended.stderr
    assert f"{target}: the export is damaged ({name.removeprefix('assets.extra/')}: " in ended.stderr
    assert checkpoint_files.tree(target) == checkpoint_files.tree(train_dir / "saved_model" / "60")
    assert checkpoint_files.tree(run / "quarantine" / "saved_model-60" / "60") == damaged


def test_a_run_whose_last_checkpoint_is_damaged_keeps_its_export(tmp_path, small_data):
    """It goes back, makes the same steps again, and finds its own model at --export_dir."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", *SHORT["softmax"], f"--export_dir={tmp_path / 'out'}"]
    before = programs.train("softmax", tmp_path / "run", *flags)
    exported = checkpoint_files.tree(tmp_path / "out")
    checkpoint_files.flip_a_bit(tmp_path / "run" / "model.ckpt-60.index")
    after = programs.train("softmax", tmp_path / "run", *flags)
    assert after["resumed_from"] == str(tmp_path / "run" / "model.ckpt-50")
    assert after["weights_sha256"] == before["weights_sha256"]
    assert checkpoint_files.tree(tmp_path / "out") == exported


def test_what_an_older_release_left_of_an_export_is_deleted(finished, tmp_path):
    """In the train_dir's own place, where it can only be its own."""
    train_dir, flags = finished
    run = shutil.copytree(train_dir, tmp_path / "run")
    (run / "saved_model" / "60").rename(run / "saved_model" / "60.incomplete")
    (run / "saved_model" / "60.incomplete" / "saved_model.pb").write_bytes(b"half")
    programs.train("softmax", run, *flags)
    assert checkpoint_files.tree(run / "saved_model") == checkpoint_files.tree(train_dir / "saved_model")


def exporting(export_dir, *flags):
    """A run that has begun to write its export."""
    process = programs.start("softmax", *flags)
    while not list(export_dir.parent.glob(f"{export_dir.name}.incomplete-*/output/saved_model.pb")):
        assert process.poll() is None, process.communicate()
    return process


@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_that_exports_more_slowly_than_another_does_not_take_its_model(tmp_path, small_data, seed):
    """Stopped while it writes, it goes on when the other's model is there: done if it is the same, else an error."""
    out = tmp_path / "out"
    flags = [f"--data_dir={small_data}", "--validation_size=200", *SHORT["softmax"], f"--export_dir={out}"]
    slow = exporting(out, f"--train_dir={tmp_path / 'slow'}", *flags)
    slow.send_signal(signal.SIGSTOP)
    fast = programs.train("softmax", tmp_path / "fast", *flags, f"--seed={seed}")
    exported = checkpoint_files.tree(out)
    slow.send_signal(signal.SIGCONT)
    _, stderr = slow.communicate()
    assert checkpoint_files.tree(out) == exported
    assert fast["weights_sha256"] in exported["assets.extra/MODEL_CARD.md"].decode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fast", "out", "slow"]
    if seed == 0:
        assert slow.returncode == 0, stderr
        assert programs.result(tmp_path / "slow")["weights_sha256"] == fast["weights_sha256"]
    else:
        assert slow.returncode == 1
        problem = f"error: {out}: expected an export of {tmp_path / 'slow'}/model.ckpt-60, got one of another run's"
        assert problem in stderr
        assert not (tmp_path / "slow" / "result.json").exists()


def test_of_runs_that_export_to_one_place_at_once_one_succeeds(tmp_path, small_data):
    """Its model is there whole; each other ends with one sentence, and nothing else is left."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", *SHORT["softmax"], f"--export_dir={tmp_path / 'out'}"]
    runs = {
        seed: programs.start("softmax", f"--train_dir={tmp_path}/{seed}", *flags, f"--seed={seed}") for seed in (0, 1)
    }
    said = {seed: run.communicate()[1] for seed, run in runs.items()}
    [winner] = [seed for seed, run in runs.items() if run.returncode == 0]
    loser = 1 - winner
    assert runs[loser].returncode == 1
    assert said[loser].count("error: ") == 1
    assert f"error: {tmp_path / 'out'}: " in said[loser]
    card = (tmp_path / "out" / "assets.extra" / "MODEL_CARD.md").read_text()
    assert programs.result(tmp_path / f"{winner}")["weights_sha256"] in card
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "out"]


@pytest.mark.parametrize("program", ["softmax", "cnn"])
def test_the_exported_model_answers_everywhere(tmp_path, small_data, program):
    """saved_model_cli, TensorFlow 2's loader and a session give the classes that the test accuracy was made of."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", *SHORT[program]]
    result = programs.train(program, tmp_path / "run", *flags)
    model, test = result["export_dir"], dataset.load(small_data, 200).test

    answers = tf.saved_model.load(model).signatures["serving_default"](images=tf.constant(test.images))
    classes = answers["classes"].numpy()
    assert np.mean(classes == test.labels) == result["test_accuracy"]
    pngs = [tf.io.encode_png(image[..., None]).numpy() for image in test.images[:10]]
    from_png = tf.saved_model.load(model).signatures["png"](png=tf.constant(pngs))
    assert np.array_equal(from_png["classes"], classes[:10])

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signatures = tf.compat.v1.saved_model.load(session, ["serve"], model).signature_def
        signature = signatures["serving_default"]
        fetch, feed = signature.outputs["classes"].name, {signature.inputs["images"].name: test.images}
        assert np.array_equal(session.run(fetch, feed), classes)

    np.save(tmp_path / "images.npy", test.images[:10])
    command = [str(Path(sys.executable).with_name("saved_model_cli")), "run", "--dir", model, "--tag_set", "serve"]
    command += ["--signature_def", "serving_default", "--inputs", f"images={tmp_path / 'images.npy'}"]
    ended = subprocess.run([*command, "--outdir", tmp_path], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert np.array_equal(np.load(tmp_path / "classes.npy"), classes[:10])


# What anybody can write who has the two files' names, and TensorFlow.
TRAIN_ON = """
import importlib.util, sys
import numpy as np
import tensorflow as tf

for name in ("checkpointing", "mnist", "configs", "trainer", "train_softmax"):
    assert importlib.util.find_spec(name) is None, name
prefix, data, steps, answers = sys.argv[1:]
tf.config.experimental.enable_op_determinism()
meta_graph = tf.compat.v1.MetaGraphDef.FromString(open(prefix + ".meta", "rb").read())
ask, train, load = (meta_graph.signature_def[name] for name in ("serving_default", "train", "load_data"))
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    saver = tf.compat.v1.train.import_meta_graph(meta_graph)
    saver.restore(session, prefix)
    arrays = np.load(data)
    feed = {load.inputs[name].name: arrays[name] for name in ("train_images", "train_labels")}
    session.run(tf.compat.v1.local_variables_initializer(), feed)
    session.run(train.outputs["step"].name, {train.inputs["steps_to_run"].name: int(steps)})
    weights = session.run({variable.op.name: variable for variable in tf.compat.v1.trainable_variables()})
    classes = session.run(ask.outputs["classes"].name, {ask.inputs["images"].name: arrays["test_images"]})
np.savez(answers, classes=classes, **weights)
"""


@pytest.mark.parametrize(("program", "step"), [("softmax", 50), ("cnn", 20)])
def test_the_meta_file_trains_on_without_this_project(tmp_path, small_data, program, step):
    """Graph and checkpoint alone, elsewhere, where nothing of this can be imported: the weights of the program."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", *SHORT[program]]
    expected = programs.train(program, tmp_path / "run", *flags)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in (tmp_path / "run").glob(f"model.ckpt-{step}.*"):
        path.rename(elsewhere / path.name)
    shutil.rmtree(tmp_path / "run")
    data = dataset.load(small_data, 200)
    images = {"train_images": data.train.images, "train_labels": data.train.labels, "test_images": data.test.images}
    np.savez(tmp_path / "data.npz", **images)
    command = [sys.executable, "-I", "-c", TRAIN_ON, f"model.ckpt-{step}", str(tmp_path / "data.npz")]
    command += [str(expected["step"] - step), str(tmp_path / "answers.npz")]
    subprocess.run(command, cwd=elsewhere, check=True, stderr=subprocess.DEVNULL)
    with np.load(tmp_path / "answers.npz") as found:
        answers = dict(found)
    assert np.mean(answers.pop("classes") == data.test.labels) == expected["test_accuracy"]
    assert weights_sha256(answers) == expected["weights_sha256"]


def test_all_images_can_train(tmp_path, small_data):
    """--validation_size=0 leaves none to validate on, and says so with null."""
    flags = [f"--data_dir={small_data}", "--validation_size=0", *SHORT["softmax"]]
    result = programs.train("softmax", tmp_path / "run", *flags)
    assert result["train_images"] == 1200
    assert result["validation_accuracy"] is None


def test_awkward_paths_work(tmp_path, small_data):
    """Spaces, letters beyond ASCII and brackets in a train_dir are nobody's problem."""
    train_dir = tmp_path / "mein lauf [1] 数字"
    flags = [f"--data_dir={small_data}", "--validation_size=200", *SHORT["softmax"]]
    programs.train("softmax", train_dir, *flags)
    ended = programs.run("softmax", f"--train_dir={train_dir}", *flags)
    assert "finished already" in ended.stderr


def test_wrong_data_are_told_without_tensorflow(tmp_path):
    """A directory without data is one sentence that says what was looked for and what to do, within a second or so."""
    started = time.monotonic()
    sentence = fails("cnn", f"--data_dir={tmp_path}", anew=True)
    assert "train-images-idx3-ubyte" in sentence
    assert "--download" in sentence
    assert time.monotonic() - started < 2


def on_a_terminal(*flags):
    """What a softmax run shows on a terminal of 120 columns."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    command = programs.command("softmax", "--validation_size=200", *SHORT["softmax"], *flags)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, cwd=programs.ROOT)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux says that the terminal's other end is closed
        while piece := os.read(ours, 4096):
            shown += piece
    assert process.wait() == 0
    return shown


def test_a_terminal_gets_a_bar(tmp_path, small_data):
    """Where standard error is a terminal, tqdm shows steps, loss, last save and images/s; the steps' lines are gone."""
    shown = on_a_terminal(f"--data_dir={small_data}", f"--train_dir={tmp_path / 'run'}")
    *_, last = (line for line in shown.split(b"\r") if b"%|" in line)
    assert re.search(rb"100%\|.*\| 60 00:00 left, loss \d\S+  validation \d\S+  saved \d+  [\d,]+/s", last), last
    assert b"step 10/60" not in shown


def test_a_quiet_run_tells_its_result_alone(tmp_path, small_data):
    """No bar, no lines; what came out is on standard output as always."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", *SHORT["softmax"], "--quiet"]
    assert on_a_terminal(*flags, f"--train_dir={tmp_path / 'one'}") == b""
    ended = programs.run("softmax", *flags, f"--train_dir={tmp_path / 'two'}")
    assert ended.returncode == 0
    assert ended.stderr == ""
    assert "test accuracy" in ended.stdout
