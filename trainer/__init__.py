"""One training run, from the command line to result.json."""
