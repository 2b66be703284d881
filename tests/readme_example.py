"""The example in checkpointing/README.md, run in separate processes."""

import re
import signal
import subprocess
import time
from pathlib import Path

import tensorflow as tf

README = Path(__file__).parent.parent / "checkpointing" / "README.md"


def program() -> str:
    """The example's source."""
    [text] = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    return str(text)


def check_survives_a_kill(directory: Path, python: str, environment: dict[str, str]) -> None:
    """Run the example twice at once, one of them killed and resumed; both must end in the same state.

    Args:
      directory: where both write.
      python: the interpreter.
      environment: its environment variables.
    """
    undisturbed, killed = (_start(directory / name, python, environment) for name in ("undisturbed", "killed"))
    try:
        while killed.poll() is None and not list((directory / "killed").glob("run/model.ckpt-300.*")):
            time.sleep(0.01)
        killed.kill()
        assert killed.wait() == -signal.SIGKILL
        assert _state(directory / "killed")["global_step"] < 1000
        assert _start(directory / "killed", python, environment).wait() == 0
        assert undisturbed.wait() == 0
    finally:
        undisturbed.kill()
    assert _state(directory / "killed") == _state(directory / "undisturbed")
    assert _state(directory / "killed")["global_step"] == 1000


def _start(directory: Path, python: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    directory.mkdir(exist_ok=True)
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    command = [python, "-c", program()]
    return subprocess.Popen(command, cwd=directory, env=environment, stderr=subprocess.DEVNULL)


def _state(directory: Path) -> dict[str, object]:
    """The tensors of the newest checkpoint."""
    reader = tf.train.load_checkpoint(str(directory / "run"))
    return {name: reader.get_tensor(name).tolist() for name in reader.get_variable_to_shape_map()}
