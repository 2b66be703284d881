"""The task: from MNIST's bytes to a trained graph. It reads no flags and no checkpoint files."""
