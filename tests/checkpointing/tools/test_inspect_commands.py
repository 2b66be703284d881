import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from checkpointing import __main__
from checkpointing.format.tensor_bundle import Bundle
from checkpointing.protocol import lookup
from checkpointing.runs.history import History
from checkpointing.storage import layout
from checkpointing.tools import output
from tests import hostile, programs
from tests.checkpoints import CONFUSED, confuse, flip_a_bit, make_checkpoint, make_files, mark, saving_run, tree
from tests.writers import MODELS, VALUES, WRITERS, make_foreign, ours, partitioned, plain_saver

RETENTION = {"max_to_keep": 2, "keep_checkpoint_every_n_hours": 10_000.0, "keep_best": 0}

RUNNING = """
import sys, time
from pathlib import Path
from checkpointing.runs.history import History
from checkpointing.storage.lock import Lock
lock, history = Lock(Path(sys.argv[1])), History(Path(sys.argv[1]))
history.begin_attempt(step=0, resumed_from=None)
history.progress(150, {"train": 3.0, "total": 4.0})
print("runs", flush=True)
time.sleep(60)  # nobody has to end it if a test fails
"""


@pytest.fixture(scope="module", params=WRITERS)
def written(request, tmp_path_factory):
    """A checkpoint of each writer; only to be looked at."""
    directory = tmp_path_factory.mktemp(request.param) / request.param
    WRITERS[request.param](directory)
    return directory


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's three checkpoints."""
    directory = tmp_path_factory.mktemp("run") / "run"
    ours(directory, (10, 20, 30))
    return directory


@pytest.fixture
def ask(capsys):
    """Gives a command's status and what it prints; with `--json`, the record."""

    def asked(*arguments):
        status = __main__.main([*map(str, arguments)])
        said = capsys.readouterr()
        assert bool(said.err) == said.err.startswith("error: ")
        assert said.err.count("\n") <= 1
        text = said.out + said.err
        return status, json.loads(text) if "--json" in arguments and not said.err else text

    return asked


@pytest.fixture
def train_dir(tmp_path):
    """A run that was killed, went on, and is done."""
    for step, resumed_from, to_step in ((0, None, 150), (100, "model.ckpt-100", 400)):
        history = History(tmp_path)
        history.begin_attempt(step=step, resumed_from=resumed_from)
        history.progress(to_step, {"train": 3.0, "total": 4.0})
    history.end_attempt("done")
    return tmp_path


