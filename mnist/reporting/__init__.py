"""Plots, the report page, the model card and result.json."""
