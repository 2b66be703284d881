import errno
import os
import re
import resource
import shutil
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from checkpointing.errors import CheckpointError, NotSavedError
from checkpointing.format import tensor_io
from checkpointing.graphs import saver
from checkpointing.protocol import checkpoint_state
from checkpointing.storage import durable, layout
from tests.checkpoints import AWKWARD, Killed, cut_in_half, flip_a_bit, make_checkpoint, tree

v1 = tf.compat.v1
Theirs, Ours = v1.train.Saver, saver.Saver
VALUES = {"layer1/weights": [[0.0, 1.0], [2.0, 3.0]], "layer1/biases": [4.0, 5.0]}


@contextmanager
def session_with(make_saver=Ours, *, use_resource=True, **options):
    """A session in a graph of two variables and a step, and a saver of that kind; values as in VALUES, step 0."""
    with tf.Graph().as_default(), v1.Session() as session:
        for name, value in VALUES.items():
            v1.get_variable(name, initializer=value, use_resource=use_resource)
        v1.train.get_or_create_global_step()
        made = make_saver(**options)
        session.run(v1.global_variables_initializer())
        yield session, made


def variable(name):
    """The variable of this name in the current graph."""
    return next(each for each in v1.global_variables() if each.op.name == name)


def named(directory):
    """The names in TensorFlow's state file, the newest last; as TensorFlow reads it."""
    state = v1.train.get_checkpoint_state(str(directory))
    assert state.model_checkpoint_path == state.all_model_checkpoint_paths[-1]
    return [Path(path).name for path in state.all_model_checkpoint_paths]


def written(directory):
    """The names of a directory's files, and the tensors of its checkpoints."""
    names = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*"))
    return names, {prefix.name: tensor_io.read(prefix) for prefix in layout.prefixes_in(directory)}


def save_some(directory, make_saver, to_save, **options):
    """Saves some steps with a saver of that kind; gives what is there then, and what the saver says."""
    directory.mkdir(parents=True)
    with session_with(make_saver, **options) as (session, made):
        paths = []
        for number, arguments in enumerate(to_save):
            session.run([variable("layer1/biases").assign([number, -number]), variable("global_step").assign(number)])
            path = made.save(session, str(directory / "model"), **arguments)
            paths.append(None if path is None else Path(path).relative_to(directory).as_posix())
        last = [Path(path).relative_to(directory).as_posix() for path in made.last_checkpoints]
        return written(directory), paths, last


STEPS = [{"global_step": step} for step in range(7)]


@pytest.mark.parametrize(
    ("options", "to_save"),
    [
        ({}, STEPS),
        ({}, [{}]),
        ({"max_to_keep": 2}, STEPS),
        ({"max_to_keep": 0}, STEPS),
        ({"max_to_keep": None}, STEPS),
        ({"max_to_keep": 1, "keep_checkpoint_every_n_hours": 1e-9}, STEPS),
        ({"save_relative_paths": True}, STEPS),
        ({"sharded": True}, STEPS),
        ({"sharded": True, "max_to_keep": 1}, STEPS),
        ({"pad_step_number": True}, STEPS),
        ({"restore_sequentially": True}, STEPS),
        ({"name": "another"}, STEPS),
        ({"use_resource": False}, STEPS),
        ({}, [{"global_step": 1}, {"global_step": 2, "latest_filename": "other"}]),
        ({"max_to_keep": 1}, [{"global_step": step, "meta_graph_suffix": "graph"} for step in range(3)]),
        ({"max_to_keep": 1}, [{"global_step": step, "write_meta_graph": False} for step in range(3)]),
        ({"max_to_keep": 1}, [{"global_step": step, "write_state": step == 3} for step in range(4)]),
        ({"max_to_keep": 1}, [{"global_step": step, "write_state": False} for step in range(4)]),
        ({"var_list": {}, "allow_empty": True}, [{"global_step": 1}]),
    ],
)
def test_the_files_are_those_of_tensorflows_saver(tmp_path, options, to_save):
    """For each option the same names, tensors, state file and last_checkpoints; only that nothing else differs."""
    ours = save_some(tmp_path / "ours", Ours, to_save, **options)
    theirs = save_some(tmp_path / "theirs", Theirs, to_save, **options)
    assert ours[0][0] == theirs[0][0]
    assert ours[0][1].keys() == theirs[0][1].keys()
    for name, wanted in theirs[0][1].items():
        assert {key: array.tolist() for key, array in ours[0][1][name].items()} == {
            key: array.tolist() for key, array in wanted.items()
        }
    assert ours[1:] == theirs[1:]
    for name in ("checkpoint", "other"):
        states = [v1.train.get_checkpoint_state(str(tmp_path / who), name) for who in ("ours", "theirs")]
        assert len({bool(state) for state in states}) == 1
        if all(states):
            paths = [[Path(path).name for path in state.all_model_checkpoint_paths] for state in states]
            assert paths[0] == paths[1]
            text = [(tmp_path / who / name).read_text().replace(f"/{who}/", "/") for who in ("ours", "theirs")]
            assert text[0].split("all_model_checkpoint_timestamps")[0] == text[1].split("all_model_checkpoint_time")[0]


