"""Read TensorFlow's checkpoint files without TensorFlow; other formats for tensors."""
