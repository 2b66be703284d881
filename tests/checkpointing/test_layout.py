from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpointing import layout

UNHURRIED = settings(deadline=None)  # a busy machine is no failure
STEPS = st.integers(0, 10**12)
KINDS = [".data-00000-of-00001", ".index", ".meta", ".manifest.json", ".manifest.json.tmp", ".incomplete"]
# What TensorFlow's Saver leaves when it is killed.
TEMPORARY = [".data-00000-of-00001.tempstate1234", ".index.tempstate1234", "_temp"]
FOREIGN = [
    "checkpoint",
    "metrics.jsonl",
    "model.ckpt",
    "model.ckpt-",
    "model.ckpt-.index",
    "model.ckpt-7",
    "model.ckpt-07.index",
    "model.ckpt--7.index",
    "model.ckpt-7x.index",
    "model.ckpt-7\u0667.index",  # 7, and an Arabic 7
    "model.ckpt-7e1.index",
    "Model.ckpt-7.index",
    "amodel.ckpt-7.index",
    "model-ckpt-7.index",
    "",
]


def make_files(directory, *names):
    """Empty files of these names."""
    for name in names:
        (directory / name).touch()


@UNHURRIED
@given(STEPS, st.sampled_from(KINDS + TEMPORARY))
def test_a_name_gives_back_its_step(step, kind):
    """Every file of a checkpoint, TensorFlow's temporary ones included, is known by its name."""
    assert layout.step_of(layout.prefix(Path("runs"), step).name + kind) == step


@pytest.mark.parametrize("name", FOREIGN)
def test_what_only_looks_like_a_checkpoint_has_no_step(name):
    """No file is taken for ours that we would not name so."""
    assert layout.step_of(name) is None


@UNHURRIED
@given(STEPS)
def test_the_names_are_tensorflows(step):
    """A checkpoint's files are named as every user of TensorFlow knows them, with one more."""
    prefix = layout.prefix(Path("runs"), step)
    assert prefix == Path(f"runs/model.ckpt-{step}")
    assert layout.meta_path(prefix) == Path(f"runs/model.ckpt-{step}.meta")
    assert layout.index_path(prefix) == Path(f"runs/model.ckpt-{step}.index")
    assert layout.manifest_path(prefix) == Path(f"runs/model.ckpt-{step}.manifest.json")


def test_the_exported_model_lies_where_tensorflow_serving_looks():
    """A number under a base path is served; what is unfinished is no number."""
    target = layout.export_path(Path("runs"), 100)
    assert target == Path("runs/saved_model/100")
    assert layout.unfinished_export_path(target).parent == target.parent
    assert not layout.unfinished_export_path(target).name.isdecimal()


def test_a_checkpoint_has_its_own_files_only(tmp_path):
    """Step 1 owns nothing of steps 10 and 11, nor of what is no checkpoint at all."""
    own = sorted(f"model.ckpt-1{kind}" for kind in KINDS + TEMPORARY)
    others = [f"model.ckpt-{step}{kind}" for step in (0, 10, 11, 21) for kind in KINDS + TEMPORARY]
    make_files(tmp_path, *own, *others, *filter(None, FOREIGN))
    assert [path.name for path in layout.files_of(layout.prefix(tmp_path, 1))] == own


def test_a_prefix_of_another_name_has_no_files(tmp_path):
    """A prefix that is not ours owns nothing."""
    make_files(tmp_path, "weights.index", "weights.meta", "model.ckpt-1.index")
    assert layout.files_of(tmp_path / "weights") == []


def test_steps_are_told_in_order_of_numbers(tmp_path):
    """9 comes before 10, whatever order their names have; other kinds and other files do not count."""
    make_files(tmp_path, *(f"model.ckpt-{step}.index" for step in (100, 9, 10, 0)))
    make_files(tmp_path, "model.ckpt-11.meta", "model.ckpt-12.index.tempstate7", "model.ckpt-13", "checkpoint")
    assert layout.steps_with(tmp_path, "index") == [0, 9, 10, 100]
    assert layout.steps_with(tmp_path, "manifest.json") == []


@pytest.mark.parametrize("name", ["run[1]", "with spaces", "größe-数字", "star*?", "model.ckpt-3.index"])
def test_a_directory_may_have_any_name(tmp_path, name):
    """A directory's name means nothing: neither as a pattern nor as a checkpoint."""
    directory = tmp_path / name
    directory.mkdir()
    make_files(directory, "model.ckpt-7.index")
    assert layout.steps_with(directory, "index") == [7]
    assert layout.files_of(layout.prefix(directory, 7)) == [directory / "model.ckpt-7.index"]
