"""What is measured, each beside its peers in one call: a table, a JSON file and a plot in runs/benchmarks."""
