"""TensorFlow's kernels, chosen by environment variables before TensorFlow is imported.

    record = choose_kernels("avx2")  # {"TF_ENABLE_ONEDNN_OPTS": "1", "instruction_set": "avx2", ...}

Other kernels give other last bits, so a resumed run must not depend on the user's environment. By default oneDNN uses
all instructions of the processor, so the last bits depend on it; with "avx2" they do not (docs/reproducibility.md).
"""

import logging
import os
from collections.abc import Mapping

from checkpointing import processor
from checkpointing.errors import UserError, listed

# Keys of the record of choose_kernels that are not environment variables.
PROCESSOR, INSTRUCTION_SET = "processor", "instruction_set"

NATIVE, AVX2 = "native", "avx2"
INSTRUCTION_SETS = (NATIVE, AVX2)

# Convolutions and matrix products with oneDNN. By default TensorFlow uses it only on processors with certain
# instructions; on others it is as correct, and makes the tutorial's CNN 1.6 times as fast (docs/benchmarks.md).
_CHOSEN = {"TF_ENABLE_ONEDNN_OPTS": "1"}

# Prefixes of the environment variables that choose kernels, or change what a kernel computes. Prefixes rather than
# names cover switches that a later version adds. In parentheses: where TensorFlow 2.21 and oneDNN 3 read them.
_CHOOSING_KERNELS = (
    # oneDNN: instruction set, precision of products, experiments (cpu/x64/cpu_isa_traits.cpp, common/fpmath_mode.cpp,
    # common/experimental.cpp; with an underscore graph/utils/utils.cpp), and how TensorFlow uses it, for example
    # whether it keeps a copy of the first weights (core/util/onednn_env_vars.cc, core/util/mkl_util.h).
    *("ONEDNN_", "DNNL_", "_ONEDNN_", "_DNNL_", "TF_ONEDNN_", "TF_MKL_"),
    # XLA, which compiles parts of a graph (compiler/jit/flags.cc, xla/debug_options_flags.cc,
    # python/eager/polymorphic_function/polymorphic_function.py).
    *("TF_XLA_", "TF_JIT", "TF_FUNCTION_JIT_", "XLA_FLAGS"),
    # TensorFlow's kernels, graph optimizers and control flow: oneDNN, ZenDNN (core/util/port.cc), Eigen's products
    # (xla/tsl/framework/contraction/eigen_contraction_kernel.cc), generated kernels (core/framework/op_kernel.cc),
    # determinism (core/util/determinism.cc), the thread pool (core/common_runtime/local_device.cc), mixed precision
    # (core/grappler/optimizers/auto_mixed_precision.cc), flags (core/config/flag_defs.h), while loops
    # (python/ops/control_flow_util.py).
    *("TF_ENABLE_", "TF_DISABLE_", "TF_USE_", "TF_SET_", "TF_FLAG_", "TF_DETERMINISTIC_", "TF_AUTO_MIXED_PRECISION_"),
    *("TENSORFLOW_USE_", "TF_OPTIONALS_IN_GRADIENTS", "TF_OVERRIDE_GLOBAL_THREADPOOL"),
    # Algorithms and precision on GPUs (core/util/use_cudnn.cc, core/util/matmul_autotune.cc,
    # xla/stream_executor/cuda/cuda_dnn.cc); the last two are read by NVIDIA's libraries.
    *("TF_CUDNN_", "TF_CUBLAS_", "TF_CUFFT_", "TF_AUTOTUNE_", "TF_MATMUL_", "TF_FP16_", "TF_CONV2D_"),
    *("TF_DEBUG_CUDNN_", "NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG"),
)

# Prefixes of variables in these families that log, profile or choose something other than kernels.
_HARMLESS = (
    *(f"{library}_{what}" for library in ("ONEDNN", "DNNL") for what in ("VERBOSE", "JIT_DUMP", "JIT_PROFILE", "ITT_")),
    *("TF_USE_LEGACY_KERAS", "TF_USE_MODULAR_FILESYSTEM", "TF_DISABLE_PROFILING"),
)

