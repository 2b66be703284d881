"""An exported model for other runtimes: ONNX and TFLite, put in place only where they answer as the model does.

    python -m mnist.convert --saved_model=DIR FILE.onnx
    python -m mnist.convert --saved_model=DIR FILE.tflite
        [--data_dir=DIR] [--trust]

The file takes `images`, uint8 [N, 28, 28], and gives `classes`, int64 [N], and `probabilities`, float32 [N, 10]. Before
it appears, it is asked all test images: the same classes, and probabilities within 1e-4, or there is no file.
Needs `pip install -r requirements-convert.txt`.
Exit status: 0 done; 1 an error, in one sentence; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpointing import cli
from checkpointing.errors import CheckpointError, UserError, reason
from checkpointing.protocol import lookup
from checkpointing.storage import durable, staging
from checkpointing.tf_import import silenced, tensorflow_import
from mnist.errors import SignatureError

if TYPE_CHECKING:
    import numpy as np

    Arrays = Mapping[str, np.ndarray[Any, Any]]

_TOLERANCE = 1e-4
_OPSET = 17


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what the command line says; gives the exit status."""
    given = _parser().parse_args(arguments)
    return cli.run_tool(
        lambda: _convert(given.saved_model, given.file, given.data_dir, trusted=given.trust), debug=given.debug
    )


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("python -m mnist.convert", __doc__)
    add = parser.add_argument
    add("--saved_model", type=Path, required=True, metavar="DIR", help="the exported model")
    add("--data_dir", type=Path, metavar="DIR", help="what to compare them on (the bundled MNIST)")
    add("--trust", action="store_true", help="load a model that can touch files (SECURITY.md)")
    add("file", type=_target, metavar="FILE", help="what to write: .onnx or .tflite")
    return parser


def _target(text: str) -> Path:
    path = Path(text)
    if path.suffix not in _FORMATS:
        raise argparse.ArgumentTypeError(f"{text} found, a name that ends in {' or '.join(_FORMATS)} wanted")
    return path


def _convert(directory: Path, target: Path, data_dir: Path | None, *, trusted: bool) -> int:
    """Converts, compares, puts in place, and tells; gives the exit status."""
    from mnist.input import dataset  # noqa: PLC0415 - --help waits for nobody

    if not lookup.is_saved_model(directory):
        raise CheckpointError(f"{directory}: no SavedModel found there; give a run's saved_model/<step>.")
    if target.is_dir() or not target.parent.is_dir():
        what = "a file to write, got a directory" if target.is_dir() else "a name in a directory that exists"
        raise CheckpointError(f"{target}: expected {what}.")
    write, ask = _FORMATS[target.suffix]
    images = dataset.load(data_dir, 0).test.images
    with tensorflow_import():
        from checkpointing.graphs import predictor  # noqa: PLC0415 - needs TensorFlow
    with predictor.open_predictor(directory, {"images"}, {"classes", "probabilities"}, trusted=trusted) as model:
        wanted = predictor.predict_in_batches(model.predict, {"images": images})
    told = ""

    def write_and_compare(path: Path) -> None:
        nonlocal told
        with tempfile.TemporaryDirectory() as scratch:
            model = Path(scratch) / "model"
            _save_as_constants(directory, model, trusted=trusted)
            write(model, path, directory)
        told = _compared(predictor.predict_in_batches(ask(path), {"images": images}), wanted, target)

    try:
        staging.replace_by(target, write_and_compare)
    except ImportError as error:
        message = f"{error.name} is not installed"
        raise UserError(message, hint="pip install -r requirements-convert.txt") from error
    except (RuntimeError, ValueError) as error:  # of the runtimes
        raise UserError(f"{target}: cannot be run ({reason(error)}); not written") from error
    print(f"{target}: {told}")
    return cli.OK


def _compared(found: Arrays, wanted: Arrays, target: Path) -> str:
    """How alike two models are.

    Raises:
      QuestionError: not enough.
    """
    import numpy as np  # noqa: PLC0415

    others = int(np.count_nonzero(found["classes"] != wanted["classes"]))
    difference = float(np.abs(found["probabilities"] - wanted["probabilities"]).max())
    told = f"{len(wanted['classes']) - others:,} of {len(wanted['classes']):,} classes alike, "
    told += f"probabilities within {difference:.1e}"
    if others or not difference <= _TOLERANCE:  # nor if it is no number
        raise SignatureError(f"{target}: {told}; the same classes wanted, and within {_TOLERANCE:.0e}: not written.")
    return told


def _save_as_constants(directory: Path, target: Path, *, trusted: bool) -> None:
    """Writes a SavedModel that holds the signature `serving_default` and no variables.

    A converter loads all of a SavedModel and runs what it likes of it, so it gets a copy of no more than was scanned.
    """
    import tensorflow as tf  # noqa: PLC0415

    from checkpointing.graphs import saved_model  # noqa: PLC0415

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signature = saved_model.load(session, directory, ["serve"], trusted=trusted).signature_def["serving_default"]
        names = [info.name for side in (signature.inputs, signature.outputs) for info in side.values()]
        kept = [name.partition(":")[0] for name in names]
        with silenced():
            graph_def = tf.compat.v1.graph_util.convert_variables_to_constants(session, session.graph_def, kept)
    with silenced(), tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        tf.import_graph_def(graph_def, name="")
        inputs, outputs = (
            {key: graph.get_tensor_by_name(info.name) for key, info in side.items()}
            for side in (signature.inputs, signature.outputs)
        )
        tf.compat.v1.saved_model.simple_save(session, str(target), inputs, outputs)


def _write_onnx(model: Path, path: Path, source: Path) -> None:
    import tf2onnx  # noqa: F401, PLC0415 - optional; the program of that name does the work

    command = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", str(model), "--output", str(path)]
    command += ["--signature_def", "serving_default", "--opset", str(_OPSET)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own interpreter
    if ended.returncode:
        last = ended.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise SignatureError(f"{source}: tf2onnx cannot convert it ({last[0].rstrip('.')}).")


def _ask_onnx(path: Path) -> Callable[[Arrays], Arrays]:
    import onnxruntime  # noqa: PLC0415 - optional

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True))


def _write_tflite(model: Path, path: Path, source: Path) -> None:
    import tensorflow as tf  # noqa: PLC0415
    from tensorflow.lite.python.convert_phase import ConverterError  # noqa: PLC0415

    with silenced():
        converter = tf.lite.TFLiteConverter.from_saved_model(str(model), ["serving_default"], {"serve"})
        try:
            content = converter.convert()
        except ConverterError as error:
            raise SignatureError(f"{source}: TFLite has no such operations ({reason(error)}).") from error
    durable.write(path, content)


def _ask_tflite(path: Path) -> Callable[[Arrays], Arrays]:
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - optional

    with silenced():
        runner = Interpreter(model_content=path.read_bytes()).get_signature_runner("serving_default")
    return lambda inputs: dict(runner(**inputs))


_FORMATS: dict[str, tuple[Callable[[Path, Path, Path], None], Callable[[Path], Callable[[Arrays], Arrays]]]] = {
    ".onnx": (_write_onnx, _ask_onnx),
    ".tflite": (_write_tflite, _ask_tflite),
}


if __name__ == "__main__":
    sys.exit(main())
