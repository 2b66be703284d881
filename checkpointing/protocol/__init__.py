"""How a checkpoint is made, committed, found again and deleted."""
