import shutil
import threading
import zipfile
from pathlib import Path

import pytest

from checkpointing.errors import CheckpointError
from checkpointing.protocol import cleanup, lookup
from checkpointing.protocol.lookup import resolve_checkpoint
from checkpointing.protocol.verification import verify, verify_saved_model
from checkpointing.storage import durable, layout
from checkpointing.tools.inspection import list_checkpoints
from tests.checkpoints import AWKWARD, DAMAGES, calls, flip_a_bit, make_checkpoint, make_files, mark, tree
from tests.writers import MODELS, WRITERS, make_foreign

RETENTION = {"max_to_keep": 2, "keep_checkpoint_every_n_hours": 10_000.0, "keep_best": 1}


@pytest.fixture(scope="module", params=WRITERS)
def written(request, tmp_path_factory):
    """A checkpoint of each writer; only to be looked at."""
    directory = tmp_path_factory.mktemp(request.param) / request.param
    WRITERS[request.param](directory)
    return directory


@pytest.fixture
def copy(written, tmp_path):
    """One that may be changed."""
    return shutil.copytree(written, tmp_path / written.name)


def complaint(function, *arguments):
    """The sentence that refuses this."""
    with pytest.raises(CheckpointError) as refused:
        function(*arguments)
    return str(refused.value)


def test_any_path_of_a_checkpoint_will_do(written):
    """Its directory, its prefix, each of its files; whoever wrote it."""
    prefix = resolve_checkpoint(written)
    assert resolve_checkpoint(prefix) == prefix
    for path in layout.files_of(prefix):
        assert resolve_checkpoint(path) == prefix


def test_what_is_whole_is_verified(written):
    """What it was compared with is told: the manifest of ours, TensorFlow's checksums of the others'."""
    wanted = "sha256 of 3 files" if written.name == "ours" else "crc32c of "
    assert verify(resolve_checkpoint(written)).startswith(wanted)
    if written.name in MODELS:
        assert "nothing is known of its graph's bytes" in verify_saved_model(written)


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_file_in_which_a_byte_is_wrong_is_named(copy, damage):
    """Each file of ours, and each of others' but the graph; nothing is changed by looking."""
    prefix = resolve_checkpoint(copy)
    for path in layout.files_of(prefix):
        if path.suffix == ".meta" and copy.name != "ours":
            continue
        whole = path.read_bytes()
        damage(path)
        before = tree(copy)
        if path.suffix == ".json" and not path.exists():  # then nothing says that it is ours
            assert verify(prefix).startswith("crc32c of ")
        else:
            assert path.name in complaint(verify, prefix)
        assert tree(copy) == before
        if path.is_dir():
            path.rmdir()
        path.write_bytes(whole)
    verify(prefix)


def test_every_bit_of_a_small_checkpoint_counts(tmp_path):
    """Of data and index alike, wherever it flips."""
    prefix = make_foreign(tmp_path, "model-20")
    for path in (prefix.with_name("model-20.data-00000-of-00001"), layout.index_path(prefix)):
        whole = path.read_bytes()
        for position in range(len(whole)):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :])
            assert path.name in complaint(verify, prefix)
        path.write_bytes(whole)


def test_a_graph_of_somebody_elses_is_not_looked_at(tmp_path):
    """Nothing records its bytes."""
    prefix = make_foreign(tmp_path, "model-20")
    flip_a_bit(layout.meta_path(prefix))
    assert verify(prefix) == "crc32c of 1 tensors"


def test_a_missing_file_is_named(copy):
    """Whichever of data and index it is, a checkpoint that lacks it is incomplete."""
    prefix = resolve_checkpoint(copy)
    for path in [layout.index_path(prefix), *prefix.parent.glob(f"{prefix.name}.data-*")]:
        whole = path.read_bytes()
        path.unlink()
        assert f"{path.name} is missing: the checkpoint is incomplete" in complaint(resolve_checkpoint, prefix)
        path.write_bytes(whole)


def test_a_rest_of_another_number_of_data_files_takes_nothing_away(tmp_path):
    """Somebody saved under the same name from two devices, then from one."""
    prefix = make_foreign(tmp_path, "model-20")
    (tmp_path / "model-20.data-00000-of-00002").touch()
    assert resolve_checkpoint(prefix) == prefix
    assert [each.problem for each in list_checkpoints(tmp_path)] == [None]


def test_an_unfinished_one_is_told(tmp_path):
    """Its mark says that its bytes are not to be looked at yet."""
    prefix = mark(make_files(tmp_path, 50))
    assert complaint(verify, prefix).startswith("model.ckpt-50.incomplete: it is being made or deleted")


def test_the_newest_of_a_directory_is_ours(tmp_path):
    """As for a run that goes on: the manifests decide, then the steps."""
    for step in (9, 10):
        make_foreign(tmp_path, f"model-{step}")
    assert resolve_checkpoint(tmp_path) == tmp_path / "model-10"
    make_checkpoint(tmp_path, 5)
    assert resolve_checkpoint(tmp_path) == layout.prefix(tmp_path, 5)


