"""Replay kept checkpoints: prove that each follows from the one before. `python -m trainer.replay` runs it."""
