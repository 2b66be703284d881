"""Measured accuracy and time of a recipe."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ExpectedResult:
    """Test accuracy of the last step's weights, and time, over several seeds. Each run reads the test set once.

    goal: mean test accuracy that the recipe was designed to reach.
    mean, standard_deviation: measured test accuracy over the seeds 0 to `seeds` - 1, with the instruction set native.
    seconds: median time of a run, from the start of the program to the exported model.
    machine: where this was measured; on other machines times differ.
    weights_sha256: of the weights of the first seeds with --instruction_set=avx2, the same on every machine that
      docs/reproducibility.md describes; empty if not measured.
    """

    goal: float
    mean: float
    standard_deviation: float
    seeds: int
    seconds: float
    machine: str
    weights_sha256: tuple[str, ...] = ()
