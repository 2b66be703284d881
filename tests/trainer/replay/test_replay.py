"""`python -m trainer.replay` on real train_dirs."""

import dataclasses
import json
import re
import shutil
import signal
import time

import numpy as np
import pytest
import tensorflow as tf

from checkpointing.format import tensor_io
from checkpointing.protocol import manifest
from checkpointing.protocol.manifest import Manifest
from checkpointing.protocol.snapshot import Snapshot
from checkpointing.storage import layout
from tests import programs
from tests.checkpoints import flip_a_bit
from tests.fork import Fork
from trainer.replay.__main__ import main

FLAGS = ["--validation_size=200", "--batch_size=20", "--evaluate_every_steps=0"]
SOFTMAX = [*FLAGS, "--optimizer=momentum", "--learning_rate=0.1", "--ema_decay=0.9", "--save_every_steps=10"]
CNN = [*FLAGS, "--augment_shift=2", "--train_steps=20", "--save_every_steps=10"]


@pytest.fixture(scope="module")
def softmax(tmp_path_factory, small_data):
    """The train_dir of a softmax that was killed and resumed; steps 40, 50 and 60 are kept."""
    train_dir = tmp_path_factory.mktemp("softmax") / "run"
    flags = [f"--data_dir={small_data}", *SOFTMAX, "--train_steps=60", "--max_to_keep=3"]
    watched = programs.Watched("softmax", f"--train_dir={train_dir}", *flags)
    watched.wait_for("saved")
    watched.process.kill()
    assert watched.end() == -signal.SIGKILL
    programs.train("softmax", train_dir, *flags)
    return train_dir


@pytest.fixture(scope="module")
def cnn(tmp_path_factory, small_data):
    """The train_dir of a CNN trained with Adam, dropout and augmentation; steps 10 and 20 are kept."""
    train_dir = tmp_path_factory.mktemp("cnn") / "run"
    programs.train("cnn", train_dir, f"--data_dir={small_data}", *CNN)
    return train_dir


@pytest.fixture
def copy(softmax, tmp_path):
    """A copy of the softmax's train_dir, which the test may change."""
    return shutil.copytree(softmax, tmp_path / "run")


@pytest.fixture
def replay(small_data, capsys):
    """Run the command in this process on the small data; return what it prints, which is JSON if the flags say so."""

    def call(train_dir, *flags, status=0, data_dir=small_data):
        found = main([f"--train_dir={train_dir}", f"--data_dir={data_dir}", *flags])
        printed = capsys.readouterr()
        assert found == status, printed
        if "--json" in flags and printed.out:
            return json.loads(printed.out)
        return printed.out + printed.err

    return call


def listing(directory):
    """Return name, size, time of change and bytes of everything in a directory."""
    return {
        path: (path.lstat().st_mtime_ns, path.lstat().st_ctime_ns, path.read_bytes() if path.is_file() else None)
        for path in [directory, *directory.rglob("*")]
    }


def change_manifest(prefix, **fields):
    """Write a manifest again with other fields, under a correct seal."""
    path = layout.manifest_path(prefix)
    path.write_bytes(dataclasses.replace(Manifest.read(path), **fields).to_json())


def forge(prefix, change):
    """Change the tensors of a checkpoint, and recompute all hashes in its manifest."""
    state = {name: np.array(array) for name, array in tensor_io.read(prefix).items()}
    change(state)
    names = Manifest.read(layout.manifest_path(prefix)).files
    for name in names:
        if not name.endswith(".meta"):
            (prefix.parent / name).unlink()
    new = prefix.parent / "new"
    tensor_io.write(new, state)
    for kind in ("index", "data-00000-of-00001"):
        new.with_name(f"new.{kind}").rename(prefix.with_name(f"{prefix.name}.{kind}"))
    files = manifest.describe_files([prefix.parent / name for name in names])
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [tf.compat.v1.Variable(value, name=name, use_resource=True) for name, value in state.items()]
        snapshot = Snapshot(variables, shards=1)
        session.run(tf.compat.v1.global_variables_initializer())
        change_manifest(prefix, files=files, state_digest=snapshot.digest_of_variables(session))


