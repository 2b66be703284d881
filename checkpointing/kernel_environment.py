"""Environment variables that choose TensorFlow's kernels, fixed before TensorFlow is imported.

    in_force = choose_kernels()  # {"TF_ENABLE_ONEDNN_OPTS": "1", ...}

Other kernels give other last bits, so a resumed run must not depend on the user's environment.
"""

import logging
import os

from checkpointing.errors import listed

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
_THREADS = "TF_NUM_INTRAOP_THREADS"

# Variables that act before Python starts, or list the devices; they are recorded, not removed. GLIBC_TUNABLES chooses
# among glibc's variants of libm's functions; the LD_ variables can load another libm.
_RECORDED = (
    _THREADS,
    *("GLIBC_TUNABLES", "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT"),
    *("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "TF_ENABLED_DEVICE_TYPES", "TF_PLUGGABLE_DEVICE_LIBRARY_PATH"),
)

_log = logging.getLogger(__name__)


def choose_kernels() -> dict[str, str]:
    """Remove the environment variables that change what TensorFlow computes, and set this package's choice.

    Call it before TensorFlow is imported. One warning names the variables that are removed.

    Returns:
      The variables in force that the last bits of the weights depend on, with their values.
    """
    removed = sorted(
        name
        for name, value in os.environ.items()
        if name.startswith(_CHOOSING_KERNELS) and not name.startswith(_HARMLESS) and _CHOSEN.get(name) != value
    )
    for name in removed:
        del os.environ[name]
    os.environ.update(_CHOSEN)
    os.environ.setdefault(_THREADS, str(_processors()))
    if removed:
        _log.warning("environment variables ignored, because they can change the weights: %s", listed(removed))
    return {name: os.environ[name] for name in (*_CHOSEN, *_RECORDED) if name in os.environ}


def _processors() -> int:
    """The number of processors that this process may use: TensorFlow's default number of threads."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
