"""The settings of a run: name, meaning, default and bounds of each. Each field is also a flag of the same name."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Settings of earlier releases and their defaults. A run that was recorded with one of them at its default is resumed.
REMOVED = {"augment_elastic": 0.0, "augment_cutout": 0}


def setting(
    help_line: str,
    default: object = dataclasses.MISSING,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    choices: tuple[str, ...] = (),
    or_word: str | None = None,
    changes_weights: bool = True,
) -> Any:  # noqa: ANN401 - as dataclasses.field, which returns the type of the field
    """Declare a field of the settings.

    Args:
      help_line: help text of the flag.
      default: value unless a recipe sets another; without a default, every recipe must set one.
      at_least: smallest value allowed.
      at_most: largest value allowed.
      choices: the words allowed; empty for numbers.
      or_word: one word allowed in place of a number.
      changes_weights: whether the trained weights depend on it. If so, it is part of the run identity: a run cannot
        be resumed with another value.
    """
    bounds = {"at_least": at_least, "at_most": at_most, "choices": choices, "or_word": or_word}
    metadata = {"help": help_line, "changes_weights": changes_weights, **bounds}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of every model.

    Raises:
      ValueError: a value is out of bounds; the message begins with the flag, "--batch_size=0: expected ...".
    """

    train_steps: int = setting("number of updates, one batch each", at_least=1, at_most=10**12)
    batch_size: int = setting("images per update", 100, at_least=1, at_most=60_000)
    optimizer: str = setting("optimization algorithm", choices=("sgd", "momentum", "adam"))
    learning_rate: float = setting("peak learning rate", at_least=0, at_most=1000)
    learning_rate_schedule: str = setting(
        "learning rate as a function of the step: constant; cosine (from the peak to 0); "
        "one_cycle (up to the peak, then down to 0)",
        "constant",
        choices=("constant", "cosine", "one_cycle"),
    )
    momentum: float = setting("momentum coefficient (optimizer=momentum only)", 0.9, at_least=0, at_most=1)
    beta1: float = setting("decay rate of Adam's first moment (optimizer=adam only)", 0.9, at_least=0, at_most=0.9999)
    beta2: float = setting(
        "decay rate of Adam's second moment (optimizer=adam only)", 0.999, at_least=0, at_most=0.999999
    )
    label_smoothing: float = setting(
        "fraction of each label that is spread evenly over all classes; 0 = one-hot labels",
        0.0,
        at_least=0,
        at_most=0.9,
    )
    l2: float = setting(
        "L2 regularization: weight of half the sum of squared weights in the loss", 0.0, at_least=0, at_most=10
    )
    clip_gradient_norm: float = setting(
        "clip gradients to this global norm; 0 = no clipping", 0.0, at_least=0, at_most=10**6
    )
    ema_decay: float = setting(
        "decay of the exponential moving average of the weights, which is evaluated and exported in their place; "
        "0 = no average",
        0.0,
        at_least=0,
        at_most=0.999999,
    )
    augment_rotation: float = setting(
        "augmentation: rotate training images by up to this many degrees, either way", 0.0, at_least=0, at_most=180
    )
    augment_zoom: float = setting(
        "augmentation: scale training images by up to this fraction, up or down", 0.0, at_least=0, at_most=0.9
    )
    augment_shear: float = setting(
        "augmentation: shear training images by up to this fraction of their height", 0.0, at_least=0, at_most=2
    )
    augment_shift: float = setting(
        "augmentation: translate training images by up to this many pixels", 0.0, at_least=0, at_most=28
    )
    precision: str = setting(
        "dtype of matrix products and convolutions; bfloat16 needs a CPU or GPU with bfloat16 instructions",
        "float32",
        choices=("float32", "bfloat16"),
    )
    instruction_set: str = setting(
        "processor instructions: native = all that the processor has; avx2 = those that give the same weights on "
        "every x86-64 processor with AVX2 and FMA",
        "native",
        choices=("native", "avx2"),
    )
    seed: int = setting(
        "random seed of initial weights, image order, augmentation and dropout", 0, at_least=0, at_most=2**31 - 1
    )
    validation_size: int = setting(
        "number of training images, the last ones, held out for validation; 0 = train on all", 5000, at_least=0
    )
    log_every_steps: int = setting(
        "record loss, learning rate and speed every this many steps; 0 = at the last step only",
        100,
        at_least=0,
        changes_weights=False,
    )
    # With 100 images per step, validating 5,000 images every 1,000 steps costs about 2 % of the training time.
    evaluate_every_steps: int = setting(
        "compute the validation accuracy every this many steps; 0 = at the last step only",
        1000,
        at_least=0,
        changes_weights=False,
    )
    save_every_steps: int = setting(
        "save a checkpoint every this many steps; 0 = at the last step only", at_least=0, changes_weights=False
    )
    save_every_seconds: float | str = setting(
        "also save a checkpoint every this many seconds; 0 = never, auto = the interval that loses least time "
        "(Young and Daly)",
        0.0,
        at_least=0,
        or_word="auto",
        changes_weights=False,
    )
    mean_seconds_between_failures: float = setting(
        "expected mean time between failures in seconds (save_every_seconds=auto only)",
        86_400.0,
        at_least=1,
        changes_weights=False,
    )
    save_in_background: bool = setting(
        "continue training while a checkpoint is written", default=True, changes_weights=False
    )
    max_failed_saves: int = setting(
        "number of consecutive failed saves to tolerate; one more ends the run with an error",
        10,
        at_least=0,
        changes_weights=False,
    )
    max_to_keep: int = setting(
        "number of recent checkpoints to keep; 0 = all", 5, at_least=0, at_most=10**6, changes_weights=False
    )
    keep_best: int = setting(
        "number of checkpoints with the best validation accuracy to keep as well; only steps that are both validated "
        "and saved count",
        1,
        at_least=0,
        at_most=10**6,
        changes_weights=False,
    )
    keep_checkpoint_every_n_hours: float = setting(
        "keep one checkpoint per this many hours of training permanently",
        10_000.0,
        at_least=0.001,
        changes_weights=False,
    )
    save_relative_paths: bool = setting(
        "write file names, not absolute paths, to the checkpoint state file", default=True, changes_weights=False
    )
    sharded: bool = setting(
        "write one data file per CPU core, as is always done for large states", default=False, changes_weights=False
    )
    on_nonfinite: str = setting(
        "if the loss or a weight is NaN or infinite: stop, or rollback to an earlier checkpoint",
        "stop",
        choices=("stop", "rollback"),
        changes_weights=False,
    )
    recheck_every_steps: int = setting(
        "compute the last 5 steps before each multiple of this many, and before the last step, twice, to find faults "
        "of processor and memory; after a fault, return to a checkpoint from before it; 0 = never",
        0,
        at_least=0,
        changes_weights=False,
    )
    report: bool = setting("write a report of the run, report.html", default=True, changes_weights=False)
    threads: int = setting(
        "TensorFlow threads (intra_op and inter_op); 0 = TensorFlow's default",
        0,
        at_least=0,
        at_most=1024,
        changes_weights=False,
    )

    def __post_init__(self) -> None:
        """Check that every value is within its bounds."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if expected := _expected(value, field.metadata):
                raise ValueError(f"--{field.name}={value}: expected {expected}")

    def run_identity(self) -> dict[str, Any]:
        """Return the settings that the trained weights depend on."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.metadata["changes_weights"]
        }

    @classmethod
    def identity_defaults(cls) -> dict[str, Any]:
        """Return the default of every setting that has one, removed settings included.

        A recorded run identity that lacks a setting was made with the setting's default.
        """
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        return REMOVED | {name: value for name, value in defaults.items() if value is not dataclasses.MISSING}