@pytest.fixture
def running(tmp_path):
    """A run under way, in a process of its own."""
    command = [sys.executable, "-c", RUNNING, str(tmp_path)]
    with subprocess.Popen(command, cwd=programs.ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "runs\n"
        yield process
        process.kill()


def weights_of(prefix):
    """What each writer calls them."""
    return next(name for name in Bundle(prefix).entries if re.search("weights|kernel", name))


def words(line):
    """The cells of a table's line."""
    return re.split(r"\s{2,}", line.strip())


def test_a_list_is_a_table(tmp_path, ask):
    """A checkpoint a line, the newest last; what is wrong with one stands below, and is the exit status."""
    for step, score in ((10, 0.5), (20, None), (30, None)):
        make_checkpoint(tmp_path, step, retention=RETENTION, score=score, saved_at=time.time() - 7300)
    make_foreign(tmp_path, "model-5")
    status, text = ask("list", tmp_path)
    lines = text.splitlines()
    assert status == 0
    assert words(lines[0]) == ["checkpoint", "step", "saved", "size", "complete", "score", "why kept"]
    assert words(lines[2])[0] == "model-5"
    assert words(lines[2])[4] == "all files there"
    assert words(lines[3]) == ["model.ckpt-10", "10", "2 h ago", "94 B", "yes", "0.5000"]
    assert words(lines[5]) == ["model.ckpt-30", "30", "2 h ago", "94 B", "yes", "newest"]
    flip_a_bit(layout.index_path(layout.prefix(tmp_path, 20)))
    status, text = ask("list", tmp_path)
    assert status == 1
    assert words(text.splitlines()[4])[4] == "no"
    assert text.splitlines()[-1].startswith("model.ckpt-20.index: some of its bytes have changed")


def test_a_list_for_programs(tmp_path, ask):
    """The same, exactly."""
    make_checkpoint(tmp_path, 10, retention=RETENTION, score=0.5)
    status, record = ask("list", tmp_path, "--json")
    assert (status, record) == (
        0,
        [
            {
                "prefix": "model.ckpt-10",
                "step": 10,
                "saved_at": 1_700_000_000.25,
                "bytes": 94,
                "complete": True,
                "problem": None,
                "score": 0.5,
                "why_kept": "newest",
            }
        ],
    )


def test_tensors_are_shown_beside_a_damaged_manifest(run, tmp_path, ask):
    """What is wrong is told first; what is there is there."""
    directory = shutil.copytree(run, tmp_path / "run")
    prefix = lookup.resolve_checkpoint(directory)
    flip_a_bit(layout.manifest_path(prefix))
    status, text = ask("show", prefix)
    assert status == 0
    assert text.startswith(f"{prefix.name}.manifest.json: ")
    assert "tensors" in text


def test_a_save_that_goes_on_is_no_damage(tmp_path, ask):
    """What is being made is listed, for it is there, but is no reason to say that something is wrong."""
    make_checkpoint(tmp_path, 50)
    mark(make_files(tmp_path, 100))
    status, text = ask("list", tmp_path)
    assert status == 0
    assert "it is being made or deleted" in text
    status, record = ask("verify", tmp_path, "--all", "--json")
    assert (status, [each["name"] for each in record]) == (0, ["model.ckpt-50"])


def test_a_plain_savers_checkpoint_by_our_name_is_verified(tmp_path, ask):
    """It has no manifest, as ours while it is being made, but no mark either."""
    plain_saver(tmp_path)
    for path in tmp_path.glob("model-20.*"):
        path.rename(path.with_name(path.name.replace("model-", "model.ckpt-")))
    assert ask("verify", tmp_path, "--all")[0] == 0
    flip_a_bit(tmp_path / "model.ckpt-20.data-00000-of-00001")
    status, text = ask("verify", tmp_path, "--all")
    assert status == 1
    assert "model.ckpt-20.data-00000-of-00001: tensor" in text


@pytest.mark.parametrize("command", ["list", "verify", "show"])
def test_a_directory_without_checkpoints_is_told(tmp_path, ask, command):
    """By every command, with status 1."""
    assert ask(command, tmp_path) == (1, f"error: {tmp_path}: no checkpoint found in it.\n")
    (tmp_path / "model.weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    assert "Keras' own format" in ask(command, tmp_path)[1]


@pytest.mark.parametrize("command", [["list"], ["verify"], ["verify", "--all"], ["show"], ["show", "--stats"]])
def test_all_commands_take_what_anybody_wrote(written, ask, command):
    """A directory, or a SavedModel's; nothing is changed by it."""
    before = tree(written)
    status, text = ask(*command, written)
    assert (status, bool(text.strip())) == (0, True), text
    assert ask(*command, written, "--json")[0] == 0
    assert tree(written) == before


def test_what_a_checkpoint_holds_is_shown(written, ask):
    """Names, types and shapes as TensorFlow tells them."""
    prefix = lookup.resolve_checkpoint(written)
    _, record = ask("show", prefix, "--json")
    reader = tf.train.load_checkpoint(str(prefix))
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    told = {each["name"]: (each["shape"], each["dtype"]) for each in record["tensors"]}
    assert told == {name: (shape, dtypes[name].name) for name, shape in shapes.items()}


def test_the_figures_of_a_tensor_are_shown(written, ask):
    """Of whoever's: here 0 to 5; with a histogram, and its values."""
    prefix = lookup.resolve_checkpoint(written)
    name = weights_of(prefix)
    _, record = ask("show", prefix, "--tensor", name, "--json")
    figures = {key: record[key] for key in ("min", "mean", "max", "zeros", "nans", "infinities")}
    assert figures == {"min": 0, "mean": 2.5, "max": 5, "zeros": 1 / 6, "nans": 0, "infinities": 0}
    assert sum(each["count"] for each in record["histogram"]) == len(VALUES)
    _, text = ask("show", prefix, "--tensor", name)
    assert re.search(r"^mean +2.5$", text, re.MULTILINE)
    assert re.search(r"^ +4.583 \.\. +5  #{40} 1$", text, re.MULTILINE)
    assert "5." in text.splitlines()[-1]
    _, stats = ask("show", prefix, "--stats", "--json")
    (row,) = (each for each in stats["tensors"] if each["name"] == name)
    assert {key: row[key] for key in figures} == figures


def test_what_is_no_number_is_counted(tmp_path, ask):
    """NaNs and infinities, beside the finite ones; strings have no figures."""
    tensors = {"a": [np.nan, 1.0, np.inf, 0.0], "b": [np.nan], "c": np.empty([0, 3]), "d": [b"word"], "e": [1 + 1j]}
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "odd"),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(map(tf.constant, tensors.values())),
    )
    status, record = ask("show", tmp_path / "odd", "--stats", "--json")
    told = {
        row["name"]: (row["min"], row["max"], row["zeros"], row["nans"], row["infinities"]) for row in record["tensors"]
    }
    assert status == 0
    assert told == {
        "a": (0, 1, 0.25, 1, 1),
        "b": (None, None, 0, 1, 0),
        "c": (None, None, None, 0, 0),
        "d": (None,) * 5,
        "e": (2**0.5, 2**0.5, 0, 0, 0),
    }
    for name in tensors:
        assert ask("show", tmp_path / "odd", "--tensor", name)[0] == 0


