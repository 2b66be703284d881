"""Both programs as processes: train, stop, resume, export."""

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

# Runs of a second or two.
SHORT = {
    "softmax": ["--train_steps=60", "--batch_size=20", "--save_every_steps=10", "--log_every_steps=5"],
    "cnn": ["--train_steps=30", "--batch_size=20", "--save_every_steps=5", "--log_every_steps=5"],
}
# A run that a signal always reaches while it trains.
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
    """Return the checkpoints' names in TensorFlow's state file."""
    state = tf.train.get_checkpoint_state(str(train_dir))
    return [Path(path).name for path in state.all_model_checkpoint_paths]


def fails(program, *flags, fork=True):
    """Run a program that must end with exit status 1; return its error line, and its hint line if there is one."""
    ended = programs.run(program, *flags, fork=fork)
    assert ended.returncode == 1, ended.stdout
    lines = [line for line in ended.stderr.splitlines() if line.startswith(("error: ", "hint: "))]
    assert [line.partition(":")[0] for line in lines] in (["error"], ["error", "hint"]), ended.stderr
    assert "Traceback" not in ended.stderr
    return "\n".join(lines)


def wait_for_training(process):
    """Wait until a run has logged a step."""
    while "step " not in (line := process.stderr.readline()):
        assert line, "the run ended before its first logged step"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_data):
    """The train_dir and flags of a finished softmax run on small data; tests read or copy it."""
    train_dir = tmp_path_factory.mktemp("finished") / "run"
    flags = [f"--data_dir={small_data}", "--validation_size=200", *SHORT["softmax"]]
    programs.train("softmax", train_dir, *flags)
    return train_dir, flags


def test_softmax_reaches_its_accuracy(tmp_path):
    """1000 steps of 100 on MNIST: test accuracy at least 0.915, and five complete checkpoints."""
    result = programs.train("softmax", tmp_path / "run", f"--data_dir={dataset.BUNDLED}")
    assert result["step"] == 1000
    assert result["test_accuracy"] >= 0.915
    assert result["train_images"] == 55_000
    assert checkpoints(tmp_path / "run") == [f"model.ckpt-{step}" for step in (200, 400, 600, 800, 1000)]
    for name in checkpoints(tmp_path / "run"):
        for kind in ("data-00000-of-00001", "index", "meta"):
            assert (tmp_path / "run" / f"{name}.{kind}").is_file()


@pytest.mark.slow
def test_cnn_reaches_its_accuracy(tmp_path):
    """Default settings: test accuracy at least 0.99."""
    assert programs.train("cnn", tmp_path / "run")["test_accuracy"] >= 0.99


@pytest.mark.parametrize("program", ["softmax", "cnn"])
def test_a_run_stopped_by_sigterm_resumes_to_the_same_weights(tmp_path, small_data, program):
    """SIGTERM saves and exits with status 75; the same command ends with the undisturbed weights."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", "--save_every_steps=0", "--batch_size=20"]
    flags += {
        "softmax": ["--train_steps=20000", "--log_every_steps=200"],
        "cnn": ["--train_steps=120", "--log_every_steps=10"],
    }[program]
    undisturbed = programs.train(program, tmp_path / "undisturbed", *flags)
    process = programs.start(program, f"--train_dir={tmp_path / 'stopped'}", *flags, fork=False)
    wait_for_training(process)
    process.terminate()
    stdout, stderr = process.communicate()
    assert process.returncode == 75, stderr
    assert "stopped by SIGTERM" in stdout
    assert "run the same command again" in stdout
    [checkpoint] = checkpoints(tmp_path / "stopped")

    result = programs.train(program, tmp_path / "stopped", *flags, fork=False)
    assert result["weights_sha256"] == undisturbed["weights_sha256"]
    assert result["resumed_from"] == str(tmp_path / "stopped" / checkpoint)
    assert (result["restarts"], result["steps_redone"]) == (1, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_run_within_a_second(tmp_path, small_data, number):
    """The current call of session.run and one save, however long the run."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", f"--train_dir={tmp_path}", *ENDLESS]
    process = programs.start("softmax", *flags)
    wait_for_training(process)
    sent = time.monotonic()
    process.send_signal(number)
    process.communicate()
    assert process.returncode == 75
    assert time.monotonic() - sent < 3  # for a busy machine; a call takes about 0.4 s


