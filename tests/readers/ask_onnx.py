"""Asks an ONNX model through onnxruntime alone: `ask_onnx.py MODEL.onnx IMAGES.npy ANSWERS.npz`."""

import sys

import numpy as np
import onnxruntime


def main(model: str, images: str, answers: str) -> None:
    """Loads the model, asks it about the images, and writes the answers."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    classes, probabilities = session.run(["classes", "probabilities"], {"images": np.load(images)})
    np.savez(answers, classes=classes, probabilities=probabilities)


if __name__ == "__main__":
    main(*sys.argv[1:])
