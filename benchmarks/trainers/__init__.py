"""Trainers of the same two models, each in a separate process; see protocol.py."""
