"""Five networks of cnn_best, of seeds 0 to 4, whose probabilities are averaged; one SavedModel."""

import dataclasses

from configs import cnn_best
from configs.expectation import Expectation

SETTINGS = dataclasses.replace(cnn_best.SETTINGS, members=5)

EXPECTED = Expectation(
    goal=0.9976,
    mean=0.9976,
    standard_deviation=0.0003,
    seeds=1,
    seconds=3100,
    machine="AMD EPYC, 2 cores, Linux x86_64",
)
