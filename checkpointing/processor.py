"""The processor: its name, the number of cores, and the instruction set that oneDNN uses on it."""

import functools
import os
import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")

# Names of oneDNN's instruction sets, and the flags of /proc/cpuinfo that each needs in addition to those after it; the
# first that fits is used (source: oneDNN's src/cpu/x64/cpu_isa_traits.hpp, mayiuse). Within "avx2" and within
# "avx512_core" the names differ by instructions for other dtypes than float32.
_AVX512 = ("avx512f", "avx512bw", "avx512vl", "avx512dq")
_AVX2 = ("avx2", "fma")
_INSTRUCTION_SETS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("avx512_core_amx", (*_AVX512, "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16")),
    ("avx512_core_fp16", (*_AVX512, "avx512_vnni", "avx512_bf16", "avx512_fp16")),
    ("avx512_core_bf16", (*_AVX512, "avx512_vnni", "avx512_bf16")),
    ("avx512_core_vnni", (*_AVX512, "avx512_vnni")),
    ("avx512_core", _AVX512),
    ("avx2_vnni", (*_AVX2, "avx_vnni")),
    ("avx2", _AVX2),
    ("avx", ("avx",)),
    ("sse41", ("sse4_1",)),
)


def name() -> str:
    """Return the processor's model name, such as "AMD EPYC"."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def count() -> int:
    """Return the number of processors that this process may use: TensorFlow's default number of threads."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_avx2() -> bool:
    """Return whether the processor has AVX2 and FMA."""
    return flags().issuperset(_AVX2)


def instruction_set() -> str:
    """Return oneDNN's name of the newest instruction set that it uses here; without /proc/cpuinfo, the architecture."""
    found = flags()
    return next((each for each, needed in _INSTRUCTION_SETS if found.issuperset(needed)), platform.machine())


def flags() -> frozenset[str]:
    """Return the processor's flags as Linux names them, such as "avx2"; empty on other systems."""
    return frozenset(_cpuinfo().get("flags", "").split())


def _cpuinfo() -> dict[str, str]:
    return _read(_CPUINFO)


@functools.cache
def _read(cpuinfo: Path) -> dict[str, str]:
    """Return the first processor's entry; empty on systems without the file."""
    if not cpuinfo.exists():
        return {}
    first, _, _ = cpuinfo.read_text(encoding="utf-8").partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