def test_a_signal_during_startup_stops_the_run(tmp_path, small_data):
    """Before the first step the exit status is 75, too."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", f"--train_dir={tmp_path / 'run'}", *ENDLESS]
    process = programs.start("softmax", *flags, fork=False)
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
    """Those that would are ignored with one warning, by a supervised run as well."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", *SHORT[program]]
    undisturbed = programs.train(program, tmp_path / "undisturbed", *flags)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ended = programs.run(program, f"--train_dir={tmp_path / 'run'}", *flags, "--max_restarts=1", fork=False)
    assert ended.returncode == 0, ended.stderr
    result = programs.result(tmp_path / "run")
    assert result["weights_sha256"] == undisturbed["weights_sha256"]
    assert result["environment"] == undisturbed["environment"]
    (warning,) = [line for line in ended.stderr.splitlines() if "ignored" in line]
    assert all(name in warning for name in variables)


def test_a_variable_that_differs_on_resume_is_reported(tmp_path, small_data, monkeypatch):
    """Variables that act before Python starts, such as GLIBC_TUNABLES, are recorded and compared."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", f"--train_dir={tmp_path}", *SHORT["softmax"]]
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=1")
    assert "environment variables" not in programs.run("softmax", *flags).stderr
    assert "environment variables" not in programs.run("softmax", *flags).stderr
    monkeypatch.delenv("GLIBC_TUNABLES")
    stderr = programs.run("softmax", *flags).stderr
    change = "GLIBC_TUNABLES glibc.malloc.check=1 (now unset)"
    assert f"{tmp_path} was made with environment variables {change}: the last bits may differ" in stderr


@pytest.mark.parametrize("at", ["validation", "export"])
def test_a_signal_during_validation_or_export_stops_the_run(tmp_path, small_data, at):
    """Exit status 75, and the same command ends as the undisturbed run: weights and metrics."""
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
    """The error names the owner's host and pid; the lock of a killed run is free."""
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


def test_a_supervised_run_is_restarted_after_a_crash(tmp_path, small_data):
    """The weights are those of the undisturbed run; result.json has the number of restarts."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", "--train_steps=20000", "--save_every_steps=1000"]
    flags += ["--evaluate_every_steps=0", "--log_every_steps=1000"]
    undisturbed = programs.train("softmax", tmp_path / "undisturbed", *flags)
    run = programs.Watched("softmax", f"--train_dir={tmp_path / 'run'}", *flags, "--max_restarts=3")
    for _ in range(2):
        run.wait_for("saved ")
        os.kill(json.loads((tmp_path / "run" / "lock").read_text())["pid"], signal.SIGKILL)
        run.wait_for("the run crashed (killed by SIGKILL")
    assert run.end() == 0, run.said
    result = programs.result(tmp_path / "run")
    assert result["weights_sha256"] == undisturbed["weights_sha256"]
    assert result["restarts"] == 2


def test_result_json_has_every_field(finished):
    """With the values of this run."""
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


def test_metrics_have_each_logged_step_once(finished):
    """One object every five steps; the validated one is among them."""
    train_dir, _ = finished
    records = programs.metrics(train_dir)
    assert [record["step"] for record in records] == list(range(5, 61, 5))
    assert "validation_accuracy" in records[-1]


def test_a_finished_run_run_again_only_evaluates(finished):
    """Exit status 0 and the same results; no file changes but result.json and the lock."""
    train_dir, flags = finished
    before = programs.result(train_dir)
    rewritten = {"result.json", "lock"}
    files = {path: path.read_bytes() for path in train_dir.rglob("*") if path.is_file() and path.name not in rewritten}
    ended = programs.run("softmax", f"--train_dir={train_dir}", *flags)
    assert ended.returncode == 0
    assert "finished already: step 60 of 60" in ended.stderr
    after = programs.result(train_dir)
    for field in ("weights_sha256", "test_accuracy", "validation_accuracy", "step", "restarts", "steps_redone"):
        assert after[field] == before[field]
    assert files == {path: path.read_bytes() for path in files}


def test_an_extended_run_equals_a_longer_one(tmp_path, small_data):
    """With a constant learning rate, 40 steps extended to 60 give the weights of 60 steps."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", "--learning_rate_schedule=constant"]
    programs.train("softmax", tmp_path / "extended", *flags, "--train_steps=40")
    extended = programs.train("softmax", tmp_path / "extended", *flags, "--train_steps=60")
    straight = programs.train("softmax", tmp_path / "straight", *flags, "--train_steps=60")
    assert extended["weights_sha256"] == straight["weights_sha256"]
    assert (tmp_path / "extended" / "saved_model" / "40").is_dir()
    assert (tmp_path / "extended" / "saved_model" / "60").is_dir()


