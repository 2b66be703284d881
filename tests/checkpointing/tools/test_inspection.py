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
from tests.writers import MODELS, make_foreign

RETENTION = {"max_to_keep": 2, "keep_checkpoint_every_n_hours": 10_000.0, "keep_best": 1}


@pytest.fixture
def copy(written, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(written, tmp_path / written.name)


def complaint(function, *arguments):
    """The message of the CheckpointError that a call raises."""
    with pytest.raises(CheckpointError) as refused:
        function(*arguments)
    return str(refused.value)


def test_any_path_of_a_checkpoint_is_resolved(written):
    """Its directory, its prefix and each of its files, for every writer."""
    prefix = resolve_checkpoint(written)
    assert resolve_checkpoint(prefix) == prefix
    for path in layout.files_of(prefix):
        assert resolve_checkpoint(path) == prefix


def test_complete_checkpoints_are_verified(written):
    """By the manifest, or by TensorFlow's checksums; the result says which."""
    expected = "sha256 of 3 files" if written.name == "ours" else "crc32c of "
    assert verify(resolve_checkpoint(written)).startswith(expected)
    if written.name in MODELS:
        assert "its graph has no checksum" in verify_saved_model(written)


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_damaged_file_is_named(copy, damage):
    """Every file with a manifest, every file but the graph without one; verification changes nothing."""
    prefix = resolve_checkpoint(copy)
    for path in layout.files_of(prefix):
        if path.suffix == ".meta" and copy.name != "ours":
            continue
        whole = path.read_bytes()
        damage(path)
        before = tree(copy)
        if path.suffix == ".json" and not path.exists():  # then it is verified like another writer's
            assert verify(prefix).startswith("crc32c of ")
        else:
            assert path.name in complaint(verify, prefix)
        assert tree(copy) == before
        if path.is_dir():
            path.rmdir()
        path.write_bytes(whole)
    verify(prefix)


def test_every_flipped_bit_is_found(tmp_path):
    """One in each byte of data and index."""
    prefix = make_foreign(tmp_path, "model-20")
    for path in (prefix.with_name("model-20.data-00000-of-00001"), layout.index_path(prefix)):
        whole = path.read_bytes()
        for position in range(len(whole)):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :])
            assert path.name in complaint(verify, prefix)
        path.write_bytes(whole)


def test_a_graph_without_a_manifest_is_not_verified(tmp_path):
    """Nothing records its bytes."""
    prefix = make_foreign(tmp_path, "model-20")
    flip_a_bit(layout.meta_path(prefix))
    assert verify(prefix) == "crc32c of 1 tensors"


def test_a_missing_file_is_named(copy):
    """A checkpoint without its index or a data file is incomplete."""
    prefix = resolve_checkpoint(copy)
    for path in [layout.index_path(prefix), *prefix.parent.glob(f"{prefix.name}.data-*")]:
        whole = path.read_bytes()
        path.unlink()
        assert f"{path.name} is missing" in complaint(resolve_checkpoint, prefix)
        path.write_bytes(whole)


def test_leftover_data_files_of_another_number_do_no_harm(tmp_path):
    """Left by an earlier save under the same name, from two devices instead of one."""
    prefix = make_foreign(tmp_path, "model-20")
    (tmp_path / "model-20.data-00000-of-00002").touch()
    assert resolve_checkpoint(prefix) == prefix
    assert [each.problem for each in list_checkpoints(tmp_path)] == [None]


def test_an_unfinished_checkpoint_is_an_error(tmp_path):
    """It is recognised by its mark."""
    prefix = mark(make_files(tmp_path, 50))
    assert complaint(verify, prefix).startswith("model.ckpt-50.incomplete: it is being made or deleted")


def test_the_newest_of_a_directory_has_a_manifest(tmp_path):
    """As for a run that resumes; without manifests the highest step is the newest."""
    for step in (9, 10):
        make_foreign(tmp_path, f"model-{step}")
    assert resolve_checkpoint(tmp_path) == tmp_path / "model-10"
    make_checkpoint(tmp_path, 5)
    assert resolve_checkpoint(tmp_path) == layout.prefix(tmp_path, 5)


