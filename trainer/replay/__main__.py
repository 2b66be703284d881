"""Prove that a run's checkpoints follow from one another: run the steps between them again, and compare the bits.

    python -m trainer.replay --train_dir=DIR [--data_dir=DIR] [--from=STEP] [--to=STEP] [--anyway] [--json]
    python -m trainer.replay --train_dir=DIR [--data_dir=DIR] --all [--jobs=N] [--anyway] [--json]

The checkpoint of step --from is verified and restored, the steps up to --to are run with the settings that the
checkpoints record, and every variable is compared with the checkpoint of step --to: weights, optimizer state, averages,
step. By default these are the last two kept checkpoints. --from=0 is the state with which the run began: its initial
weights, which may come from the checkpoint of --warm_start_from. --all replays the whole run, from its first step
through every kept checkpoint; with --jobs=N, N processes share the segments. If result.json is of the last step that
was replayed, its weights_sha256 is compared, too.

Nothing is written to the train_dir. Other data, settings that this code does not know, another version of the code or
of a library, another instruction set or other environment variables than the run's are an error; with --anyway they are
warnings. Exit status: 0 all bits are equal; 1 they are not, or an error; 2 a usage error; 75 stopped by a signal.
"""

from checkpointing.runs import starting

if __name__ == "__main__":
    starting.exit_on_signal()  # before the slow imports

import argparse
import json
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from checkpointing import cli, processor
from checkpointing.errors import CheckpointError, listed
from checkpointing.kernel_environment import choose_kernels
from checkpointing.runs import preemption
from checkpointing.runs.preemption import STOPPED, StopRequested
from checkpointing.storage.jsonl import Record
from checkpointing.tf_import import tensorflow_import
from trainer import code_version
from trainer.replay import conditions, jobs, outcome, plan
from trainer.replay.conditions import Here
from trainer.replay.outcome import Outcome
from trainer.replay.plan import Segment

if TYPE_CHECKING:
    from mnist.input.dataset import Dataset


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.every and (args.first is not None or args.last is not None):
        parser.error("--all: expected neither --from nor --to with it")
    if not args.debug:
        cli.silence_tensorflow()
    return cli.report_errors(lambda: _replay_until_stopped(args), debug=args.debug)


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("python -m trainer.replay", __doc__)
    add = parser.add_argument
    add("--train_dir", type=cli.path, required=True, metavar="DIR", help="a run's directory")
    add(
        "--data_dir", type=cli.path, metavar="DIR", help="directory of the run's data, or mnist.npz (the bundled MNIST)"
    )
    add(
        "--from",
        type=_count,
        dest="first",
        metavar="STEP",
        help="kept checkpoint to start from; 0: the run's first step",
    )
    add("--to", type=_count, dest="last", metavar="STEP", help="kept checkpoint to reach")
    add("--all", action="store_true", dest="every", help="replay the whole run, through every kept checkpoint")
    add("--jobs", type=cli.positive, default=1, metavar="N", help="number of processes, with --all (1)")
    add("--anyway", action="store_true", help="replay under other conditions than the run's; warnings list them")
    add("--json", action="store_true", help="print the result as JSON")
    return parser


def _count(text: str) -> int:
    if not (text.isdecimal() and text.isascii()):
        raise argparse.ArgumentTypeError(f"expected a step, got {text!r}")
    return int(text)


def _replay_until_stopped(args: argparse.Namespace) -> int:
    records: list[Record] = []
    try:
        with preemption.listen_for_stop() as stop, stop.interruptible():  # there is never anything to save
            return _replay(args, records, stop.check)
    except StopRequested as signal:
        cli.print_to_stderr(f"stopped by {signal}, segments replayed: {len(records)}")
        return STOPPED


def _replay(args: argparse.Namespace, records: list[Record], check_stop: Callable[[], None]) -> int:
    """Replay what the command line says; add a record of each segment to `records` when it is known.

    Raises:
      CheckpointError, DataError, ResultError: the segments cannot be replayed, or not all bits are equal.
    """
    began = time.perf_counter()
    segments = plan.choose(args.train_dir, first=args.first, last=args.last, every=args.every)
    newest = segments[-1].saved
    settings = conditions.settings_of(newest)
    conditions.use_recorded_threads(newest)
    environment = choose_kernels(settings.instruction_set)
    data = _load(args.data_dir, settings.validation_size)
    here = Here(data.fingerprint, code_version.code_sha256(), environment)
    differences = _check_conditions(args, segments, here)
    recorded_weights = outcome.recorded_weights(args.train_dir, newest.step)
    processes = min(args.jobs, len(segments))

    def work(group: Iterable[Segment]) -> Generator[Record]:
        with tensorflow_import(debug=args.debug):
            from trainer.replay import replayer  # noqa: PLC0415 - imports TensorFlow
        threads = max(1, processor.count() // processes) if processes > 1 else 0
        yield from replayer.replay(group, data.train, max_threads=threads, check_stop=check_stop)

    several = processes > 1
    replayed = jobs.in_processes(work, segments, processes, debug=args.debug) if several else work(segments)
    with closing(replayed):
        for record in replayed:
            records.append(record)
            if not args.json:
                cli.print_result(outcome.segment_text(record))
    records.sort(key=lambda record: record["to"])
    seconds = time.perf_counter() - began
    found = Outcome(args.train_dir, segments, records, differences, recorded_weights, seconds)
    if args.json:
        cli.print_result(json.dumps(outcome.as_record(found), indent=2))
    if problem := outcome.problem(found, here):
        raise problem
    if not args.json:
        cli.print_result(outcome.summary(found))
    return cli.OK


def _load(data_dir: Path | None, validation_size: int) -> "Dataset":
    from mnist.input import dataset  # noqa: PLC0415 - imports NumPy, which --help does without

    return dataset.load(data_dir, validation_size)


def _check_conditions(args: argparse.Namespace, segments: Sequence[Segment], here: Here) -> list[str]:
    """Return in what this process differs from the run, after a warning of each.

    Raises:
      CheckpointError: there are differences, and --anyway is not given.
    """
    differences = list(map(str, conditions.differences((each.saved for each in segments), here)))
    if differences and not args.anyway:
        message = f"{args.train_dir}: was made under other conditions: {listed(differences)}"
        raise CheckpointError(message, hint=_hint(differences))
    for each in differences:
        cli.print_warning(f"{args.train_dir}: was made with {each}")
    return differences


def _hint(differences: Sequence[str]) -> str:
    data = "give the run's data as --data_dir; " if any(each.startswith("data ") for each in differences) else ""
    return f"{data}--anyway replays all the same, to see whether they change a bit"


if __name__ == "__main__":
    cli.run_program(main)
