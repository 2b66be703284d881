"""Importing TensorFlow without its lines about the machine, without Keras, and for good.

    with tensorflow_import():
        import tensorflow as tf

It writes five lines from C++, before any setting is read; whoever waits for a sentence of ours would have to look for
it among them. Of the seconds that its import takes, the Keras that it brings along takes a quarter
(docs/benchmarks.md), and we use none. And Python, when the program ends, would visit each of its objects, which takes
half a second.
"""

import gc
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

# What TensorFlow imports of Keras, if it is there, to know the optimizers of Keras' models; with it come SciPy and
# Matplotlib.
_KERAS = "keras.src.optimizers"


# The one choice: convolutions and products with oneDNN. By itself TensorFlow takes it only on processors with certain
# instructions; on others it is as right, and the tutorial's CNN 1.6 times as fast (docs/benchmarks.md).
_CHOSEN = {"TF_ENABLE_ONEDNN_OPTS": "1"}

# How the names begin of the environment variables that choose kernels, or change what a kernel computes. By families,
# so that the next version's switches are among them. Where TensorFlow 2.21 and oneDNN 3 read them:
_CHOOSING_KERNELS = (
    # oneDNN: instruction set, precision of products, experiments (cpu/x64/cpu_isa_traits.cpp, common/fpmath_mode.cpp,
    # common/experimental.cpp; with an underscore graph/utils/utils.cpp), and what TensorFlow has it do: keep a copy of
    # the first weights, for example (core/util/onednn_env_vars.cc, core/util/mkl_util.h).
    *("ONEDNN_", "DNNL_", "_ONEDNN_", "_DNNL_", "TF_ONEDNN_", "TF_MKL_"),
    # XLA, which compiles parts of a graph (compiler/jit/flags.cc, xla/debug_options_flags.cc,
    # python/eager/polymorphic_function/polymorphic_function.py).
    *("TF_XLA_", "TF_JIT", "TF_FUNCTION_JIT_", "XLA_FLAGS"),
    # Switches of TensorFlow's kernels, graph optimizers and control flow: oneDNN, ZenDNN (core/util/port.cc), Eigen's
    # products (xla/tsl/framework/contraction/eigen_contraction_kernel.cc), generated kernels
    # (core/framework/op_kernel.cc), determinism (core/util/determinism.cc), the thread pool
    # (core/common_runtime/local_device.cc), mixed precision (core/grappler/optimizers/auto_mixed_precision.cc), flags
    # (core/config/flag_defs.h), while loops (python/ops/control_flow_util.py).
    *("TF_ENABLE_", "TF_DISABLE_", "TF_USE_", "TF_SET_", "TF_FLAG_", "TF_DETERMINISTIC_", "TF_AUTO_MIXED_PRECISION_"),
    *("TENSORFLOW_USE_", "TF_OPTIONALS_IN_GRADIENTS", "TF_OVERRIDE_GLOBAL_THREADPOOL"),
    # Algorithms and precision on GPUs (core/util/use_cudnn.cc, core/util/matmul_autotune.cc,
    # xla/stream_executor/cuda/cuda_dnn.cc); the last two are read by NVIDIA's own libraries.
    *("TF_CUDNN_", "TF_CUBLAS_", "TF_CUFFT_", "TF_AUTOTUNE_", "TF_MATMUL_", "TF_FP16_", "TF_CONV2D_"),
    *("TF_DEBUG_CUDNN_", "NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG"),
)

# Members of these families that log, profile or choose something else than kernels.
_HARMLESS = (
    *(f"{library}_{what}" for library in ("ONEDNN", "DNNL") for what in ("VERBOSE", "JIT_DUMP", "JIT_PROFILE", "ITT_")),
    *("TF_USE_LEGACY_KERAS", "TF_USE_MODULAR_FILESYSTEM", "TF_DISABLE_PROFILING"),
)

# Into so many parts oneDNN splits the sums of a convolution's gradient (core/common_runtime/process_util.cc reads it).
# Unset, it is the number of processors. To resume a run on a machine with more of them, set it to the former number.
_THREADS = "TF_NUM_INTRAOP_THREADS"

# What acts before Python starts, or says which devices there are: not ours to remove. glibc has several variants of
# the functions in libm, and GLIBC_TUNABLES chooses among them; the linker can be given another libm.
_RECORDED = (
    _THREADS,
    *("GLIBC_TUNABLES", "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT"),
    *("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "TF_ENABLED_DEVICE_TYPES", "TF_PLUGGABLE_DEVICE_LIBRARY_PATH"),
)

_log = logging.getLogger(__name__)


def choose_kernels() -> dict[str, str]:
    """Removes the environment variables that change what TensorFlow computes, and sets ours; before it is imported.

    With other kernels the last bits of a resumed run would differ, so this does not depend on the user's environment.
    What is removed is named in one warning.

    Returns:
      The environment variables in force that the last bits of the weights depend on, with their values.
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
        _log.warning("environment variables ignored, because they can change the weights: %s", ", ".join(removed))
    return {name: os.environ[name] for name in (*_CHOSEN, *_RECORDED) if name in os.environ}


def _processors() -> int:
    """How many this process may use: as many threads TensorFlow takes by itself."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def silenced() -> Iterator[None]:
    """Holds back what the block writes to standard error, unless it fails."""
    sys.stderr.flush()
    standard_error = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except Exception:
            held_back.seek(0)
            os.write(standard_error, held_back.read())
            raise
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)


@contextmanager
def tensorflow_import(*, debug: bool = False) -> Iterator[None]:
    """A block that imports TensorFlow, or what imports it; with `debug` one sees what is written meanwhile."""
    choose_kernels()
    first = "tensorflow" not in sys.modules
    with _without_keras(), nullcontext() if debug else silenced():
        yield
    if first and "tensorflow" in sys.modules:
        gc.freeze()  # what has been imported stays until the end: garbage collection need not visit it


def import_tensorflow() -> None:
    """Import TensorFlow for a command that needs it; the same as an import in a `tensorflow_import` block."""
    with tensorflow_import():
        import tensorflow  # noqa: F401, ICN001, PLC0415 - the import is the point


@contextmanager
def _without_keras() -> Iterator[None]:
    """Has TensorFlow's import find no Keras, which it can do without; once the block ends, anyone may import it.

    What is None in sys.modules cannot be imported (source: Python's language reference, "The module cache").
    """
    if _KERAS in sys.modules:
        yield
        return
    sys.modules[_KERAS] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_KERAS]
