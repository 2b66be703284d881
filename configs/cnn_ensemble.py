"""Ensemble of five cnn_best networks, seeds 0 to 4: their probabilities are averaged, in one SavedModel.

The networks misclassify mostly the same images, so the ensemble is hardly more accurate than one (docs/recipes.md).
"""

import dataclasses

from configs import cnn_best
from configs.expected import ExpectedResult

SETTINGS = dataclasses.replace(cnn_best.SETTINGS, members=5)

EXPECTED = ExpectedResult(
    goal=0.9970,
    mean=0.9974,
    standard_deviation=0.0003,  # of single networks; not measured for ensembles
    seeds=1,
    seconds=3729,
    machine="Intel(R) Xeon(R) Processor, 2 cores, Linux x86_64",
)
