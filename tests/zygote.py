"""A process that has imported TensorFlow once and forks a run of a program for each request.

    python -m tests.zygote DESCRIPTOR

Importing TensorFlow takes seconds, a small run a fraction of one. Sessions and their threads, which do not survive a
fork, do not exist yet. The child runs all that the command line runs, from `app.run` on, with the imports done.

DESCRIPTOR is a socket. A request (see `Request`) comes with four descriptors: the run's standard input, output and
error, and a pipe for two C ints: the run's pid at once, and at its end its exit status, or minus the signal that ended
it. The zygote ends when the socket is closed. `fork.py` is the client.
"""

import json
import os
import runpy
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import train_cnn
import train_softmax
from checkpointing.runs import starting
from checkpointing.tf_import import tensorflow_import
from trainer import app

SCRIPTS = {"softmax": train_softmax, "cnn": train_cnn}

NUMBER = struct.Struct("i")


class Request(NamedTuple):
    """One run.

    program: "softmax", "cnn", or a module to run as `python -m` does. flags: its command line.
    environment: all its environment variables; those that Python and TensorFlow read when they start are the zygote's.
    directory: its working directory.
    """

    program: str
    flags: list[str]
    environment: dict[str, str]
    directory: str


def serve(requests: socket.socket) -> None:
    """Serve requests; in a child, end as the program does, by SystemExit."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers are not waited for
    while True:
        text, descriptors, _, _ = socket.recv_fds(requests, 1 << 20, 4)
        if not text:
            return
        if os.fork() == 0:
            requests.close()
            keep(Request(**json.loads(text)), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def keep(request: Request, descriptors: Sequence[int]) -> NoReturn:
    """Fork the run and wait for it, so that its status is collected."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *streams, pipe = descriptors
    child = os.fork()
    if child == 0:
        starting.exit_on_signal()  # as the programs begin
        os.close(pipe)
        os.environ.clear()
        os.environ.update(request.environment)
        os.chdir(request.directory)
        become(request.program, request.flags, streams)
    for stream in streams:
        os.close(stream)
    os.write(pipe, NUMBER.pack(child))
    _, status = os.waitpid(child, 0)
    os.write(pipe, NUMBER.pack(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def become(program: str, arguments: Sequence[str], streams: Sequence[int]) -> NoReturn:
    """Turn this process into a program with these as its standard input, output and error."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for stream in set(streams):
        os.close(stream)
    # New objects: the old ones remember whether their files could seek.
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    sys.stdout = os.fdopen(1, "w", encoding=encoding or None, errors=errors or None, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding=encoding or None, errors="backslashreplace", closefd=False)
    if program in SCRIPTS:
        script = SCRIPTS[program]
        sys.argv = [str(script.__file__), *arguments]
        sys.orig_argv = [sys.executable, *sys.argv]
        app.run(script.make_model, program=program, synopsis=script.__doc__)
    sys.argv = [program, *arguments]
    sys.orig_argv = [sys.executable, "-m", *sys.argv]
    runpy.run_module(program, run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    # Ctrl-C in a terminal reaches this process too; it ends with its client, and keepers end with their runs.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with tensorflow_import():
        from trainer import train  # noqa: F401 - for the children: with it comes TensorFlow
    serve(socket.socket(fileno=int(sys.argv[1])))
