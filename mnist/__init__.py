"""The task: from MNIST's bytes to a trained graph. No flags and no checkpoint files here."""
