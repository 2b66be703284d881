"""How good a trained model is, told by its files alone, without the code that built it.

    python -m mnist.evaluate --train_dir=DIR [--checkpoint=latest|best|all|STEP]
    python -m mnist.evaluate --checkpoint=PREFIX
    python -m mnist.evaluate --meta_graph=DIR/model.ckpt-100.meta [--checkpoint=PREFIX]
    python -m mnist.evaluate --saved_model=DIR [--tags=serve] [--signature=serving_default]

All of them take [--data_dir=DIR] [--split=test|validation] [--trust] [--json]. A graph that does not say by a signature
how it is asked is asked by tensors: --images_tensor=x:0 --answers_tensor=y:0 [--feed=keep_prob:0=1.0 ...]; where it
takes floats, it gets pixels / 255.

Only complete checkpoints are judged, and no file is changed: a graph that could read or write files, use the network or
call Python is refused, unless --trust says that you trust its author (SECURITY.md). For a run of this project, the
numbers are those that the run itself gave. Exit status: 0 done; 1 an error, in one sentence; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tabulate import tabulate

from checkpointing import cli
from checkpointing.errors import CheckpointError, DamagedError, reason
from checkpointing.protocol import lookup, manifest
from checkpointing.protocol.manifest import Manifest
from checkpointing.storage import layout, tf_path
from checkpointing.storage.json_kinds import is_count
from checkpointing.tf_import import tensorflow_import
from mnist.errors import DataError, SignatureError

if TYPE_CHECKING:  # --help waits for neither TensorFlow nor NumPy, and errors in what is asked for not for TensorFlow
    from collections.abc import Iterator, Mapping, Sequence

    import tensorflow as tf

    from checkpointing.graphs.graph_scan import Run
    from mnist.input.dataset import Split
    from mnist.model.predictor import Predictor

Record = dict[str, Any]

_WORDS = ("latest", "best", "all")
_TAGS = "serve"
_SIGNATURE = "serving_default"
_MOST_DIGITS = 18  # of a step
_VALIDATION_SIZE = 5000  # as the recipes have it


class Subject(NamedTuple):
    """A checkpoint to judge.

    prefix: the weights. meta: the file of the graph. notes: `best`, `latest`.
    recorded: its manifest; None where another program made it.
    problem: why it cannot be judged.
    """

    prefix: Path
    meta: Path
    notes: tuple[str, ...] = ()
    recorded: Manifest | None = None
    problem: str | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what the command line says; gives the exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    problem = _usage_problem(given)
    if problem:
        parser.error(problem)
    evaluate = _evaluate_checkpoints if given.saved_model is None else _evaluate_saved_model
    return cli.run_tool(lambda: evaluate(given), debug=given.debug)


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("python -m mnist.evaluate", __doc__)
    add = parser.add_argument
    add("--train_dir", type=_path, metavar="DIR", help="what a run has written")
    add("--checkpoint", metavar="WHICH", help="latest (the default), best, all, a step; or a prefix, which is a path")
    add("--meta_graph", type=_path, metavar="PATH", help="the graph, from there; the weights from the same checkpoint")
    add("--saved_model", type=_path, metavar="DIR", help="an exported model, whoever exported it")
    add("--tags", metavar="TAG,...", help=f"which of its graphs ({_TAGS})")
    add("--signature", metavar="NAME", help=f"which way to ask it ({_SIGNATURE})")
    add("--images_tensor", metavar="NAME", help="where images go in, for graphs without a signature")
    add("--answers_tensor", metavar="NAME", help="where classes [N], or a number for each class [N, 10], come out")
    add(
        "--feed", type=_feed, action="append", default=[], metavar="NAME=VALUE", help="what else to feed: keep_prob:0=1"
    )
    add("--data_dir", type=_path, metavar="DIR", help="IDX files or a TFDS directory (the bundled MNIST)")
    add("--split", choices=("test", "validation"), default="test", help="which images to judge by (test)")
    add("--validation_size", type=_positive, metavar="N", help=f"how many validate (as in the run, {_VALIDATION_SIZE})")
    add("--trust", action="store_true", help="load a graph that can touch files (SECURITY.md)")
    add("--json", action="store_true", help="one object, for programs")
    return parser


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("nothing found, a path wanted")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{text} found, a path wanted: there is no such user's home") from error


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} found, 1 or more wanted")
    return int(text)


def _is_step(text: str) -> bool:
    return text.isdecimal() and len(text) <= _MOST_DIGITS


def _feed(text: str) -> tuple[str, Any]:
    """Reads `keep_prob:0=1.0`; a value that is neither a number, a truth nor a list of such is a string."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} found, NAME=VALUE wanted")
    try:
        return name, json.loads(value.lower())
    except ValueError:
        return name, value