def test_where_a_checkpoint_came_from_is_shown(run, ask):
    """Of ours, what its manifest says."""
    status, text = ask("show", run)
    assert status == 0
    assert re.match(r"step 30, saved 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d after \d+\.\d s of training\n", text)
    assert text.splitlines()[1] == "with model=line"
    assert text.splitlines()[-1] == "2 tensors, 32 B, in 1 data file"


def test_a_partitioned_variable_has_no_bytes_of_its_own(tmp_path, ask):
    """They lie in its parts."""
    partitioned(tmp_path / "run")
    _, text = ask("show", tmp_path / "run")
    assert words(text.splitlines()[2]) == ["weights", "float32", "[6]", "in 3 parts"]
    assert text.splitlines()[-1] == "1 tensor, 24 B, in 1 data file"


def test_a_tensor_that_is_not_there_lists_those_that_are(run, ask):
    """With status 1."""
    status, text = ask("show", run, "--tensor", "weight")
    assert (status, text) == (
        1,
        f"error: {run}/model.ckpt-30: tensor weight wanted; there are global_step, weights.\n",
    )


@pytest.mark.parametrize("writer", MODELS)
def test_what_a_saved_model_can_be_asked_is_shown(tmp_path, ask, writer):
    """Each signature, then what it holds."""
    WRITERS[writer](tmp_path / "model")
    status, text = ask("show", tmp_path / "model")
    assert status == 0
    assert text.startswith("tags serve: serving_default: x float32[")
    assert "in 1 data file" in text
    _, record = ask("show", tmp_path / "model", "--json")
    assert record["graphs"][0]["tags"] == ["serve"]
    assert "serving_default" in record["graphs"][0]["signatures"]


def test_a_saved_model_is_shown_without_being_run(tmp_path, ask):
    """Its protocol buffer and its tensors are read, whatever its graph would do."""
    victim = tmp_path / "victim"
    model = hostile.save(tmp_path / "1", hostile.writing(victim), initialise=lambda: tf.io.write_file(str(victim), "x"))
    assert "serving_default" in ask("show", model)[1]
    assert ask("verify", model)[0] == 0
    assert not victim.exists()


