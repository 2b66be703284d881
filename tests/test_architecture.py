"""The layout of the code: which package imports which, what needs no TensorFlow, and what is absent."""

import ast
import collections
import difflib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAMS = ["train_softmax", "train_cnn"]
PACKAGES = ("configs", "trainer", "mnist", "checkpointing")
PRODUCT = [*ROOT.glob("*.py"), *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))]
EVERYTHING_BUT_TESTS = [
    *PRODUCT,
    *(path for folder in ("benchmarks", "examples") for path in ROOT.glob(f"{folder}/**/*.py")),
]

# `python -m mnist.NAME`: these, and the modules with their implementation, may use checkpoints and recipes.
COMMANDS = [path for path in (ROOT / "mnist").glob("*.py") if '__name__ == "__main__"' in path.read_text()]
TOOLS = ROOT / "mnist" / "tools"

# What every package may import: the base class of errors, the import of TensorFlow the choice of its kernels, the
# processor, and the opening of regular files.
FOUNDATION = (
    *("checkpointing.errors", "checkpointing.tf_import", "checkpointing.kernel_environment"),
    *("checkpointing.processor", "checkpointing.storage.regular_file"),
)

# Which packages the modules of each package of `checkpointing` may import. protocol and graphs need one another: a
# manager saves a MetaGraph, an export is written from a checkpoint.
LAYERS = {
    "storage": set(),
    "format": {"storage"},
    "graphs": {"storage", "format", "protocol"},
    "protocol": {"storage", "format", "graphs"},
    "runs": {"storage", "protocol"},
    "tools": {"storage", "format", "graphs", "protocol", "runs"},
}

MAX_LINES = 300
MAX_MODULES = 14


def name_of(path):
    """Return a path relative to the root."""
    return path.relative_to(ROOT).as_posix()


def module_of(path):
    """Return the name by which a file is imported."""
    return name_of(path).removesuffix(".py").replace("/", ".")