def test_the_newest_of_a_run_needs_a_manifest(tmp_path):
    """It is returned with its manifest."""
    make_foreign(tmp_path, "model-10")
    assert "model-10: it has no manifest" in complaint(lookup.newest_of_run, tmp_path)
    make_checkpoint(tmp_path, 5)
    prefix, recorded = lookup.newest_of_run(tmp_path)
    assert (prefix, recorded.step) == (layout.prefix(tmp_path, 5), 5)


def test_an_unknown_prefix_lists_the_known_ones(tmp_path):
    """In the order of their steps, with an example."""
    for step in (100, 50):
        make_checkpoint(tmp_path, step)
    assert complaint(resolve_checkpoint, tmp_path / "model.ckpt-7") == (
        f"{tmp_path}/model.ckpt-7: no checkpoint found; in {tmp_path} there are model.ckpt-50, model.ckpt-100"
    )


@pytest.mark.parametrize("name", ["model.ckpt-7", "absent/model.ckpt-7", "absent/deeper/model.ckpt-7"])
def test_a_prefix_in_a_directory_without_checkpoints_is_an_error(tmp_path, name):
    """The message says that there are none."""
    assert complaint(resolve_checkpoint, tmp_path / name).endswith(f"in {(tmp_path / name).parent} there are none")


def test_a_directory_without_checkpoints_is_an_error(tmp_path):
    """The message names a leftover, if there is one."""
    assert complaint(resolve_checkpoint, tmp_path) == f"{tmp_path}: no checkpoint found"
    (tmp_path / "model-7.index.tempstate12").touch()
    assert complaint(resolve_checkpoint, tmp_path).endswith(
        "no checkpoint found; model-7.index.tempstate12 belongs to none, or to an incomplete one"
    )
    (tmp_path / "model-7.data-00000-of-00001").touch()
    assert complaint(resolve_checkpoint, tmp_path).endswith(
        "no checkpoint found; model-7.data-00000-of-00001 belongs to none, or to an incomplete one"
    )


@pytest.mark.parametrize("name", AWKWARD)
def test_a_directory_of_the_same_name_hides_no_checkpoint(tmp_path, name):
    """For any name."""
    prefix = make_foreign(tmp_path, name)
    prefix.mkdir()
    assert resolve_checkpoint(prefix) == prefix


def test_the_current_directory_is_resolved(tmp_path, monkeypatch):
    """As Path()."""
    make_checkpoint(tmp_path, 5)
    monkeypatch.chdir(tmp_path)
    assert resolve_checkpoint(Path()) == Path("model.ckpt-5")
    assert [each.step for each in list_checkpoints(Path())] == [5]


@pytest.mark.parametrize("name", ["model.weights.h5", "model.h5", "model.keras"])
def test_keras_format_is_recognised(tmp_path, name):
    """Of a file and in a directory; the error says what to do."""
    path = tmp_path / name
    if path.suffix == ".keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", "{}")
    else:
        path.write_bytes(b"\x89HDF\r\n\x1a\n and so on")
    with pytest.raises(CheckpointError, match="expected a TensorFlow checkpoint, got Keras' own format") as refused:
        resolve_checkpoint(path)
    assert "tf.train.Checkpoint(model=model).write" in refused.value.hint
    assert f"; {name} has Keras' own format" in complaint(resolve_checkpoint, tmp_path)


@pytest.mark.parametrize("name", ["weights.npz", "model.pt", "model.ckpt-5", "checkpoint"])
def test_other_files_are_an_error(tmp_path, name):
    """A zip archive need not be Keras'."""
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr("weights.npy", "")
    assert complaint(resolve_checkpoint, tmp_path / name).startswith(
        f"{tmp_path / name}: expected a checkpoint's prefix, got a file without an .index file"
    )


