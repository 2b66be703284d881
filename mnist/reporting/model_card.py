"""A model card: what whoever gets an exported model has to know of it.

It lies in the model's own directory, and its bytes are hashed with the others (source of the form: Mitchell et al.,
"Model Cards for Model Reporting", 2019).
"""

import math
from collections.abc import Mapping
from typing import Any, Protocol

from mnist.input.dataset import Dataset

NAME = "MODEL_CARD.md"

_CARD = """\
# {config}, seed {seed}, step {step}

Says which digit a handwritten one is.

## How to ask it

Signature `serving_default`, tag `serve`: `images`, uint8 [N, 28, 28], raw pixels from 0, the background, to 255;
gives `classes`, int64 [N], and `probabilities`, float32 [N, 10]. `png` takes the bytes of PNG files of 28 x 28, string
[N]; `labels` gives the classes' names.
A digit has to be bright on black, fitted to 20 x 20 and centred by its mass, as MNIST's are: `python -m mnist.predict`
makes such images of pictures of any kind. It answers one of ten digits whatever it is shown, a letter or nothing at all
included.

## How good it is

{accuracies}

The standard error is that of counting: as many other images of the same kind would give so much more or less in one of
three cases. The {test_images:,} test images were judged once, after the last step; no setting was chosen by them.
At least 15 labels of MNIST's test set are wrong (Northcutt, Athalye, Mueller, "Pervasive Label Errors in Test Sets",
2021), so nothing beyond 0.9985 means much. Digits of other countries, pens and cameras are not in it.

## What it was made of

- data: {train_images:,} images to train on, {validation_images:,} to validate by; fingerprint `{data}`
- checkpoint: `{checkpoint}`; sha256 of the weights `{weights_sha256}`, as result.json has it
- settings: {settings}

## Licence

Of the data, where they are MNIST's (LeCun, Cortes, Burges): Creative Commons Attribution-Share Alike 3.0.
"""


class Settings(Protocol):
    """What is known here of a run's settings."""

    @property
    def seed(self) -> int:
        """Names the run."""
        ...

    @property
    def train_steps(self) -> int:
        """How many updates it makes."""
        ...

    def run_identity(self) -> dict[str, Any]:
        """Those that the weights are a function of."""
        ...


def text(
    *,
    config: str,
    settings: Settings,
    data: Dataset,
    accuracies: Mapping[str, float | None],
    checkpoint: str,
    weights_sha256: str,
) -> str:
    """The text, the same for each run that gives the same model.

    Args:
      config: the recipe's name.
      settings: of the run that ended.
      data: what it was trained on, and judged by.
      accuracies: `test` and `validation`; None where there were no images.
      checkpoint: the name of the one that it was exported from.
      weights_sha256: as in result.json.
    """
    sizes = {"test": len(data.test.labels), "validation": len(data.validation.labels)}
    lines = [
        f"- {name} accuracy: {value:.4f}, standard error {math.sqrt(value * (1 - value) / sizes[name]):.4f}"
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
        settings=", ".join(f"{name} {value}" for name, value in settings.run_identity().items()),
    )
