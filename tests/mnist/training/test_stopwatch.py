import pytest

from mnist.training.stopwatch import Stopwatch


class Clock:
    """A clock that tests set."""

    now = 1000.0

    def __call__(self):
        """Seconds since whenever."""
        return self.now


def test_seconds_add_up_under_their_name():
    """Entering a name again adds to what it had."""
    stopwatch = Stopwatch(clock := Clock())
    for seconds in (1, 2):
        with stopwatch("train"):
            clock.now += seconds
        clock.now += 10
    assert stopwatch.seconds == {"train": 3}


def test_a_name_inside_another_counts_for_both():
    """Evaluating within training is told under both."""
    stopwatch = Stopwatch(clock := Clock())
    with stopwatch("train"):
        clock.now += 1
        with stopwatch("evaluate"):
            clock.now += 2
    assert stopwatch.seconds == {"train": 3, "evaluate": 2}


def test_what_fails_has_taken_its_time():
    """A block that raises is counted up to where it raised."""
    stopwatch = Stopwatch(clock := Clock())

    def fail():
        with stopwatch("train"):
            clock.now += 5
            raise OSError("the disk refuses")

    with pytest.raises(OSError, match="the disk refuses"):
        fail()
    assert stopwatch.seconds == {"train": 5}


def test_what_never_happened_took_no_time():
    """A name that was never entered has 0 seconds."""
    assert Stopwatch(Clock()).seconds["export"] == 0


def test_the_total_runs_from_the_beginning():
    """The total is told from when the stopwatch was made, whatever was entered."""
    clock = Clock()
    stopwatch = Stopwatch(clock)
    clock.now += 7
    assert stopwatch.total() == 7
