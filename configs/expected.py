"""What a recipe is expected to reach, and what it costs, as measured."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ExpectedResult:
    """Test accuracy with the last step's weights, over several seeds; the test set read once a run.

    goal: the mean wanted. mean, standard_deviation: as measured over `seeds` seeds, from 0 on.
    seconds: from the start of the program to the exported model, one seed, the median.
    machine: where that was measured; elsewhere other last bits, and other seconds, are to be expected.
    """

    goal: float
    mean: float
    standard_deviation: float
    seeds: int
    seconds: float
    machine: str
