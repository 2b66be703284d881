"""What ARCHITECTURE.md says is absent, is absent."""

import ast
import difflib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = ["train_softmax", "train_cnn"]
# They are nobody's rooms, so they may know more than the package that they lie in.
ALLOWED_TO_PROGRAMS = {
    "mnist/compare.py": {"checkpointing"},
    "mnist/convert.py": {"checkpointing"},
    "mnist/evaluate.py": {"checkpointing"},
    "mnist/predict.py": {"checkpointing"},
    "mnist/report.py": {"checkpointing"},
    "mnist/reproduce.py": {"checkpointing", "configs"},
}
PROGRAMS = {name.removesuffix(".py").replace("/", ".") for name in ALLOWED_TO_PROGRAMS}
PRODUCT = [
    path
    for pattern in ("*.py", "configs/*.py", "trainer/*.py", "mnist/**/*.py", "checkpointing/**/*.py")
    for path in ROOT.glob(pattern)
]


def imported(path):
    """The modules that a file imports anywhere, by full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


# What every package may import: the base class of errors, and what imports TensorFlow and chooses its kernels.
FOUNDATION = ("checkpointing.errors", "checkpointing.kernel_environment", "checkpointing.tf_import")


def roots(path):
    """The packages that a file imports, the foundation aside."""
    return {name.split(".")[0] for name in imported(path) if not name.startswith(FOUNDATION)}


def rooms(package):
    """The files of a package."""
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("mnist", {"checkpointing", "configs", "absl", "trainer"}),
        ("checkpointing", {"mnist", "configs", "absl", "trainer"}),
        ("configs", {"mnist", "checkpointing", "tensorflow", "trainer"}),
    ],
)
def test_packages_keep_to_their_arrows(package, forbidden):
    """The task, the checkpoints and the settings know nothing of each other; flags stay at the command line."""
    assert rooms(package)
    for path in rooms(package):
        allowed = ALLOWED_TO_PROGRAMS.get(path.relative_to(ROOT).as_posix(), set())
        assert not roots(path) & (forbidden - allowed), path


def test_nothing_imports_a_script():
    """The programs are ends, not means."""
    for path in PRODUCT:
        assert not roots(path) & set(SCRIPTS), path
        # A run writes its own report.
        assert not (PROGRAMS - {"mnist.report"}) & set(imported(path)), path


@pytest.mark.parametrize(
    "module",
    [
        "mnist.input.idx",
        "mnist.input.dataset",
        "checkpointing.storage.layout",
        "checkpointing.storage.durable",
        "checkpointing.storage.staging",
        "checkpointing.protocol.retention",
        "checkpointing.protocol.manifest",
        "checkpointing.protocol.resume",
        "checkpointing.protocol.cleanup",
        "checkpointing.runs.history",
        "checkpointing.runs.supervisor",
        "checkpointing.format.tensor_bundle",
        "checkpointing.tools.inspection",
        "checkpointing.format.tensor_io",
        "checkpointing.tools.repair",
        "checkpointing.tools.prune",
        "checkpointing.tools.inspect_commands",
        "checkpointing.tools.show_commands",
        "checkpointing.tools.maintain_commands",
        "checkpointing.__main__",
        *sorted(PROGRAMS),
        "mnist.images.digit_segmentation",
        "mnist.images.image_files",
        "configs.flags",
        "trainer.members",
        "train_softmax",
        "train_cnn",
    ],
)
def test_these_rooms_need_no_tensorflow(module):
    """They import without it, so that errors, help and tools answer at once."""
    code = f"import sys, {module}; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_imports_neither_tensorflow_nor_numpy(script):
    """--help lists the flags, exits 0, and waits for nobody."""
    command = [sys.executable, "-X", "importtime", f"{script}.py", "--help"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert "--max_to_keep" in ended.stdout
    assert not re.search(r"\| +(tensorflow|numpy)\b", ended.stderr)


def test_the_scripts_differ_by_a_dozen_lines():
    """Two pages that say the same in the same words, but for the model."""
    pages = [(ROOT / f"{script}.py").read_text().splitlines() for script in SCRIPTS]
    changed = [line for line in difflib.ndiff(*pages) if line[0] in "+-"]
    assert len(changed) <= 2 * 12
    assert all(len(page) <= 70 for page in pages)


def test_no_pickle_no_eval_no_bare_except():
    """Nothing that is read can run code, and no error is swallowed whole."""
    for path in PRODUCT:
        assert "pickle" not in roots(path), path
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"eval", "exec"}), path
            assert not (isinstance(node, ast.ExceptHandler) and node.type is None), path


def test_only_durable_changes_the_disk():
    """Besides TensorFlow's Saver and Builder, no other room writes, renames or deletes."""
    changing = re.compile(
        r"\.(write_text|write_bytes|unlink|rename|replace_file|mkdir|rmdir|touch)\(|rmtree|\"[wax]b?\""
    )
    writers = {path.relative_to(ROOT).as_posix() for path in PRODUCT if changing.search(path.read_text())}
    # tensors.py fills an archive at the temporary path that staging.replace_by gives it.
    assert writers == {"checkpointing/storage/durable.py", "checkpointing/format/tensor_io.py"}


def test_every_module_says_what_it_is_for():
    """Each file of the product begins with a docstring."""
    for path in PRODUCT:
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_no_path_of_a_machine_is_written_down():
    """No file that is tracked names a directory of the machine that it was written on."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    private = re.compile(r"(?<!\w)/(?:home|Users|root)/\w")
    for name in filter(None, tracked):
        if Path(name).suffix in {".py", ".md", ".toml", ".txt", ""} and name != "tests/test_architecture.py":
            assert not private.search((ROOT / name).read_text()), name
