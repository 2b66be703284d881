"""Programs that save and restore the same state with different libraries; measured by benchmarks/checkpointing.py."""
