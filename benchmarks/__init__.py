"""Benchmarks: each prints a table; each but `tools` writes JSON and a plot to runs/benchmarks.

Peers are measured in the same call.
"""
