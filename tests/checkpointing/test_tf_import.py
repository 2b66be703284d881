import os
import subprocess
import sys

import pytest

from checkpointing.tf_import import import_tensorflow, silenced, tensorflow_import
from tests.programs import ROOT


def run(code, imports="tensorflow_import"):
    """Run code in a new interpreter; it must end with status 0. Returns its standard error."""
    command = [sys.executable, "-c", f"import sys\nfrom checkpointing.tf_import import {imports}\n{code}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120).stderr


def test_standard_error_is_discarded_inside_the_block_only(capfd):
    """What C++ writes to file descriptor 2 inside the block is not shown."""
    os.write(2, b"before ")
    with silenced():
        os.write(2, b"inside ")
    os.write(2, b"after")
    assert capfd.readouterr().err == "before after"


def test_standard_output_is_kept(capfd):
    """Results are written there."""
    with silenced():
        os.write(1, b"a result")
    assert capfd.readouterr() == ("a result", "")


def test_standard_error_is_shown_if_the_block_fails(capfd):
    """Every byte of it, before the error."""

    def fail_to_import():
        with silenced():
            os.write(2, b"the reason " + b"." * 100_000)
            raise ImportError

    with pytest.raises(ImportError):
        fail_to_import()
    os.write(2, b" after")
    assert capfd.readouterr().err == "the reason " + "." * 100_000 + " after"


def test_debug_discards_nothing(capfd):
    """Every line is shown as it is written."""
    with tensorflow_import(debug=True):
        os.write(2, b"inside")
        assert capfd.readouterr().err == "inside"


@pytest.mark.parametrize("text", ["a line\\n", "half a line"])
def test_what_python_writes_is_discarded_too(text):
    """Python's standard error has a buffer, which the block must flush."""
    assert run(f"with silenced(): sys.stderr.write('{text}')", "silenced") == ""


def test_tensorflow_is_imported_without_keras_which_can_be_imported_later():
    """Keras takes a quarter of the import's seconds."""
    run(
        "with tensorflow_import(): import tensorflow as tf\n"
        "assert not any(name.split('.')[0] in {'keras', 'matplotlib'} for name in sys.modules)\n"
        "assert tf.keras.optimizers.Adam.__module__.startswith('keras.src.optimizers')"
    )


def test_a_keras_that_was_imported_before_stays():
    """The block changes sys.modules only if Keras is not in it."""
    run(
        "sys.modules['keras.src.optimizers'] = keras = []\n"
        "with tensorflow_import(): assert sys.modules['keras.src.optimizers'] is keras\n"
        "assert sys.modules['keras.src.optimizers'] is keras"
    )


def test_imported_objects_are_excluded_from_garbage_collection():
    """A program ends half a second sooner; objects made later are collected, even after a second block."""
    run(
        "import gc\nwith tensorflow_import(): import tensorflow\n"
        "frozen = gc.get_freeze_count()\nassert frozen > 100_000, frozen\nlater = [[] for _ in range(1000)]\n"
        "with tensorflow_import(): import tensorflow\nassert gc.get_freeze_count() <= frozen"
    )


def test_tensorflow_can_be_imported_by_a_call():
    """`import_tensorflow` leaves it in sys.modules."""
    import_tensorflow()
    assert "tensorflow" in sys.modules


# Makes the usual temporary directories read-only, then runs the arguments in a directory that cannot be written to.
_READ_ONLY = """for each in /tmp /var/tmp /usr/tmp; do
    if [ -d $each ]; then mount --bind $each $each && mount -o remount,bind,ro $each || exit 99; fi
done
cd /proc && exec "$@"
"""


def test_without_a_temporary_directory_the_error_names_tmpdir(tmp_path):
    """On a read-only root TensorFlow's import fails otherwise, with a traceback or several lines."""
    code = "from checkpointing import cli, tf_import\ncli.run_tool(tf_import.import_tensorflow)"
    command = ["unshare", "-rm", "sh", "-c", _READ_ONLY, "sh", sys.executable, "-c", code]
    variables = {name: value for name, value in os.environ.items() if name not in {"TMPDIR", "TEMP", "TMP"}}
    for place in ({}, {"TMPDIR": str(tmp_path / "missing")}):
        environment = {**variables, "PYTHONPATH": str(ROOT), **place}
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        except FileNotFoundError:
            pytest.skip("needs unshare")
        if done.returncode == 99 or "unshare" in done.stderr:
            pytest.skip(f"needs a mount namespace: {done.stderr}")
        error, hint = done.stderr.splitlines()
        assert error.startswith(
            "error: TMPDIR: expected a directory for TensorFlow's temporary files, got none (No usable"
        )
        assert hint == "hint: set TMPDIR to a directory that can be written to"
