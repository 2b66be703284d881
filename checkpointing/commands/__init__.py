"""The commands of `python -m checkpointing`: what each does, and the answer that it gives."""