@pytest.mark.parametrize("kind", [int, np.int64, "tensor", "variable", "name"])
def test_a_step_may_be_given_in_any_way(tmp_path, kind):
    """An integer of any kind, a tensor, a variable, a tensor's name."""
    with session_with() as (session, made):
        step = variable("global_step")
        session.run(step.assign(12))
        given = {"tensor": step.read_value(), "variable": step, "name": f"{step.op.name}/Read/ReadVariableOp:0"}
        path = made.save(session, tmp_path / "model", given[kind] if isinstance(kind, str) else kind(12))
    assert path == str(tmp_path / "model-12")
    assert tf.train.latest_checkpoint(str(tmp_path)) == path


def test_arguments_go_where_tensorflows_go():
    """Also without their names, for it is one line that changes."""
    with session_with() as (_, made):
        variables = [variable("layer1/biases")]
        one, other = Ours(variables, True, True, 3, 2.0), Theirs(variables, True, True, 3, 2.0)  # noqa: FBT003
        assert one.saver_def.max_to_keep == other.saver_def.max_to_keep == 3
        assert one.saver_def.keep_checkpoint_every_n_hours == other.saver_def.keep_checkpoint_every_n_hours == 2
        assert one.saver_def.sharded
        assert isinstance(made, Theirs)


def test_the_operations_may_be_added_later(tmp_path):
    """With defer_build, as before; and a SaverDef may say what they are."""
    with session_with() as (session, made):
        later = Ours(defer_build=True)
        later.build()
        again = Ours(saver_def=made.as_saver_def(), name="")
        for number, each in enumerate([later, again]):
            each.restore(session, each.save(session, tmp_path / "model", number))
    assert len(layout.prefixes_in(tmp_path)) == 2


@pytest.mark.parametrize("form", [list, tuple, dict])
def test_a_list_or_a_dict_says_which_variables(tmp_path, form):
    """A dict changes names on the way, to the checkpoint and back; what is in neither keeps its value."""
    with session_with(Theirs) as (session, _):
        biases = variable("layer1/biases")
        made = Ours({"hidden/b": biases} if form is dict else form([biases]))
        prefix = made.save(session, tmp_path / "model", 1)
        session.run([biases.assign([0, 0]), variable("layer1/weights").assign(tf.zeros([2, 2]))])
        made.restore(session, prefix)
        assert session.run(biases).tolist() == [4, 5]
        assert session.run(variable("layer1/weights")).tolist() == [[0, 0], [0, 0]]
    assert list(tensor_io.read(tmp_path / "model-1")) == (["hidden/b"] if form is dict else ["layer1/biases"])


@pytest.mark.parametrize("name", AWKWARD)
def test_directories_may_look_like_patterns(tmp_path, name):
    """What is saved there is rotated, and restored, by a saver that was there and by a new one."""
    directory = tmp_path / name
    with session_with(max_to_keep=2) as (session, made):
        prefixes = [made.save(session, directory / "model", step) for step in range(4)]
    with session_with(max_to_keep=2) as (session, made):
        prefixes.append(made.save(session, directory / "model", 4))
        session.run(variable("layer1/biases").assign([0, 0]))
        made.restore(session, prefixes[-1])
        assert session.run(variable("layer1/biases")).tolist() == [4, 5]
    assert [path.name for path in layout.prefixes_in(directory)] == ["model-3", "model-4"]
    assert named(directory) == ["model-3", "model-4"]


