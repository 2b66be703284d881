from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpointing.storage import layout

UNHURRIED = settings(deadline=None)  # the machine may be busy
STEPS = st.integers(0, 10**12)
KINDS = [".data-00000-of-00001", ".index", ".meta", ".manifest.json", ".manifest.json.tmp", ".incomplete", ".pinned"]
# Left by TensorFlow's Saver when it is killed.
TEMPORARY = [".data-00000-of-00001.tempstate1234", ".index.tempstate1234", "_temp"]
# Other files of this package.
OURS = [layout.STATE_FILE, layout.METRICS, layout.HISTORY, layout.ATTEMPT, layout.LOCK, layout.RESULT, layout.REASON]
FOREIGN = [
    *OURS,
    "quarantine",
    "saved_model",
    "model.ckpt",
    "model.ckpt-",
    "model.ckpt-.index",
    "model.ckpt-7",
    "model.ckpt-07.index",
    "model.ckpt--7.index",
    "model.ckpt-7x.index",
    "model.ckpt-7\u0667.index",  # 7, and an Arabic 7
    "model.ckpt-7e1.index",
    "model.ckpt-7.index\n",
    "model.ckpt-7.pinned.txt",
    "model.ckpt-7_temporary",
    "Model.ckpt-7.index",
    "amodel.ckpt-7.index",
    "model-ckpt-7.index",
    "",
]


def make_files(directory, *names):
    """Make empty files of these names."""
    for name in names:
        (directory / name).touch()


@UNHURRIED
@given(STEPS, st.sampled_from(KINDS + TEMPORARY))
def test_step_of_a_checkpoints_files(step, kind):
    """Each file of a checkpoint, also a temporary one of TensorFlow's, gives the step."""
    assert layout.step_of(layout.prefix(Path("runs"), step).name + kind) == step


@pytest.mark.parametrize("name", FOREIGN)
def test_other_names_have_no_step(name):
    """Also those that are similar to a checkpoint's."""
    assert layout.step_of(name) is None


@UNHURRIED
@given(STEPS)
def test_the_names_are_tensorflows(step):
    """A checkpoint has TensorFlow's names, and a manifest."""
    prefix = layout.prefix(Path("runs"), step)
    assert prefix == Path(f"runs/model.ckpt-{step}")
    assert layout.meta_path(prefix) == Path(f"runs/model.ckpt-{step}.meta")
    assert layout.index_path(prefix) == Path(f"runs/model.ckpt-{step}.index")
    assert layout.manifest_path(prefix) == Path(f"runs/model.ckpt-{step}.manifest.json")
    assert layout.shards_directory(prefix) == Path(f"runs/model.ckpt-{step}_temp")


@UNHURRIED
@given(STEPS)
def test_every_name_that_is_built_is_parsed(step):
    """Each belongs to its step, and no two are equal."""
    prefix = layout.prefix(Path("runs"), step)
    built = [
        layout.meta_path,
        layout.index_path,
        layout.manifest_path,
        layout.incomplete_path,
        layout.pinned_path,
        layout.shards_directory,
    ]
    paths = [build(prefix) for build in built]
    assert [layout.step_of(path.name) for path in paths] == [step] * len(built)
    assert len(set(paths)) == len(built)


def test_names_in_a_train_dir_are_distinct():
    """No two kinds of files have the same name."""
    names = [*OURS, layout.quarantine_path(Path()).name, layout.export_path(Path(), 7).parent.name]
    assert len(set(names)) == len(names)


def test_the_exported_model_is_numbered():
    """TensorFlow Serving loads numbered directories; an unfinished export has no number."""
    target = layout.export_path(Path("runs"), 100)
    assert target == Path("runs/saved_model/100")
    staging = layout.staging_path(target, "01234567")
    assert staging.parent == target.parent
    assert not staging.name.isdecimal()


