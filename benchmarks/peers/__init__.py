"""Programs that each keep the same state in their own way; benchmarks/checkpointing.py asks them in turn."""