@pytest.mark.parametrize("name", ["best[1]", "mo*del", "größe 数字", "a?b", "x.index"])
def test_prefixes_may_look_like_patterns(tmp_path, name):
    """So may the names of the files themselves."""
    with session_with(max_to_keep=1) as (session, made):
        for step in range(3):
            prefix = made.save(session, tmp_path / name, step)
        session.run(variable("layer1/biases").assign([0, 0]))
        made.restore(session, prefix)
        assert session.run(variable("layer1/biases")).tolist() == [4, 5]
    assert sorted(path.name for path in tmp_path.glob("*.index")) == [f"{name}-2.index"]


def test_rotation_goes_on_in_a_new_process(tmp_path):
    """What the saver before this one kept is counted, by its state file; a lowered number deletes at once."""
    for most, steps, wanted in ((3, range(4), [1, 2, 3]), (3, range(4, 6), [3, 4, 5]), (1, range(6, 7), [6])):
        with session_with(max_to_keep=most) as (session, made):
            for step in steps:
                made.save(session, tmp_path / "model", step)
            assert [Path(path).name for path in made.last_checkpoints] == [f"model-{step}" for step in wanted]
        assert named(tmp_path) == [f"model-{step}" for step in wanted]
        assert [layout.step_at_the_end(prefix) for prefix in layout.prefixes_in(tmp_path)] == wanted
        assert len(list(tmp_path.iterdir())) == 3 * len(wanted) + 1


def test_rotation_takes_over_from_tensorflows_saver(tmp_path):
    """Who changes the one line goes on in the same directory."""
    save_some(tmp_path / "run", Theirs, STEPS[:3])
    with session_with(max_to_keep=2) as (session, made):
        made.save(session, tmp_path / "run" / "model", 3)
    assert written(tmp_path / "run")[0] == written_names("model-2", "model-3")


def written_names(*prefixes):
    """The files of these checkpoints and the state file."""
    kinds = ("data-00000-of-00001", "index", "meta")
    return ["checkpoint", *sorted(f"{prefix}.{kind}" for prefix in prefixes for kind in kinds)]


def test_a_copied_run_leaves_the_original_alone(tmp_path):
    """Though its state file holds absolute paths, which lead there."""
    save_some(tmp_path / "original", Theirs, STEPS[:3])
    before = tree(tmp_path / "original")
    shutil.copytree(tmp_path / "original", tmp_path / "copy")
    with session_with(max_to_keep=1) as (session, made):
        made.save(session, tmp_path / "copy" / "model", 3)
    assert tree(tmp_path / "original") == before
    assert written(tmp_path / "copy")[0] == written_names("model-3")


def test_a_moved_run_goes_on(tmp_path):
    """Though its state file holds paths that lead nowhere now."""
    save_some(tmp_path / "old", Theirs, STEPS[:3])
    (tmp_path / "old").rename(tmp_path / "new")
    with session_with(max_to_keep=2) as (session, made):
        made.save(session, tmp_path / "new" / "model", 3)
    assert written(tmp_path / "new")[0] == written_names("model-2", "model-3")


@pytest.mark.parametrize("state_file_name", [None, "checkpoint-best"])
def test_another_series_in_the_same_directory_is_left_alone(tmp_path, state_file_name):
    """One saver keeps the newest, another the best: neither deletes what is the other's, old or new."""
    for begin in (0, 3):
        with session_with(max_to_keep=2) as (session, newest):
            best = Ours(max_to_keep=1)
            for step in range(begin, begin + 3):
                newest.save(session, tmp_path / "model", step)
            best.save(session, tmp_path / "best", begin, latest_filename=state_file_name)
        there = [path.name for path in layout.prefixes_in(tmp_path)]
        assert {f"best-{begin}", f"model-{begin + 1}", f"model-{begin + 2}"} <= set(there)
    assert len(there) == 3 or state_file_name is None  # a state file for each, and each is rotated over restarts


def test_a_checkpoint_in_the_state_file_may_be_gone(tmp_path):
    """Whole or in part, deleted by somebody: saving goes on."""
    for gone in ("model-1.*", "model-1.index", "model-1.data*"):
        directory = tmp_path / re.sub(r"\W", "_", gone)
        save_some(directory, Theirs, STEPS[:3])
        for path in directory.glob(gone):
            path.unlink()
        with session_with(max_to_keep=2) as (session, made):
            made.save(session, directory / "model", 3)
        assert named(directory) == ["model-2", "model-3"]


