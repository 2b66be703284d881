"""Measure the accuracy of a trained model from its files alone, without the code that built it.

    python -m mnist.evaluate --train_dir=DIR [--checkpoint=latest|best|all|STEP]
    python -m mnist.evaluate --checkpoint=PREFIX
    python -m mnist.evaluate --meta_graph=DIR/model.ckpt-100.meta [--checkpoint=PREFIX]
    python -m mnist.evaluate --saved_model=DIR [--tags=serve] [--signature=serving_default]

Each form accepts [--data_dir=DIR] [--split=test|validation] [--trust] [--json]. For a graph without a signature, name
its tensors: --images_tensor=x:0 --answers_tensor=y:0 [--feed=keep_prob:0=1.0 ...]. Tensors of floats are fed
pixels / 255.

Only complete checkpoints are evaluated, and no file is changed. A graph that could read or write files, use the network
or call Python is refused, unless you trust its author and give --trust (SECURITY.md). For a run of this project, the
accuracies are exactly those in its result.json. Exit status: 0 done; 1 an error; 2 a usage error.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from checkpointing import cli
from checkpointing.errors import CheckpointError, DamagedError, listed
from checkpointing.kernel_environment import ProcessorError, choose_kernels
from checkpointing.protocol import lookup, manifest
from checkpointing.storage import layout
from checkpointing.tf_import import tensorflow_import
from mnist.tools import checkpoint_refs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mnist.input.dataset import Split
    from mnist.tools.checkpoint_refs import CheckpointRef
    from mnist.tools.graph_interface import GraphInterface

Record = dict[str, Any]

_TAGS = "serve"
_SIGNATURE = "serving_default"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = _parser()
    args = parser.parse_args(arguments)
    problem = _usage_problem(args)
    if problem:
        parser.error(problem)
    evaluate = _evaluate_checkpoints if args.saved_model is None else _evaluate_saved_model
    return cli.run_tool(lambda: evaluate(args), debug=args.debug)


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("python -m mnist.evaluate", __doc__)
    add = parser.add_argument
    add("--train_dir", type=cli.path, metavar="DIR", help="a run's directory")
    add(
        "--checkpoint", metavar="WHICH", help="latest (the default), best, all or a step; or the prefix of a checkpoint"
    )
    add("--meta_graph", type=cli.path, metavar="PATH", help="a graph; without --checkpoint, its own weights are used")
    add("--saved_model", type=cli.path, metavar="DIR", help="a SavedModel")
    add("--tags", metavar="TAG,...", help=f"tags of the SavedModel's graph ({_TAGS})")
    add("--signature", metavar="NAME", help=f"signature of the SavedModel ({_SIGNATURE})")
    add("--images_tensor", metavar="NAME", help="tensor to feed images to, for graphs without a signature")
    add("--answers_tensor", metavar="NAME", help="tensor of the predictions: classes [N], or scores [N, 10]")
    add(
        *("--feed",),
        type=_feed,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another tensor to feed, as in keep_prob:0=1",
    )
    add("--data_dir", type=cli.path, metavar="DIR", help="directory of the data, or mnist.npz (the bundled MNIST)")
    add("--split", choices=("test", "validation"), default="test", help="images to evaluate on (test)")
    add(
        "--validation_size",
        type=cli.positive,
        metavar="N",
        help="number of validation images (as in the run, else 5000)",
    )
    add("--trust", action="store_true", help="load a graph that can touch files (SECURITY.md)")
    add("--json", action="store_true", help="print the result as JSON")
    return parser


def _feed(text: str) -> tuple[str, Any]:
    """Parse NAME=VALUE, as in `keep_prob:0=1.0`. The value is JSON (also True and False), or else a string."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value.lower())
    except ValueError:
        return name, value


def _usage_problem(args: argparse.Namespace) -> str | None:
    """Return the first combination of flags that is not valid."""
    sources = [f"--{name}" for name in ("train_dir", "meta_graph", "saved_model") if getattr(args, name) is not None]
    checkpoint, train_dir, saved_model = args.checkpoint, args.train_dir is not None, args.saved_model is not None
    is_choice = checkpoint is not None and (checkpoint == "all" or lookup.is_choice(checkpoint))
    is_prefix = checkpoint is not None and not is_choice
    by_tensors = args.images_tensor is not None
    rules = (
        (
            not sources and checkpoint is None,
            "expected --train_dir, --checkpoint=PREFIX, --meta_graph or --saved_model",
        ),
        (len(sources) > 1, f"expected one of {' and '.join(sources)}, got both"),
        (checkpoint == "", "--checkpoint: expected latest, best, all, a step or a prefix, got nothing"),
        (saved_model and checkpoint, "--checkpoint cannot be used with --saved_model"),
        (is_choice and not train_dir, f"--checkpoint={checkpoint}: expected a prefix, as there is no --train_dir"),
        (is_prefix and train_dir, f"--checkpoint={checkpoint}: expected latest, best, all or a step with --train_dir"),
        (
            args.meta_graph and args.meta_graph.suffix != ".meta" and checkpoint is None,
            f"--meta_graph={args.meta_graph}: expected a name that ends in .meta, or --checkpoint=PREFIX with it",
        ),
        (
            not saved_model and (args.tags or args.signature),
            "--tags and --signature can only be used with --saved_model",
        ),
        (by_tensors != (args.answers_tensor is not None), "--images_tensor and --answers_tensor must be used together"),
        (by_tensors and args.signature, "expected one of --signature and --images_tensor, got both"),
        (args.validation_size and args.split == "test", "--validation_size can only be used with --split=validation"),
    )
    return next((message for is_wrong, message in rules if is_wrong), None)


