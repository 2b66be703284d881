import sys

from tests import readme_example
from tests.programs import ROOT


def test_the_example_survives_a_kill(tmp_path):
    """Killed and run again, it ends in the state of an undisturbed run."""
    readme_example.check_survives_a_kill(tmp_path, sys.executable, {"PYTHONPATH": str(ROOT)})


def test_the_example_is_short():
    """What has to do with checkpoints fits in ten lines."""
    after_the_graph = readme_example.program().partition("start =")[2]
    assert len(after_the_graph.strip().splitlines()) <= 10