def test_one_for_every_n_hours_is_kept(tmp_path, monkeypatch):
    """The hours are counted from where the saver is made, as TensorFlow counts them."""
    clock = [time.time()]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    kept = []
    for make_saver, name in ((Ours, "ours"), (Theirs, "theirs")):
        (tmp_path / name).mkdir()
        with session_with(make_saver, max_to_keep=2, keep_checkpoint_every_n_hours=1) as (session, made):
            for step in range(9):
                clock[0] += 20 * 60 + 1
                made.save(session, str(tmp_path / name / "model"), step)
        kept.append([layout.step_at_the_end(prefix) for prefix in layout.prefixes_in(tmp_path / name)])
    assert kept[0] == kept[1] == [2, 5, 7, 8]


@pytest.mark.parametrize("arguments", [{}, {"global_step": 1}])
def test_nothing_is_written_over(tmp_path, arguments):
    """A second save to the same prefix is refused with advice, and changes no byte; also by a new saver."""
    with session_with() as (session, made):
        made.save(session, tmp_path / "model", **arguments)
        before = tree(tmp_path)
        with pytest.raises(CheckpointError, match="exists already, and no checkpoint is overwritten"):
            made.save(session, tmp_path / "model", **arguments)
    with session_with() as (session, made), pytest.raises(CheckpointError, match="exists already"):
        made.save(session, tmp_path / "model", write_state=False, **arguments)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("sharded", [False, True])
def test_killed_anywhere_the_next_process_saves_that_step_again(tmp_path, monkeypatch, sharded):
    """What a kill left is moved aside, not written over; the state file never names what is not whole."""
    really_sync, kills = durable.fsync, 0
    for change in range(20):
        directory = tmp_path / str(change)
        with session_with(max_to_keep=2, sharded=sharded) as (session, made):
            made.save(session, directory / "model", 1)
        count = iter(range(100))

        def mortal(path, count=count, change=change):
            if next(count) == change:
                raise Killed
            really_sync(path)

        with session_with(max_to_keep=2, sharded=sharded) as (session, made), monkeypatch.context() as patched:
            patched.setattr(durable, "fsync", mortal)
            try:
                made.save(session, directory / "model", 2)
            except Killed:
                kills += 1
            else:
                break
        for name in named(directory):
            assert tensor_io.read(directory / name)["layer1/biases"].tolist() == [4, 5]
        if named(directory) == ["model-1"]:
            left = (directory / "model-2.index").exists()
            with session_with(max_to_keep=2, sharded=sharded) as (session, made):
                made.save(session, directory / "model", 2)
            assert (directory / "quarantine" / "model-2").is_dir() == left
        assert named(directory) == ["model-1", "model-2"]
    assert kills > 4


def test_a_part_of_a_checkpoint_is_not_in_the_way(tmp_path):
    """What is killed while TensorFlow writes leaves temporary files, or data without an index."""
    (tmp_path / "model-2.data-00000-of-00001").write_bytes(b"half")
    (tmp_path / "model-2.index.tempstate12345").write_bytes(b"half")
    (tmp_path / "model-2_temp").mkdir()
    with session_with() as (session, made):
        made.save(session, tmp_path / "model", 2)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == written_names("model-2")
    assert tensor_io.read(tmp_path / "model-2")["layer1/biases"].tolist() == [4, 5]


