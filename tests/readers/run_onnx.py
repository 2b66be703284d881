"""Run an ONNX model with onnxruntime: `run_onnx.py MODEL.onnx IMAGES.npy PREDICTIONS.npz`."""

import sys

import numpy as np
import onnxruntime


def main(model: str, images: str, predictions: str) -> None:
    """Load the model, and write its predictions for the images."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    classes, probabilities = session.run(["classes", "probabilities"], {"images": np.load(images)})
    np.savez(predictions, classes=classes, probabilities=probabilities)


if __name__ == "__main__":
    main(*sys.argv[1:])
