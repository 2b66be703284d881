"""Read image files, and find the digits in images."""