# The number of parts into which oneDNN splits the sums of a convolution's gradient (core/common_runtime/
# process_util.cc reads it); by default the number of processors. To resume a run on a machine with another number of
# processors, set it to the former number.
THREADS = "TF_NUM_INTRAOP_THREADS"

# Variables that act before Python starts, or list the devices; they are recorded, not removed. GLIBC_TUNABLES chooses
# among glibc's variants of libm's functions; the LD_ variables can load another libm.
_RECORDED = (
    THREADS,
    *("GLIBC_TUNABLES", "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT"),
    *("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "TF_ENABLED_DEVICE_TYPES", "TF_PLUGGABLE_DEVICE_LIBRARY_PATH"),
)

# The kernels that give the same bits on every processor with AVX2 and FMA: oneDNN's newest instruction set, and the
# number of parts of its sums, whatever the number of processors.
_CHOSEN_FOR_AVX2 = {**_CHOSEN, "ONEDNN_MAX_CPU_ISA": "AVX2", THREADS: "2"}

_log = logging.getLogger(__name__)
_instruction_set = NATIVE


class ProcessorError(UserError):
    """The processor lacks the chosen instruction set."""


def choose_kernels(instruction_set: str | None = None) -> dict[str, str]:
    """Remove the environment variables that change what TensorFlow computes, and set this package's choice.

    Call it before TensorFlow is imported. One warning names the variables that are removed.

    Args:
      instruction_set: "native" or "avx2"; None for that of the call before, at first "native".

    Returns:
      What the last bits of the weights depend on: the variables in force, with their values; and "processor" and
      "instruction_set", the names of the processor and of oneDNN's instruction set.

    Raises:
      ProcessorError: the processor lacks the instructions.
    """
    global _instruction_set  # noqa: PLW0603 - TensorFlow reads the variables once in a process
    if instruction_set == AVX2 and not processor.has_avx2():
        raise ProcessorError(
            f"instruction set {AVX2}: expected a processor with AVX2 and FMA, got {processor.name()}",
            hint=f"use the instruction set {NATIVE}",
        )
    _instruction_set = instruction_set or _instruction_set
    chosen = _CHOSEN_FOR_AVX2 if _instruction_set == AVX2 else _CHOSEN
    removed = sorted(name for name, value in os.environ.items() if _chooses_others(name, value, chosen))
    for name in removed:
        del os.environ[name]
    os.environ.update(chosen)
    os.environ.setdefault(THREADS, str(processor.count()))
    if removed:
        _log.warning("environment variables ignored, because they can change the weights: %s", listed(removed))
    return in_force()


def _chooses_others(name: str, value: str, chosen: Mapping[str, str]) -> bool:
    """Whether an environment variable chooses other kernels than the chosen ones."""
    if name in chosen:
        return value != chosen[name]
    return name.startswith(_CHOOSING_KERNELS) and not name.startswith(_HARMLESS)


def in_force() -> dict[str, str]:
    """Return the record of the last call of `choose_kernels`, without another one."""
    is_avx2 = _instruction_set == AVX2
    chosen = _CHOSEN_FOR_AVX2 if is_avx2 else _CHOSEN
    variables = {name: os.environ[name] for name in {**chosen, **dict.fromkeys(_RECORDED)} if name in os.environ}
    used = AVX2 if is_avx2 else processor.instruction_set()
    return {**variables, PROCESSOR: processor.name(), INSTRUCTION_SET: used}


def summary(record: Mapping[str, str]) -> str:
    """Return the record of `choose_kernels` in words: processor, instruction set, threads, oneDNN."""
    onednn = "on" if record["TF_ENABLE_ONEDNN_OPTS"] == "1" else "off"
    instructions, threads = record[INSTRUCTION_SET], record[THREADS]
    return f"{record[PROCESSOR]}, instruction set {instructions}, {threads} threads, oneDNN {onednn}"


def session_threads(threads: int) -> int:
    """Return the number of threads for a session's configuration; 0 for TensorFlow's default.

    Args:
      threads: the user's choice; 0 for all processors.
    """
    return threads or (processor.count() if _instruction_set == AVX2 else 0)  # the default would be THREADS