@contextmanager
def files_of_at_most(size):
    """Has the disk refuse to make any file longer than this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("suffix", ["meta", "graph"])
@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("size", [0, 8, 100, 500])
def test_a_full_disk_leaves_nothing(tmp_path, size, sharded, suffix):
    """Whether data, index or graph do not fit: a sentence, the older ones as they were; and the next save works."""
    with session_with(sharded=sharded) as (session, made):
        made.save(session, tmp_path / "model", 1)
        before = tree(tmp_path)
        with files_of_at_most(size), pytest.raises(NotSavedError, match=r"model-2: could not be saved \(.+\)\."):
            made.save(session, tmp_path / "model", 2, meta_graph_suffix=suffix)
        assert tree(tmp_path) == before
        assert not [path for path in tmp_path.iterdir() if path.is_dir()]
        assert [Path(path).name for path in made.last_checkpoints] == ["model-1"]
        made.save(session, tmp_path / "model", 2)
    assert named(tmp_path) == ["model-1", "model-2"]


def refuse(*_args, **_kwargs):
    """What a full disk says."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_state_file_that_cannot_be_written_takes_the_checkpoint_along(tmp_path, monkeypatch):
    """What nobody would find again does not fill the disk, and is not counted as the newest."""
    with session_with() as (session, made):
        made.save(session, tmp_path / "model", 1)
        before = tree(tmp_path)
        with monkeypatch.context() as patched:
            patched.setattr(durable, "atomic_write", refuse)
            with pytest.raises(NotSavedError, match="No space left"):
                made.save(session, tmp_path / "model", 2)
        assert tree(tmp_path) == before
        made.save(session, tmp_path / "model", 3)
    assert named(tmp_path) == ["model-1", "model-3"]


def test_what_the_state_file_names_is_there(tmp_path, monkeypatch, caplog):
    """Where the disk fails after that, as in deleting an old one, the new one stays, and a warning tells it."""
    with session_with(max_to_keep=1) as (session, made):
        made.save(session, tmp_path / "model", 1)
        with monkeypatch.context() as patched:
            patched.setattr(durable, "delete", refuse)
            made.save(session, tmp_path / "model", 2)
        assert "model-1: stays, though it is too many (No space left on device)" in caplog.text
        assert named(tmp_path) == ["model-2"]
        assert tensor_io.read(tmp_path / "model-2")["layer1/biases"].tolist() == [4, 5]
        made.save(session, tmp_path / "model", 3)
    assert named(tmp_path) == ["model-3"]
    really_replace = durable.atomic_write

    def replace_and_fail(*arguments):
        really_replace(*arguments)
        refuse()

    with session_with(max_to_keep=1) as (session, made), monkeypatch.context() as patched:
        patched.setattr(durable, "atomic_write", replace_and_fail)
        with pytest.raises(NotSavedError):
            made.save(session, tmp_path / "model", 4)
    for name in named(tmp_path):
        assert layout.index_path(tmp_path / name).exists()


def test_a_place_that_cannot_be_made_is_told(tmp_path):
    """Below a file there is no directory."""
    (tmp_path / "file").touch()
    with session_with() as (session, made):
        for path in ("file/model", "file/deeper/model"):
            with pytest.raises(NotSavedError, match="could not be saved"):
                made.save(session, tmp_path / path, 1)


def test_all_is_on_the_disk_before_the_state_file_names_it(tmp_path, monkeypatch):
    """Each file and the directory; a power cut after that takes nothing."""
    events, really_sync, really_write = [], durable.fsync, checkpoint_state.write

    def sync(path):
        events.append(path.name)
        really_sync(path)

    def write(*arguments, **options):
        events.append("state file")
        really_write(*arguments, **options)

    monkeypatch.setattr(durable, "fsync", sync)
    monkeypatch.setattr(checkpoint_state, "write", write)
    for suffix in ("meta", "graph"):
        events.clear()
        with session_with() as (session, made):
            made.save(session, tmp_path / suffix / "model", 1, meta_graph_suffix=suffix)
        before = events[: events.index("state file")]
        assert {f"model-1.{kind}" for kind in ("data-00000-of-00001", "index", suffix)} < set(before)
        assert before[-1] == suffix  # the directory


def test_relative_paths_let_a_directory_be_moved(tmp_path, monkeypatch):
    """Asked for, or because the path was relative, as TensorFlow's saver has it."""
    monkeypatch.chdir(tmp_path)
    given = [(tmp_path / "a0" / "model", {"save_relative_paths": True}), ("a1/model", {})]
    for number, (path, options) in enumerate(given):
        with session_with(**options) as (session, made):
            for step in range(2):
                made.save(session, path, step)
        (tmp_path / f"a{number}").rename(tmp_path / f"b{number}")
        assert tf.train.latest_checkpoint(f"b{number}") == f"b{number}/model-1"


def test_a_plain_name_goes_to_the_working_directory(tmp_path, monkeypatch):
    """As a path without a directory does everywhere."""
    monkeypatch.chdir(tmp_path)
    with session_with(max_to_keep=1) as (session, made):
        for step in range(2):
            prefix = made.save(session, "model", step)
        made.restore(session, prefix)
    assert written(tmp_path)[0] == written_names("model-1")


