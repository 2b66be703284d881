"""Importing TensorFlow without its lines about the machine.

    with silenced():
        import tensorflow as tf

It writes five of them from C++, before any setting is read; whoever waits for a sentence of ours would have to look for
it among them.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


def choose_kernels() -> None:
    """Has TensorFlow, once it is imported, compute convolutions and products with oneDNN.

    By itself it does so only on processors with certain instructions; on others it is as right, and the tutorial's CNN
    1.6 times as fast (docs/benchmarks.md). Not a matter of the user's environment: with other kernels the last bits
    of a resumed run would differ.
    """
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"


@contextmanager
def silenced(*, debug: bool = False) -> Iterator[None]:
    """Holds back what the block writes to standard error, unless it fails or `debug` says not to."""
    choose_kernels()
    if debug:
        yield
        return
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