def _usage_problem(given: argparse.Namespace) -> str | None:
    """The first of the things in a command line that make no sense together."""
    sources = [f"--{name}" for name in ("train_dir", "meta_graph", "saved_model") if getattr(given, name) is not None]
    checkpoint, train_dir, saved_model = given.checkpoint, given.train_dir is not None, given.saved_model is not None
    chosen = checkpoint is not None and (checkpoint in _WORDS or _is_step(checkpoint))
    prefix = checkpoint is not None and not chosen
    by_tensors = given.images_tensor is not None
    rules = (
        (not sources and checkpoint is None, "--train_dir, --checkpoint=PREFIX, --meta_graph or --saved_model wanted"),
        (len(sources) > 1, f"{' and '.join(sources)} found, one of them wanted"),
        (checkpoint == "", "--checkpoint= found, latest, best, all, a step or a prefix wanted"),
        (saved_model and checkpoint, "--checkpoint found with --saved_model, which has weights of its own"),
        (chosen and not train_dir, f"--checkpoint={checkpoint} found without --train_dir, a prefix wanted"),
        (
            prefix and train_dir,
            f"--checkpoint={checkpoint} found with --train_dir, latest, best, all or a step wanted",
        ),
        (
            given.meta_graph and given.meta_graph.suffix != ".meta" and checkpoint is None,
            f"--meta_graph={given.meta_graph} found, a name that ends in .meta wanted, or --checkpoint=PREFIX with it",
        ),
        (not saved_model and (given.tags or given.signature), "--tags and --signature go with --saved_model only"),
        (by_tensors != (given.answers_tensor is not None), "--images_tensor and --answers_tensor go together"),
        (by_tensors and given.signature, "--signature and --images_tensor found, one of them wanted"),
        (given.validation_size and given.split == "test", "--validation_size goes with --split=validation only"),
    )
    return next((message for wrong, message in rules if wrong), None)


def _evaluate_checkpoints(given: argparse.Namespace) -> int:
    """Judges one checkpoint, or all of a train_dir; tells, and gives the exit status."""
    subjects = [_checked(subject) for subject in _subjects(given)]
    if given.checkpoint != "all":
        _raise_problem(subjects[0].problem)
    split = _load(given, next((each.recorded for each in reversed(subjects) if each.recorded), None))
    _import_tensorflow()
    with ExitStack() as stack:
        judge = _Judge(given, split, stack)
        records = [record for subject in subjects if (record := _judged(subject, judge, given.split))]
    if given.checkpoint != "all":
        _raise_problem(records[0].get("problem") if records else f"{subjects[0].prefix}: the run has just deleted it.")
        _tell(_as_json(records[0]) if given.json else _lines(records[0]))
        return 0
    _tell(_as_json({"checkpoints": records}) if given.json else _table(records, given.split))
    problems = [record["problem"] for record in records if "problem" in record]
    if problems:
        raise CheckpointError(
            f"{len(problems)} of {len(records)} checkpoints could not be judged: {' '.join(problems)}"
        )
    return 0


def _raise_problem(problem: str | None) -> None:
    if problem is not None:
        raise CheckpointError(problem)


