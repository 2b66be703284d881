import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from checkpointing.format.tensor_bundle import Bundle
from checkpointing.protocol import lookup
from checkpointing.storage import layout
from tests import hostile
from tests.checkpoints import flip_a_bit
from tests.writers import MODELS, VALUES, WRITERS, ours, partitioned, plain_saver


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A train_dir with three checkpoints; tests only read it."""
    directory = tmp_path_factory.mktemp("run") / "run"
    ours(directory, (10, 20, 30))
    return directory


def weights_of(prefix):
    """The name of the weights, which differs by writer."""
    return next(name for name in Bundle(prefix).entries if re.search("weights|kernel", name))


def words(line):
    """The cells of a line of a table."""
    return re.split(r"\s{2,}", line.strip())


def test_tensors_are_shown_despite_a_damaged_manifest(run, tmp_path, run_command):
    """The damage is printed first."""
    directory = shutil.copytree(run, tmp_path / "run")
    prefix = lookup.resolve_checkpoint(directory)
    flip_a_bit(layout.manifest_path(prefix))
    status, text = run_command("show", prefix)
    assert status == 0
    assert text.startswith(f"{prefix.name}.manifest.json: ")
    assert "tensors" in text


def test_show_lists_the_tensors(written, run_command):
    """Names, dtypes and shapes are those that TensorFlow reads."""
    prefix = lookup.resolve_checkpoint(written)
    _, record = run_command("show", prefix, "--json")
    reader = tf.train.load_checkpoint(str(prefix))
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    shown = {each["name"]: (each["shape"], each["dtype"]) for each in record["tensors"]}
    assert shown == {name: (shape, dtypes[name].name) for name, shape in shapes.items()}


def test_show_computes_a_tensors_statistics(written, run_command):
    """Of the values 0 to 5, with a histogram and the values themselves."""
    prefix = lookup.resolve_checkpoint(written)
    name = weights_of(prefix)
    _, record = run_command("show", prefix, "--tensor", name, "--json")
    figures = {key: record[key] for key in ("min", "mean", "max", "zeros", "nans", "infinities")}
    assert figures == {"min": 0, "mean": 2.5, "max": 5, "zeros": 1 / 6, "nans": 0, "infinities": 0}
    assert sum(each["count"] for each in record["histogram"]) == len(VALUES)
    _, text = run_command("show", prefix, "--tensor", name)
    assert re.search(r"^mean +2.5$", text, re.MULTILINE)
    assert re.search(r"^ +4.583 \.\. +5  #{40} 1$", text, re.MULTILINE)
    assert "5." in text.splitlines()[-1]
    _, stats = run_command("show", prefix, "--stats", "--json")
    (row,) = (each for each in stats["tensors"] if each["name"] == name)
    assert {key: row[key] for key in figures} == figures


def test_nans_and_infinities_are_counted(tmp_path, run_command):
    """The other statistics are those of the finite values; strings have none."""
    tensors = {"a": [np.nan, 1.0, np.inf, 0.0], "b": [np.nan], "c": np.empty([0, 3]), "d": [b"word"], "e": [1 + 1j]}
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "odd"),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(map(tf.constant, tensors.values())),
    )
    status, record = run_command("show", tmp_path / "odd", "--stats", "--json")
    shown = {
        row["name"]: (row["min"], row["max"], row["zeros"], row["nans"], row["infinities"]) for row in record["tensors"]
    }
    assert status == 0
    assert shown == {
        "a": (0, 1, 0.25, 1, 1),
        "b": (None, None, 0, 1, 0),
        "c": (None, None, None, 0, 0),
        "d": (None,) * 5,
        "e": (2**0.5, 2**0.5, 0, 0, 0),
    }
    for name in tensors:
        assert run_command("show", tmp_path / "odd", "--tensor", name)[0] == 0


def test_show_prints_the_manifest(run, run_command):
    """Step, time, training time and settings."""
    status, text = run_command("show", run)
    assert status == 0
    assert re.match(r"step 30, saved 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d after \d+\.\d s of training\n", text)
    assert text.splitlines()[1] == "with model=line"
    assert text.splitlines()[-1] == "2 tensors, 32 B, in 1 data file"


def test_a_partitioned_variable_is_shown_in_parts(tmp_path, run_command):
    """The parts have the bytes."""
    partitioned(tmp_path / "run")
    _, text = run_command("show", tmp_path / "run")
    assert words(text.splitlines()[2]) == ["weights", "float32", "[6]", "in 3 parts"]
    assert text.splitlines()[-1] == "1 tensor, 24 B, in 1 data file"


def test_an_unknown_tensor_lists_the_known_ones(run, run_command):
    """With status 1."""
    status, text = run_command("show", run, "--tensor", "weight")
    assert (status, text) == (
        1,
        f"error: {run}/model.ckpt-30: no tensor weight found; there are global_step, weights\n",
    )


@pytest.mark.parametrize("writer", MODELS)
def test_show_lists_the_signatures_of_a_saved_model(tmp_path, run_command, writer):
    """Signatures first, then tensors."""
    WRITERS[writer](tmp_path / "model")
    status, text = run_command("show", tmp_path / "model")
    assert status == 0
    assert text.startswith("tags serve: serving_default: x float32[")
    assert "in 1 data file" in text
    _, record = run_command("show", tmp_path / "model", "--json")
    assert record["graphs"][0]["tags"] == ["serve"]
    assert "serving_default" in record["graphs"][0]["signatures"]


def test_a_saved_model_is_shown_without_being_run(tmp_path, run_command):
    """Its protocol buffer and its tensors are read; no op of its graph runs."""
    victim = tmp_path / "victim"
    model = hostile.save(tmp_path / "1", hostile.writing(victim), initialise=lambda: tf.io.write_file(str(victim), "x"))
    assert "serving_default" in run_command("show", model)[1]
    assert run_command("verify", model)[0] == 0
    assert not victim.exists()


def test_a_saved_model_without_variables_is_shown(tmp_path, run_command):
    """Its graph has no variables."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None], name="x")
        tf.compat.v1.saved_model.simple_save(session, str(tmp_path / "model"), {"x": x}, {"y": 2 * x})
    status, text = run_command("show", tmp_path / "model")
    assert (status, text.splitlines()) == (
        0,
        ["tags serve: serving_default: x float32[N] -> y float32[N]", "", "no variables"],
    )


