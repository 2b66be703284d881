"""Complete MNIST programs with their published settings; run by benchmarks.time_to_accuracy."""
