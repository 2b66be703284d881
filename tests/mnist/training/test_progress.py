import io
import logging
import sys

import pytest

from mnist.training.progress import Progress


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self):
        """Return True."""
        return True


def logged(step, **more):
    """A record as logged by the loop."""
    return {"step": step, "loss": 0.25, "images_per_second": 12345.6, **more}


def lines_of_a_log(caplog, monkeypatch, records, *, train_steps=1000, seconds_a_step=0.01):
    """The log lines of a run with these records, without a terminal."""
    now = 0.0
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with caplog.at_level(logging.INFO), Progress(train_steps, 0, clock=lambda: now) as progress:
        for record in records:
            now = record["step"] * seconds_a_step
            progress.advance(record["step"])
            progress.saved(record["step"])
            progress.show(record)
    return caplog.messages


def test_a_log_has_a_line_every_five_seconds(caplog, monkeypatch):
    """A thousand steps in ten seconds, recorded every ten steps: the first, one after five seconds, the last."""
    lines = lines_of_a_log(caplog, monkeypatch, [logged(step) for step in range(10, 1001, 10)])
    assert [line.split()[1] for line in lines] == ["10/1000", "510/1000", "1000/1000"]
    assert lines[0] == "step 10/1000  loss 0.2500  12,346 images/s  00:09 left"


def test_a_slow_run_logs_every_record(caplog, monkeypatch):
    """Records that are five seconds apart are all logged."""
    records = [logged(step) for step in (100, 200, 300)]
    assert len(lines_of_a_log(caplog, monkeypatch, records, seconds_a_step=0.05)) == len(records)


def test_a_validation_accuracy_is_always_logged(caplog, monkeypatch):
    """Also if the previous line is less than five seconds old."""
    records = [logged(100), logged(101, validation_accuracy=0.98765), logged(102)]
    lines = lines_of_a_log(caplog, monkeypatch, records)
    assert [line.split()[1] for line in lines] == ["100/1000", "101/1000"]
    assert "validation 0.9877" in lines[1]


def test_a_bar_of_80_columns_shows_loss_speed_validation_and_the_last_save(monkeypatch, caplog):
    """On a terminal; a validation accuracy stays until the next, and nothing is logged."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda _file: (80, 24))
    caplog.set_level(logging.INFO)
    with Progress(10_000, 0) as progress:
        progress.show(logged(100, validation_accuracy=0.9876))
        progress.saved(None)
        progress.saved(9_000)
        progress.show(logged(200))
        progress.advance(10_000)
    last = terminal.getvalue().rsplit("\r", 1)[-1].rstrip()
    assert len(last) <= 80
    for shown in ("| 10000 ", "loss 0.2500", "validation 0.9876", "saved 9,000", "12,346/s"):
        assert shown in last, last
    assert "step 100" not in terminal.getvalue()


@pytest.mark.parametrize("level", [logging.WARNING, logging.INFO])
def test_level_warning_shows_no_bar(monkeypatch, caplog, level):
    """The level of --quiet."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    caplog.set_level(level)
    with Progress(1000, 0) as progress:
        progress.advance(10)
    assert bool(terminal.getvalue()) == (level == logging.INFO)
