"""How often to save where saving costs something and a crash costs more: a pure function.

Young, "A first order approximation to the optimum checkpoint interval" (CACM 1974), and Daly (FGCS 2006): the time lost
to saves and the time lost to redone steps are together least at
sqrt(2 * seconds of a save * mean seconds between failures).
"""

import math

# A run that is never disturbed should not pay more for its safety.
_LARGEST_SHARE = 0.01


def seconds_between_saves(save_seconds: float, mean_seconds_between_failures: float) -> float:
    """The interval of Young and Daly; longer where saving would take more than a hundredth of the time."""
    return max(math.sqrt(2 * save_seconds * mean_seconds_between_failures), save_seconds / _LARGEST_SHARE)
