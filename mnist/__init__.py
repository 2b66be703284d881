"""The task: from MNIST's bytes to a trained graph, and what it is worth. Programs in it aside, it reads no flags."""

from pathlib import Path

# What weights are a function of; the rest shows, asks and tells.
_COMPUTING = (
    *("augment", "averaging", "dataset", "graph", "idx", "kernels", "models", "quiet", "regular_file", "sampling"),
    *("schedules", "training"),
)


def sources(*programs: str) -> list[Path]:
    """The files whose code computes weights, these programs beside the package among them.

    Where a run goes on with others, it says that its last bits may differ.
    """
    package = Path(__file__).parent
    return [*(package / f"{name}.py" for name in _COMPUTING), *(package.parent / name for name in programs)]
