"""MetaGraphs, SavedModels and Savers."""