def test_a_session_and_nothing_else_around_it_is_enough(tmp_path):
    """Neither saving nor restoring needs the graph to be the current one, and a finalized one is fine."""
    with session_with() as (session, made):
        session.graph.finalize()
        prefix = made.save(session, tmp_path / "model", 1)
    with tf.Graph().as_default() as graph:
        v1.get_variable("layer1/biases", initializer=[0.0, 0.0])
        made = Ours()
    with v1.Session(graph=graph) as session:
        made.restore(session, prefix)
        made.save(session, tmp_path / "model", 2)


@pytest.mark.parametrize("given", ["prefix", "index", "directory", "string"])
def test_a_checkpoint_can_be_named_in_several_ways(tmp_path, given):
    """By its prefix, by one of its files, or by its directory for the newest."""
    with session_with() as (session, made):
        for step in (9, 10):
            session.run(variable("layer1/biases").assign([step, step]))
            made.save(session, tmp_path / "model", step)
        session.run(variable("layer1/biases").assign([0, 0]))
        prefix = tmp_path / "model-10"
        made.restore(
            session,
            {"prefix": prefix, "index": f"{prefix}.index", "directory": tmp_path, "string": str(prefix)}[given],
        )
        assert session.run(variable("layer1/biases")).tolist() == [10, 10]


def test_a_directory_of_the_same_name_is_not_meant(tmp_path):
    """Beside model.index there may be a directory model, with a model that was exported, or nothing."""
    (tmp_path / "model").mkdir()
    with session_with() as (session, made):
        made.restore(session, made.save(session, tmp_path / "model"))


@pytest.mark.parametrize("partitioned", [False, True])
def test_slices_are_restored(tmp_path, partitioned):
    """A variable in slices is one tensor of the checkpoint; by list and by dict."""
    partitioner = tf.compat.v1.fixed_size_partitioner(2) if partitioned else None
    with tf.Graph().as_default(), v1.Session() as session:
        weights = v1.get_variable("weights", [4, 2], initializer=v1.ones_initializer(), partitioner=partitioner)
        session.run(v1.global_variables_initializer())
        prefix = Theirs().save(session, str(tmp_path / "model"))
        for var_list in (None, v1.global_variables(), {"weights": weights}):
            made = Ours(var_list)
            session.run([each.assign(tf.zeros_like(each)) for each in v1.global_variables()])
            made.restore(session, prefix)
            assert all((value == 1).all() for value in session.run(v1.global_variables()))


def test_what_is_no_variable_is_saved_too(tmp_path):
    """As a table, which is among what is saved if nothing else is said."""
    with tf.Graph().as_default(), v1.Session() as session:
        table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
        fill, ask = table.insert(["a"], [7]), table.lookup(["a"])
        session.run(fill)
        made = Ours()
        prefix = made.save(session, tmp_path / "model", 1)
        session.run(table.remove(tf.constant(["a"])))
        assert session.run(ask).tolist() == [-1]
        made.restore(session, prefix)
        assert session.run(ask).tolist() == [7]


def test_an_object_based_checkpoint_is_restored(tmp_path):
    """One of tf.train.Checkpoint, whose tensors have other names; as TensorFlow's saver does."""
    with tf.Graph().as_default(), v1.Session() as session:
        biases = v1.get_variable("layer1/biases", initializer=[1.0, 2.0])
        session.run(v1.global_variables_initializer())
        prefix = v1.train.Checkpoint(b=biases).save(str(tmp_path / "object"), session=session)
    with tf.Graph().as_default(), v1.Session() as session:
        biases = v1.get_variable("layer1/biases", initializer=[0.0, 0.0])
        Ours().restore(session, prefix)
        assert session.run(biases).tolist() == [1, 2]


def test_another_shape_is_restored_if_it_may(tmp_path):
    """With `reshape`, in the order of the elements; without, found and wanted are told."""
    with session_with() as (session, made):
        prefix = made.save(session, tmp_path / "model", 1)
    with tf.Graph().as_default(), v1.Session() as session:
        weights = v1.get_variable("layer1/weights", initializer=[9.0] * 4)
        with pytest.raises(CheckpointError, match=r"layer1/weights: float32 \[2, 2\] found, float32 \[4\] wanted"):
            Ours([weights]).restore(session, prefix)
        Ours([weights], reshape=True).restore(session, prefix)
        assert session.run(weights).tolist() == [0, 1, 2, 3]