def test_the_newest_of_a_run_is_never_somebody_elses(tmp_path):
    """It comes with what its run recorded, which others do not."""
    make_foreign(tmp_path, "model-10")
    assert "model-10: no manifest found beside it; give the train_dir" in complaint(lookup.newest_of_run, tmp_path)
    make_checkpoint(tmp_path, 5)
    prefix, recorded = lookup.newest_of_run(tmp_path)
    assert (prefix, recorded.step) == (layout.prefix(tmp_path, 5), 5)


def test_a_prefix_that_is_not_there_lists_those_that_are(tmp_path):
    """In order of steps, with an example to copy."""
    for step in (100, 50):
        make_checkpoint(tmp_path, step)
    assert complaint(resolve_checkpoint, tmp_path / "model.ckpt-7") == (
        f"{tmp_path}/model.ckpt-7: no checkpoint found; in {tmp_path} there are model.ckpt-50, model.ckpt-100: "
        f"give one of them, as in {tmp_path}/model.ckpt-100."
    )


@pytest.mark.parametrize("name", ["model.ckpt-7", "absent/model.ckpt-7", "absent/deeper/model.ckpt-7"])
def test_a_place_without_checkpoints_is_told(tmp_path, name):
    """There are none."""
    assert complaint(resolve_checkpoint, tmp_path / name).endswith(f"in {(tmp_path / name).parent} there are none.")


def test_a_directory_without_checkpoints_is_told(tmp_path):
    """With what lies in it of their kind."""
    assert complaint(resolve_checkpoint, tmp_path) == f"{tmp_path}: no checkpoint found in it."
    (tmp_path / "model-7.index.tempstate12").touch()
    assert complaint(resolve_checkpoint, tmp_path).endswith("no checkpoint found in it, but model-7.index.tempstate12.")
    (tmp_path / "model-7.data-00000-of-00001").touch()
    assert complaint(resolve_checkpoint, tmp_path).endswith(
        "no checkpoint found in it, but model-7.data-00000-of-00001."
    )


@pytest.mark.parametrize("name", AWKWARD)
def test_a_directory_of_the_same_name_hides_no_checkpoint(tmp_path, name):
    """Whatever it is called."""
    prefix = make_foreign(tmp_path, name)
    prefix.mkdir()
    assert resolve_checkpoint(prefix) == prefix


def test_the_current_directory_is_one(tmp_path, monkeypatch):
    """By a dot."""
    make_checkpoint(tmp_path, 5)
    monkeypatch.chdir(tmp_path)
    assert resolve_checkpoint(Path()) == Path("model.ckpt-5")
    assert [each.step for each in list_checkpoints(Path())] == [5]


@pytest.mark.parametrize("name", ["model.weights.h5", "model.h5", "model.keras"])
def test_keras_own_format_is_told(tmp_path, name):
    """With what to do; also where nothing else is in the directory."""
    path = tmp_path / name
    if path.suffix == ".keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", "{}")
    else:
        path.write_bytes(b"\x89HDF\r\n\x1a\n and so on")
    assert "Keras' own format found" in complaint(resolve_checkpoint, path)
    assert "tf.train.Checkpoint(model=model).write" in complaint(resolve_checkpoint, path)
    assert f"but {name}: that is Keras' own format" in complaint(resolve_checkpoint, tmp_path)


@pytest.mark.parametrize("name", ["weights.npz", "model.pt", "model.ckpt-5", "checkpoint"])
def test_a_file_of_any_other_kind_is_told(tmp_path, name):
    """Not every archive is Keras'."""
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr("weights.npy", "")
    assert complaint(resolve_checkpoint, tmp_path / name).startswith(
        f"{tmp_path / name}: a file without an .index beside it"
    )


def test_a_listing_tells_all_of_ours(tmp_path):
    """Step, age, size, score, and why rotation keeps it; the newest last."""
    for step, score in ((10, 0.9), (20, 0.1), (30, 0.2), (40, None)):
        make_checkpoint(tmp_path, step, score=score, saved_at=1000.5 + step, retention=RETENTION)
    layout.pinned_path(layout.prefix(tmp_path, 20)).touch()
    listed = list_checkpoints(tmp_path)
    assert [each.step for each in listed] == [10, 20, 30, 40]
    assert [each.why_kept for each in listed] == ["best", "pinned", "newest", "newest"]
    assert [(each.complete, each.problem) for each in listed] == [(True, None)] * 4
    assert listed[0].prefix == layout.prefix(tmp_path, 10)
    assert (listed[0].score, listed[0].saved_at) == (0.9, 1010.5)
    assert listed[0].bytes == sum(path.stat().st_size for path in layout.contents_of(listed[0].prefix))


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("name", AWKWARD)
def test_a_listing_tells_what_is_known_of_others(tmp_path, monkeypatch, name, absolute):
    """Whether the state file names it, however the directory is given; nothing records what its bytes should be."""
    directory = tmp_path / name
    directory.mkdir()
    for step in (7, 9, 10):
        make_foreign(directory, f"model-{step}")
    paths = [str(directory.absolute() / each) if absolute else each for each in ("model-9", "model-10")]
    content = "".join(f'all_model_checkpoint_paths: "{path}"\n' for path in paths)
    (directory / "checkpoint").write_text(content, encoding="utf-8")
    monkeypatch.chdir(directory)
    for given in (directory, Path(), Path("..") / name):
        listed = list_checkpoints(given)
        assert [(each.prefix.name, each.step) for each in listed] == [("model-7", 7), ("model-9", 9), ("model-10", 10)]
        assert [each.why_kept for each in listed] == ["", *["named in the state file"] * 2]
        assert [each.complete for each in listed] == [None] * 3