def _expected(value: float | str, bounds: Mapping[str, Any]) -> str | None:
    """Describe the values allowed if `value` is not one of them; None if it is."""
    word = bounds["or_word"]
    if word is not None and isinstance(value, str):
        return None if value == word else f"a number or {word}"
    if bounds["choices"] and value not in bounds["choices"]:
        return f"one of {', '.join(bounds['choices'])}"
    if isinstance(value, float) and not math.isfinite(value):
        return "a finite number"
    if bounds["at_least"] is not None and value < bounds["at_least"]:
        return f"at least {bounds['at_least']}"
    if bounds["at_most"] is not None and value > bounds["at_most"]:
        return f"at most {bounds['at_most']}"
    return None


@dataclass(frozen=True, kw_only=True)
class CnnSettings(Settings):
    """Settings of the convolutional networks."""

    architecture: str = setting("network architecture", "tutorial", choices=("tutorial", "one_epoch", "small", "deep"))
    dropout_rate: float = setting(
        "fraction of hidden units set to 0 in training (dropout)", 0.5, at_least=0, at_most=0.99
    )
    crops: int = setting(
        "at inference, average the predictions for this many copies of the image, each moved by at most one pixel",
        1,
        at_least=1,
        at_most=9,
        changes_weights=False,
    )
    members: int = setting(
        "number of networks in an ensemble, trained with consecutive seeds in <train_dir>/seed-<seed>",
        1,
        at_least=1,
        at_most=100,
    )