def test_a_checkpoint_does_not_differ_from_itself(written, run_command):
    """Bit-identical, with status 0; also a partitioned variable, which TensorFlow joins."""
    status, text = run_command("diff", written, lookup.resolve_checkpoint(written))
    assert status == 0
    assert re.fullmatch(r"(\d+) of \1 tensors are bit-identical\n", text)


def test_diff_measures_changes(run, run_command):
    """Largest and mean difference, and the cosine; status 1."""
    status, record = run_command("diff", run / "model.ckpt-10", run / "model.ckpt-20", "--json")
    weights = next(each for each in record if each["name"] == "weights")
    assert (status, weights["what"], weights["largest"], weights["mean"]) == (1, "changed", 1, 1)
    one, other = np.array(VALUES), np.array(VALUES) + 1
    assert weights["cosine"] == pytest.approx(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    _, text = run_command("diff", run / "model.ckpt-10", run / "model.ckpt-20")
    assert words(text.splitlines()[3]) == ["weights", "changed", "1", "1", f"{weights['cosine']:.7f}"]
    assert text.splitlines()[-1] == "0 of 2 tensors are bit-identical"


def test_diff_lists_added_and_missing_tensors(tmp_path, run, run_command):
    """Also those with another shape or dtype."""
    plain_saver(tmp_path / "plain")
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "odd"),
        tensor_names=["weights", "words"],
        shape_and_slices=["", ""],
        tensors=[tf.zeros([2, 3]), tf.constant(["a"])],
    )
    changes = {each["name"]: each["what"] for each in run_command("diff", run, tmp_path / "plain", "--json")[1]}
    assert changes == {"global_step": "gone", "weights": "changed"}
    record = run_command("diff", tmp_path / "plain", tmp_path / "odd", "--json")[1]
    assert {each["name"]: each["what"] for each in record} == {
        "weights": "float32 [6] is now float32 [2, 3]",
        "words": "added",
    }
