"""Check that the machine supports a floating-point precision."""

from pathlib import Path

import tensorflow as tf

from mnist.errors import MachineError

# CPU flags of bfloat16 instructions in /proc/cpuinfo: Intel and AMD, Intel's AMX, Arm. Without them it is emulated.
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}


def check_precision(precision: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Check that the processor or a GPU computes in a precision without slow emulation.

    Args:
      precision: "float32", which is always supported, or "bfloat16".
      cpuinfo: Linux's description of the processor.

    Raises:
      MachineError: neither does.
    """
    if precision == "float32" or tf.config.list_physical_devices("GPU"):
        return
    words = set(cpuinfo.read_text(encoding="utf-8").split()) if cpuinfo.exists() else set()
    if not words & _BFLOAT16:
        raise MachineError(
            f"--precision={precision}: expected a processor with one of {', '.join(sorted(_BFLOAT16))}, "
            f"got none in {cpuinfo}",
            hint="train with --precision=float32, or on another machine",
        )
