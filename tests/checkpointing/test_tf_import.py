import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from checkpointing.tf_import import choose_kernels, silenced, tensorflow_import

ROOT = Path(__file__).parent.parent.parent


def test_silence_holds_back_what_is_written(capfd):
    """What C++ writes to file descriptor 2 inside the block is not seen; before and after it is."""
    os.write(2, b"before ")
    with silenced():
        os.write(2, b"inside ")
    os.write(2, b"after")
    assert capfd.readouterr().err == "before after"


def test_silence_keeps_standard_output(capfd):
    """Results are no noise."""
    with silenced():
        os.write(1, b"a result")
    assert capfd.readouterr() == ("a result", "")


def test_what_was_held_back_is_shown_when_the_block_fails(capfd):
    """Whoever has to find out why gets every word, before the error."""

    def fail_to_import():
        with silenced():
            os.write(2, b"the reason " + b"." * 100_000)
            raise ImportError

    with pytest.raises(ImportError):
        fail_to_import()
    os.write(2, b" after")
    assert capfd.readouterr().err == "the reason " + "." * 100_000 + " after"


def test_debugging_holds_nothing_back(capfd):
    """With debug every line is seen as it comes."""
    with tensorflow_import(debug=True):
        os.write(2, b"inside")
        assert capfd.readouterr().err == "inside"


@pytest.mark.parametrize("text", ["a line\\n", "half a line"])
def test_silence_holds_back_what_python_writes(text):
    """Also where it comes from Python, whose standard error has a buffer of its own."""
    code = f"import sys; from checkpointing.tf_import import silenced\nwith silenced(): sys.stderr.write('{text}')"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stderr == ""


