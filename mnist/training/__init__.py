"""The training loop, evaluation, progress and summaries."""
