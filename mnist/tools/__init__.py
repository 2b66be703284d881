"""What the command lines do. These modules may use checkpoints and recipes; the rest of this package may not."""
