"""Whether two records describe the same run: compare everything that the weights are a function of.

differences = run_identity.diff(manifest.settings, settings, defaults=Settings.identity_defaults())
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple


class Difference(NamedTuple):
    """A setting with two values; None where one side lacks it and it has no default."""

    name: str
    recorded: Any
    current: Any

    def __str__(self) -> str:
        """Return a text such as "batch_size 64 (now 32)"."""
        return f"{self.name} {self.recorded} (now {self.current})"


def diff(
    recorded: Mapping[str, Any],
    current: Mapping[str, Any],
    *,
    defaults: Mapping[str, Any] | None = None,
    may_grow: Collection[str] = (),
) -> list[Difference]:
    """Return the settings in which a recorded run differs from the current one, sorted by name.

    A setting that one side lacks has its default there. So a release may add a setting, or remove one, and resume the
    runs of the release before.

    Args:
      recorded: settings as a manifest or result.json holds them.
      current: settings of now, JSON-ready.
      defaults: default values, by name.
      may_grow: names of integers that may be larger now than recorded, such as "train_steps".
    """
    defaults = defaults or {}
    pairs = (
        Difference(name, recorded.get(name, defaults.get(name)), current.get(name, defaults.get(name)))
        for name in sorted({*recorded, *current})
    )
    return [pair for pair in pairs if not (_is_same(pair) or (pair.name in may_grow and _has_grown(pair)))]


def _is_same(pair: Difference) -> bool:
    return bool(pair.recorded == pair.current)


def _has_grown(pair: Difference) -> bool:
    return type(pair.recorded) is int and type(pair.current) is int and pair.recorded < pair.current