def test_the_last_kept_checkpoint_follows_from_the_one_before(softmax, cnn, replay):
    """One line for the segment, and the result, with the hash of the weights."""
    first, second, third = replay(softmax).splitlines()
    assert first == "model.ckpt-50 -> model.ckpt-60: 10 steps, bit for bit"
    assert second.startswith("proved: 1 segment, 10 steps, every bit of every variable (")
    weights = programs.result(softmax)["weights_sha256"]
    assert third == f"weights sha256 of model.ckpt-60: {weights}, as in result.json"
    assert replay(cnn).startswith("model.ckpt-10 -> model.ckpt-20: 10 steps, bit for bit\n")


def test_a_whole_run_is_replayed_from_its_first_step(softmax, replay):
    """Also if it was killed and resumed, and if retention has deleted the first checkpoints."""
    found = replay(softmax, "--all", "--json")
    assert found["proved"]
    assert found["other_conditions"] == []
    assert found["settings"] == Manifest.read(layout.manifest_path(layout.prefix(softmax, 60))).settings
    assert [(each["from"], each["to"], each["steps"]) for each in found["segments"]] == [
        (0, 40, 40),
        (40, 50, 10),
        (50, 60, 10),
    ]
    assert all(each["bit_for_bit"] and each["differing"] == [] for each in found["segments"])
    assert {each["variables"] for each in found["segments"]} == {7}  # step; two weights with momentum and average


def test_two_processes_share_the_segments_of_a_cnn(cnn, small_data):
    """Their lines may come in any order; nothing is left running."""
    flags = [f"--train_dir={cnn}", f"--data_dir={small_data}", "--all", "--jobs=2"]
    process = Fork("trainer.replay", *flags)
    stdout, stderr = process.communicate()
    assert (process.returncode, stderr) == (0, "")
    *segments, last, _ = stdout.splitlines()
    assert sorted(segments) == [
        "model.ckpt-10 -> model.ckpt-20: 10 steps, bit for bit",
        "step 0 -> model.ckpt-10: 10 steps, bit for bit",
    ]
    assert last.startswith("proved: 2 segments, 20 steps")


def test_a_segment_may_pass_over_kept_checkpoints(softmax, replay):
    """From any kept step to any later one; 0 is the run's first step."""
    (segment,) = replay(softmax, "--from=0", "--to=60", "--json")["segments"]
    assert (segment["start"], segment["steps"], segment["bit_for_bit"]) == (None, 60, True)


def test_the_train_dir_is_not_changed(copy, replay):
    """No file, no lock, no time of change; a directory that cannot be written to can be replayed."""
    before = listing(copy)
    copy.chmod(0o500)
    try:
        replay(copy, "--all")
    finally:
        copy.chmod(0o700)
    after = listing(copy)
    for each in (before, after):
        modified, _, content = each.pop(copy)
        each["directory"] = modified, content
    assert after == before


def test_a_changed_weight_is_found_although_all_hashes_are_recomputed(copy, replay):
    """Its variable is named; the steps after the checkpoint differ, too, as they start from the changed weight."""

    def change(state):
        state["layer1/weights"][400, 3] += 0.25

    forge(layout.prefix(copy, 50), change)
    found = replay(copy, "--all", "--json", status=1)
    assert [each["bit_for_bit"] for each in found["segments"]] == [True, False, False]
    (record,) = found["segments"][1]["differing"]
    assert record["variable"] == "layer1/weights"
    assert (record["different"], record["elements"], record["not_finite"]) == (1, 7840, 0)
    assert record["largest_difference"] == pytest.approx(0.25)
    text = replay(copy, "--to=50", status=1)
    lines = (
        "model.ckpt-40 -> model.ckpt-50: 10 steps, 1 of 7 variables differ\n  layer1/weights, float32 [784, 10]: 1 of"
    )
    assert lines in text
    assert f"error: {copy}: 1 of 1 segments not proved: model.ckpt-40 -> model.ckpt-50\n" in text


