"""The model card of an exported model: what it does, how to use it, its accuracy, its data and settings.

It is a file in the SavedModel's directory, covered by the export's manifest. Its form follows Mitchell et al., "Model
Cards for Model Reporting", 2019.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from mnist.input.dataset import Dataset
from mnist.reporting import metrics

NAME = "MODEL_CARD.md"

_CARD = """\
# {config}, seed {seed}, step {step}

Classifies handwritten digits.

## Usage

Tag `serve`, signature `serving_default`: from `images`, uint8 [N, 28, 28], raw pixels from 0 (background) to 255, to
`classes`, int64 [N], and `probabilities`, float32 [N, 10]. Signature `png` takes PNG files of 28 x 28 instead, string
[N]; `labels` returns the names of the classes.
Digits must be bright on black, scaled to 20 x 20 and centred by their centre of mass, as in MNIST:
`python -m mnist.predict` preprocesses other images so. The model predicts one of ten digits for any image, also for a
letter or a blank one.

## Accuracy

{accuracies}

The standard error is the binomial one: on other images of the same kind, the accuracy differs by more in one case of
three. The {test_images:,} test images were evaluated once, after the last step; no setting was chosen with them. At
least 15 labels of MNIST's test set are wrong (Northcutt, Athalye, Mueller, "Pervasive Label Errors in Test Sets",
2021), so differences above 0.9985 mean little. Digits of other countries, pens and cameras are not in it.

## Training

- data: {train_images:,} training images, {validation_images:,} validation images; fingerprint `{data}`
- checkpoint: `{checkpoint}`; sha256 of the weights `{weights_sha256}`, as in result.json
- settings: {settings}
- kernels, which the last bits of the weights depend on: {kernels}

## Licence

MNIST (LeCun, Cortes, Burges), if the model was trained on it: Creative Commons Attribution-Share Alike 3.0.
"""


class Settings(Protocol):
    """The settings of a run, as far as the card needs them."""

    @property
    def seed(self) -> int:
        """The seed."""
        ...

    @property
    def train_steps(self) -> int:
        """The number of updates."""
        ...

    def run_identity(self) -> dict[str, Any]:
        """Return the settings that determine the weights, by name."""
        ...


def text(
    *,
    config: str,
    settings: Settings,
    data: Dataset,
    accuracies: Mapping[str, float | None],
    checkpoint: str,
    weights_sha256: str,
    kernels: str,
) -> str:
    """Return the text in Markdown. It is a function of its arguments: it has no time and no path.

    Args:
      config: name of the recipe.
      settings: of the run.
      data: of the run.
      accuracies: for "test" and "validation"; None if the split is empty.
      checkpoint: name of the exported checkpoint.
      weights_sha256: as in result.json.
      kernels: processor, instruction set, threads and libraries of the last attempt.
    """
    sizes = {"test": len(data.test.labels), "validation": len(data.validation.labels)}
    lines = [
        f"- {name} accuracy: {value:.4f}, standard error {metrics.standard_error(value, sizes[name]):.4f}"
        for name, value in accuracies.items()
        if value is not None
    ]
    return _CARD.format(
        config=config,
        seed=settings.seed,
        step=settings.train_steps,
        accuracies="\n".join(lines),
        test_images=sizes["test"],
        train_images=len(data.train.labels),
        validation_images=sizes["validation"],
        data=data.fingerprint,
        checkpoint=checkpoint,
        weights_sha256=weights_sha256,
        kernels=kernels,
        settings=", ".join(f"{name} {value}" for name, value in settings.run_identity().items()),
    )
