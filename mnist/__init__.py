"""MNIST: data, models, training, evaluation and reports. Only the command lines read flags and checkpoints."""

import signal
import sys

# `python -m mnist.NAME` imports this package first, with "-m" as sys.argv[0]. From here until `cli.run_tool` takes
# over, Ctrl-C ends the process without a traceback, as it ends a program in C.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