def _subjects(given: argparse.Namespace) -> list[Subject]:
    """The checkpoints that the command line asks for."""
    if given.train_dir is not None:
        return _in_train_dir(given.train_dir, given.checkpoint or "latest")
    path = given.meta_graph if given.checkpoint is None else Path(given.checkpoint).expanduser()
    prefix = layout.prefix_of(path) or path
    if not layout.index_path(prefix).is_file():
        raise CheckpointError(_about_missing(prefix))
    if layout.incomplete_path(prefix).exists() and not lookup.is_ours(prefix):
        raise CheckpointError(f"{prefix}: is being made or deleted, or either was interrupted; give a complete one.")
    return [Subject(prefix, given.meta_graph or layout.meta_path(prefix))]


def _about_missing(prefix: Path) -> str:
    directory = prefix if prefix.is_dir() else prefix.parent
    there = ", ".join(each.name for each in _prefixes(directory)) or "none"
    message = f"{prefix}: no checkpoint found; give the prefix of one (its files' name without .index or .data): "
    return f"{message}in {directory} there are {there}."


def _in_train_dir(directory: Path, wanted: str) -> list[Subject]:
    """The checkpoints of a train_dir that are `wanted`: latest, best, all or a step."""
    prefixes = _prefixes(directory)
    if not prefixes:
        raise CheckpointError(f"{directory}: no checkpoint found there; give a train_dir in which a run has saved one.")
    best = _best(directory) if wanted in {"best", "all"} else None
    named = {"best": best, "latest": prefixes[-1]}
    if wanted != "all":
        prefixes = [named[wanted] or _complain_of_scores(prefixes)] if wanted in named else [_of_step(prefixes, wanted)]
    return [
        Subject(each, layout.meta_path(each), tuple(name for name, prefix in named.items() if prefix == each))
        for each in prefixes
    ]


def _prefixes(directory: Path) -> list[Path]:
    """The prefixes of the checkpoints in a directory, the newest last; of a plain Saver's where there are no others."""
    if not directory.is_dir():
        return []
    steps = layout.steps_with(directory, "manifest.json")
    if steps:
        return [layout.prefix(directory, step) for step in steps]
    return [prefix for prefix in layout.prefixes_in(directory) if not layout.incomplete_path(prefix).exists()]


def _best(directory: Path) -> Path | None:
    """The checkpoint with the highest score; of equals the earlier one, as rotation has it."""
    manifests, damaged = manifest.read_all(directory)
    for error in damaged.values():
        _warn(f"{error}; its score is not known")
    scores = {each.step: each.score for each in manifests if each.score is not None}
    if len(scores) < len(manifests):
        _warn(
            f"{directory}: best is of {len(scores)}, for {len(manifests) - len(scores)} were saved without a validation"
        )
    return layout.prefix(directory, max(scores, key=lambda step: scores[step])) if scores else None


def _complain_of_scores(prefixes: Sequence[Path]) -> Path:
    directory = prefixes[0].parent
    message = (
        f"{directory}: no checkpoint found that was validated when it was saved; give --checkpoint=latest, or a step"
    )
    raise CheckpointError(f"{message}: there are {_steps(prefixes)}.")


def _of_step(prefixes: Sequence[Path], step: str) -> Path:
    for prefix in prefixes:
        if layout.step_at_the_end(prefix) == int(step):
            return prefix
    raise CheckpointError(f"{prefixes[0].parent}: step {step} wanted; there are {_steps(prefixes)}.")


def _steps(prefixes: Sequence[Path]) -> str:
    steps = [layout.step_at_the_end(prefix) for prefix in prefixes]
    return ", ".join(str(step) for step in steps if step is not None) or "none with a step"


def _checked(subject: Subject) -> Subject:
    """The subject with its manifest, if it has one, and with what is wrong with its files."""
    try:
        _check_meta(subject)
        if not lookup.is_ours(subject.prefix):
            return subject
        recorded = Manifest.read(layout.manifest_path(subject.prefix))
        subject = subject._replace(recorded=recorded)
        manifest.check_files(subject.prefix, recorded)
    except DamagedError as error:
        advice = "put a good copy back, or ask for another"
        problem = f"{subject.prefix.parent}: {error}; {advice}."
        return subject._replace(problem=problem, notes=(*subject.notes, "damaged"))
    except CheckpointError as error:
        return subject._replace(problem=str(error), notes=(*subject.notes, "not judged"))
    return subject


