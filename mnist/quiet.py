"""Importing TensorFlow without its lines about the machine, without Keras, and for good.

    with tensorflow_import():
        import tensorflow as tf

It writes five lines from C++, before any setting is read; whoever waits for a sentence of ours would have to look for
it among them. Of the seconds that its import takes, the Keras that it brings along takes a quarter
(docs/benchmarks.md), and we use none. And Python, when the program ends, would visit each of its objects, which takes
half a second.
"""

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

# What TensorFlow imports of Keras, if it is there, to know the optimizers of Keras' models; with it come SciPy and
# Matplotlib.
_KERAS = "keras.src.optimizers"


def choose_kernels() -> None:
    """Has TensorFlow, once it is imported, compute convolutions and products with oneDNN.

    By itself it does so only on processors with certain instructions; on others it is as right, and the tutorial's CNN
    1.6 times as fast (docs/benchmarks.md). Not a matter of the user's environment: with other kernels the last bits
    of a resumed run would differ.
    """
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"


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