def imports(path):
    """Yield the full names that a file imports anywhere, inside functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


def imported_packages(path):
    """Return the top-level packages that a file imports, without the foundation."""
    return {name.split(".")[0] for name in imports(path) if not name.startswith(FOUNDATION)}


def is_command(path):
    """Whether a file of mnist/ is a command line or implements one."""
    return path in COMMANDS or TOOLS in path.parents


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("configs", {"trainer", "mnist", "checkpointing", "tensorflow"}),
        ("mnist", {"trainer", "configs", "checkpointing", "absl"}),
        ("checkpointing", {"trainer", "configs", "mnist", "absl"}),
        ("trainer", {"absl"}),
    ],
)
def test_dependencies_point_downwards(package, forbidden):
    """Programs import the trainer, which imports the three cores; these do not import one another."""
    paths = sorted((ROOT / package).rglob("*.py"))
    assert paths
    for path in paths:
        allowed = {"configs", "checkpointing"} if is_command(path) else set()
        assert not imported_packages(path) & (forbidden - allowed), path


def test_nothing_imports_a_program():
    """The training programs and the command lines are imported by no other module."""
    commands = {module_of(path) for path in COMMANDS} - {"mnist.report"}  # a run writes its report
    for path in PRODUCT:
        assert not imported_packages(path) & set(PROGRAMS), path
        assert not commands & set(imports(path)), path


def test_the_core_of_mnist_does_not_import_its_commands():
    """Nor their implementation, which knows checkpoints."""
    for path in (ROOT / "mnist").rglob("*.py"):
        if not is_command(path):
            assert not [name for name in imports(path) if name.startswith("mnist.tools")], path


def test_the_layers_of_checkpointing():
    """Storage and format import nothing above them; the protocol, graphs and runs do not import the tools."""
    folders = {path.name for path in (ROOT / "checkpointing").iterdir() if (path / "__init__.py").exists()}
    assert folders == set(LAYERS)
    for folder, below in LAYERS.items():
        for path in (ROOT / "checkpointing" / folder).rglob("*.py"):
            own = [name for name in imports(path) if name.startswith("checkpointing.")]
            upwards = [name for name in own if name.split(".")[1] not in below | {folder}]
            assert not [name for name in upwards if not name.startswith(FOUNDATION)], path


def test_no_module_is_too_long():
    """A module has one subject; tests may be longer."""
    long = {name_of(path) for path in EVERYTHING_BUT_TESTS if len(path.read_text().splitlines()) > MAX_LINES}
    assert long == set()


def test_no_folder_has_too_many_modules():
    """A folder can be overlooked; __init__.py does not count."""
    counts = collections.Counter(path.parent for path in EVERYTHING_BUT_TESTS if path.name != "__init__.py")
    assert {name_of(folder): count for folder, count in counts.items() if count > MAX_MODULES} == {}


WITHOUT_TENSORFLOW = [
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
    "checkpointing.tools.show_commands",
    "checkpointing.tools.inspect_commands",
    "checkpointing.tools.maintain_commands",
    "checkpointing.__main__",
    *sorted(module_of(path) for path in COMMANDS),
    "mnist.images.digit_segmentation",
    "mnist.images.image_files",
    "configs.flags",
    "trainer.app",
    "trainer.members",
    "trainer.replay.__main__",
    "trainer.rollback",
    "train_softmax",
    "train_cnn",
]

# Imports each module in a process of its own, forked before anything is imported.
IMPORT_EACH = """
import importlib, os, sys
for name in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        importlib.import_module(name)
        os._exit(3 if "tensorflow" in sys.modules else 0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        print(name, "imports TensorFlow" if status == 3 else "cannot be imported")
"""


def test_these_modules_need_no_tensorflow():
    """So errors, help and tools do not wait for its import."""
    command = [sys.executable, "-c", IMPORT_EACH, *WITHOUT_TENSORFLOW]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "", ended.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_imports_neither_tensorflow_nor_numpy(program):
    """--help lists the flags and exits with status 0."""
    command = [sys.executable, "-X", "importtime", f"{program}.py", "--help"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert "--max_to_keep" in ended.stdout
    assert not re.search(r"\| +(tensorflow|numpy)\b", ended.stderr)


def test_the_programs_are_short_and_alike():
    """They differ in docstring and model."""
    pages = [(ROOT / f"{program}.py").read_text().splitlines() for program in PROGRAMS]
    changed = [line for line in difflib.ndiff(*pages) if line[0] in "+-"]
    assert len(changed) <= 2 * 12
    assert all(len(page) <= 40 for page in pages)


def test_no_pickle_no_eval_no_bare_except():
    """No file that is read can run code, and no error is swallowed whole."""
    for path in PRODUCT:
        assert "pickle" not in imported_packages(path), path
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"eval", "exec"}), path
            assert not (isinstance(node, ast.ExceptHandler) and node.type is None), path


def test_only_durable_changes_the_disk():
    """TensorFlow's Saver and Builder aside, no other module writes, renames or deletes."""
    changing = re.compile(
        r"\.(write_text|write_bytes|unlink|rename|replace_file|mkdir|rmdir|touch)\(|rmtree|\"[wax]b?\""
    )
    writers = {name_of(path) for path in PRODUCT if changing.search(path.read_text())}
    # tensor_io.py fills an archive at the temporary path that staging.replace_by passes.
    assert writers == {"checkpointing/storage/durable.py", "checkpointing/format/tensor_io.py"}


def test_every_module_has_a_docstring():
    """It says what the module is for."""
    for path in PRODUCT:
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_no_file_names_a_directory_of_a_machine():
    """No tracked file names a home directory."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    private = re.compile(r"(?<!\w)/(?:home|Users|root)/\w")
    for name in filter(None, tracked):
        if Path(name).suffix in {".py", ".md", ".toml", ".txt", ""} and name != "tests/test_architecture.py":
            assert not private.search((ROOT / name).read_text()), name
