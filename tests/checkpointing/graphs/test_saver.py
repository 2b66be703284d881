import errno
import os
import re
import shutil
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
from tests import odd_files
from tests.checkpoints import AWKWARD, Killed, cut_in_half, flip_a_bit, make_checkpoint, tree

v1 = tf.compat.v1
Theirs, Ours = v1.train.Saver, saver.Saver
VALUES = {"layer1/weights": [[0.0, 1.0], [2.0, 3.0]], "layer1/biases": [4.0, 5.0]}


@contextmanager
def session_with(make_saver=Ours, *, use_resource=True, **options):
    """A session on a graph of two variables (VALUES) and a step (0), and a Saver of that kind."""
    with tf.Graph().as_default(), v1.Session() as session:
        for name, value in VALUES.items():
            v1.get_variable(name, initializer=value, use_resource=use_resource)
        v1.train.get_or_create_global_step()
        made = make_saver(**options)
        session.run(v1.global_variables_initializer())
        yield session, made


def variable(name):
    """Return the variable of this name in the current graph."""
    return next(each for each in v1.global_variables() if each.op.name == name)


def named(directory):
    """Return the names in the state file, the newest last, as TensorFlow reads it."""
    state = v1.train.get_checkpoint_state(str(directory))
    assert state.model_checkpoint_path == state.all_model_checkpoint_paths[-1]
    return [Path(path).name for path in state.all_model_checkpoint_paths]


def written(directory):
    """Return the names of a directory's files, and the tensors of its checkpoints."""
    names = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*"))
    return names, {prefix.name: tensor_io.read(prefix) for prefix in layout.prefixes_in(directory)}


