"""Keeps any TensorFlow graph's state through crashes. Has never heard of digits; see README.md beside this file."""
