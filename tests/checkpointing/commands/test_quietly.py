import subprocess
import sys

from tests.programs import ROOT


def test_a_command_imports_tensorflow_quietly_and_without_keras():
    """Not a line of its own; Keras can be imported afterwards; garbage collection visits none of what was imported."""
    code = (
        "import gc, sys\nfrom checkpointing.commands import quietly\nquietly.import_tensorflow()\n"
        "assert not any(name.split('.')[0] in {'keras', 'matplotlib'} for name in sys.modules)\n"
        "assert gc.get_freeze_count() > 100_000\n"
        "import tensorflow as tf\n"
        "assert tf.keras.optimizers.Adam.__module__.startswith('keras.src.optimizers')"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
