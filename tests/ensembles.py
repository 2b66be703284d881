"""A small ensemble that gets a signal while it is trained."""

from pathlib import Path

from tests import programs

FLAGS = [
    *("--members=2", "--seed=3", "--architecture=small", "--optimizer=adam", "--learning_rate=0.01"),
    *("--crops=2", "--ema_decay=0.5", "--dropout_rate=0", "--validation_size=200", "--batch_size=50"),
    *("--train_steps=60", "--save_every_steps=20", "--evaluate_every_steps=0", "--log_every_steps=10"),
]


def train_disturbed(train_dir: Path, data_dir: Path, number: int) -> tuple[int, str]:
    """Train an ensemble, send a signal while its second member is trained, run it again.

    Returns:
      The exit status of the first process, and the standard error of the second.
    """
    flags = [f"--train_dir={train_dir}", f"--data_dir={data_dir}", *FLAGS]
    watched = programs.Watched("cnn", *flags)
    watched.wait_for("seed-4/model.ckpt-20")
    watched.process.send_signal(number)
    status = watched.end()
    again = programs.run("cnn", *flags)
    assert again.returncode == 0, again.stderr
    return status, again.stderr