def save_some(directory, make_saver, to_save, **options):
    """Save some steps with a Saver of that kind; return files, the paths from `save`, and last_checkpoints."""
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
    """For each option the same names, tensors, state file and last_checkpoints."""
    ours = save_some(tmp_path / "ours", Ours, to_save, **options)
    theirs = save_some(tmp_path / "theirs", Theirs, to_save, **options)
    assert ours[0][0] == theirs[0][0]
    assert ours[0][1].keys() == theirs[0][1].keys()
    for name, expected in theirs[0][1].items():
        assert {key: array.tolist() for key, array in ours[0][1][name].items()} == {
            key: array.tolist() for key, array in expected.items()
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
def test_global_step_may_be_of_any_type(tmp_path, kind):
    """An integer of any kind, a tensor, a variable, a tensor's name."""
    with session_with() as (session, made):
        step = variable("global_step")
        session.run(step.assign(12))
        steps = {"tensor": step.read_value(), "variable": step, "name": f"{step.op.name}/Read/ReadVariableOp:0"}
        path = made.save(session, tmp_path / "model", steps[kind] if isinstance(kind, str) else kind(12))
    assert path == str(tmp_path / "model-12")
    assert tf.train.latest_checkpoint(str(tmp_path)) == path


def test_positional_arguments_are_tensorflows():
    """Changing the import is enough."""
    with session_with() as (_, made):
        variables = [variable("layer1/biases")]
        one, other = Ours(variables, True, True, 3, 2.0), Theirs(variables, True, True, 3, 2.0)  # noqa: FBT003
        assert one.saver_def.max_to_keep == other.saver_def.max_to_keep == 3
        assert one.saver_def.keep_checkpoint_every_n_hours == other.saver_def.keep_checkpoint_every_n_hours == 2
        assert one.saver_def.sharded
        assert isinstance(made, Theirs)


def test_defer_build_and_saver_def_work(tmp_path):
    """As in TensorFlow's Saver."""
    with session_with() as (session, made):
        later = Ours(defer_build=True)
        later.build()
        again = Ours(saver_def=made.as_saver_def(), name="")
        for number, each in enumerate([later, again]):
            each.restore(session, each.save(session, tmp_path / "model", number))
    assert len(layout.prefixes_in(tmp_path)) == 2


@pytest.mark.parametrize("form", [list, tuple, dict])
def test_var_list_selects_variables(tmp_path, form):
    """A dict gives their names in the checkpoint; other variables keep their values."""
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
    """Checkpoints there are rotated and restored, by the same Saver and by a new one."""
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
    """So may the files' names."""
    with session_with(max_to_keep=1) as (session, made):
        for step in range(3):
            prefix = made.save(session, tmp_path / name, step)
        session.run(variable("layer1/biases").assign([0, 0]))
        made.restore(session, prefix)
        assert session.run(variable("layer1/biases")).tolist() == [4, 5]
    assert sorted(path.name for path in tmp_path.glob("*.index")) == [f"{name}-2.index"]


def test_a_new_process_continues_the_rotation(tmp_path):
    """The state file lists earlier checkpoints; a lower max_to_keep deletes at once."""
    for most, steps, expected in ((3, range(4), [1, 2, 3]), (3, range(4, 6), [3, 4, 5]), (1, range(6, 7), [6])):
        with session_with(max_to_keep=most) as (session, made):
            for step in steps:
                made.save(session, tmp_path / "model", step)
            assert [Path(path).name for path in made.last_checkpoints] == [f"model-{step}" for step in expected]
        assert named(tmp_path) == [f"model-{step}" for step in expected]
        assert [layout.step_at_the_end(prefix) for prefix in layout.prefixes_in(tmp_path)] == expected
        assert len(list(tmp_path.iterdir())) == 3 * len(expected) + 1


def test_rotation_takes_over_from_tensorflows_saver(tmp_path):
    """In the same directory."""
    save_some(tmp_path / "run", Theirs, STEPS[:3])
    with session_with(max_to_keep=2) as (session, made):
        made.save(session, tmp_path / "run" / "model", 3)
    assert written(tmp_path / "run")[0] == written_names("model-2", "model-3")


def written_names(*prefixes):
    """Return the names of these checkpoints' files and the state file."""
    kinds = ("data-00000-of-00001", "index", "meta")
    return ["checkpoint", *sorted(f"{prefix}.{kind}" for prefix in prefixes for kind in kinds)]


def test_a_copied_run_leaves_the_original_alone(tmp_path):
    """Although the copied state file holds absolute paths of the original."""
    save_some(tmp_path / "original", Theirs, STEPS[:3])
    before = tree(tmp_path / "original")
    shutil.copytree(tmp_path / "original", tmp_path / "copy")
    with session_with(max_to_keep=1) as (session, made):
        made.save(session, tmp_path / "copy" / "model", 3)
    assert tree(tmp_path / "original") == before
    assert written(tmp_path / "copy")[0] == written_names("model-3")


def test_a_moved_run_continues(tmp_path):
    """Although its state file holds paths that no longer exist."""
    save_some(tmp_path / "old", Theirs, STEPS[:3])
    (tmp_path / "old").rename(tmp_path / "new")
    with session_with(max_to_keep=2) as (session, made):
        made.save(session, tmp_path / "new" / "model", 3)
    assert written(tmp_path / "new")[0] == written_names("model-2", "model-3")


@pytest.mark.parametrize("state_file_name", [None, "checkpoint-best"])
def test_another_savers_checkpoints_are_left_alone(tmp_path, state_file_name):
    """One Saver keeps the newest, another the best: neither deletes the other's, old or new."""
    for begin in (0, 3):
        with session_with(max_to_keep=2) as (session, newest):
            best = Ours(max_to_keep=1)
            for step in range(begin, begin + 3):
                newest.save(session, tmp_path / "model", step)
            best.save(session, tmp_path / "best", begin, latest_filename=state_file_name)
        there = [path.name for path in layout.prefixes_in(tmp_path)]
        assert {f"best-{begin}", f"model-{begin + 1}", f"model-{begin + 2}"} <= set(there)
    assert len(there) == 3 or state_file_name is None  # with a state file each, both continue after a restart


def test_a_checkpoint_in_the_state_file_may_be_gone(tmp_path):
    """Deleted entirely or in part: saving continues."""
    for gone in ("model-1.*", "model-1.index", "model-1.data*"):
        directory = tmp_path / re.sub(r"\W", "_", gone)
        save_some(directory, Theirs, STEPS[:3])
        for path in directory.glob(gone):
            path.unlink()
        with session_with(max_to_keep=2) as (session, made):
            made.save(session, directory / "model", 3)
        assert named(directory) == ["model-2", "model-3"]


def test_one_checkpoint_every_n_hours_is_kept(tmp_path, monkeypatch):
    """The hours count from the Saver's creation, as in TensorFlow."""
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
def test_nothing_is_overwritten(tmp_path, arguments):
    """A second save to the same prefix is refused with a hint, and changes no byte; also by a new Saver."""
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
    """Files of a killed save are moved aside, not overwritten; the state file names complete checkpoints only."""
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


def test_parts_of_a_checkpoint_are_no_obstacle(tmp_path):
    """A kill while TensorFlow writes leaves temporary files, or data without an index."""
    (tmp_path / "model-2.data-00000-of-00001").write_bytes(b"half")
    (tmp_path / "model-2.index.tempstate12345").write_bytes(b"half")
    (tmp_path / "model-2_temp").mkdir()
    with session_with() as (session, made):
        made.save(session, tmp_path / "model", 2)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == written_names("model-2")
    assert tensor_io.read(tmp_path / "model-2")["layer1/biases"].tolist() == [4, 5]


@pytest.mark.parametrize("suffix", ["meta", "graph"])
@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("size", [0, 8, 100, 500])
def test_a_full_disk_leaves_nothing(tmp_path, size, sharded, suffix):
    """If data, index or graph do not fit: an error, older checkpoints unchanged; and the next save works."""
    with session_with(sharded=sharded) as (session, made):
        made.save(session, tmp_path / "model", 1)
        before = tree(tmp_path)
        with (
            odd_files.files_of_at_most(size),
            pytest.raises(NotSavedError, match=r"(?m)model-2: could not be saved \(.+\)$"),
        ):
            made.save(session, tmp_path / "model", 2, meta_graph_suffix=suffix)
        assert tree(tmp_path) == before
        assert not [path for path in tmp_path.iterdir() if path.is_dir()]
        assert [Path(path).name for path in made.last_checkpoints] == ["model-1"]
        made.save(session, tmp_path / "model", 2)
    assert named(tmp_path) == ["model-1", "model-2"]


def refuse(*_args, **_kwargs):
    """Raise the error of a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_without_a_state_file_the_checkpoint_is_deleted(tmp_path, monkeypatch):
    """If the state file cannot be written, the files do not fill the disk, and do not count as the newest."""
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


def test_checkpoints_in_the_state_file_exist(tmp_path, monkeypatch, caplog):
    """If deleting an old one fails, the new one stays, and a warning is logged."""
    with session_with(max_to_keep=1) as (session, made):
        made.save(session, tmp_path / "model", 1)
        with monkeypatch.context() as patched:
            patched.setattr(durable, "delete", refuse)
            made.save(session, tmp_path / "model", 2)
        assert "model-1: beyond max_to_keep, but could not be deleted (No space left on device)" in caplog.text
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


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path):
    """Below a file there is no directory."""
    (tmp_path / "file").touch()
    with session_with() as (session, made):
        for path in ("file/model", "file/deeper/model"):
            with pytest.raises(NotSavedError, match="could not be saved"):
                made.save(session, tmp_path / path, 1)


def test_all_is_on_the_disk_before_the_state_file_names_it(tmp_path, monkeypatch):
    """Each file and the directory is synced, so a power cut afterwards loses nothing."""
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
    """By option, or because the path was relative, as in TensorFlow's Saver."""
    monkeypatch.chdir(tmp_path)
    cases = [(tmp_path / "a0" / "model", {"save_relative_paths": True}), ("a1/model", {})]
    for number, (path, options) in enumerate(cases):
        with session_with(**options) as (session, made):
            for step in range(2):
                made.save(session, path, step)
        (tmp_path / f"a{number}").rename(tmp_path / f"b{number}")
        assert tf.train.latest_checkpoint(f"b{number}") == f"b{number}/model-1"


def test_a_plain_name_goes_to_the_working_directory(tmp_path, monkeypatch):
    """Like any path without a directory."""
    monkeypatch.chdir(tmp_path)
    with session_with(max_to_keep=1) as (session, made):
        for step in range(2):
            prefix = made.save(session, "model", step)
        made.restore(session, prefix)
    assert written(tmp_path)[0] == written_names("model-1")


def test_the_graph_need_not_be_the_current_one(tmp_path):
    """For saving and restoring; and it may be finalized."""
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
    """By prefix, by one of its files, or by directory for the newest."""
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


def test_a_checkpoint_wins_over_a_directory_of_the_same_name(tmp_path):
    """A directory `model` next to model.index is no obstacle."""
    (tmp_path / "model").mkdir()
    with session_with() as (session, made):
        made.restore(session, made.save(session, tmp_path / "model"))


@pytest.mark.parametrize("partitioned", [False, True])
def test_partitioned_variables_are_restored(tmp_path, partitioned):
    """A partitioned variable is one tensor of the checkpoint; by list and by dict."""
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


def test_tables_are_saved(tmp_path):
    """They are among the default saveable objects."""
    with tf.Graph().as_default(), v1.Session() as session:
        table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
        fill, query = table.insert(["a"], [7]), table.lookup(["a"])
        session.run(fill)
        made = Ours()
        prefix = made.save(session, tmp_path / "model", 1)
        session.run(table.remove(tf.constant(["a"])))
        assert session.run(query).tolist() == [-1]
        made.restore(session, prefix)
        assert session.run(query).tolist() == [7]


def test_an_object_based_checkpoint_is_restored(tmp_path):
    """One of tf.train.Checkpoint, whose tensors have other names; as in TensorFlow's Saver."""
    with tf.Graph().as_default(), v1.Session() as session:
        biases = v1.get_variable("layer1/biases", initializer=[1.0, 2.0])
        session.run(v1.global_variables_initializer())
        prefix = v1.train.Checkpoint(b=biases).save(str(tmp_path / "object"), session=session)
    with tf.Graph().as_default(), v1.Session() as session:
        biases = v1.get_variable("layer1/biases", initializer=[0.0, 0.0])
        Ours().restore(session, prefix)
        assert session.run(biases).tolist() == [1, 2]


def test_another_shape_is_restored_with_reshape(tmp_path):
    """In the order of the elements; without `reshape` it is an error."""
    with session_with() as (session, made):
        prefix = made.save(session, tmp_path / "model", 1)
    with tf.Graph().as_default(), v1.Session() as session:
        weights = v1.get_variable("layer1/weights", initializer=[9.0] * 4)
        with pytest.raises(CheckpointError, match=r"layer1/weights: expected float32 \[4\], got float32 \[2, 2\]"):
            Ours([weights]).restore(session, prefix)
        Ours([weights], reshape=True).restore(session, prefix)
        assert session.run(weights).tolist() == [0, 1, 2, 3]


INCOMPLETE = r"model-1\.data-00000-of-00001 is missing"


@pytest.mark.parametrize(
    ("harm", "kinds", "message"),
    [
        (flip_a_bit, "data*", r"model-1: cannot be restored \("),
        (cut_in_half, "data*", r"model-1: cannot be restored \("),
        (flip_a_bit, "index", r"model-1\.index: "),
        (Path.unlink, "data*", INCOMPLETE),
        (Path.unlink, "index", r"model-1: model-1\.index is missing"),
        (Path.unlink, "*", "there are model-2"),
    ],
)
def test_a_damaged_or_missing_checkpoint_is_an_error(tmp_path, harm, kinds, message):
    """The message names the file, or the checkpoints that there are; no variable has changed."""
    with session_with() as (session, made):
        prefix = made.save(session, tmp_path / "model", 1)
        made.save(session, tmp_path / "model", 2)
        session.run([each.assign(tf.ones_like(each)) for each in v1.global_variables()])
        for path in tmp_path.glob(f"model-1.{kinds}"):
            harm(path)
        with pytest.raises(CheckpointError, match=message) as error:
            made.restore(session, prefix)
        assert "\n" not in str(error.value)
        assert all((value == 1).all() for value in session.run(v1.global_variables()))


def test_a_missing_variable_is_an_error(tmp_path):
    """The message lists the checkpoint's tensors."""
    with session_with() as (session, made):
        prefix = made.save(session, tmp_path / "model", 1)
        extra = v1.get_variable("layer2/weights", initializer=1.0)
        message = r"variable layer2/weights: expected float32 \[\], got no such variable; it holds global_step, layer1"
        with pytest.raises(CheckpointError, match=message):
            Ours([extra]).restore(session, prefix)


def test_no_checkpoint_is_an_error(tmp_path):
    """latest_checkpoint returns None then, which may be passed to restore."""
    with session_with() as (session, made):
        with pytest.raises(CheckpointError, match="save_path: expected the prefix of a checkpoint, got None"):
            made.restore(session, tf.train.latest_checkpoint(str(tmp_path)))
        with pytest.raises(CheckpointError, match="no checkpoint found"):
            made.restore(session, tmp_path)


def test_uninitialized_variables_are_an_error(tmp_path):
    """No file is left."""
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("never", initializer=[0.0, 0.0])
        with pytest.raises(NotSavedError, match="never"):
            Ours().save(session, tmp_path / "model", 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [{"latest_filename": "a/b"}, {"global_step": "no such tensor:0"}])
def test_wrong_arguments_are_refused(tmp_path, arguments):
    """With TensorFlow's own errors."""
    with session_with() as (session, made), pytest.raises((ValueError, KeyError, TypeError)):
        made.save(session, tmp_path / "model", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_before_the_save_deletes_nothing(tmp_path, monkeypatch):
    """A checkpoint with the same prefix stays."""
    with session_with() as (session, to_save):
        to_save.save(session, tmp_path / "kept", write_state=False)
        before = tree(tmp_path)
        monkeypatch.setattr(durable, "make_directory", refuse)
        with pytest.raises(NotSavedError):
            to_save.save(session, tmp_path / "kept")
    assert tree(tmp_path) == before


def test_a_managers_checkpoints_are_not_rotated_away(tmp_path):
    """They are in the same state file, under the same name, but have manifests."""
    owned = [make_checkpoint(tmp_path, step) for step in (10, 20)]
    checkpoint_state.write(tmp_path, [(prefix, 1.5) for prefix in owned], relative_paths=True)
    with session_with(max_to_keep=1) as (session, to_save):
        to_save.save(session, tmp_path / "model.ckpt", global_step=30)
        to_save.save(session, tmp_path / "model.ckpt", global_step=40)
    assert [layout.step_at_the_end(prefix) for prefix in layout.prefixes_in(tmp_path)] == [10, 20, 40]


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_a_name_that_cannot_be_stored_is_an_error(tmp_path, name):
    """TensorFlow's Saver ends the process if a name is empty; nothing is written."""
    with session_with() as (session, _):
        with pytest.raises(CheckpointError, match=r"expected (a name for each tensor|tensors' names)"):
            Ours({name: variable("layer1/biases")}).save(session, tmp_path / "run" / "x")
        assert list(tmp_path.iterdir()) == []
