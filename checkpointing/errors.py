"""What can go wrong with checkpoints, told so that a person can act on it."""


class CheckpointError(Exception):
    """A checkpoint cannot be made, found or used. The message says what was found, what was wanted, what to do."""