def test_a_saved_model_without_variables_is_shown(tmp_path, ask):
    """It holds a graph, and that is all."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None], name="x")
        tf.compat.v1.saved_model.simple_save(session, str(tmp_path / "model"), {"x": x}, {"y": 2 * x})
    status, text = ask("show", tmp_path / "model")
    assert (status, text.splitlines()) == (
        0,
        ["tags serve: serving_default: x float32[N] -> y float32[N]", "", "no variables"],
    )


def test_a_whole_checkpoint_is_as_it_should_be(run, ask):
    """Of a directory the newest, or each."""
    assert words(ask("verify", run)[1].splitlines()[-1]) == ["model.ckpt-30", "as it should be: sha256 of 3 files"]
    _, record = ask("verify", run, "--all", "--json")
    assert [(each["name"], each["problem"]) for each in record] == [
        (f"model.ckpt-{step}", None) for step in (10, 20, 30)
    ]


def test_a_wrong_byte_is_status_1_and_a_name(tmp_path, ask):
    """Each one's, and the others are looked at all the same."""
    for step in (10, 20, 30, 40):
        make_checkpoint(tmp_path, step)
    flip_a_bit(layout.meta_path(layout.prefix(tmp_path, 10)))
    layout.manifest_path(layout.prefix(tmp_path, 20)).write_bytes(b"{")
    other = layout.manifest_path(layout.prefix(tmp_path, 30))
    record = json.loads(other.read_text()) | {"format": 1}
    del record["sha256"]
    other.write_text(json.dumps(record))
    assert ask("verify", tmp_path)[0] == 0
    status, text = ask("verify", tmp_path, "--all")
    assert status == 1
    lines = [words(line) for line in text.splitlines()[2:]]
    assert lines[0][1].startswith("model.ckpt-10.meta: some of its bytes have changed")
    assert lines[1][1].startswith("model.ckpt-20.manifest.json: ")
    assert "format 1 found" in lines[2][1]
    assert lines[3] == ["model.ckpt-40", "as it should be: sha256 of 3 files"]
    assert ask("verify", layout.prefix(tmp_path, 10))[0] == 1


def test_all_of_a_prefix_is_told(run, ask):
    """There is but one."""
    status, text = ask("verify", "--all", run / "model.ckpt-10")
    assert (status, text) == (1, f"error: {run}/model.ckpt-10: a prefix found, a directory wanted with --all.\n")


def test_an_incomplete_one_says_what_is_missing(tmp_path, ask):
    """By its name."""
    prefix = make_foreign(tmp_path, "model-7")
    (tmp_path / "model-7.data-00000-of-00001").unlink()
    for command in ("show", "verify"):
        status, text = ask(command, prefix)
        assert status == 1
        assert "model-7.data-00000-of-00001 is missing: the checkpoint is incomplete" in text


def test_a_checkpoint_is_the_same_as_itself(written, ask):
    """To the last bit, also where TensorFlow has to put it together; status 0."""
    status, text = ask("diff", written, lookup.resolve_checkpoint(written))
    assert status == 0
    assert re.fullmatch(r"(\d+) of \1 tensors are the same, to the last bit\n", text)


def test_what_changed_is_told(run, ask):
    """How far at most and on average, and in which direction; status 1."""
    status, record = ask("diff", run / "model.ckpt-10", run / "model.ckpt-20", "--json")
    weights = next(each for each in record if each["name"] == "weights")
    assert (status, weights["what"], weights["largest"], weights["mean"]) == (1, "changed", 1, 1)
    one, other = np.array(VALUES), np.array(VALUES) + 1
    assert weights["cosine"] == pytest.approx(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    _, text = ask("diff", run / "model.ckpt-10", run / "model.ckpt-20")
    assert words(text.splitlines()[3]) == ["weights", "changed", "1", "1", f"{weights['cosine']:.7f}"]
    assert text.splitlines()[-1] == "0 of 2 tensors are the same, to the last bit"


def test_what_was_added_or_went_is_told(tmp_path, run, ask):
    """And what has another shape or type."""
    plain_saver(tmp_path / "plain")
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "odd"),
        tensor_names=["weights", "words"],
        shape_and_slices=["", ""],
        tensors=[tf.zeros([2, 3]), tf.constant(["a"])],
    )
    assert {each["name"]: each["what"] for each in ask("diff", run, tmp_path / "plain", "--json")[1]} == {
        "global_step": "gone",
        "weights": "changed",
    }
    assert {each["name"]: each["what"] for each in ask("diff", tmp_path / "plain", tmp_path / "odd", "--json")[1]} == {
        "weights": "float32 [6] is now float32 [2, 3]",
        "words": "added",
    }


