"""Recipes: frozen settings and expected results, one file per recipe.

`configs.load("cnn")` returns the settings in `configs/cnn.py`. The recipes of `train_cnn.py` are `cnn` and those
whose names begin with `cnn_`; the recipes of `train_softmax.py` are named accordingly.
"""

import importlib
import pkgutil

from configs.expected import ExpectedResult
from configs.settings import Settings


def names(program: str) -> list[str]:
    """Return the names of a program's recipes ("softmax" or "cnn"), its default first."""
    found = [module.name for module in pkgutil.iter_modules(__path__)]
    return [program, *sorted(name for name in found if name.startswith(f"{program}_"))]


def load(name: str) -> Settings:
    """Return the settings of a recipe."""
    settings = importlib.import_module(f"configs.{name}").SETTINGS
    assert isinstance(settings, Settings)
    return settings


def expected_result(name: str) -> ExpectedResult:
    """Return the expected result of a recipe."""
    expected = importlib.import_module(f"configs.{name}").EXPECTED
    assert isinstance(expected, ExpectedResult)
    return expected
