"""What can be set for a run, with meaning and bounds; each field is also a flag of its own name."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


def setting(
    meaning: str,
    default: object = dataclasses.MISSING,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    choices: tuple[str, ...] = (),
    or_word: str | None = None,
    changes_weights: bool = True,
) -> Any:  # noqa: ANN401 - as dataclasses.field, it stands where a value of the field's type is wanted
    """A field of the settings.

    Args:
      meaning: the flag's help line.
      default: unless a recipe says otherwise; without it, each recipe must.
      at_least: the smallest value allowed.
      at_most: the largest.
      choices: the words allowed.
      or_word: a word allowed in place of a number.
      changes_weights: whether the weights are a function of it; if so, a run cannot go on with another value.
    """
    bounds = {"at_least": at_least, "at_most": at_most, "choices": choices, "or_word": or_word}
    metadata = {"meaning": meaning, "changes_weights": changes_weights, **bounds}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every model needs to know."""

    train_steps: int = setting("updates to make, one batch each", at_least=1, at_most=10**12)
    batch_size: int = setting("images an update", 100, at_least=1, at_most=60_000)
    optimizer: str = setting("how the gradient is applied", choices=("sgd", "momentum", "adam"))
    learning_rate: float = setting("how far an update goes, at its highest", at_least=0, at_most=1000)
    learning_rate_schedule: str = setting(
        "how it changes with the steps", "constant", choices=("constant", "cosine", "one_cycle")
    )
    momentum: float = setting("of the optimizer of that name", 0.9, at_least=0, at_most=1)
    beta1: float = setting("of adam, how much of the gradient's average stays", 0.9, at_least=0, at_most=0.9999)
    beta2: float = setting("of adam, how much of that of its square stays", 0.999, at_least=0, at_most=0.999999)
    label_smoothing: float = setting("share of a label spread over all classes", 0.0, at_least=0, at_most=0.9)
    l2: float = setting("weight of half the sum of squared weights in the loss", 0.0, at_least=0, at_most=10)
    clip_gradient_norm: float = setting("longest gradient applied; 0 for any", 0.0, at_least=0, at_most=10**6)
    ema_decay: float = setting(
        "of the averages of weights that are judged and exported; 0 for the weights", 0.0, at_least=0, at_most=0.999999
    )
    augment_rotation: float = setting("turn training images by up to so many degrees", 0.0, at_least=0, at_most=180)
    augment_zoom: float = setting("zoom them by up to this share", 0.0, at_least=0, at_most=0.9)
    augment_shear: float = setting("shear them by up to this share of the height", 0.0, at_least=0, at_most=2)
    augment_shift: float = setting("shift them by up to so many pixels", 0.0, at_least=0, at_most=28)
    augment_elastic: float = setting("bend them by so many pixels, standard deviation", 0.0, at_least=0, at_most=10)
    augment_cutout: int = setting("blank a square of this side", 0, at_least=0, at_most=28)
    precision: str = setting(
        "of products and convolutions; bfloat16 where the processor has it", "float32", choices=("float32", "bfloat16")
    )
    seed: int = setting(
        "names the run: initial weights, order, augmentation, dropout", 0, at_least=0, at_most=2**31 - 1
    )
    validation_size: int = setting("training images kept for validation, the last ones", 5000, at_least=0)
    log_every_steps: int = setting(
        "record, and tell (a log has a line every few seconds); 0 for the last step only",
        100,
        at_least=0,
        changes_weights=False,
    )
    # At a hundred images a step, 5,000 validation images are a twentieth of those trained on, each a third of the work.
    evaluate_every_steps: int = setting("validate; 0 for the last step only", 1000, at_least=0, changes_weights=False)
    save_every_steps: int = setting("save a checkpoint; 0 for the last step only", at_least=0, changes_weights=False)
    save_every_seconds: float | str = setting(
        "save also so often; 0 for never, auto for the best interval (Young, Daly)",
        0.0,
        at_least=0,
        or_word="auto",
        changes_weights=False,
    )
    mean_seconds_between_failures: float = setting(
        "what that interval is computed from", 86_400.0, at_least=1, changes_weights=False
    )
    save_in_background: bool = setting("train on while a checkpoint is written", default=True, changes_weights=False)
    max_failed_saves: int = setting(
        "saves in a row that may fail before the run does", 10, at_least=0, changes_weights=False
    )
    max_to_keep: int = setting(
        "newest checkpoints to keep; 0 for all", 5, at_least=0, at_most=10**6, changes_weights=False
    )
    keep_best: int = setting(
        "and so many with the best validation accuracy, of those saved where it was validated",
        1,
        at_least=0,
        at_most=10**6,
        changes_weights=False,
    )
    keep_checkpoint_every_n_hours: float = setting(
        "keep one for good every so many hours of training", 10_000.0, at_least=0.001, changes_weights=False
    )
    save_relative_paths: bool = setting(
        "names, not absolute paths, in the state file", default=True, changes_weights=False
    )
    sharded: bool = setting("one data file a core, as large states have anyway", default=False, changes_weights=False)
    on_nonfinite: str = setting(
        "what to do about a loss or weights that are no finite numbers",
        "stop",
        choices=("stop", "rollback"),
        changes_weights=False,
    )
    report: bool = setting("leave a page about the run, report.html", default=True, changes_weights=False)
    threads: int = setting(
        "that compute; 0 for TensorFlow's choice", 0, at_least=0, at_most=1024, changes_weights=False
    )

    def __post_init__(self) -> None:
        """Raises ValueError where a value is out of bounds."""
        for field in dataclasses.fields(self):
            problem = _problem(getattr(self, field.name), field.metadata)
            if problem:
                message = f"--{field.name}={getattr(self, field.name)}: {problem}"
                raise ValueError(message)

    def run_identity(self) -> dict[str, Any]:
        """The settings that the weights are a function of."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.metadata["changes_weights"]
        }


def _problem(value: float | str, bounds: Mapping[str, Any]) -> str | None:
    word = bounds["or_word"]
    if word is not None and isinstance(value, str):
        return None if value == word else f"a number or {word} wanted"
    if bounds["choices"] and value not in bounds["choices"]:
        return f"one of {', '.join(bounds['choices'])} wanted"
    if isinstance(value, float) and not math.isfinite(value):
        return "a finite number wanted"
    if bounds["at_least"] is not None and value < bounds["at_least"]:
        return f"at least {bounds['at_least']} wanted"
    if bounds["at_most"] is not None and value > bounds["at_most"]:
        return f"at most {bounds['at_most']} wanted"
    return None


@dataclass(frozen=True, kw_only=True)
class CnnSettings(Settings):
    """What a convolutional network needs to know besides."""

    architecture: str = setting("which network", "tutorial", choices=("tutorial", "one_epoch", "small", "deep"))
    dropout_rate: float = setting("share of hidden units dropped in training", 0.5, at_least=0, at_most=0.99)
    crops: int = setting(
        "in use, average answers over so many places of the image, a pixel apart",
        1,
        at_least=1,
        at_most=9,
        changes_weights=False,
    )
    members: int = setting(
        "networks, of the seed and those after it, whose answers are averaged; trained in <train_dir>/seed-<seed>",
        1,
        at_least=1,
        at_most=100,
    )
