"""Which modules count as code that computes weights."""

import ast
import shutil

import pytest

from trainer import code_version
from trainer.code_version import EXCLUDED, KERNELS, ROOT, code_sha256, computing_modules


@pytest.fixture
def copy(tmp_path):
    """A copy of the code."""
    for package in (*code_version.PACKAGES, "checkpointing"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("data", "__pycache__"))
    for path in ROOT.glob(code_version.PROGRAMS):
        shutil.copy(path, tmp_path)
    return tmp_path


def relative(paths, root=ROOT):
    """Return the paths below the root."""
    return {path.relative_to(root).as_posix() for path in paths}


def test_every_excluded_path_exists():
    """A renamed module must not count by mistake, nor an excluded name remain for a later one."""
    assert [name for name in EXCLUDED if not (ROOT / name).exists()] == []
    assert len(set(EXCLUDED)) == len(EXCLUDED)


def test_every_other_module_counts():
    """All of mnist/, trainer/ and train_*.py, and the modules that choose kernels; nothing twice."""
    everything = relative([*ROOT.glob("mnist/**/*.py"), *ROOT.glob("trainer/**/*.py"), *ROOT.glob("train_*.py")])
    excluded = {name for name in everything if any(f"{name}/".startswith(f"{each}/") for each in EXCLUDED)}
    counted = list(computing_modules())
    assert relative(counted) == everything - excluded | set(KERNELS)
    assert len(counted) == len(set(counted))
    assert relative(counted) >= {
        *("train_cnn.py", "train_softmax.py", "trainer/train.py", "trainer/restore.py", "trainer/ensemble.py"),
        *("mnist/input/augment.py", "mnist/input/dataset.py", "mnist/input/idx.py", "mnist/input/sampling.py"),
        *("mnist/model/networks.py", "mnist/model/training_graph.py", "mnist/model/ema.py"),
        *("mnist/model/schedules.py", "mnist/training/loop.py", "checkpointing/kernel_environment.py"),
    }


def imports(path):
    """Yield the paths of the modules of mnist/ that a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mnist":
            for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                yield f"{name.replace('.', '/')}.py"


def test_counted_modules_of_mnist_do_not_use_excluded_ones():
    """What computes weights counts; only errors and what reports progress and measures time do not."""
    counted = [path for path in computing_modules() if ROOT / "mnist" in path.parents]
    used = {name for path in counted for name in imports(path)}
    assert used & set(EXCLUDED) == {"mnist/errors.py", "mnist/training/progress.py", "mnist/training/stopwatch.py"}


def test_a_counted_module_changes_the_hash_and_an_excluded_one_does_not(copy):
    """Nor does a file of another package, or one that is no module."""
    before = code_sha256(copy)
    assert before == code_sha256()
    for name in (*EXCLUDED, "checkpointing/errors.py", "mnist/notes.txt"):
        path = copy / name / "new.py" if (copy / name).is_dir() else copy / name
        path.write_text("# changed\n")
    assert code_sha256(copy) == before
    for path in computing_modules():
        changed = copy / path.relative_to(ROOT)
        text = changed.read_text()
        changed.write_text(f"{text}# changed\n")
        assert code_sha256(copy) != before
        changed.write_text(text)


def test_a_new_module_counts(copy):
    """Without being listed anywhere."""
    before = code_sha256(copy)
    (copy / "mnist" / "input" / "new.py").write_text("")
    assert code_sha256(copy) != before