def test_extending_a_run_warns_if_the_schedule_changes(finished, tmp_path):
    """A schedule that depends on the number of steps gives other weights."""
    train_dir, flags = finished
    shutil.copytree(train_dir, tmp_path / "run")
    ended = programs.run("softmax", f"--train_dir={tmp_path / 'run'}", *flags, "--train_steps=80")
    assert ended.returncode == 0
    assert "extended from 60 to 80 steps" in ended.stderr
    assert "the cosine schedule now ends at step 80" in ended.stderr


def test_other_settings_are_refused_with_a_list(finished):
    """The error names each difference; no file changes."""
    train_dir, flags = finished
    files = sorted(train_dir.rglob("*"))
    error = fails("softmax", f"--train_dir={train_dir}", *flags, "--seed=3", "--batch_size=30", "--train_steps=50")
    for difference in ("seed 0 (now 3)", "batch_size 20 (now 30)", "train_steps 60 (now 50)"):
        assert difference in error
    assert sorted(train_dir.rglob("*")) == files


def test_other_data_are_refused(finished):
    """A run is not resumed with data of another fingerprint."""
    train_dir, flags = finished
    error = fails("softmax", f"--train_dir={train_dir}", *flags, f"--data_dir={dataset.BUNDLED}")
    assert "was made with data " in error


def test_another_model_is_refused(finished):
    """The cnn does not resume a train_dir of the softmax."""
    train_dir, _ = finished
    assert "model softmax (now cnn)" in fails("cnn", f"--train_dir={train_dir}")


def test_settings_that_change_no_weight_may_differ(finished, tmp_path):
    """How often to log, how many checkpoints to keep, and the number of threads."""
    train_dir, flags = finished
    shutil.copytree(train_dir, tmp_path / "run")
    programs.train("softmax", tmp_path / "run", *flags, "--max_to_keep=2", "--log_every_steps=7", "--threads=2")
    assert checkpoints(tmp_path / "run") == ["model.ckpt-50", "model.ckpt-60"]


def test_restore_from_starts_a_new_run(finished, tmp_path):
    """From an older checkpoint, in another train_dir, the run ends with the same weights."""
    train_dir, flags = finished
    prefix = train_dir / "model.ckpt-30"
    result = programs.train("softmax", tmp_path / "run", *flags, f"--restore_from={prefix}")
    assert result["resumed_from"] == str(prefix)
    assert result["weights_sha256"] == programs.result(train_dir)["weights_sha256"]
    assert [record["step"] for record in programs.metrics(tmp_path / "run")] == list(range(35, 61, 5))


def test_a_killed_run_with_restore_from_resumes_by_the_same_command(finished, tmp_path):
    """--restore_from applies to a new train_dir; one with checkpoints resumes from its own."""
    train_dir, flags = finished
    flags = [*flags, f"--restore_from={train_dir / 'model.ckpt-30'}"]
    programs.train("softmax", tmp_path / "run", *flags)
    for path in (tmp_path / "run").glob("model.ckpt-60*"):  # as a kill before the last save leaves it
        path.unlink()
    result = programs.train("softmax", tmp_path / "run", *flags)
    assert result["resumed_from"] == str(tmp_path / "run" / "model.ckpt-50")
    assert result["weights_sha256"] == programs.result(train_dir)["weights_sha256"]