def _check_meta(subject: Subject) -> None:
    """Checks a graph that comes from another checkpoint than the weights, where a manifest tells its hash."""
    source = subject.meta.with_suffix("")
    if source != subject.prefix and lookup.is_ours(source):
        recorded = Manifest.read(layout.manifest_path(source))
        files = {name: file for name, file in recorded.files.items() if name == subject.meta.name}
        manifest.check_described(source.parent, files)


def _load(given: argparse.Namespace, recorded: Manifest | None) -> Split:
    """The images to judge by, split as in the run; warns where they are not the run's."""
    from mnist.input import dataset  # noqa: PLC0415 - needs NumPy

    settings = recorded.settings if recorded else {}
    wanted = settings.get("validation_size")
    if wanted is not None and not is_count(wanted):
        raise DataError(f"the run's manifest: expected a number of images as validation_size, got {wanted!r:.50}.")
    size = given.validation_size or (_VALIDATION_SIZE if wanted is None else wanted)
    data = dataset.load(given.data_dir, 0 if given.split == "test" else size)
    if settings.get("data", data.fingerprint) != data.fingerprint:
        found = f"{given.data_dir or 'the bundled MNIST'}: data {data.fingerprint} found"
        _warn(f"{found}, the run was made with {settings['data']}: these are not the images that it knew of")
    if wanted is not None and given.split == "validation" and size > wanted:
        _warn(f"--validation_size={size} found, {wanted} in the run: it was trained on some of these images")
    split: Split = getattr(data, given.split)
    if not len(split.labels):
        raise DataError("no validation images found, for the run kept none: give --split=test, or --validation_size.")
    return split


def _import_tensorflow() -> None:
    """Imports it without its lines about the machine; whoever imports it later has it at once."""
    with tensorflow_import():
        import tensorflow as tf  # noqa: F401, PLC0415


class _Judge:
    """Asks one checkpoint after the other; where the graph is the same, it is imported once."""

    def __init__(self, given: argparse.Namespace, split: Split, stack: ExitStack) -> None:
        """The stack closes the last session."""
        self._given = given
        self._split = split
        self._stack = stack
        self._meta_graph: tf.compat.v1.MetaGraphDef | None = None

    def __call__(self, subject: Subject) -> Record:
        """The figures of a checkpoint.

        Raises:
          CheckpointError: it cannot be restored, or not asked.
        """
        from checkpointing.graphs import meta_graphs  # noqa: PLC0415 - needs TensorFlow

        meta_graph = meta_graphs.read_meta_graph(subject.meta)
        if meta_graph == self._meta_graph:
            with _told(subject.prefix, "cannot be restored"), tf_path.without_pattern(subject.prefix) as plain:
                self._saver.restore(self._session, str(plain))
        else:
            self._open(meta_graph, subject)
        return _figures(self._session, self._question, self._split, subject.meta)

    def _open(self, meta_graph: tf.compat.v1.MetaGraphDef, subject: Subject) -> None:
        """Imports the graph into a session, which takes the place of the one before."""
        import tensorflow as tf  # noqa: PLC0415

        from checkpointing.graphs import meta_graphs  # noqa: PLC0415

        self._stack.close()
        self._meta_graph = None  # until the new one is whole
        if subject.recorded:  # as in training, so that the same images come out right
            tf.config.experimental.enable_op_determinism()
        needed = _needed(meta_graph, self._given, subject.meta)
        with _told(subject.meta, "cannot be imported"):
            restored = meta_graphs.restored(
                needed,
                subject.prefix,
                source=subject.meta,
                runs=partial(_runs, given=self._given),
                trusted=self._given.trust,
            )
            self._session = self._stack.enter_context(restored)
        self._question = _question(self._session.graph, needed.signature_def, self._given, subject.meta)
        # Another program's Saver may know the variables by other names than their own.
        own = {"saver_def": needed.saver_def} if needed.HasField("saver_def") else {}
        self._saver = tf.compat.v1.train.Saver(**own)
        self._meta_graph = meta_graph


