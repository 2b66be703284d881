import pytest

from mnist.errors import MachineError
from mnist.model import precision


def test_float32_is_always_supported(tmp_path):
    """The description of the processor is not read."""
    precision.check_precision("float32", tmp_path / "missing")


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16", "bf16"])
def test_bfloat16_is_supported_with_a_cpu_flag(tmp_path, flag):
    """The flags of Intel and AMD, Intel AMX, and Arm."""
    (tmp_path / "cpuinfo").write_text(f"flags\t: fpu {flag} avx2\n")
    precision.check_precision("bfloat16", tmp_path / "cpuinfo")


@pytest.mark.parametrize("text", ["flags\t: fpu avx2 not_bf16\n", "", None])
def test_emulated_bfloat16_raises(tmp_path, text):
    """The message names the flag, the hint says what to do."""
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    with pytest.raises(MachineError, match=r"^--precision=bfloat16: expected a processor with one of") as raised:
        precision.check_precision("bfloat16", tmp_path / "cpuinfo")
    assert raised.value.hint == "train with --precision=float32, or on another machine"