def test_tensorflow_comes_without_keras_which_can_still_be_imported():
    """Keras takes a quarter of the seconds of TensorFlow's import; whoever needs it afterwards has it."""
    code = (
        "import sys\nfrom checkpointing.tf_import import tensorflow_import\n"
        "with tensorflow_import(): import tensorflow as tf\n"
        "assert not any(name.split('.')[0] in {'keras', 'matplotlib'} for name in sys.modules)\n"
        "assert tf.keras.optimizers.Adam.__module__.startswith('keras.src.optimizers')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_a_keras_that_is_there_already_stays():
    """Whoever imported it before us keeps it."""
    code = (
        "import sys\nfrom checkpointing.tf_import import tensorflow_import\n"
        "sys.modules['keras.src.optimizers'] = keras = []\n"
        "with tensorflow_import(): assert sys.modules['keras.src.optimizers'] is keras\n"
        "assert sys.modules['keras.src.optimizers'] is keras"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_what_the_import_made_is_visited_by_no_garbage_collection():
    """A program ends half a second sooner; what it makes later is collected as ever, whatever else is imported."""
    code = (
        "import gc\nfrom checkpointing.tf_import import tensorflow_import\n"
        "with tensorflow_import(): import tensorflow\n"
        "frozen = gc.get_freeze_count()\nassert frozen > 100_000, frozen\nlater = [[] for _ in range(1000)]\n"
        "with tensorflow_import(): import tensorflow\nassert gc.get_freeze_count() <= frozen"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


@pytest.fixture
def environment(monkeypatch):
    """The environment variables of a test; afterwards they are those of before."""
    variables = {"PATH": "there"}
    monkeypatch.setattr(os, "environ", variables)
    return variables


@pytest.mark.parametrize(
    "name",
    [
        *("TF_XLA_FLAGS", "XLA_FLAGS", "TF_JITRT_FLAGS", "TF_FUNCTION_JIT_COMPILE_DEFAULT"),
        *("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_CPU_ISA_HINTS", "DNNL_DEFAULT_FPMATH_MODE"),
        *("ONEDNN_EXPERIMENTAL_BNORM_STATS_ONE_PASS", "_ONEDNN_USE_LARGE_PARTITION_KERNEL"),
        *("TF_SET_ONEDNN_FPMATH_MODE", "TF_ONEDNN_ASSUME_FROZEN_WEIGHTS", "TF_MKL_OPTIMIZE_PRIMITIVE_MEMUSE"),
        *("TF_ENABLE_ONEDNN_SPMM", "TF_ENABLE_ZENDNN_OPTS", "TF_DISABLE_MKL", "TF_DISABLE_JIT_KERNELS"),
        *("TENSORFLOW_USE_CUSTOM_CONTRACTION_KERNEL", "TF_USE_DEEP_CONV2D", "TF_DETERMINISTIC_OPS"),
        *("TF_ENABLE_WHILE_V2", "TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_LEVEL", "TF_OVERRIDE_GLOBAL_THREADPOOL"),
        *("TF_FLAG_OP_BUILDING_OPTIMIZATION", "TF_CUDNN_USE_AUTOTUNE", "TF_USE_CUBLASLT", "NVIDIA_TF32_OVERRIDE"),
        *("TF_FP16_CONV_USE_FP32_COMPUTE", "TF_MATMUL_AUTOTUNE_ENABLE", "CUBLAS_WORKSPACE_CONFIG"),
    ],
)
def test_variables_that_change_kernels_are_removed_with_a_warning(environment, caplog, name):
    """One sentence names the variable; what is in force does not contain it."""
    environment[name] = "1"
    in_force = choose_kernels()
    assert name not in environment
    assert name not in in_force
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == f"environment variables ignored, because they can change the weights: {name}"


@pytest.mark.parametrize("name", ["ONEDNN_VERBOSE", "DNNL_JIT_DUMP", "TF_CPP_MIN_LOG_LEVEL", "TF_USE_LEGACY_KERAS"])
def test_variables_that_change_no_kernel_stay(environment, caplog, name):
    """Logs and other programs' variables are the user's."""
    environment |= {name: "1", "TF_CLI_CONFIG_FILE": "terraform's"}
    choose_kernels()
    assert environment[name] == "1"
    assert environment["TF_CLI_CONFIG_FILE"] == "terraform's"
    assert not caplog.records


@pytest.mark.parametrize(("value", "warnings"), [("0", 1), ("1", 0), (None, 0)])
def test_onednn_is_on_whatever_the_environment_says(environment, caplog, value, warnings):
    """A value that is not ours is replaced, with a warning."""
    if value is not None:
        environment["TF_ENABLE_ONEDNN_OPTS"] = value
    assert choose_kernels()["TF_ENABLE_ONEDNN_OPTS"] == environment["TF_ENABLE_ONEDNN_OPTS"] == "1"
    assert len(caplog.records) == warnings


def test_a_second_call_finds_the_same_and_warns_of_nothing(environment, caplog):
    """What is recorded does not depend on how often TensorFlow's import is prepared."""
    environment["TF_XLA_FLAGS"] = "--tf_xla_auto_jit=2"
    first = choose_kernels()
    caplog.clear()
    assert choose_kernels() == first
    assert not caplog.records


@pytest.mark.parametrize("name", ["GLIBC_TUNABLES", "LD_PRELOAD", "CUDA_VISIBLE_DEVICES", "TF_NUM_INTRAOP_THREADS"])
def test_variables_that_cannot_be_removed_are_recorded(environment, name):
    """They have acted already, or are the user's choice of devices and threads."""
    environment[name] = "7"
    assert choose_kernels()[name] == "7"
    assert environment[name] == "7"


def test_the_number_of_threads_is_in_force_where_nothing_sets_it(environment):
    """Convolutions' gradients depend on it, so that a run says where it goes on with another number of processors."""
    assert choose_kernels()["TF_NUM_INTRAOP_THREADS"] == str(len(os.sched_getaffinity(0)))
    assert environment["TF_NUM_INTRAOP_THREADS"] == str(len(os.sched_getaffinity(0)))
