"""A process that has imported TensorFlow once and forks runs of the programs that are killed at a system call.

    python -m tests.crash.zygote KILL_AT_LIBRARY

Like `tests/zygote.py`, for runs that are traced.

A request is a line of JSON on standard input (see `Request`). The response is a line of standard output: the child's
exit status, or minus the signal that ended it. The process ends at the end of its input. `boundaries.py` is the client.
"""

import ctypes
import json
import os
import signal
import sys
from typing import NamedTuple, NoReturn

from checkpointing.tf_import import tensorflow_import
from tests.zygote import become


class Request(NamedTuple):
    """One run.

    program: "softmax" or "cnn". flags: its command line.
    directory: calls that change files below it are counted.
    kill_before: the run is killed before the call of this number, from 1; 0 for never.
    in_the_middle: if that call is a write, its first half is done.
    calls: the file for the list of calls.
    output: the file for the program's standard output and error.
    seconds: after so many, SIGALRM ends the run.
    """

    program: str
    flags: list[str]
    directory: str
    kill_before: int
    in_the_middle: bool
    calls: str
    output: str
    seconds: int


def serve(kill_at: ctypes.CDLL) -> None:
    """Serve requests; in a child, end as the program does, by SystemExit."""
    for line in sys.stdin:
        request = Request(**json.loads(line))
        child = os.fork()
        if child == 0:
            run_program(request, kill_at)
        directory, calls = os.fsencode(request.directory), os.fsencode(request.calls)
        status = kill_at.follow(child, directory, request.kill_before, request.in_the_middle, calls)
        if status == -1:
            sys.exit("the child cannot be traced: expected ptrace and seccomp to be allowed")
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201 - the response


def run_program(request: Request, kill_at: ctypes.CDLL) -> NoReturn:
    """Turn this process into the requested program."""
    signal.alarm(request.seconds)
    nothing, output = os.open(os.devnull, os.O_RDONLY), os.open(request.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    if kill_at.start_being_followed() != 0:
        sys.exit("ptrace or seccomp is not allowed here")
    become(request.program, request.flags, [nothing, output, output])


if __name__ == "__main__":
    with tensorflow_import():
        from trainer import train  # noqa: F401 - for the children: with it comes TensorFlow
    serve(ctypes.CDLL(sys.argv[1]))
