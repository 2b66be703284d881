"""What this machine can compute in."""

from pathlib import Path

import tensorflow as tf

from mnist.errors import MachineError

# What Linux calls the instructions that multiply in bfloat16; without them it is emulated, and slow.
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}


def check_precision(precision: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Refuses a precision that neither the processor nor a GPU has.

    Args:
      precision: float32, which any has, or bfloat16.
      cpuinfo: where Linux tells of the processor.

    Raises:
      MachineError: it would have to be emulated.
    """
    if precision == "float32" or tf.config.list_physical_devices("GPU"):
        return
    known = set(cpuinfo.read_text(encoding="utf-8").split()) if cpuinfo.exists() else set()
    if not known & _BFLOAT16:
        message = (
            f"--precision={precision}: a processor that multiplies in it wanted, and in {cpuinfo} none of "
            f"{', '.join(sorted(_BFLOAT16))} found: train with --precision=float32, or on another machine."
        )
        raise MachineError(message)
