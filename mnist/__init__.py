"""The task: from MNIST's bytes to a trained graph, and what it is worth. Programs in it aside, it reads no flags."""
