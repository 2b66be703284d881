"""Run the steps of segments again, and compare the states. Needs TensorFlow."""

import importlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import tensorflow as tf

from checkpointing.errors import CheckpointError, DamagedError
from checkpointing.format.tensor_bundle import Bundle
from checkpointing.protocol.snapshot import Snapshot
from checkpointing.storage import fingerprint
from checkpointing.storage.jsonl import Record
from configs.settings import Settings
from mnist.input.dataset import Split
from mnist.model import training_graph
from mnist.model.training_graph import TrainingGraph
from mnist.tools import checkpoint_refs
from mnist.training import loop
from mnist.training.stopwatch import Stopwatch
from trainer import restore, train
from trainer.replay import comparison, conditions
from trainer.replay.plan import Segment, Start


class _Scratch(NamedTuple):
    """A session that belongs to no train_dir, with its graph."""

    settings: Settings
    session: tf.compat.v1.Session
    graph: TrainingGraph
    snapshot: Snapshot


def replay(
    segments: Iterable[Segment], split: Split, *, max_threads: int, check_stop: Callable[[], None]
) -> Iterator[Record]:
    """Replay segments, one after the other, in a scratch session.

    Args:
      segments: to replay; segments of the same settings share a session, but each starts from its own state.
      split: the training data.
      max_threads: upper limit of TensorFlow's threads; 0 for none.
      check_stop: called between two calls of session.run; raises an exception to stop.

    Yields:
      For each segment: `from`, `to`, `steps`; `start` and `end`, prefixes; `variables`, their number; `bit_for_bit`;
      `differing`, the records of `comparison.differing_variables`; `weights_sha256` as in result.json; `seconds`. If
      it could not be replayed, `error` in place of what is not known.
    """
    with ExitStack() as stack:
        scratch = None
        for segment in segments:
            began = time.perf_counter()
            settings = conditions.settings_of(segment.saved)
            try:
                if scratch is None or scratch.settings != settings:
                    stack.close()
                    scratch = _open(settings, segment, split, max_threads, stack)
                record = _replay_one(scratch, segment, split, check_stop)
            except CheckpointError as error:
                record = {"bit_for_bit": False, "error": _describe(error, segment)}
            yield {**_named(segment), **record, "seconds": round(time.perf_counter() - began, 3)}


def _named(segment: Segment) -> Record:
    start = segment.start
    return {
        "from": start.step,
        "to": segment.saved.step,
        "steps": segment.steps,
        "start": str(start.prefix) if start.prefix else None,
        "end": str(segment.end),
    }


def _describe(error: CheckpointError, segment: Segment) -> str:
    """Return an error's message; what a running run has deleted is not damaged."""
    for prefix in (segment.start.prefix, segment.end):
        if isinstance(error, DamagedError) and prefix and checkpoint_refs.was_deleted(prefix):
            return f"{prefix}: its run has just deleted it"
    return str(error)


def _open(settings: Settings, segment: Segment, split: Split, max_threads: int, stack: ExitStack) -> _Scratch:
    # The program's own function, so that what is replayed is what the program trains. It is imported by name, and only
    # here, because programs are not modules for others to use.
    program = importlib.import_module(f"train_{conditions.program_of(segment.saved)}")
    graph = train.build_graph(settings, partial(program.make_model, settings), split)
    with graph.graph.as_default():
        snapshot = Snapshot(graph.saved, shards=1)
    threads = min(filter(None, (settings.threads, max_threads)), default=0)
    session = stack.enter_context(training_graph.open_session(graph.graph, threads))
    return _Scratch(settings, session, graph, snapshot)


def _replay_one(scratch: _Scratch, segment: Segment, split: Split, check_stop: Callable[[], None]) -> Record:
    session, graph = scratch.session, scratch.graph
    _restore(scratch, segment, split)
    last = segment.saved.step
    for _ in loop.run_steps(session, graph, segment.start.step, train_steps=last, cut_at=(), stopwatch=Stopwatch()):
        check_stop()
    found = session.run({variable.op.name: variable for variable in graph.saved})
    differing = comparison.differing_variables(found, Bundle(segment.end))
    digest = scratch.snapshot.digest_of_variables(session)
    if not differing and digest != segment.saved.state_digest:
        raise DamagedError(f"{segment.end.name}: the manifest's state_digest is not that of its variables")
    weights = {variable.op.name: found[variable.op.name] for variable in graph.trained}
    return {
        "variables": len(found),
        "bit_for_bit": not differing,
        "differing": differing,
        "weights_sha256": fingerprint.weights_sha256(weights),
    }


def _restore(scratch: _Scratch, segment: Segment, split: Split) -> None:
    """Give each variable its value at the start of a segment.

    Raises:
      CheckpointError: the start cannot be restored, or is of another step than its name says.
    """
    session, graph, start = scratch.session, scratch.graph, segment.start
    training_graph.initialize(session, graph, split)
    if start.prefix is not None:
        scratch.snapshot.restore_and_verify(session, start.prefix, start.saved)
    elif start.warm_start is not None:
        _take_first_weights(scratch, segment, start)
    step = int(session.run(graph.step))
    if step != start.step:
        raise CheckpointError(f"{start}: expected the state of step {start.step}, got that of step {step}")


def _take_first_weights(scratch: _Scratch, segment: Segment, start: Start) -> None:
    choice = conditions.warm_start_of(segment.saved)
    assert start.warm_start is not None
    assert choice is not None
    restore.warm_start(scratch.session, scratch.graph, start.warm_start, choice)
