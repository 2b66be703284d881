import nbformat
import pytest

from tests import guide
from tests.programs import ROOT

NOTEBOOK = ROOT / "notebooks" / "tour.ipynb"


def outputs(notebook, kind):
    """The outputs of one type in all cells."""
    return [output for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == kind]


def pictures(notebook):
    """The PNG images in the outputs."""
    return [output for output in outputs(notebook, "display_data") if "image/png" in output.data]


@pytest.mark.parametrize("again", [False, True])
def test_the_notebook_runs(again):
    """Each cell runs, including the assertions; the committed and the new page contain four images and no errors."""
    notebook = guide.run_notebook(NOTEBOOK) if again else nbformat.read(NOTEBOOK, as_version=4)
    assert not outputs(notebook, "error")
    assert len(pictures(notebook)) == 4