def test_every_tensor_is_compared(copy, replay):
    """Optimizer state, averages and step, the sign of a zero, and tensors that the run does not have."""

    def change(state):
        state["layer1/biases/Momentum"][0] += 1e-3
        average = state["layer1/weights/ExponentialMovingAverage"].reshape(-1)
        assert average[0] == 0.0  # of a pixel that is never set
        average[0] = -0.0
        state["global_step"] += 2**40
        state["extra"] = np.zeros(1, np.float32)

    forge(layout.prefix(copy, 60), change)
    (segment,) = replay(copy, "--json", status=1)["segments"]
    found = {record["variable"]: record for record in segment["differing"]}
    assert found.pop("extra")["problem"] == "not in the replayed graph"
    assert {name: record["different"] for name, record in found.items()} == {
        "global_step": 1,
        "layer1/biases/Momentum": 1,
        "layer1/weights/ExponentialMovingAverage": 1,
    }
    assert found["global_step"]["largest_difference"] == 2**40
    assert found["layer1/weights/ExponentialMovingAverage"]["largest_difference"] == 0


def test_a_digest_that_is_not_of_the_variables_is_an_error(copy, replay):
    """A resume would reject that checkpoint."""
    change_manifest(layout.prefix(copy, 60), state_digest="00ff")
    assert "model.ckpt-60: the manifest's state_digest is not that of its variables" in replay(copy, status=1)


def test_the_weights_of_result_json_are_compared(copy, replay):
    """Only those of the step that is replayed last."""
    path = copy / layout.RESULT
    path.write_text(json.dumps(programs.result(copy) | {"weights_sha256": "ab" * 32}))
    message = replay(copy, status=1)
    assert "model.ckpt-50 -> model.ckpt-60: 10 steps, bit for bit" in message
    assert re.search(rf"error: {path}: expected the replayed weights_sha256 \w{{64}}, got (ab){{32}}\n", message)
    assert not replay(copy, "--json", status=1)["proved"]
    assert re.search(r"weights sha256 of model.ckpt-50: \w{64}\n", replay(copy, "--to=50"))


def test_damaged_checkpoints_are_all_named(copy, replay):
    """No step is run then; other checkpoints can be chosen."""
    for step in (40, 60):
        flip_a_bit(layout.data_path(layout.prefix(copy, step), 0, 1))
    message = replay(copy, "--all", status=1)
    assert message.startswith(f"error: {copy}: damaged checkpoints: model.ckpt-40.data-00000-of-00001: some of its")
    assert "model.ckpt-60.data-00000-of-00001" in message
    assert "hint: put a good copy back, or choose other checkpoints with --from and --to" in message
    assert "bit for bit" in replay(copy, "--from=0", "--to=50")


OTHER = {
    "code": "0" * 64,
    "versions": {"python": "3.11.0", "tensorflow": "2.1.0", "numpy": "1.0.0"},
    "environment": {"TF_ENABLE_ONEDNN_OPTS": "1", "instruction_set": "avx512_core", "processor": "another one"},
}


def test_other_conditions_are_refused_and_with_anyway_warned_of(copy, replay):
    """One error lists them all; --anyway prints a warning of each. They need not change a bit."""
    prefix = layout.prefix(copy, 60)
    settings = Manifest.read(layout.manifest_path(prefix)).settings | {"dark_mode": True}
    for step in (50, 60):
        change_manifest(layout.prefix(copy, step), **OTHER, settings=settings)
    message = replay(copy, status=1)
    assert message.count("error:") == 1
    parts = ["setting dark_mode True (now unknown to this code)", "code 000000000000 (now ", "tensorflow 2.1.0 (now "]
    parts += ["instruction_set avx512_core (now ", "TF_NUM_INTRAOP_THREADS unset (now "]
    assert [part for part in parts if part not in message] == []
    assert "another one" not in message  # the processor's name alone changes no bit
    assert "--anyway" in message
    message = replay(copy, "--anyway")
    assert [part for part in parts if f"warning: {copy}: was made with {part}" not in message] == []
    assert "model.ckpt-50 -> model.ckpt-60: 10 steps, bit for bit" in message