def test_a_target_has_only_its_own_staging_directories(tmp_path):
    """Not those of a target with a longer name, and no names that no export makes."""
    own = [layout.staging_path(tmp_path / "run[1]", token) for token in ("01234567", "89abcdef")]
    others = [
        "run[1].incomplete",
        "run[1].incomplete-0123456",
        "run[1].incomplete-0123456g",
        "run1.incomplete-01234567",
    ]
    for path in (*own, *(tmp_path / name for name in others), layout.staging_path(tmp_path / "run[1].2", "01234567")):
        path.mkdir()
    assert layout.staging_paths(tmp_path / "run[1]") == own


def test_a_damaged_export_is_moved_to_its_train_dirs_quarantine(tmp_path):
    """An export outside, also behind a symbolic link, stays on its disk, beside the target."""
    (tmp_path / "run").mkdir()
    (tmp_path / "disk").mkdir()
    (tmp_path / "run" / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "link").symlink_to("run")
    run = tmp_path / "run"
    expected = {
        run / "saved_model" / "7": run / "quarantine" / "saved_model-7",
        tmp_path / "link" / "out": run / "quarantine" / "out",
        tmp_path / "out": tmp_path / "out.damaged",
        run / "linked" / "7": run / "linked" / "7.damaged",
    }
    assert {target: layout.export_quarantine_path(target, run) for target in expected} == expected


def test_a_checkpoint_has_only_its_own_files(tmp_path):
    """Step 1 has no file of steps 10 and 11, and none that belongs to no checkpoint."""
    own = sorted(f"model.ckpt-1{kind}" for kind in KINDS + TEMPORARY)
    others = [f"model.ckpt-{step}{kind}" for step in (0, 10, 11, 21) for kind in KINDS + TEMPORARY]
    make_files(tmp_path, *own, *others, *filter(None, FOREIGN))
    assert [path.name for path in layout.files_of(layout.prefix(tmp_path, 1))] == own


def test_files_in_quarantine_belong_to_no_checkpoint(tmp_path):
    """No function lists a damaged checkpoint there as one of the train_dir."""
    quarantine = layout.quarantine_path(tmp_path) / "model.ckpt-7"
    quarantine.mkdir(parents=True)
    make_files(quarantine, *(f"model.ckpt-7{kind}" for kind in KINDS))
    assert layout.files_of(layout.prefix(tmp_path, 7)) == []
    assert layout.steps_with(tmp_path, "manifest.json") == []
    assert layout.prefixes_in(tmp_path) == []


def test_a_prefix_of_any_name_has_only_its_own_files(tmp_path):
    """Files that merely begin with the prefix do not belong to it."""
    own = ["weights.data-00000-of-00001", "weights.index", "weights.meta"]
    make_files(tmp_path, *own, "weights.txt", "weights-1.index", "weights.index.bak", "weights", "model.ckpt-1.index")
    assert [path.name for path in layout.files_of(tmp_path / "weights")] == own


@pytest.mark.parametrize("name", ["model.ckpt-7", "ckpt", "my.model-3", "größe\n"])
def test_prefix_of_a_checkpoints_files(name):
    """With any name, if the suffix is that of a checkpoint's file."""
    for kind in ("index", "meta", "data-00000-of-00002", "manifest.json", "pinned"):
        assert layout.prefix_of(Path("runs") / f"{name}.{kind}") == Path("runs") / name
    for other in (name, f"{name}.txt", f"{name}.index.bak", f"{name}.index.tempstate5", "checkpoint", ".index"):
        assert layout.prefix_of(Path("runs") / other) is None


@pytest.mark.parametrize(
    "leftover",
    [
        "m-3.index.tempstate12",
        "m-3.data-00000-of-00001.tempstate99",
        f"m-3.meta.tmp{8 * '0a1b'}",
        f"m-3.tmp{8 * '0a1b'}",
        "m-3_temp",
    ],
)
def test_tensorflows_temporary_files_are_recognised(leftover):
    """By their names; a user's temporary file is not."""
    assert layout.leftover_of(Path("runs") / leftover) == "m-3"
    for other in ("m-3.index", "m-3.tmp", "notes.tmp1", "notes.tmp20261123", "m-3.meta", "temp"):
        assert layout.leftover_of(Path("runs") / other) is None


