import pytest

from mnist.training.stopwatch import Stopwatch


class Clock:
    """A clock that tests set."""

    now = 1000.0

    def __call__(self):
        """Return the current time."""
        return self.now


def test_seconds_add_up_by_name():
    """Entering a name again adds to its seconds."""
    stopwatch = Stopwatch(clock := Clock())
    for seconds in (1, 2):
        with stopwatch("train"):
            clock.now += seconds
        clock.now += 10
    assert stopwatch.seconds == {"train": 3}


def test_a_name_inside_another_counts_for_both():
    """Evaluation within training counts as both."""
    stopwatch = Stopwatch(clock := Clock())
    with stopwatch("train"):
        clock.now += 1
        with stopwatch("evaluate"):
            clock.now += 2
    assert stopwatch.seconds == {"train": 3, "evaluate": 2}


def test_a_block_that_raises_counts():
    """Up to the exception."""
    stopwatch = Stopwatch(clock := Clock())

    def fail():
        with stopwatch("train"):
            clock.now += 5
            raise OSError("the disk refuses")

    with pytest.raises(OSError, match="the disk refuses"):
        fail()
    assert stopwatch.seconds == {"train": 5}


def test_an_unused_name_has_0_seconds():
    """No KeyError."""
    assert Stopwatch(Clock()).seconds["export"] == 0


def test_the_total_starts_at_creation():
    """It does not depend on the names entered."""
    clock = Clock()
    stopwatch = Stopwatch(clock)
    clock.now += 7
    assert stopwatch.total() == 7
