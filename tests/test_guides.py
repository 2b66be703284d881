import keras
import pytest

from tests import guide
from tests.guide import ROOT

GUIDES = ["saving-and-restoring", "serving"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras' own
@pytest.mark.parametrize("name", GUIDES)
def test_a_guide_shows_the_real_output(tmp_path, name):
    """Each command and each line of Python in a guide prints what the page shows."""
    keras.utils.clear_session()  # Keras numbers its names per process
    page = (ROOT / "docs" / f"{name}.md").read_text()
    session = guide.Session(tmp_path, fork=True)
    outputs = [(step, session.run(step)) for step in guide.steps(page)]
    assert outputs
    wrong = [f"{step.source}\nwrites:\n{got}" for step, got in outputs if not guide.same(step.expected, got)]
    assert not wrong, "\n".join(["run `make guides`, and review the difference:", *wrong])


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        ("saved 3 min ago at 10:00:00", "saved 14 s ago at 23:59:59"),
        ("a    b\n---  ---\n", "a b\n-- --\n"),
        ("mean 0.12345 in 1,234", "mean 0.12346 in 1,235"),
        ("digest 0123456789ab", "digest ba9876543210"),
        ("200   200   0.13   0.03   0.04   0.10  done", "200  200  1.13  10.03  0.00  0.11  done"),
    ],
)
def test_differences_by_time_and_machine_are_ignored(expected, got):
    """A page stays correct when only times, speeds, hashes or last digits differ."""
    assert guide.same(expected, got)


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        ("step 300", "step 301"),
        ("accuracy 0.91", "accuracy 0.95"),
        ("layer1/weights", "layer2/weights"),
        ("a b", "a b c"),
        ("a", ""),
        ("1 of 3", "2 of 3"),
    ],
)
def test_other_differences_are_found(expected, got):
    """A page with another step, name, word or number is out of date."""
    assert not guide.same(expected, got)
