"""Durable writes, locks, file names and hashes; no TensorFlow."""
