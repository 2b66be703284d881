"""TensorFlow, imported for a command: a table is to be a table, and to be there soon."""

import gc
import logging
import os
import sys

# The part of Keras that TensorFlow's import looks for; with it come the rest, SciPy and Matplotlib, and a quarter of
# the import's time. None of it is needed here.
_KERAS = "keras.src.optimizers"


def import_tensorflow() -> None:
    """Imports it without Keras, which anyone may import later, and leaves its objects out of garbage collection.

    What it writes to standard error meanwhile, from C++ and before it reads any setting, is dropped.
    """
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    hide_keras = _KERAS not in sys.modules
    if hide_keras:
        sys.modules[_KERAS] = None  # type: ignore[assignment]
    sys.stderr.flush()
    standard_error, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tensorflow  # noqa: F401, ICN001, PLC0415 - the import is the point
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)
        os.close(nowhere)
        if hide_keras:
            del sys.modules[_KERAS]
    gc.freeze()  # else a command would end half a second later