def test_history_is_a_table_and_a_sum(train_dir, ask):
    """Each attempt on a line; of the first, a third was lost."""
    status, text = ask("history", train_dir)
    lines = text.splitlines()
    assert status == 0
    assert "model.ckpt-100" in lines[3]
    assert lines[2].endswith("killed")
    assert lines[3].endswith("done")
    assert lines[4] == "2 attempts, 50 steps made twice: 62.5% of 8.0 s was useful work"


def test_history_for_programs(train_dir, ask):
    """One object, with the same."""
    _, told = ask("history", train_dir, "--json")
    assert [attempt["ended"] for attempt in told["attempts"]] == ["killed", "done"]
    assert (told["steps"], told["steps_redone"], told["useful_share"]) == (400, 50, 0.625)


def test_a_directory_without_a_history_is_told(tmp_path, ask):
    """In one sentence, with status 1."""
    assert ask("history", tmp_path) == (1, f"error: {tmp_path}: no history.jsonl found; give the train_dir of a run.\n")


def test_a_running_and_a_killed_run_are_told_apart(running, tmp_path, ask):
    """By watch and by history, though their files are the same."""
    make_checkpoint(tmp_path, 100, retention=RETENTION)
    mark(make_files(tmp_path, 150))
    for state in ("under way", "killed"):
        status, text = ask("watch", tmp_path)
        lines = text.splitlines()
        assert (status, lines[0]) == (0, f"{tmp_path}: {state}")
        assert re.match(r"step 150, seen \d+ s ago, attempt 1", lines[1])
        assert words(lines[-2])[0] == "model.ckpt-100"
        assert ask("watch", tmp_path, "--json")[1]["state"] == state
        assert ask("history", tmp_path)[1].splitlines()[2].endswith(state)
        assert ask("history", tmp_path)[1].splitlines()[3].startswith("1 attempt, 0 steps made twice")
        running.kill()
        running.wait()


@pytest.mark.parametrize("pid", ["1e400", str(2**70), '"1"', "null", "[]", "}"])
def test_a_lock_of_any_content_is_no_error(train_dir, ask, pid):
    """A power cut may leave anything."""
    (train_dir / "lock").write_text(f'{{"host": "{socket.gethostname()}", "pid": {pid}}}')
    attempt = json.loads((train_dir / "history.jsonl").read_text().splitlines()[0])
    (train_dir / "attempt.json").write_text(json.dumps(attempt | {"started_at": 1.5, "ended": None}))
    assert ask("watch", train_dir)[0] == 0


def test_watch_shows_the_newest_record(train_dir, ask):
    """What ended says how; a directory that nobody trained in says so."""
    (train_dir / "metrics.jsonl").write_text('{"step": 300, "loss": 0.5}\n{"step": 400, "loss": NaN}\n{"ste')
    status, text = ask("watch", train_dir)
    assert (status, text.splitlines()[0]) == (0, f"{train_dir}: done")
    assert text.splitlines()[2] == "step 400  loss nan"
    assert ask("watch", train_dir, "--json")[1]["newest_record"] == {"step": 400, "loss": None}
    (train_dir / "empty").mkdir()
    assert "no attempt has been noted yet" in ask("watch", train_dir / "empty")[1]
    assert ask("watch", train_dir / "absent")[0] == 1


def seen(descriptor, text, seconds=20):
    """Reads a terminal until this appears."""
    read, until = "", time.monotonic() + seconds
    while text not in read and time.monotonic() < until:
        if select.select([descriptor], [], [], 0.1)[0]:
            read += os.read(descriptor, 4096).decode()
    return read