def test_a_list_of_checkpoints_with_manifests(tmp_path):
    """Step, time, size, score, and why retention keeps each; the newest last."""
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
def test_a_list_of_checkpoints_without_manifests(tmp_path, monkeypatch, name, absolute):
    """They are kept if the state file names them; whether they are complete is unknown."""
    directory = tmp_path / name
    directory.mkdir()
    for step in (7, 9, 10):
        make_foreign(directory, f"model-{step}")
    paths = [str(directory.absolute() / each) if absolute else each for each in ("model-9", "model-10")]
    content = "".join(f'all_model_checkpoint_paths: "{path}"\n' for path in paths)
    (directory / "checkpoint").write_text(content, encoding="utf-8")
    monkeypatch.chdir(directory)
    for path in (directory, Path(), Path("..") / name):
        listed = list_checkpoints(path)
        assert [(each.prefix.name, each.step) for each in listed] == [("model-7", 7), ("model-9", 9), ("model-10", 10)]
        assert [each.why_kept for each in listed] == ["", *["named in the state file"] * 2]
        assert [each.complete for each in listed] == [None] * 3
    (directory / "checkpoint").write_text('model_checkpoint_path: "model-9"\n' + content, encoding="utf-8")
    expected = ["", "named in the state file as the newest", "named in the state file"]
    assert [each.why_kept for each in list_checkpoints(directory)] == expected


def test_checkpoints_of_every_writer_are_listed(written):
    """With the size of all their files."""
    prefix = resolve_checkpoint(written)
    (listed,) = list_checkpoints(prefix.parent)
    assert (listed.prefix, listed.problem, listed.step) == (prefix, None, layout.step_at_the_end(prefix))
    assert listed.bytes == sum(path.stat().st_size for path in layout.contents_of(prefix))


def test_a_list_says_what_is_wrong(tmp_path):
    """For each kind of damage."""
    for step in (10, 20, 30):
        make_checkpoint(tmp_path, step)
    flip_a_bit(layout.index_path(layout.prefix(tmp_path, 10)))
    layout.manifest_path(layout.prefix(tmp_path, 20)).write_bytes(b"")
    mark(make_files(tmp_path, 40))
    make_foreign(tmp_path, "model-50")
    (tmp_path / "model-50.data-00000-of-00001").unlink()
    problems = [
        "model.ckpt-10.index: some of its bytes have changed",
        "model.ckpt-20.manifest.json: cannot be read as a manifest",
        None,
        "model.ckpt-40.incomplete: it is being made or deleted",
        "model-50.data-00000-of-00001: file not found",
    ]
    listed = list_checkpoints(tmp_path)
    assert [each.complete for each in listed] == [False, False, True, False, False]
    for each, problem in zip(listed, problems, strict=True):
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
def test_a_file_with_a_similar_name_is_not_a_checkpoint(tmp_path, name):
    """Nor is a pin without a checkpoint."""
    (tmp_path / name).write_text("mine")
    assert list_checkpoints(tmp_path) == []


def test_an_index_without_data_is_listed(tmp_path):
    """If its content is a checkpoint's index."""
    prefix = make_foreign(tmp_path, "model-50")
    (tmp_path / "model-50.data-00000-of-00001").unlink()
    assert [each.prefix for each in list_checkpoints(tmp_path)] == [prefix]


def test_a_missing_directory_is_an_error(tmp_path):
    """Of the path."""
    assert complaint(list_checkpoints, tmp_path / "absent") == f"{tmp_path / 'absent'}: no such directory"


def test_listing_works_while_a_run_saves_and_deletes(tmp_path):
    """No checkpoint is reported as damaged, and a file that is gone is not an error."""
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
            cleanup.delete_unless_pinned(prefix)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable.os, "fsync", lambda _: None)
        thread = threading.Thread(target=train)
        thread.start()
        try:
            for number in range(150):
                listed = list_checkpoints(directory, check=number % 2 == 0)
                assert (listed[0].step, listed[0].complete) == (1, True)
                for each in listed:
                    assert not each.problem or ".incomplete: it is being" in each.problem
        finally:
            stop.set()
            thread.join()


def test_listing_takes_linear_time(tmp_path):
    """Four times as many checkpoints take about four times as many calls."""
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


def test_a_saved_model_is_recognised_by_its_graph(written):
    """A train_dir is not one."""
    assert lookup.is_saved_model(written) == (written.name in MODELS)
