"""Frozen settings, one file a recipe.

`configs.load("cnn")` gives the settings of the recipe in `configs/cnn.py`. The recipes of `train_cnn.py` are those
whose names are `cnn` or begin with `cnn_`; likewise for `train_softmax.py`.
"""

import importlib
import pkgutil

from configs.expected import ExpectedResult
from configs.settings import Settings


def names(program: str) -> list[str]:
    """The recipes of one program ('softmax', 'cnn'), its default first."""
    found = [module.name for module in pkgutil.iter_modules(__path__)]
    return [program, *sorted(name for name in found if name.startswith(f"{program}_"))]


def load(name: str) -> Settings:
    """The settings of a recipe."""
    settings = importlib.import_module(f"configs.{name}").SETTINGS
    assert isinstance(settings, Settings)
    return settings


def expected_result(name: str) -> ExpectedResult:
    """What a recipe is expected to reach."""
    expected = importlib.import_module(f"configs.{name}").EXPECTED
    assert isinstance(expected, ExpectedResult)
    return expected
