"""The training loop, evaluation, and what is logged meanwhile."""