def test_every_writers_checkpoint_is_listed(written):
    """With all its bytes."""
    prefix = resolve_checkpoint(written)
    (listed,) = list_checkpoints(prefix.parent)
    assert (listed.prefix, listed.problem, listed.step) == (prefix, None, layout.step_at_the_end(prefix))
    assert listed.bytes == sum(path.stat().st_size for path in layout.contents_of(prefix))


def test_a_listing_tells_what_is_wrong(tmp_path):
    """Of each in its own way."""
    for step in (10, 20, 30):
        make_checkpoint(tmp_path, step)
    flip_a_bit(layout.index_path(layout.prefix(tmp_path, 10)))
    layout.manifest_path(layout.prefix(tmp_path, 20)).write_bytes(b"")
    mark(make_files(tmp_path, 40))
    make_foreign(tmp_path, "model-50")
    (tmp_path / "model-50.data-00000-of-00001").unlink()
    wanted = [
        "model.ckpt-10.index: some of its bytes have changed",
        "model.ckpt-20.manifest.json: cannot be read as a manifest",
        None,
        "model.ckpt-40.incomplete: it is being made or deleted",
        "model-50.data-00000-of-00001: nothing found",
    ]
    listed = list_checkpoints(tmp_path)
    assert [each.complete for each in listed] == [False, False, True, False, False]
    for each, problem in zip(listed, wanted, strict=True):
        assert (each.problem or "").startswith(problem or "")
    assert [each.complete for each in list_checkpoints(tmp_path, check=False)] == [True, False, True, False, False]


@pytest.mark.parametrize(
    "name",
    [
        "app.manifest.json",
        "words.index",
        "download.incomplete",
        "video.data-00000-of-00001.incomplete",
        "todo.pinned",
        "graph.meta",
        "model.ckpt-7.pinned",
        "model.ckpt-7.meta",
        "model.ckpt-7.index.tempstate5",
    ],
)
def test_a_file_that_only_ends_alike_is_no_checkpoint(tmp_path, name):
    """Nor is a pin that outlived its checkpoint."""
    (tmp_path / name).write_text("mine")
    assert list_checkpoints(tmp_path) == []


def test_an_index_without_data_is_half_a_checkpoint(tmp_path):
    """If TensorFlow wrote it."""
    prefix = make_foreign(tmp_path, "model-50")
    (tmp_path / "model-50.data-00000-of-00001").unlink()
    assert [each.prefix for each in list_checkpoints(tmp_path)] == [prefix]


def test_what_is_no_directory_is_told(tmp_path):
    """In one sentence."""
    assert complaint(list_checkpoints, tmp_path / "absent").endswith(
        "no directory found there; give one with checkpoints in it."
    )


def test_a_run_that_saves_and_deletes_meanwhile_disturbs_no_look(tmp_path):
    """What stays is complete at every look, nothing is damaged, and no file that is gone is an error."""
    directory = tmp_path / "run"
    make_checkpoint(directory, 1)
    stop = threading.Event()

    def train():
        step = 1
        while not stop.is_set():
            step += 1
            prefix, made = mark(layout.prefix(directory, step)), make_checkpoint(tmp_path, step)
            for path in [*layout.contents_of(made), layout.manifest_path(made)]:
                path.rename(directory / path.name)
            durable.delete([layout.incomplete_path(prefix)])
            cleanup.retire(prefix)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable.os, "fsync", lambda _: None)
        thread = threading.Thread(target=train)
        thread.start()
        try:
            for look in range(150):
                listed = list_checkpoints(directory, check=look % 2 == 0)
                assert (listed[0].step, listed[0].complete) == (1, True)
                for each in listed:
                    assert not each.problem or ".incomplete: it is being" in each.problem
        finally:
            stop.set()
            thread.join()


def test_looking_takes_no_more_than_in_proportion(tmp_path):
    """Four times as many checkpoints, ours and others', are not more than about four times the work."""
    counts = []
    for number in (60, 240):
        directory = tmp_path / str(number)
        for step in range(number):
            make_checkpoint(directory, step, retention=RETENTION)
            make_foreign(directory, f"model-{step}")
        work = [calls(list_checkpoints, directory)]
        work.append(calls(lambda: [verify(each.prefix) for each in list_checkpoints(directory, check=False)]))  # noqa: B023
        counts.append(work)
    for few, many in zip(*counts, strict=True):
        assert many < 5 * few


def test_a_saved_model_is_one_by_its_graph(written):
    """A train_dir is none."""
    assert lookup.is_saved_model(written) == (written.name in MODELS)
