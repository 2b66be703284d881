import ast
from pathlib import Path

import mnist

PACKAGE = Path(mnist.__file__).parent
PACKAGES = ("input", "model", "training")
# Modules without effect on weights that the training loop nevertheless imports: they report and measure.
REPORTING = {"training/progress.py", "training/stopwatch.py"}


def hashed():
    """The modules of the package in `mnist.sources()`, by their paths relative to it."""
    return {path.relative_to(PACKAGE).as_posix() for path in mnist.sources() if path.is_relative_to(PACKAGE)}


def imports(name):
    """The modules of the package that a module imports, by their paths relative to it."""
    for node in ast.walk(ast.parse((PACKAGE / name).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mnist."):
            parts = node.module.split(".")[1:]
            yield f"{'/'.join(parts)}.py"
            yield from (f"{'/'.join([*parts, alias.name])}.py" for alias in node.names)


def test_every_module_is_hashed_or_excluded():
    """Modules are found, so a new one is hashed unless it is on the list of exceptions."""
    modules = {path.relative_to(PACKAGE).as_posix() for name in PACKAGES for path in (PACKAGE / name).glob("*.py")}
    assert modules >= mnist.NO_EFFECT_ON_WEIGHTS
    assert hashed() == modules - mnist.NO_EFFECT_ON_WEIGHTS


def test_hashed_modules_do_not_use_excluded_ones():
    """What the computation of weights imports is hashed, except what reports progress and measures time."""
    used = {used for name in hashed() for used in imports(name)}
    assert used & mnist.NO_EFFECT_ON_WEIGHTS == REPORTING


def test_other_files_are_added():
    """The programs and the module that chooses TensorFlow's kernels are part of the sources."""
    names = [path.name for path in mnist.sources("train_cnn.py", "trainer/train.py")]
    assert {"tf_import.py", "train_cnn.py", "train.py"} <= set(names)
    assert all(path.is_file() for path in mnist.sources("train_cnn.py", "trainer/train.py"))
