"""TensorFlow, imported without its lines about the machine: a table is to be a table."""

import logging
import os
import sys


def import_tensorflow() -> None:
    """Imports it; what it writes to standard error meanwhile, from C++ and before it reads any setting, is dropped."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    sys.stderr.flush()
    standard_error, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tensorflow  # noqa: F401, ICN001, PLC0415 - the import is the point
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)
        os.close(nowhere)
