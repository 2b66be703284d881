import numpy as np
import pytest
import tensorflow as tf

from checkpointing import export
from checkpointing.errors import CheckpointError

INPUTS = np.arange(6, dtype=np.float32).reshape(3, 2)
EXAMPLE = export.Example({"x": INPUTS}, {"y": INPUTS * 2, "positive": INPUTS > 0})


def build_signatures():
    """A model that doubles."""
    x = tf.compat.v1.placeholder(tf.float32, [None, 2], name="x")
    factor = tf.compat.v1.get_variable("factor", initializer=1.0)
    return {"serving_default": ({"x": x}, {"y": x * factor, "positive": x > 0})}


@pytest.fixture
def prefix(tmp_path):
    """A checkpoint in which the factor is 2."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        factor = tf.compat.v1.get_variable("factor", initializer=2.0)
        session.run(factor.initializer)
        tf.compat.v1.train.Saver().save(session, str(tmp_path / "model"))
    return tmp_path / "model"


@pytest.mark.parametrize("name", ["7", "run[1]", "größe 数字"])
def test_an_exported_model_answers(tmp_path, prefix, name):
    """TensorFlow 2's loader and a session get the example's answers from it."""
    target = tmp_path / "new" / name
    export.export_saved_model(target, prefix, build_signatures, EXAMPLE)
    assert [path.name for path in target.parent.iterdir()] == [name]
    target = target.rename(tmp_path / "1")  # TensorFlow's own loaders do not find what is in "run[1]"
    answers = tf.saved_model.load(str(target)).signatures["serving_default"](x=tf.constant(INPUTS))
    assert np.array_equal(answers["y"], INPUTS * 2)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.saved_model.load(session, ["serve"], str(target))
        assert session.run("factor/Read/ReadVariableOp:0") == 2


def test_what_exists_is_not_overwritten(tmp_path, prefix):
    """Neither a directory, nor a file, nor a link that leads nowhere."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("directory", "file", "link"):
        with pytest.raises(CheckpointError, match=f"{name}: exists already"):
            export.export_saved_model(tmp_path / name, prefix, build_signatures, EXAMPLE)


def test_a_model_that_answers_otherwise_is_not_put_in_place(tmp_path, prefix):
    """The target appears only once the model was loaded back and gave the example's outputs."""
    wrong = export.Example({"x": INPUTS}, {"y": INPUTS * 3})
    with pytest.raises(CheckpointError, match="other y than the trained one"):
        export.export_saved_model(tmp_path / "1", prefix, build_signatures, wrong)
    assert not (tmp_path / "1").exists()


def test_what_a_crash_left_is_written_over(tmp_path, prefix):
    """A half-written model beside the target is no obstacle, and does not stay."""
    (tmp_path / "1.incomplete").mkdir()
    (tmp_path / "1.incomplete" / "saved_model.pb").write_bytes(b"half")
    export.export_saved_model(tmp_path / "1", prefix, build_signatures, EXAMPLE)
    assert not (tmp_path / "1.incomplete").exists()


def test_a_directory_that_is_no_model_is_told(tmp_path):
    """One sentence names it."""
    (tmp_path / "1").mkdir()
    with pytest.raises(CheckpointError, match=r"1: no model that this run exported \(.*\); give another --export_dir"):
        export.check_saved_model(tmp_path / "1", EXAMPLE)


def test_a_model_with_other_inputs_is_told(tmp_path, prefix):
    """Somebody else's model at the target is no reason for a riddle."""
    export.export_saved_model(tmp_path / "1", prefix, build_signatures, EXAMPLE)
    other = export.Example({"pixels": INPUTS}, {"digits": INPUTS})
    with pytest.raises(CheckpointError, match="no model that this run exported"):
        export.check_saved_model(tmp_path / "1", other)


def test_a_target_that_cannot_be_made_is_told_before_training(tmp_path):
    """Below a file there is no room for a directory, and a name can be too long."""
    (tmp_path / "file").touch()
    for target in (tmp_path / "file" / "1", tmp_path / ("x" * 250)):
        with pytest.raises(CheckpointError, match="cannot be made"):
            export.check_target(target)
