"""Serve a SavedModel over HTTP with KServe: `serve_kserve.py MODEL [PORT]`.

KServe's V1 protocol is TensorFlow Serving's row format: POST /v1/models/mnist:predict. It listens on loopback only, and
prints the port; by default one that is free.
"""

import base64
import socket
import sys
from typing import Any

import kserve
import tensorflow as tf
from kserve.errors import InvalidInput
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import RESTServer


class SavedModel(kserve.Model):
    """The signatures of a SavedModel."""

    def __init__(self, directory: str) -> None:
        """Load the SavedModel."""
        super().__init__("mnist")
        self.signatures = tf.saved_model.load(directory).signatures
        self.ready = True

    def predict(self, payload: dict[str, Any], headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Run a signature on the instances; what TensorFlow refuses is a bad request."""
        del headers
        signature = self.signatures[payload.get("signature_name", "serving_default")]
        [(name, spec)] = signature.structured_input_signature[1].items()
        instances = payload["instances"]
        if spec.dtype == tf.string:
            instances = [base64.b64decode(each[name]["b64"]) for each in instances]
        try:
            outputs = signature(**{name: tf.constant(instances, spec.dtype)})
        except tf.errors.InvalidArgumentError as error:
            raise InvalidInput(error.message.rpartition("\n\n")[2].splitlines()[0]) from error  # without the stack
        except (ValueError, TypeError) as error:
            raise InvalidInput("expected a rectangular list of numbers of the input's dtype") from error
        columns = {key: tensor.numpy() for key, tensor in outputs.items()}
        values = [(array.astype(str) if array.dtype == object else array).tolist() for array in columns.values()]
        if len(values) == 1:
            return {"predictions": values[0]}  # a single output has no name in this protocol
        return {"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]}


def main(directory: str, port: str = "0") -> None:
    """Serve until the process ends. `kserve.ModelServer` would listen on all interfaces."""
    models = kserve.ModelRepository()
    models.update(SavedModel(directory))
    listening = socket.create_server(("127.0.0.1", int(port)))
    number = listening.getsockname()[1]
    print(number, flush=True)  # noqa: T201 - the test reads it
    server = RESTServer("kserve.model_server:app", DataPlane(models), ModelRepositoryExtension(models), number)
    server.run(sockets=[listening])


if __name__ == "__main__":
    main(*sys.argv[1:])
