"""A small ensemble, disturbed while it is trained."""

from pathlib import Path

from tests import programs

FLAGS = [
    *("--members=2", "--seed=3", "--architecture=small", "--optimizer=adam", "--learning_rate=0.01"),
    *("--crops=2", "--ema_decay=0.5", "--dropout_rate=0", "--validation_size=200", "--batch_size=50"),
    *("--train_steps=60", "--save_every_steps=20", "--evaluate_every_steps=0", "--log_every_steps=10"),
]


def disturbed(train_dir: Path, data_dir: Path, number: int) -> tuple[int, str]:
    """Trains an ensemble, with a signal while the second is trained; gives the exit status, and what was said after."""
    flags = [f"--train_dir={train_dir}", f"--data_dir={data_dir}", *FLAGS]
    watched = programs.Watched("cnn", *flags)
    watched.wait_for("seed-4/model.ckpt-20")
    watched.process.send_signal(number)
    status = watched.end()
    again = programs.run("cnn", *flags)
    assert again.returncode == 0, again.stderr
    return status, again.stderr