@pytest.mark.parametrize("seconds", ["0.1", "-1", "1e9"])
def test_watch_is_live_until_ctrl_c(tmp_path, seconds):
    """At a terminal the table is drawn again and again; Ctrl-C ends it, with status 0 and no traceback."""
    make_checkpoint(tmp_path, 100)
    ours_side, theirs = pty.openpty()
    command = [sys.executable, "-m", "checkpointing", "watch", str(tmp_path), f"--seconds={seconds}"]
    with subprocess.Popen(
        command, cwd=programs.ROOT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        assert "model.ckpt-100" in seen(ours_side, "model.ckpt-100")
        if seconds != "1e9":
            make_checkpoint(tmp_path, 200)
            again = seen(ours_side, "model.ckpt-200")
            assert "model.ckpt-200" in again
            assert "\x1b[H\x1b[J" in again
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()
        assert "Traceback" not in seen(ours_side, "Traceback", 0.3)
    os.close(theirs)
    os.close(ours_side)


@pytest.mark.parametrize("command", ["list", "verify", "diff", "history", "watch", "repair", "prune", "show"])
def test_these_wait_for_no_tensorflow(run, tmp_path, command):
    """Nor does what they import."""
    directory = shutil.copytree(run, tmp_path / "run")
    (directory / "history.jsonl").write_text("")
    History(directory).begin_attempt(step=0, resumed_from=None)
    more = {"diff": [str(directory)], "verify": ["--all"], "show": ["--stats"], "prune": ["--max_to_keep=1"]}
    arguments = [command, str(directory), *more.get(command, [])]
    code = (
        "import sys; from checkpointing.__main__ import main; main(sys.argv[1:]); sys.exit('tensorflow' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=programs.ROOT, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout


def test_no_look_at_a_saving_run_fails(tmp_path, ask):
    """What vanishes or appears meanwhile is looked at again: `list` and `verify` find nothing wrong, ever."""
    with saving_run(tmp_path) as directory:
        for command in (["list"], ["verify", "--all"], ["verify"], ["watch"]):
            for _ in range(40):
                status, text = ask(*command, directory)
                assert status == 0, text
                assert "no checkpoint" not in text


@pytest.mark.parametrize("fields", CONFUSED, ids=str)
def test_one_confused_manifest_stops_no_look(tmp_path, ask, fields):
    """It is listed as damaged with the reason, the others as they are."""
    for step in (10, 20):
        make_checkpoint(tmp_path, step, retention=RETENTION)
    confuse(layout.prefix(tmp_path, 10), **fields)
    for command in (["list"], ["verify", "--all"]):
        status, record = ask(*command, tmp_path, "--json")
        assert status == 1
        assert [bool(each["problem"]) for each in record] == [True, False]
        assert record[0]["problem"].startswith("model.ckpt-10.manifest.json: ")
    for command in ("verify", "watch"):
        assert ask(command, tmp_path)[0] == 0


def test_another_versions_checkpoint_is_listed(tmp_path, ask):
    """Nothing is said against it."""
    make_checkpoint(tmp_path, 20, retention=RETENTION)
    confuse(make_checkpoint(tmp_path, 10), format=99, added="later")
    status, record = ask("list", tmp_path, "--json")
    assert status == 0
    assert [(each["step"], each["complete"], each["why_kept"]) for each in record] == [
        (10, None, "another version's"),
        (20, True, "newest"),
    ]


@pytest.mark.parametrize("name", ["history.jsonl", "metrics.jsonl"])
@pytest.mark.parametrize("command", ["watch", "history"])
def test_a_fifo_in_a_files_place_is_an_error_and_no_wait(train_dir, ask, name, command):
    """In one sentence that names it."""
    (train_dir / name).unlink(missing_ok=True)
    os.mkfifo(train_dir / name)
    status, text = ask(command, train_dir)
    if (name, command) != ("metrics.jsonl", "history"):
        assert (status, text) == (1, f"error: {train_dir / name}: expected a regular file, got a FIFO\n")


def test_a_time_that_no_calendar_has_is_shown(tmp_path, ask):
    """In seconds."""
    prefix = make_checkpoint(tmp_path, 10, saved_at=9e18)
    assert ask("list", tmp_path)[0] == 0
    assert output.moment(9e18) == "9000000000000000000 s after 1970"
    assert prefix.name in ask("list", tmp_path)[1]
