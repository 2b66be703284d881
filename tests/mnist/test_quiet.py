import os
import subprocess
import sys
from pathlib import Path

import pytest

from mnist.quiet import silenced, tensorflow_import

ROOT = Path(__file__).parent.parent.parent


def test_silence_holds_back_what_is_written(capfd):
    """What C++ writes to file descriptor 2 inside the block is not seen; before and after it is."""
    os.write(2, b"before ")
    with silenced():
        os.write(2, b"inside ")
    os.write(2, b"after")
    assert capfd.readouterr().err == "before after"


def test_silence_keeps_standard_output(capfd):
    """Results are no noise."""
    with silenced():
        os.write(1, b"a result")
    assert capfd.readouterr() == ("a result", "")


def test_what_was_held_back_is_shown_when_the_block_fails(capfd):
    """Whoever has to find out why gets every word, before the error."""

    def fail_to_import():
        with silenced():
            os.write(2, b"the reason " + b"." * 100_000)
            raise ImportError

    with pytest.raises(ImportError):
        fail_to_import()
    os.write(2, b" after")
    assert capfd.readouterr().err == "the reason " + "." * 100_000 + " after"


def test_debugging_holds_nothing_back(capfd):
    """With debug every line is seen as it comes."""
    with tensorflow_import(debug=True):
        os.write(2, b"inside")
        assert capfd.readouterr().err == "inside"


@pytest.mark.parametrize("text", ["a line\\n", "half a line"])
def test_silence_holds_back_what_python_writes(text):
    """Also where it comes from Python, whose standard error has a buffer of its own."""
    code = f"import sys; from mnist.quiet import silenced\nwith silenced(): sys.stderr.write('{text}')"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stderr == ""


def test_tensorflow_comes_without_keras_which_can_still_be_imported():
    """Keras takes a quarter of the seconds of TensorFlow's import; whoever needs it afterwards has it."""
    code = (
        "import sys\nfrom mnist.quiet import tensorflow_import\nwith tensorflow_import(): import tensorflow as tf\n"
        "assert not any(name.split('.')[0] in {'keras', 'matplotlib'} for name in sys.modules)\n"
        "assert tf.keras.optimizers.Adam.__module__.startswith('keras.src.optimizers')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_a_keras_that_is_there_already_stays():
    """Whoever imported it before us keeps it."""
    code = (
        "import sys\nfrom mnist.quiet import tensorflow_import\nsys.modules['keras.src.optimizers'] = keras = []\n"
        "with tensorflow_import(): assert sys.modules['keras.src.optimizers'] is keras\n"
        "assert sys.modules['keras.src.optimizers'] is keras"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_what_the_import_made_is_visited_by_no_garbage_collection():
    """A program ends half a second sooner; what it makes later is collected as ever, whatever else is imported."""
    code = (
        "import gc\nfrom mnist.quiet import tensorflow_import\nwith tensorflow_import(): import tensorflow\n"
        "frozen = gc.get_freeze_count()\nassert frozen > 100_000, frozen\nlater = [[] for _ in range(1000)]\n"
        "with tensorflow_import(): import tensorflow\nassert gc.get_freeze_count() <= frozen"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