def _evaluate_checkpoints(args: argparse.Namespace) -> int:
    refs = [checkpoint_refs.verify(ref) for ref in _chosen(args)]
    evaluate_all = args.checkpoint == "all"
    if refs[0].problem and not evaluate_all:
        raise refs[0].problem
    split = _load(args, next((ref for ref in reversed(refs) if ref.manifest), None))
    _choose_kernels_of_the_run(refs[-1])
    with tensorflow_import():
        from mnist.tools import evaluator  # noqa: PLC0415 - needs TensorFlow
    with evaluator.Evaluator(_interface(args), split) as evaluate:
        if not evaluate_all:
            record = evaluator.evaluate_one(refs[0], evaluate) | {"split": args.split}
            cli.print_result(_as_json(record) if args.json else _lines(record))
            return cli.OK
        records = [each | {"split": args.split} for each in evaluator.evaluate_all(refs, evaluate)]
    cli.print_result(_as_json({"checkpoints": records}) if args.json else _table(records, args.split))
    problems = [record["problem"] for record in records if "problem" in record]
    if problems:
        message = f"{len(problems)} of {len(records)} checkpoints could not be evaluated: {listed(problems, '; ')}"
        raise CheckpointError(message)
    return cli.OK


def _choose_kernels_of_the_run(ref: CheckpointRef) -> None:
    """Choose the instruction set that a checkpoint was made with, so the accuracy is exactly the one that it had."""
    try:
        choose_kernels(ref.manifest.settings.get("instruction_set") if ref.manifest else None)
    except ProcessorError as error:
        cli.print_warning(f"{error}; single predictions may differ from those of the run")


def _chosen(args: argparse.Namespace) -> list[CheckpointRef]:
    if args.train_dir is not None:
        return checkpoint_refs.in_train_dir(args.train_dir, args.checkpoint or "latest")
    path = args.meta_graph if args.checkpoint is None else Path(args.checkpoint).expanduser()
    return [checkpoint_refs.from_path(path, args.meta_graph)]


def _load(args: argparse.Namespace, ref: CheckpointRef | None) -> Split:
    from mnist.tools import run_data  # noqa: PLC0415 - needs NumPy

    settings = ref.manifest.settings if ref and ref.manifest else None
    return run_data.load_split(args.data_dir, args.split, args.validation_size, settings)


def _interface(args: argparse.Namespace) -> GraphInterface:
    from mnist.tools.graph_interface import GraphInterface  # noqa: PLC0415 - needs TensorFlow

    tensors = (args.images_tensor, args.answers_tensor) if args.images_tensor is not None else None
    return GraphInterface(args.signature or _SIGNATURE, tensors, args.feed, args.trust)


def _evaluate_saved_model(args: argparse.Namespace) -> int:
    directory = args.saved_model
    step = _verify_export(directory)
    split = _load(args, None)
    with tensorflow_import():
        from mnist.tools import evaluator  # noqa: PLC0415 - needs TensorFlow
    found = evaluator.evaluate_saved_model(directory, (args.tags or _TAGS).split(","), _interface(args), split)
    record = {"saved_model": str(directory), "step": step, "split": args.split, **found}
    cli.print_result(_as_json(record) if args.json else _lines(record))
    return cli.OK


def _verify_export(directory: Path) -> int | None:
    """Verify the files of a SavedModel that a run exported; return its step, or None for another program's model."""
    path = layout.export_manifest_path(directory)
    if not path.exists():
        return None
    try:
        recorded = manifest.read_sealed(path, manifest.EXPORT)
        manifest.check_described(directory, recorded["files"])
    except DamagedError as error:
        raise CheckpointError(f"{directory}: {error}", hint="put a good copy back, or export it again") from error
    return layout.step_at_the_end(Path(recorded["checkpoint"]))


def _lines(record: Record) -> str:
    lines = {
        "checkpoint": record.get("checkpoint"),
        "graph": _other_meta_graph(record),
        "saved model": record.get("saved_model"),
        "step": record["step"],
        "split": record["split"],
        "images": record["images"],
        "pixels fed as": "pixels / 255" if record["scaled"] else None,
        "accuracy": f"{record['accuracy']:.4f}",
        "errors": f"{record['wrong']} of {record['images']}",
        "standard error": f"{record['standard_error']:.4f}",
    }
    return "\n".join(f"{name:<16}{value}" for name, value in lines.items() if value is not None)


def _other_meta_graph(record: Record) -> str | None:
    """Return the file of the graph, unless it is the checkpoint's own."""
    meta = record.get("meta_graph")
    is_own = meta is None or Path(meta) == layout.meta_path(Path(record["checkpoint"]))
    return None if is_own else meta


def _table(records: Sequence[Record], split: str) -> str:
    rows = [
        {
            "step": "" if record["step"] is None else str(record["step"]),
            f"{split} accuracy": "" if "problem" in record else f"{record['accuracy']:.4f}",
            "errors": "" if "problem" in record else f"{record['wrong']} of {record['images']}",
            "notes": ", ".join(record["notes"]),
        }
        for record in records
    ]
    return str(tabulate(rows, headers="keys", disable_numparse=True, colalign=("right", "right", "right", "left")))


def _as_json(record: Record) -> str:
    return json.dumps(record, indent=2)


if __name__ == "__main__":
    sys.exit(main())