def test_a_missing_checkpoint_is_an_error_that_lists_the_others(finished, tmp_path):
    """In the directory of the prefix."""
    train_dir, flags = finished
    missing = train_dir / "model.ckpt-31"
    error = fails("softmax", f"--train_dir={tmp_path / 'run'}", *flags, f"--restore_from={missing}")
    assert "model.ckpt-20, model.ckpt-30" in error
    assert not (tmp_path / "run").exists()


def test_export_dir_names_the_exported_model(tmp_path, small_data):
    """An existing directory is refused before training."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", *SHORT["softmax"], f"--export_dir={tmp_path / 'out'}"]
    result = programs.train("softmax", tmp_path / "run", *flags)
    assert result["export_dir"] == str(tmp_path / "out")
    assert (tmp_path / "out" / "saved_model.pb").is_file()
    assert "out: exists already" in fails("softmax", f"--train_dir={tmp_path / 'other'}", *flags)
    assert not list((tmp_path / "other").glob("model.ckpt*"))


def test_directories_beside_the_export_stay(tmp_path, small_data):
    """Even if they are named like an unfinished export, with files named like those of an export."""
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
def test_a_damaged_export_is_exported_again_by_the_same_command(finished, tmp_path, name):
    """The damaged one is moved to the quarantine with a warning; the new one equals the original."""
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
    """It runs the last steps again, and its own model at --export_dir is no error."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", *SHORT["softmax"], f"--export_dir={tmp_path / 'out'}"]
    before = programs.train("softmax", tmp_path / "run", *flags)
    exported = checkpoint_files.tree(tmp_path / "out")
    checkpoint_files.flip_a_bit(tmp_path / "run" / "model.ckpt-60.index")
    after = programs.train("softmax", tmp_path / "run", *flags)
    assert after["resumed_from"] == str(tmp_path / "run" / "model.ckpt-50")
    assert after["weights_sha256"] == before["weights_sha256"]
    assert checkpoint_files.tree(tmp_path / "out") == exported


def test_an_unfinished_export_of_an_older_release_is_deleted(finished, tmp_path):
    """In the train_dir's own place for exports, where it can only be this run's."""
    train_dir, flags = finished
    run = shutil.copytree(train_dir, tmp_path / "run")
    (run / "saved_model" / "60").rename(run / "saved_model" / "60.incomplete")
    (run / "saved_model" / "60.incomplete" / "saved_model.pb").write_bytes(b"half")
    programs.train("softmax", run, *flags)
    assert checkpoint_files.tree(run / "saved_model") == checkpoint_files.tree(train_dir / "saved_model")


def exporting(export_dir, *flags):
    """Return a run that has begun to write its export."""
    process = programs.start("softmax", *flags)
    while not list(export_dir.parent.glob(f"{export_dir.name}.incomplete-*/output/saved_model.pb")):
        assert process.poll() is None, process.communicate()
    return process


@pytest.mark.parametrize("seed", [0, 1])
def test_a_slow_export_does_not_replace_that_of_another_run(tmp_path, small_data, seed):
    """The other run's model is there first: no error if it is the same model, an error otherwise."""
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


def test_of_two_runs_that_export_to_one_place_one_succeeds(tmp_path, small_data):
    """Its model is complete; the other run ends with an error, and no staging directory remains."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", *SHORT["softmax"], f"--export_dir={tmp_path / 'out'}"]
    runs = {
        seed: programs.start("softmax", f"--train_dir={tmp_path}/{seed}", *flags, f"--seed={seed}") for seed in (0, 1)
    }
    stderr = {seed: run.communicate()[1] for seed, run in runs.items()}
    [winner] = [seed for seed, run in runs.items() if run.returncode == 0]
    loser = 1 - winner
    assert runs[loser].returncode == 1
    assert stderr[loser].count("error: ") == 1
    assert f"error: {tmp_path / 'out'}: " in stderr[loser]
    card = (tmp_path / "out" / "assets.extra" / "MODEL_CARD.md").read_text()
    assert programs.result(tmp_path / f"{winner}")["weights_sha256"] in card
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "out"]


@pytest.mark.parametrize("program", ["softmax", "cnn"])
def test_the_exported_model_loads_everywhere(tmp_path, small_data, program):
    """saved_model_cli, tf.saved_model.load and a session predict the classes of the test accuracy."""
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


# Needs only TensorFlow and the names of two files.
TRAIN_ON = """
import importlib.util, sys
import numpy as np
import tensorflow as tf

