"""The commands of `python -m checkpointing`."""