def _needed(meta_graph: tf.compat.v1.MetaGraphDef, given: argparse.Namespace, meta: Path) -> tf.compat.v1.MetaGraphDef:
    """A copy of what of a graph is needed: all that its signature does, or everything where it is asked by tensors."""
    from checkpointing.graphs import meta_graphs  # noqa: PLC0415

    if given.images_tensor is not None or not meta_graph.signature_def:
        return type(meta_graph).FromString(meta_graph.SerializeToString())  # importing it changes it
    meta_graphs.check_signatures(meta_graph, [_SIGNATURE], meta)
    with _told(meta, "its signature does not fit its graph"):
        return meta_graphs.pruned(meta_graph, [_SIGNATURE])


def _runs(meta_graph: tf.compat.v1.MetaGraphDef, given: argparse.Namespace) -> list[Run]:
    """What judging a graph runs, for the scan: `_question` finds it, or says what is missing."""
    from checkpointing.graphs.graph_scan import Run  # noqa: PLC0415 - needs TensorFlow

    fed = [name for name, _ in given.feed]
    if given.images_tensor is not None:
        return [Run([given.answers_tensor], [given.images_tensor, *fed])]
    name = given.signature or _SIGNATURE
    if name not in meta_graph.signature_def:
        return []
    signature = meta_graph.signature_def[name]
    inputs, outputs = ([info.name for info in side.values()] for side in (signature.inputs, signature.outputs))
    return [Run(outputs, [*inputs, *fed])]


def _question(graph: tf.Graph, signatures: Mapping[str, Any], given: argparse.Namespace, source: Path) -> Predictor:
    """How a graph is asked: as the command line says, or else as its signature does."""
    from mnist.model import predictor  # noqa: PLC0415

    signature = given.signature or _SIGNATURE
    if given.images_tensor is not None:
        return predictor.from_tensors(graph, (given.images_tensor, given.answers_tensor), given.feed, source)
    if signature in signatures:
        return predictor.from_signature(graph, signatures[signature], given.feed, source)
    raise SignatureError(f"{source}: no signature found, and no tensors named{predictor.tensors_to_name(graph)}.")


@contextmanager
def _told(source: Path, what: str, advice: str = "") -> Iterator[None]:
    """Whatever TensorFlow raises in the block becomes one sentence."""
    import tensorflow as tf  # noqa: PLC0415
    from google.protobuf.message import DecodeError  # noqa: PLC0415

    try:
        yield
    except (ValueError, LookupError, TypeError, AssertionError, RuntimeError, DecodeError, tf.errors.OpError) as error:
        raise CheckpointError(f"{source}: {what} ({reason(error)}){advice}.") from error


def _figures(session: tf.compat.v1.Session, question: Predictor, split: Split, source: Path) -> Record:
    """How many images a model gets right, and how far chance alone may have brought that."""
    from mnist.model import predictor  # noqa: PLC0415
    from mnist.training import evaluation  # noqa: PLC0415

    with _told(source, "cannot be asked", predictor.tensors_to_name(session.graph)):
        correct = evaluation.count_correct(session, question, split)
    images = len(split.labels)
    accuracy = correct / images
    return {
        "images": images,
        "wrong": images - correct,
        "accuracy": accuracy,
        "standard_error": math.sqrt(accuracy * (1 - accuracy) / images),  # binomial
        "scaled": question.scaled,
    }


