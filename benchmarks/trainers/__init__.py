"""Trainers of the same two models, each a process that trains for as long as it is asked to; see protocol.py."""
