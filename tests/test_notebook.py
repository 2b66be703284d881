import subprocess
import sys

import nbformat
import pytest

from tests.programs import ROOT

NOTEBOOK = ROOT / "notebooks" / "tour.ipynb"


def outputs(notebook, kind):
    """The outputs of one type in all cells."""
    return [output for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == kind]


def pictures(notebook):
    """The PNG images in the outputs."""
    return [output for output in outputs(notebook, "display_data") if "image/png" in output.data]


@pytest.mark.parametrize("again", [False, True])
def test_the_notebook_runs(again, tmp_path):
    """Each cell runs, including the assertions; the committed and the new page contain four images and no errors."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    if again:
        path = tmp_path / "tour.ipynb"
        command = [sys.executable, "-m", "jupyter", "execute", str(NOTEBOOK), f"--output={path}"]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        notebook = nbformat.read(path, as_version=4)
    assert not outputs(notebook, "error")
    assert len(pictures(notebook)) == 4
