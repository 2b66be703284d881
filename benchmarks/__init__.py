"""Benchmarks: each measures its peers in the same call; writes a table, a JSON file and a plot to runs/benchmarks."""
