import os
import subprocess
import sys

import pytest

from checkpointing import processor
from tests import digests, programs

pytestmark = pytest.mark.skipif(not processor.has_avx2(), reason="needs a processor with AVX2 and FMA")


def compare(*arguments: str, **environment: str) -> str:
    """Run the comparison in another process, because kernels are chosen once in a process; return its output."""
    command = [sys.executable, "-m", "tests.digests", *arguments]
    ended = subprocess.run(
        command, cwd=programs.ROOT, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_the_weights_on_this_processor_are_those_of_the_others():
    """Whatever the user's environment says of instructions and threads."""
    output = compare(ONEDNN_MAX_CPU_ISA="SSE41", TF_NUM_INTRAOP_THREADS="7", TF_ENABLE_ONEDNN_OPTS="0")
    assert output.count("as stated") == len(digests.SHORT)


@pytest.mark.slow
def test_long_runs_on_this_processor_are_those_of_the_others():
    """500 steps of the large recipes, whole runs of the small ones."""
    assert compare("--long").count("as stated") == len(digests.LONG)
