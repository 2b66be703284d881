import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import tensorflow as tf

README = Path(__file__).parents[2] / "checkpointing" / "README.md"


def example():
    """The program in the README."""
    [program] = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    return program


def start(directory):
    """Runs it in a directory."""
    directory.mkdir(exist_ok=True)
    environment = {"PYTHONPATH": str(README.parents[1]), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        [sys.executable, "-c", example()], cwd=directory, env=environment, stderr=subprocess.DEVNULL
    )


def state(directory):
    """What the last checkpoint holds."""
    reader = tf.train.load_checkpoint(str(directory / "run"))
    return {name: reader.get_tensor(name).tolist() for name in reader.get_variable_to_shape_map()}


def test_the_example_in_the_readme_survives_a_kill(tmp_path):
    """It has nothing to do with MNIST, and ends as if nothing had happened."""
    assert start(tmp_path / "undisturbed").wait() == 0
    killed = start(tmp_path / "killed")
    while not list((tmp_path / "killed").glob("run/model.ckpt-300.*")):
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    assert state(tmp_path / "killed")["global_step"] < 1000
    assert start(tmp_path / "killed").wait() == 0
    assert state(tmp_path / "killed") == state(tmp_path / "undisturbed")
    assert state(tmp_path / "killed")["global_step"] == 1000


def test_the_example_is_short():
    """What has to do with checkpoints fits in ten lines."""
    after_the_graph = example().partition("start =")[2]
    assert len(after_the_graph.strip().splitlines()) <= 10