def _judged(subject: Subject, judge: _Judge, split: str) -> Record | None:
    """What is told of a checkpoint; None where the run under way has deleted it meanwhile."""
    problem, notes = subject.problem, list(subject.notes)
    step = subject.recorded.step if subject.recorded else layout.step_at_the_end(subject.prefix)
    told = {"checkpoint": str(subject.prefix), "meta_graph": str(subject.meta), "step": step, "split": split}
    if problem is None:
        try:
            return {**told, "notes": notes, **judge(subject)}
        except (CheckpointError, SignatureError) as error:
            problem = str(error)
            notes.append("not judged")
    return None if _is_gone(subject.prefix) else {**told, "notes": notes, "accuracy": None, "problem": problem}


def _is_gone(prefix: Path) -> bool:
    """Whether rotation was faster: the manifest goes first, under a mark."""
    going = layout.incomplete_path(prefix).exists() or not layout.index_path(prefix).exists()
    return going and not layout.manifest_path(prefix).exists()


def _evaluate_saved_model(given: argparse.Namespace) -> int:
    """Judges an exported model; tells, and gives the exit status."""
    directory, tags = given.saved_model, (given.tags or _TAGS).split(",")
    prefix = _checked_export(directory)
    split = _load(given, None)
    _import_tensorflow()
    import tensorflow as tf  # noqa: PLC0415

    from checkpointing.graphs import saved_model  # noqa: PLC0415

    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        with _told(directory, "cannot be loaded"):
            runs = partial(_runs, given=given)
            signatures = saved_model.load(session, directory, tags, runs=runs, trusted=given.trust).signature_def
        if given.images_tensor is None and (given.signature or _SIGNATURE) not in signatures:
            there = saved_model.describe(saved_model.read(directory))
            raise CheckpointError(f"{directory}: signature {given.signature or _SIGNATURE} wanted; there are: {there}.")
        figures = _figures(session, _question(graph, signatures, given, directory), split, directory)
    step = layout.step_at_the_end(prefix) if prefix else None
    record = {"saved_model": str(directory), "step": step, "split": given.split, **figures}
    _tell(_as_json(record) if given.json else _lines(record))
    return 0


def _checked_export(directory: Path) -> Path | None:
    """Checks the files of a SavedModel that a run exported; gives the checkpoint that it says it was made from."""
    path = layout.export_manifest_path(directory)
    if not path.exists():
        return None
    try:
        recorded = manifest.read_sealed(path, manifest.EXPORT)
        manifest.check_described(directory, recorded["files"])
    except DamagedError as error:
        raise CheckpointError(f"{directory}: {error}; put a good copy back, or export it again.") from error
    return Path(recorded["checkpoint"])


def _lines(record: Record) -> str:
    """One model's figures, for people."""
    told = {
        "checkpoint": record.get("checkpoint"),
        "graph": _elsewhere(record),
        "saved model": record.get("saved_model"),
        "step": record["step"],
        "split": record["split"],
        "images": record["images"],
        "pixels fed as": "pixels / 255" if record["scaled"] else None,
        "accuracy": f"{record['accuracy']:.4f}",
        "errors": f"{record['wrong']} of {record['images']} wrong",
        "standard error": f"{record['standard_error']:.4f}",
    }
    return "\n".join(f"{name:<16}{value}" for name, value in told.items() if value is not None)


def _elsewhere(record: Record) -> str | None:
    """The file of the graph, where it is not the checkpoint's own."""
    meta = record.get("meta_graph")
    own = meta is None or Path(meta) == layout.meta_path(Path(record["checkpoint"]))
    return None if own else meta


def _table(records: Sequence[Record], split: str) -> str:
    """Step against accuracy, for people."""
    rows = [
        {
            "step": "" if record["step"] is None else str(record["step"]),
            f"{split} accuracy": "" if "problem" in record else f"{record['accuracy']:.4f}",
            "wrong": "" if "problem" in record else f"{record['wrong']} of {record['images']}",
            "note": ", ".join(record["notes"]),
        }
        for record in records
    ]
    return str(tabulate(rows, headers="keys", disable_numparse=True, colalign=("right", "right", "right", "left")))


def _as_json(record: Record) -> str:
    return json.dumps(record, indent=2)


def _tell(text: str) -> None:
    print(text, flush=True)


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
