"""Durable files, locks, names and hashes; no TensorFlow."""
