"""The distribution `checkpointing-tf`: the library alone, installed where this repository cannot be imported."""

import ast
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import tensorflow as tf

from tests.programs import ROOT

README = ROOT / "checkpointing" / "README.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command, **options):
    """Run a command; it must end with status 0."""
    ended = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """`pip wheel .` in a copy of the repository, without a network."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    shutil.copy(ROOT / "pyproject.toml", source)
    for name in ("checkpointing", "mnist", "trainer", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    options = ("--no-build-isolation", "--no-deps", "--no-index", f"--wheel-dir={target}")
    run(sys.executable, "-m", "pip", "wheel", *options, str(source))
    [path] = target.iterdir()
    return path


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The interpreter of a new environment with the wheel; TensorFlow and the rest come from this environment."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, symlinks=True)
    path = place / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", str(path), "install", "--no-deps", "--no-index", str(wheel))
    [site_packages] = place.glob("lib/python*/site-packages")
    (site_packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return path


def test_the_wheel_holds_the_library_alone(wheel):
    """Every module of checkpointing, and nothing of the trainer."""
    names = zipfile.ZipFile(wheel).namelist()
    expected = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("checkpointing/**/*.py")}
    assert expected <= set(names)
    assert "checkpointing/py.typed" in names
    metadata = wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"
    assert {name.split("/")[0] for name in names} == {"checkpointing", metadata}


def test_the_metadata(wheel):
    """Version, licence and page come from pyproject.toml and the library's README."""
    assert wheel.name == f"checkpointing_tf-{PROJECT['version']}-py3-none-any.whl"
    [name] = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".dist-info/METADATA")]
    metadata = zipfile.ZipFile(wheel).read(name).decode()
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert metadata.endswith(README.read_text())


def test_dependencies_are_those_of_the_program():
    """Each with the version range that requirements.txt has."""
    lines = [line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    assert set(PROJECT["dependencies"]) <= set(lines)


def test_every_imported_distribution_is_a_dependency():
    """ml_dtypes and protobuf (google) come with TensorFlow."""
    imported = set()
    for path in (ROOT / "checkpointing").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {each.name.split(".")[0] for each in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.split(".")[0])
    of_others = imported - set(sys.stdlib_module_names) - {"checkpointing"}
    dependencies = {re.split("[<>=]", name)[0].replace("-", "_") for name in PROJECT["dependencies"]}
    assert of_others - {"ml_dtypes", "google"} == dependencies


def test_the_environment_has_the_wheel_and_not_the_repository(python, tmp_path):
    """So that the tests below say something about the wheel."""
    code = "import checkpointing, importlib.util as u; print(checkpointing.__file__, u.find_spec('mnist'))"
    path, spec = run(str(python), "-c", code, cwd=tmp_path, env={}).split()
    assert Path(path).is_relative_to(python.parent.parent)
    assert spec == "None"


def example():
    """Return the source of the example in the library's README."""
    [source] = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    return source


def start(python, directory):
    """Start the example in a directory."""
    directory.mkdir(exist_ok=True)
    command, environment = [str(python), "-c", example()], {"TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(command, cwd=directory, env=environment, stderr=subprocess.DEVNULL)


def state(directory):
    """Return the tensors of the newest checkpoint."""
    reader = tf.train.load_checkpoint(str(directory / "run"))
    return {name: reader.get_tensor(name).tolist() for name in reader.get_variable_to_shape_map()}


def test_the_example_survives_a_kill(python, tmp_path):
    """Killed and run again, it ends in the state of an undisturbed run."""
    undisturbed, killed = (start(python, tmp_path / name) for name in ("undisturbed", "killed"))
    try:
        while killed.poll() is None and not list((tmp_path / "killed").glob("run/model.ckpt-300.*")):
            time.sleep(0.01)
        killed.kill()
        assert killed.wait() == -signal.SIGKILL
        assert state(tmp_path / "killed")["global_step"] < 1000
        assert start(python, tmp_path / "killed").wait() == 0
        assert undisturbed.wait() == 0
    finally:
        undisturbed.kill()
    assert state(tmp_path / "killed") == state(tmp_path / "undisturbed")
    assert state(tmp_path / "killed")["global_step"] == 1000
    listed = run(str(python), "-m", "checkpointing", "list", str(tmp_path / "killed" / "run"), cwd=tmp_path, env={})
    assert "model.ckpt-1000" in listed


def test_the_example_is_short():
    """What has to do with checkpoints fits in ten lines."""
    after_the_graph = example().partition("start =")[2]
    assert len(after_the_graph.strip().splitlines()) <= 10
