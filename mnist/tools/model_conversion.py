"""Convert SavedModels to ONNX and TFLite files, and check that the predictions are the same. Needs TensorFlow.

tf2onnx, onnxruntime and LiteRT are optional (requirements-convert.txt), and imported when they are used.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from checkpointing.errors import UserError, reason
from checkpointing.graphs import predictor, saved_model
from checkpointing.storage import durable, staging
from checkpointing.tf_import import silenced
from mnist.errors import SignatureError
from mnist.input.idx import Bytes

Arrays = Mapping[str, np.ndarray[Any, Any]]

_TOLERANCE = 1e-4
_OPSET = 17


def convert(directory: Path, target: Path, images: Bytes, *, trusted: bool = False) -> str:
    """Convert a SavedModel; write the file if both models agree.

    Args:
      directory: of the SavedModel; its `serving_default` maps `images` to `classes` and `probabilities`.
      target: the file, `.onnx` or `.tflite`.
      images: uint8 [N, 28, 28], for which the predictions are compared.
      trusted: load the graph without scanning it.

    Returns:
      How well they agree, for people.

    Raises:
      CheckpointError: the SavedModel cannot be loaded.
      SignatureError: it cannot be converted, or the predictions differ.
      UserError: a package is missing, or the converted model cannot be run.
    """
    write, load = FORMATS[target.suffix]
    with predictor.open_predictor(directory, {"images"}, {"classes", "probabilities"}, trusted=trusted) as model:
        expected = predictor.predict_in_batches(model.predict, {"images": images})
    agreement = ""

    def write_and_compare(path: Path) -> None:
        nonlocal agreement
        with tempfile.TemporaryDirectory() as scratch:
            constant_model = Path(scratch) / "model"
            _save_as_constants(directory, constant_model, trusted=trusted)
            write(constant_model, path, directory)
        agreement = _compare(predictor.predict_in_batches(load(path), {"images": images}), expected, target)

    try:
        staging.replace_by(target, write_and_compare)
    except ImportError as error:
        message = f"{error.name} is not installed"
        raise UserError(message, hint="pip install -r requirements-convert.txt") from error
    except (RuntimeError, ValueError) as error:  # of the runtimes
        raise UserError(f"{target}: not written: the converted model cannot be run ({reason(error)})") from error
    return agreement


def _compare(found: Arrays, expected: Arrays, target: Path) -> str:
    count = len(expected["classes"])
    equal = int(np.count_nonzero(found["classes"] == expected["classes"]))
    difference = float(np.abs(found["probabilities"] - expected["probabilities"]).max())
    agreement = f"{equal:,} of {count:,} classes equal, probabilities within {difference:.1e}"
    if equal == count and difference <= _TOLERANCE:
        return agreement
    raise SignatureError(
        f"{target}: not written: its predictions differ from the SavedModel's ({agreement}; tolerance {_TOLERANCE:.0e})"
    )


def _save_as_constants(directory: Path, target: Path, *, trusted: bool) -> None:
    """Write a SavedModel with the signature `serving_default` and no variables.

    A converter loads the whole SavedModel and may run any part of it, so it gets a copy of the scanned part only.
    """
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signature = saved_model.load(session, directory, ["serve"], trusted=trusted).signature_def["serving_default"]
        names = [info.name for side in (signature.inputs, signature.outputs) for info in side.values()]
        operations = [name.partition(":")[0] for name in names]
        with silenced():
            graph_def = tf.compat.v1.graph_util.convert_variables_to_constants(session, session.graph_def, operations)
    with silenced(), tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        tf.import_graph_def(graph_def, name="")
        inputs, outputs = (
            {key: graph.get_tensor_by_name(info.name) for key, info in side.items()}
            for side in (signature.inputs, signature.outputs)
        )
        tf.compat.v1.saved_model.simple_save(session, str(target), inputs, outputs)


def _write_onnx(model: Path, path: Path, source: Path) -> None:
    import tf2onnx  # noqa: F401, PLC0415 - raises ImportError if it is missing; it is run as a program

    command = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", str(model), "--output", str(path)]
    command += ["--signature_def", "serving_default", "--opset", str(_OPSET)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own interpreter
    if ended.returncode:
        last = ended.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise SignatureError(f"{source}: tf2onnx cannot convert it ({last[0].rstrip('.')})")


def _load_onnx(path: Path) -> Callable[[Arrays], Arrays]:
    import onnxruntime  # noqa: PLC0415

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True))


def _write_tflite(model: Path, path: Path, source: Path) -> None:
    from tensorflow.lite.python.convert_phase import ConverterError  # noqa: PLC0415

    with silenced():
        converter = tf.lite.TFLiteConverter.from_saved_model(str(model), ["serving_default"], {"serve"})
        try:
            content = converter.convert()
        except ConverterError as error:
            raise SignatureError(f"{source}: TFLite lacks its operations ({reason(error)})") from error
    durable.write(path, content)


def _load_tflite(path: Path) -> Callable[[Arrays], Arrays]:
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415

    with silenced():
        runner = Interpreter(model_content=path.read_bytes()).get_signature_runner("serving_default")
    return lambda inputs: dict(runner(**inputs))


# By suffix: a function that writes a converted model, and one that loads it for prediction.
FORMATS: dict[str, tuple[Callable[[Path, Path, Path], None], Callable[[Path], Callable[[Arrays], Arrays]]]] = {
    ".onnx": (_write_onnx, _load_onnx),
    ".tflite": (_write_tflite, _load_tflite),
}