for name in ("checkpointing", "mnist", "configs", "trainer", "train_softmax"):
    assert importlib.util.find_spec(name) is None, name
prefix, data, steps, answers = sys.argv[1:]
tf.config.experimental.enable_op_determinism()
meta_graph = tf.compat.v1.MetaGraphDef.FromString(open(prefix + ".meta", "rb").read())
predict, train, load = (meta_graph.signature_def[name] for name in ("serving_default", "train", "load_data"))
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    saver = tf.compat.v1.train.import_meta_graph(meta_graph)
    saver.restore(session, prefix)
    arrays = np.load(data)
    feed = {load.inputs[name].name: arrays[name] for name in ("train_images", "train_labels")}
    session.run(tf.compat.v1.local_variables_initializer(), feed)
    session.run(train.outputs["step"].name, {train.inputs["steps_to_run"].name: int(steps)})
    weights = session.run({variable.op.name: variable for variable in tf.compat.v1.trainable_variables()})
    classes = session.run(predict.outputs["classes"].name, {predict.inputs["images"].name: arrays["test_images"]})
np.savez(answers, classes=classes, **weights)
"""


@pytest.mark.parametrize(("program", "step"), [("softmax", 50), ("cnn", 20)])
def test_the_meta_file_continues_training_without_this_project(tmp_path, small_data, program, step):
    """Graph and checkpoint in another directory, without this project on the path: the program's weights."""
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
    """--validation_size=0: the validation accuracy is null."""
    flags = [f"--data_dir={small_data}", "--validation_size=0", *SHORT["softmax"]]
    result = programs.train("softmax", tmp_path / "run", *flags)
    assert result["train_images"] == 1200
    assert result["validation_accuracy"] is None


def test_awkward_paths_work(tmp_path, small_data):
    """Spaces, brackets and letters beyond ASCII in a train_dir."""
    train_dir = tmp_path / "mein lauf [1] 数字"
    flags = [f"--data_dir={small_data}", "--validation_size=200", *SHORT["softmax"]]
    programs.train("softmax", train_dir, *flags)
    ended = programs.run("softmax", f"--train_dir={train_dir}", *flags)
    assert "finished already" in ended.stderr


def test_missing_data_is_reported_before_tensorflow_is_imported(tmp_path):
    """The error names the missing file and the flag to use, within a second or so."""
    started = time.monotonic()
    error = fails("cnn", f"--data_dir={tmp_path}", fork=False)
    assert "train-images-idx3-ubyte" in error
    assert "--download" in error
    assert time.monotonic() - started < 2


def on_a_terminal(*flags):
    """Return what a softmax run writes to a terminal of 120 columns."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    command = programs.command("softmax", "--validation_size=200", *SHORT["softmax"], *flags)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, cwd=programs.ROOT)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # Linux: the other end of the terminal is closed
        while piece := os.read(ours, 4096):
            shown += piece
    assert process.wait() == 0
    return shown


def test_a_terminal_shows_a_progress_bar(tmp_path, small_data):
    """With steps, loss, last save and images/s, in place of the log lines of steps."""
    shown = on_a_terminal(f"--data_dir={small_data}", f"--train_dir={tmp_path / 'run'}")
    *_, last = (line for line in shown.split(b"\r") if b"%|" in line)
    assert re.search(rb"100%\|.*\| 60 00:00 left, loss \d\S+  validation \d\S+  saved \d+  [\d,]+/s", last), last
    assert b"step 10/60" not in shown


def test_a_quiet_run_prints_only_its_result(tmp_path, small_data):
    """No progress bar and no log lines; the result is on standard output."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", *SHORT["softmax"], "--quiet"]
    assert on_a_terminal(*flags, f"--train_dir={tmp_path / 'one'}") == b""
    ended = programs.run("softmax", *flags, f"--train_dir={tmp_path / 'two'}")
    assert ended.returncode == 0
    assert ended.stderr == ""
    assert "test accuracy" in ended.stdout
