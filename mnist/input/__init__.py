"""From files to arrays and to batches."""
