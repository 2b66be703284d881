import keras
import pytest

from tests import guide
from tests.guide import ROOT

GUIDES = ["saving-and-restoring", "serving"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras' own
@pytest.mark.parametrize("name", GUIDES)
def test_a_guide_says_what_is_so(tmp_path, name):
    """Each command and each line of Python in it is run, and writes what the page says."""
    keras.utils.clear_session()  # the names that it makes up are counted in this process
    page = (ROOT / "docs" / f"{name}.md").read_text()
    session = guide.Session(tmp_path)
    told = [(step, session.run(step)) for step in guide.steps(page)]
    assert told
    wrong = [f"{step.source}\nwrites:\n{got}" for step, got in told if not guide.same(step.wanted, got)]
    assert not wrong, "\n".join(["make guides, and look at what has changed:", *wrong])


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        ("saved 3 min ago at 10:00:00", "saved 14 s ago at 23:59:59"),
        ("a    b\n---  ---\n", "a b\n-- --\n"),
        ("mean 0.12345 in 1,234", "mean 0.12346 in 1,235"),
        ("digest 0123456789ab", "digest ba9876543210"),
        ("200   200   0.13   0.03   0.04   0.10  done", "200  200  1.13  10.03  0.00  0.11  done"),
    ],
)
def test_what_changes_with_time_and_machine_is_the_same(wanted, got):
    """A page is not wrong because a clock has moved on or a last digit differs."""
    assert guide.same(wanted, got)


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        ("step 300", "step 301"),
        ("accuracy 0.91", "accuracy 0.95"),
        ("layer1/weights", "layer2/weights"),
        ("a b", "a b c"),
        ("a", ""),
        ("1 of 3", "2 of 3"),
    ],
)
def test_what_was_told_otherwise_is_found(wanted, got):
    """Another step, name, word or figure is a page that has to be written anew."""
    assert not guide.same(wanted, got)
