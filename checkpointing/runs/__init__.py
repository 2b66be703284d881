"""A run's history, its signals and its supervisor."""
