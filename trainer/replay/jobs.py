"""Divide segments between processes.

    for record in jobs.in_processes(work, segments, 2):
        ...

The processes are forked before TensorFlow is imported, share the data in memory, and each imports TensorFlow once. A
signal ends them at once, as there is nothing to save. Records travel as JSON: nothing is pickled.
"""

import json
import multiprocessing
import signal
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from multiprocessing import connection
from multiprocessing.context import ForkProcess
from typing import NamedTuple

from checkpointing import cli
from checkpointing.errors import CheckpointError, listed
from checkpointing.runs.preemption import SIGNALS
from checkpointing.storage.jsonl import Record
from trainer.replay.plan import Segment

Work = Callable[[Sequence[Segment]], Iterable[Record]]

_CONTEXT = multiprocessing.get_context("fork")


class _Worker(NamedTuple):
    """A process, and the end of the pipe at which its records arrive."""

    process: ForkProcess
    records: connection.Connection
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
    workers: list[_Worker] = []
    try:
        for group in balanced(segments, count):
            workers.append(_start(work, group, debug=debug))  # noqa: PERF401 - if one cannot be started, the others are ended
        missing = len(segments)
        for record in _records([worker.records for worker in workers]):
            missing -= 1
            yield record
        problems = [problem for worker in workers if (problem := _problem(worker))]
        if missing:
            raise CheckpointError(f"{missing} of {len(segments)} segments were not replayed: {listed(problems)}")
    finally:
        for worker in workers:
            worker.process.terminate()
            worker.process.join()


def _records(pipes: Sequence[connection.Connection]) -> Generator[Record]:
    """Yield the records from some pipes as they come, until all are closed at their other ends."""
    open_pipes = list(pipes)
    while open_pipes:
        for pipe in connection.wait(open_pipes):
            assert isinstance(pipe, connection.Connection)
            try:
                yield json.loads(pipe.recv_bytes())
            except (EOFError, OSError):  # OSError: the process was killed while it wrote
                open_pipes.remove(pipe)


def _start(work: Work, group: Sequence[Segment], *, debug: bool) -> _Worker:
    ours, theirs = _CONTEXT.Pipe(duplex=False)
    # Until the new process has its own handlers.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def write_records() -> int:
        for record in work(group):
            theirs.send_bytes(json.dumps(record).encode())
        return cli.OK

    def run() -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        sys.exit(cli.report_errors(write_records, debug=debug))

    try:
        process = _CONTEXT.Process(target=run)
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
    return _Worker(process, ours, group)


def _problem(worker: _Worker) -> str | None:
    """Wait for the end of a process; return what went wrong in it, None if nothing did."""
    worker.process.join()
    status = worker.process.exitcode
    if not status:
        return None
    how = f"died of {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return f"the process of {listed(worker.segments)} {how}"
