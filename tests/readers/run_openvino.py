"""Run a model with OpenVINO: `run_openvino.py MODEL IMAGES.npy PREDICTIONS.npz`.

MODEL is a SavedModel's directory, or a `.meta` file with its checkpoint in the same directory. OpenVINO finds inputs
and outputs by the signature.
"""

import sys

import numpy as np
import openvino


def main(model: str, images: str, predictions: str) -> None:
    """Read the model, and write its predictions for the images."""
    # On some processors the default is bfloat16, with 8 bits of precision.
    compiled = openvino.compile_model(openvino.convert_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    outputs = compiled({"images": np.load(images)})
    np.savez(predictions, classes=outputs["classes"], probabilities=outputs["probabilities"])


if __name__ == "__main__":
    main(*sys.argv[1:])
