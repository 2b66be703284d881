"""Whole programs that learn MNIST, each with its own published settings; run by benchmarks.time_to_accuracy."""