def test_other_data_are_refused(softmax, small_data, tmp_path, replay):
    """The hint names --data_dir. With --anyway the bits differ, and the hint says that the conditions do, too."""
    data_dir = shutil.copytree(small_data, tmp_path / "data")
    path = data_dir / "train-images-idx3-ubyte"
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    content[16:] //= 2
    path.write_bytes(content.tobytes())
    message = replay(softmax, data_dir=data_dir, status=1)
    assert re.search(
        r"error: .*: was made under other conditions: data \w{12} \(now \w{12}\)\nhint: give the run's data", message
    )
    message = replay(softmax, "--anyway", data_dir=data_dir, status=1)
    assert "6 of 7 variables differ\n  layer1/biases, float32 [10]: 10 of 10 elements, largest" in message
    assert "hint: the replay's conditions are not the run's: see the warnings" in message


def test_a_warm_started_run_starts_from_its_source(softmax, tmp_path, small_data, replay):
    """The source must still be the same checkpoint."""
    source = shutil.copytree(softmax, tmp_path / "source")
    train_dir = tmp_path / "run"
    flags = [*SOFTMAX, "--train_steps=20", f"--warm_start_from={source}", "--warm_start_vars=layer1/weights"]
    programs.train("softmax", train_dir, f"--data_dir={small_data}", *flags)
    assert "step 0 -> model.ckpt-10: 10 steps, bit for bit" in replay(train_dir, "--all")
    flip_a_bit(layout.index_path(layout.prefix(source, 60)))
    message = replay(train_dir, "--all", status=1)
    assert "has changed since the run started" in message
    assert "hint: put the same checkpoint back, or choose kept checkpoints with --from and --to" in message
    assert "bit for bit" in replay(train_dir)


def test_a_restored_and_extended_run_starts_at_its_sources_step(softmax, tmp_path, small_data, replay):
    """Each segment is replayed with the number of steps that the run was to have then."""
    source, train_dir = layout.prefix(softmax, 50), tmp_path / "run"
    flags = [f"--data_dir={small_data}", *SOFTMAX, f"--restore_from={source}"]
    programs.train("softmax", train_dir, *flags, "--train_steps=60")
    programs.train("softmax", train_dir, *flags, "--train_steps=80")
    text = replay(train_dir, "--all")
    assert f"{source} -> model.ckpt-60: 10 steps, bit for bit\nmodel.ckpt-60 -> model.ckpt-70: 10 steps, bit" in text
    assert f"error: {train_dir}: no checkpoint of step 0 found" in replay(train_dir, "--from=0", status=1)


def test_an_adopted_run_starts_from_the_plain_savers_checkpoint(softmax, tmp_path, small_data, replay):
    """It is found in the train_dir by the hash of its index."""
    for path in layout.contents_of(layout.prefix(softmax, 50)):
        shutil.copy(path, tmp_path / path.name)
    programs.train("softmax", tmp_path, f"--data_dir={small_data}", *SOFTMAX, "--train_steps=60")
    assert f"{layout.prefix(tmp_path, 50).name} -> model.ckpt-60: 10 steps, bit for bit" in replay(tmp_path, "--all")


def test_a_signal_stops_it_with_status_75(softmax, small_data):
    """At any moment; there is nothing to save."""
    process = Fork("trainer.replay", f"--train_dir={softmax}", f"--data_dir={small_data}", "--all", "--jobs=2")
    time.sleep(0.3)
    process.terminate()
    _, stderr = process.communicate()
    assert process.returncode == 75, stderr
    assert stderr.startswith("stopped by SIGTERM"), stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--all", "--from=10"], "--all: expected neither --from nor --to with it"),
        (["--jobs=0"], "--jobs: expected a number from 1 up, got '0'"),
        (["--to=-3"], "--to: expected a step, got '-3'"),
        (["--train_dir="], "--train_dir: expected a path, got nothing"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(tmp_path, capsys, flags, message):
    """With exit status 2."""
    with pytest.raises(SystemExit) as stopped:
        main([f"--train_dir={tmp_path}", *flags])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
