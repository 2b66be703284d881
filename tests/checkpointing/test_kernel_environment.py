import logging
import os

import pytest

from checkpointing import kernel_environment, processor
from checkpointing.kernel_environment import ProcessorError, choose_kernels


@pytest.fixture
def environment(monkeypatch):
    """The environment variables of a test."""
    variables = {"PATH": "/bin"}
    monkeypatch.setattr(os, "environ", variables)
    monkeypatch.setattr(kernel_environment, "_instruction_set", kernel_environment.NATIVE)
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
    """The warning names the variable; the record of those in force does not contain it."""
    environment[name] = "1"
    in_force = choose_kernels()
    assert name not in environment
    assert name not in in_force
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == f"environment variables ignored, because they can change the weights: {name}"


@pytest.mark.parametrize("name", ["ONEDNN_VERBOSE", "DNNL_JIT_DUMP", "TF_CPP_MIN_LOG_LEVEL", "TF_USE_LEGACY_KERAS"])
def test_variables_that_change_no_kernel_stay(environment, caplog, name):
    """Variables for logs, and those of other programs, are kept."""
    environment |= {name: "1", "TF_CLI_CONFIG_FILE": "terraform's"}
    choose_kernels()
    assert environment[name] == "1"
    assert environment["TF_CLI_CONFIG_FILE"] == "terraform's"
    assert not caplog.records


@pytest.mark.parametrize(("value", "warnings"), [("0", 1), ("1", 0), (None, 0)])
def test_onednn_is_always_on(environment, caplog, value, warnings):
    """Another value is replaced, with a warning."""
    if value is not None:
        environment["TF_ENABLE_ONEDNN_OPTS"] = value
    assert choose_kernels()["TF_ENABLE_ONEDNN_OPTS"] == environment["TF_ENABLE_ONEDNN_OPTS"] == "1"
    assert len(caplog.records) == warnings


def test_a_second_call_returns_the_same_without_a_warning(environment, caplog):
    """The record does not depend on the number of calls."""
    environment["TF_XLA_FLAGS"] = "--tf_xla_auto_jit=2"
    first = choose_kernels()
    caplog.clear()
    assert choose_kernels() == first
    assert not caplog.records


@pytest.mark.parametrize("name", ["GLIBC_TUNABLES", "LD_PRELOAD", "CUDA_VISIBLE_DEVICES", "TF_NUM_INTRAOP_THREADS"])
def test_variables_that_cannot_be_removed_are_recorded(environment, name):
    """They act before Python starts, or choose devices and threads."""
    environment[name] = "7"
    assert choose_kernels()[name] == "7"
    assert environment[name] == "7"


def test_the_number_of_threads_is_set_if_the_user_has_not_set_it(environment):
    """Convolutions' gradients depend on it: a run resumed on another number of processors must be able to warn."""
    assert choose_kernels()["TF_NUM_INTRAOP_THREADS"] == str(len(os.sched_getaffinity(0)))
    assert environment["TF_NUM_INTRAOP_THREADS"] == str(len(os.sched_getaffinity(0)))


CAPPED = {"TF_ENABLE_ONEDNN_OPTS": "1", "ONEDNN_MAX_CPU_ISA": "AVX2", "TF_NUM_INTRAOP_THREADS": "2"}


@pytest.fixture
def with_avx2(monkeypatch):
    """A processor with AVX-512."""
    monkeypatch.setattr(processor, "has_avx2", lambda: True)
    monkeypatch.setattr(processor, "instruction_set", lambda: "avx512_core")
    monkeypatch.setattr(processor, "count", lambda: 7)


@pytest.mark.usefixtures("with_avx2")
def test_with_avx2_the_kernels_do_not_depend_on_the_processor(environment):
    """Neither on its newer instructions nor on the number of its cores; later calls keep the choice."""
    in_force = choose_kernels("avx2")
    assert environment.items() >= CAPPED.items()
    assert in_force.items() >= {**CAPPED, "instruction_set": "avx2"}.items()
    assert choose_kernels() == in_force
    assert kernel_environment.session_threads(0) == 7
    assert kernel_environment.session_threads(3) == 3


@pytest.mark.usefixtures("with_avx2")
@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "TF_NUM_INTRAOP_THREADS"])
def test_with_avx2_the_users_own_choice_is_ignored_with_a_warning(environment, caplog, name):
    """The variable would change the bits."""
    environment[name] = "16"
    choose_kernels("avx2")
    assert environment.get(name) == CAPPED.get(name)
    (record,) = caplog.records
    assert record.getMessage().endswith(f"can change the weights: {name}")


@pytest.mark.usefixtures("with_avx2")
def test_by_default_the_processors_own_instruction_set_is_recorded(environment):
    """TensorFlow's default number of threads is left to it."""
    assert choose_kernels()["instruction_set"] == "avx512_core"
    assert "ONEDNN_MAX_CPU_ISA" not in environment
    assert kernel_environment.session_threads(0) == 0


def test_a_processor_without_avx2_is_refused(environment, monkeypatch):
    """Before anything is computed, with the processor's name."""
    monkeypatch.setattr(processor, "has_avx2", lambda: False)
    monkeypatch.setattr(processor, "name", lambda: "Some CPU")
    with pytest.raises(ProcessorError, match="expected a processor with AVX2 and FMA, got Some CPU"):
        choose_kernels("avx2")
    assert "ONEDNN_MAX_CPU_ISA" not in environment
