import importlib
import subprocess
import sys

import pytest

import checkpointing
from tests.programs import ROOT


def run(code):
    """Run code in a new interpreter; it must end with status 0."""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("CheckpointManager", "protocol.manager"),
        ("RetentionPolicy", "protocol.retention"),
        ("Saver", "graphs.saver"),
        ("open_train_dir", "protocol.resume"),
    ],
)
def test_public_names_are_those_of_the_modules(name, module):
    """`from checkpointing import NAME` gives the object that the module defines."""
    assert name in checkpointing.__all__
    assert name in dir(checkpointing)
    assert getattr(checkpointing, name) is getattr(importlib.import_module(f"checkpointing.{module}"), name)


def test_there_are_no_other_names():
    """A misspelt name is the usual ImportError."""
    assert len(checkpointing.__all__) == 4
    assert not hasattr(checkpointing, "CheckpointManger")
    with pytest.raises(ImportError, match="cannot import name 'restore'"):
        from checkpointing import restore  # noqa: F401, PLC0415


def test_importing_the_package_imports_none_of_its_modules():
    """Nor typing or TensorFlow: what the tools import first must be cheap."""
    run(
        "import sys; before = set(sys.modules)\nimport checkpointing\ndir(checkpointing)\n"
        "assert set(sys.modules) - before == {'checkpointing'}"
    )


def test_only_what_needs_tensorflow_imports_it():
    """Opening a train_dir and choosing what to keep work on files alone."""
    run(
        "import sys\nfrom checkpointing import RetentionPolicy, open_train_dir\n"
        "assert 'tensorflow' not in sys.modules\nfrom checkpointing import CheckpointManager, Saver"
    )


def test_type_checkers_see_the_public_names(tmp_path):
    """A wrong argument is reported where the names are imported from the package."""
    page = tmp_path / "page.py"
    page.write_text("from checkpointing import RetentionPolicy, open_train_dir\nRetentionPolicy(max_to_keep='many')\n")
    command = [sys.executable, "-m", "mypy", "--ignore-missing-imports", "--cache-dir", str(tmp_path), str(page)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert '"RetentionPolicy" has incompatible type "str"; expected "int"' in ended.stdout
