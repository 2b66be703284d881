import os

import pytest

from checkpointing import processor

AVX512 = "avx512f avx512bw avx512vl avx512dq"


@pytest.fixture
def cpuinfo(monkeypatch, tmp_path):
    """Return a function that writes another /proc/cpuinfo with these flags."""

    def write(flags):
        path = tmp_path / "cpuinfo"
        path.write_text(f"processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
        monkeypatch.setattr(processor, "_CPUINFO", path)

    return write


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("sse sse4_1", "sse41"),
        ("sse4_1 avx", "avx"),
        ("sse4_1 avx avx2", "avx"),  # without FMA
        ("sse4_1 avx avx2 fma", "avx2"),
        ("sse4_1 avx avx2 fma avx_vnni", "avx2_vnni"),
        (f"avx avx2 fma {AVX512}", "avx512_core"),
        (f"avx avx2 fma {AVX512} avx512_vnni avx512_bf16", "avx512_core_bf16"),
        (f"avx avx2 fma {AVX512} avx512_vnni avx512_bf16 amx_tile amx_int8 amx_bf16", "avx512_core_amx"),
    ],
)
def test_the_newest_instruction_set_is_named_as_in_onednn(cpuinfo, flags, expected):
    """The name is that of oneDNN's environment variable ONEDNN_MAX_CPU_ISA, in lower case."""
    cpuinfo(flags)
    assert processor.instruction_set() == expected
    assert processor.has_avx2() == ("avx2" in flags and "fma" in flags)


def test_the_name_is_that_of_the_first_processor(cpuinfo):
    """As the kernel reports it."""
    cpuinfo("avx2")
    assert processor.name() == "Some CPU @ 2.00GHz"


def test_without_cpuinfo_the_architecture_is_named(monkeypatch, tmp_path):
    """Other systems than Linux do not have the file."""
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "missing")
    assert processor.instruction_set() == os.uname().machine
    assert processor.name()
    assert not processor.has_avx2()
