"""Asks a model through OpenVINO alone: `ask_openvino.py MODEL IMAGES.npy ANSWERS.npz`.

MODEL is a SavedModel's directory, or a `.meta` file with its checkpoint beside it. What to feed and to fetch is not
told here: OpenVINO finds it in the signature.
"""

import sys

import numpy as np
import openvino


def main(model: str, images: str, answers: str) -> None:
    """Reads the model, asks it about the images, and writes the answers."""
    # Float32 is asked for: on some processors bfloat16, with 8 bits of precision, is the default.
    compiled = openvino.compile_model(openvino.convert_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled({"images": np.load(images)})
    np.savez(answers, classes=found["classes"], probabilities=found["probabilities"])


if __name__ == "__main__":
    main(*sys.argv[1:])