def test_prefixes_are_sorted_by_step():
    """9 before 10; prefixes without a step first."""
    names = ["final", "m-9", "m-10", "other-10"]
    assert sorted((Path(name) for name in reversed(names)), key=layout.by_step) == list(map(Path, names))
    assert [layout.step_at_the_end(Path(name)) for name in names] == [None, 9, 10, 10]


def test_steps_are_sorted_by_number(tmp_path):
    """9 before 10; other kinds and other files do not count."""
    make_files(tmp_path, *(f"model.ckpt-{step}.index" for step in (100, 9, 10, 0)))
    make_files(tmp_path, "model.ckpt-11.meta", "model.ckpt-12.index.tempstate7", "model.ckpt-13", "checkpoint")
    make_files(tmp_path, "model.ckpt-10.pinned", "model.ckpt-9.pinned", "model.ckpt-0.pinned.tmp")
    assert layout.steps_with(tmp_path, "index") == [0, 9, 10, 100]
    assert layout.steps_with(tmp_path, "pinned") == [9, 10]
    assert layout.steps_with(tmp_path, "manifest.json") == []


def test_prefixes_by_any_writer_are_listed_newest_last(tmp_path):
    """Each index file is a checkpoint; its number is its age, and one without a number is the oldest."""
    names = ["weights", "model.ckpt-9", "model.ckpt-10", "model-00011", "a.b-12", "ckpt12x", "-7", "net-8-"]
    make_files(tmp_path, *(f"{name}.index" for name in names))
    make_files(tmp_path, "model.ckpt-99.meta", "model.ckpt-98.index.tempstate7", "checkpoint", "index", ".index")
    expected = ["ckpt12x", "net-8-", "weights", "-7", "model.ckpt-9", "model.ckpt-10", "model-00011", "a.b-12"]
    assert layout.prefixes_in(tmp_path) == [tmp_path / name for name in expected]


@UNHURRIED
@given(st.integers(0, 10**30))
def test_a_prefix_may_end_in_any_number(tmp_path_factory, number):
    """Also in a very long one."""
    directory = tmp_path_factory.mktemp("foreign")
    make_files(directory, f"model-{number}.index")
    assert layout.prefixes_in(directory) == [directory / f"model-{number}"]


@pytest.mark.parametrize("name", ["run[1]", "with spaces", "größe-数字", "star*?", "model.ckpt-3.index"])
def test_a_directory_may_have_any_name(tmp_path, name):
    """It is not read as a pattern or as a checkpoint."""
    directory = tmp_path / name
    directory.mkdir()
    make_files(directory, "model.ckpt-7.index")
    assert layout.steps_with(directory, "index") == [7]
    assert layout.files_of(layout.prefix(directory, 7)) == [directory / "model.ckpt-7.index"]
    assert layout.prefixes_in(directory) == [layout.prefix(directory, 7)]


def test_a_directory_is_not_an_index_file(tmp_path):
    """One with the suffix `.index` is not listed as a checkpoint."""
    (tmp_path / "search.index").mkdir()
    assert layout.prefixes_in(tmp_path) == []


def test_one_scan_finds_the_files_of_each_prefix(tmp_path):
    """The same ones as `files_of` for each prefix."""
    for name in (
        *("model.ckpt-1.index", "model.ckpt-1.index.tmp", "model.ckpt-1_temp", "model.ckpt-10.meta", "a.index.meta"),
        *(
            "model.ckpt-1.manifest.json",
            "model.ckpt-1.notes",
            "x.data-00000-of-00001.tempstate7",
            "checkpoint",
            ".index",
        ),
        *("a.index", "model.ckpt-1.pinned", "model.ckpt-10.incomplete"),
    ):
        (tmp_path / name).touch()
    found = layout.files_by_prefix(tmp_path)
    assert set(found) == {"model.ckpt-1", "model.ckpt-10", "a", "a.index", "x"}
    for name, files in found.items():
        assert files == [path.name for path in layout.files_of(tmp_path / name)]