INCOMPLETE = r"model-1\.data-00000-of-00001 is missing: the checkpoint is incomplete"


@pytest.mark.parametrize(
    ("harm", "kinds", "told"),
    [
        (flip_a_bit, "data*", r"model-1: cannot be restored \("),
        (cut_in_half, "data*", r"model-1: cannot be restored \("),
        (flip_a_bit, "index", r"model-1\.index: "),
        (Path.unlink, "data*", INCOMPLETE),
        (Path.unlink, "index", r"model-1: model-1\.index is missing"),
        (Path.unlink, "*", "there are model-2: give one of them, as in"),
    ],
)
def test_what_is_wrong_with_a_checkpoint_is_told(tmp_path, harm, kinds, told):
    """One sentence names the file, or the checkpoints that there are; no variable has changed."""
    with session_with() as (session, made):
        prefix = made.save(session, tmp_path / "model", 1)
        made.save(session, tmp_path / "model", 2)
        session.run([each.assign(tf.ones_like(each)) for each in v1.global_variables()])
        for path in tmp_path.glob(f"model-1.{kinds}"):
            harm(path)
        with pytest.raises(CheckpointError, match=told) as error:
            made.restore(session, prefix)
        assert "\n" not in str(error.value)
        assert all((value == 1).all() for value in session.run(v1.global_variables()))


def test_a_variable_that_is_missing_is_told(tmp_path):
    """With what there is."""
    with session_with() as (session, made):
        prefix = made.save(session, tmp_path / "model", 1)
        extra = v1.get_variable("layer2/weights", initializer=1.0)
        told = r"variable layer2/weights: no such variable found, float32 \[\] wanted.* it holds global_step, layer1"
        with pytest.raises(CheckpointError, match=told):
            Ours([extra]).restore(session, prefix)


def test_no_checkpoint_at_all_is_told(tmp_path):
    """latest_checkpoint gives None where there is none, and that is what restore gets then."""
    with session_with() as (session, made):
        with pytest.raises(CheckpointError, match="None found, the prefix of a checkpoint wanted"):
            made.restore(session, tf.train.latest_checkpoint(str(tmp_path)))
        with pytest.raises(CheckpointError, match="no checkpoint found"):
            made.restore(session, tmp_path)


def test_uninitialized_variables_are_told(tmp_path):
    """Nothing is left of the attempt."""
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("never", initializer=[0.0, 0.0])
        with pytest.raises(NotSavedError, match="never"):
            Ours().save(session, tmp_path / "model", 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [{"latest_filename": "a/b"}, {"global_step": "no such tensor:0"}])
def test_wrong_arguments_are_refused_as_before(tmp_path, arguments):
    """With TensorFlow's own errors."""
    with session_with() as (session, made), pytest.raises((ValueError, KeyError, TypeError)):
        made.save(session, tmp_path / "model", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_beforehand_costs_no_checkpoint(tmp_path, monkeypatch):
    """What lies at the prefix is not this save's to delete: it has not begun."""
    with session_with() as (session, to_save):
        to_save.save(session, tmp_path / "kept", write_state=False)
        before = tree(tmp_path)
        monkeypatch.setattr(durable, "make_directory", refuse)
        with pytest.raises(NotSavedError):
            to_save.save(session, tmp_path / "kept")
    assert tree(tmp_path) == before


def test_a_runs_own_checkpoints_are_not_rotated_away(tmp_path):
    """They are listed in the same state file, under the same name; a manifest tells whose they are."""
    owned = [make_checkpoint(tmp_path, step) for step in (10, 20)]
    checkpoint_state.write(tmp_path, [(prefix, 1.5) for prefix in owned], relative_paths=True)
    with session_with(max_to_keep=1) as (session, to_save):
        to_save.save(session, tmp_path / "model.ckpt", global_step=30)
        to_save.save(session, tmp_path / "model.ckpt", global_step=40)
    assert [layout.step_at_the_end(prefix) for prefix in layout.prefixes_in(tmp_path)] == [10, 20, 40]
