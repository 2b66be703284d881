"""Divide segments between processes.

    for record in jobs.in_processes(work, segments, 2):
        ...

The processes are forked before TensorFlow is imported, share the data in memory, and each imports TensorFlow once. A
signal ends them at once, as there is nothing to save.
"""

import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import IO, NamedTuple, NoReturn

from checkpointing import cli
from checkpointing.errors import CheckpointError, listed
from checkpointing.runs.preemption import SIGNALS
from checkpointing.storage.jsonl import Record
from trainer.replay.plan import Segment

Work = Callable[[Sequence[Segment]], Iterable[Record]]


class _Worker(NamedTuple):
    """A process, and the pipe from which its records are read, a line each."""

    pid: int
    records: IO[bytes]
    segments: Sequence[Segment]


def balanced(segments: Sequence[Segment], count: int) -> list[list[Segment]]:
    """Divide segments into at most `count` groups of about the same number of steps, none of them empty."""
    groups: list[list[Segment]] = [[] for _ in range(min(count, len(segments)))]
    for segment in sorted(segments, key=lambda each: each.steps, reverse=True):
        smallest = min(groups, key=lambda group: (sum(each.steps for each in group), len(group)))
        smallest.append(segment)
    return [sorted(group, key=lambda each: each.saved.step) for group in groups]


def in_processes(work: Work, segments: Sequence[Segment], count: int, *, debug: bool = False) -> Generator[Record]:
    """Run `work` on groups of segments, each in a separate process.

    Args:
      work: returns a record for each segment of a group; called in the new process.
      segments: to divide.
      count: the number of processes.
      debug: whether a process shows the traceback of an error.

    Yields:
      The records, as they come.

    Raises:
      CheckpointError: a process ended before it had returned all its records.
    """
    workers: list[_Worker] = []  # whose end has not been waited for
    try:
        for group in balanced(segments, count):
            workers.append(_start(work, group, debug=debug))  # noqa: PERF401 - if one cannot be started, the others are ended
        missing = len(segments)
        for text in _lines([worker.records for worker in workers]):
            missing -= 1
            yield json.loads(text)
        problems = []
        while workers:
            problems += _wait(workers.pop(0))
        if missing:
            raise CheckpointError(f"{missing} of {len(segments)} segments were not replayed: {listed(problems)}")
    finally:
        for worker in workers:
            os.kill(worker.pid, signal.SIGTERM)
            _wait(worker)


def _lines(pipes: Iterable[IO[bytes]]) -> Iterator[bytes]:
    """Yield the lines from some pipes as they come, until all are closed at their other ends."""
    open_pipes = list(pipes)
    while open_pipes:
        for pipe in select.select(open_pipes, [], [])[0]:
            if text := pipe.readline():
                yield text
            else:
                open_pipes.remove(pipe)


def _start(work: Work, group: Sequence[Segment], *, debug: bool) -> _Worker:
    ours, theirs = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the new process has its own handlers
    try:
        pid = os.fork()
        if pid == 0:
            os.close(ours)
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            _become_worker(work, group, theirs, debug=debug)
        os.close(theirs)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return _Worker(pid, os.fdopen(ours, "rb"), group)


def _become_worker(work: Work, group: Sequence[Segment], pipe: int, *, debug: bool) -> NoReturn:
    """Write the records to the pipe, and end without returning to the caller's stack."""

    def write_records() -> int:
        for record in work(group):
            text = memoryview(json.dumps(record).encode() + b"\n")
            while text:
                text = text[os.write(pipe, text) :]
        return cli.OK

    status = cli.FAILED
    try:
        status = cli.report_errors(write_records, debug=debug)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stderr.flush()
        os._exit(status)


def _wait(worker: _Worker) -> list[str]:
    """Wait for the end of a process; return what went wrong in it, nothing if nothing did."""
    worker.records.close()
    status = os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1])
    if not status:
        return []
    how = f"died of {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return [f"the process of {listed(worker.segments)} {how}"]
