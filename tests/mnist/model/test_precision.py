import pytest

from mnist.errors import MachineError
from mnist.model import precision


def test_float32_is_had_by_all(tmp_path):
    """Nobody is asked."""
    precision.check_precision("float32", tmp_path / "missing")


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16", "bf16"])
def test_bfloat16_is_had_by_some(tmp_path, flag):
    """Linux tells by a flag, on Intel's and AMD's processors and on Arm's."""
    (tmp_path / "cpuinfo").write_text(f"flags\t: fpu {flag} avx2\n")
    precision.check_precision("bfloat16", tmp_path / "cpuinfo")


@pytest.mark.parametrize("text", ["flags\t: fpu avx2 not_bf16\n", "", None])
def test_bfloat16_is_refused_where_it_would_be_emulated(tmp_path, text):
    """In one sentence that says what to do."""
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    with pytest.raises(MachineError, match=r"--precision=bfloat16.*--precision=float32, or on another machine"):
        precision.check_precision("bfloat16", tmp_path / "cpuinfo")
