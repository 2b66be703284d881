"""Plots of a run, drawn with matplotlib: functions from arrays and records to figures. No files are read or written.

All plots are legible on a telephone: 6.4 inches wide, no text smaller than 8 points.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mnist.input.dataset import CLASSES, IMAGE_SHAPE
from mnist.reporting import metrics
from mnist.reporting.metrics import Calibration

Array = np.ndarray[Any, Any]
Record = Mapping[str, Any]

_WIDTH = 6.4  # inches
_POINTS_PER_INCH = 72
_MAX_FILTERS = 64
_GREY = "0.55"


def learning_curve(records: Sequence[Record], resumes: Sequence[tuple[int, str]]) -> Figure:
    """Plot loss and validation error by step, with the learning rate and the speed below.

    Args:
      records: of the logged steps: step, loss, learning_rate, images_per_second, optionally validation_accuracy.
      resumes: the steps from which the run was resumed, and how the attempt before had ended.
    """
    figure = Figure(figsize=(_WIDTH, 7), layout="constrained")
    loss, rates, speeds = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 1))
    steps = [each["step"] for each in records]
    loss.plot(steps, [each["loss"] for each in records], color="C0", label="training loss (one batch)")
    loss.set_ylabel("loss")
    loss.set_yscale("log")
    validated = [each for each in records if "validation_accuracy" in each]
    if validated:
        errors = loss.twinx()
        errors.plot(
            [each["step"] for each in validated],
            [100 * (1 - each["validation_accuracy"]) for each in validated],
            *("o-",),
            color="C1",
            markersize=4,
            label="validation error, %",
        )
        errors.set_ylabel("validation error, %")
        errors.set_ylim(bottom=0)
        loss.legend(handles=[*loss.get_lines(), *errors.get_lines()], loc="upper right")
    rates.plot(steps, [each["learning_rate"] for each in records], color="C2")
    rates.set_ylabel("learning rate")
    speeds.plot(steps, [each["images_per_second"] for each in records], color="C4")
    speeds.set_ylabel("images/s")
    speeds.set_ylim(bottom=0)
    speeds.set_xlabel("step")
    for axes in (loss, rates, speeds):
        _mark_resumes(axes, resumes, with_text=axes is loss)
    return figure


def loss_curve(runs: Mapping[str, Sequence[Record]]) -> Figure:
    """Plot the loss of several runs by step. The mapping is from a run's name to the records of its logged steps."""
    figure = Figure(figsize=(_WIDTH, 4), layout="constrained")
    axes = figure.subplots()
    for name, records in runs.items():
        axes.plot([each["step"] for each in records], [each["loss"] for each in records], label=name, linewidth=1)
    axes.set(xlabel="step", ylabel="training loss (one batch)", yscale="log")
    axes.legend()
    return figure


def _mark_resumes(axes: Axes, resumes: Sequence[tuple[int, str]], *, with_text: bool) -> None:
    for step, ended in resumes:
        axes.axvline(step, color=_GREY, linestyle=":")
        if with_text:
            text = axes.text(step, 0.02, f"resumed; before: {ended}", transform=axes.get_xaxis_transform())
            text.set(rotation=90, ha="right", va="bottom", fontsize=8, color="0.3")


def confusion_matrix(labels: Array, classes: Array) -> Figure:
    """Plot the confusion matrix: labels in rows, predictions in columns. Only the errors are coloured."""
    counts = metrics.confusion_matrix(labels, classes)
    wrong = counts * (1 - np.eye(CLASSES, dtype=int))
    figure = Figure(figsize=(_WIDTH, 5.6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(wrong, cmap="Reds", vmin=0, vmax=max(1, wrong.max()))
    for row in range(CLASSES):
        for column in range(CLASSES):
            count = counts[row, column]
            on_dark = row != column and count > 0.6 * max(1, wrong.max())
            colour = "white" if on_dark else _GREY if row == column or not count else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=9)
    axes.set(xticks=range(CLASSES), yticks=range(CLASSES), xlabel="predicted", ylabel="label")
    return figure


def most_confident_errors(
    images: Array, labels: Array, classes: Array, probabilities: Array, max_images: int = 40
) -> Figure:
    """Show the wrongly classified images (there is at least one), most confident first.

    Args:
      images: uint8 [N, 28, 28].
      labels: integers [N].
      classes: integers [N], the predictions.
      probabilities: floats [N, 10].
      max_images: how many to show at most.
    """
    wrong = np.flatnonzero(classes != labels)
    confidence = probabilities[wrong, classes[wrong].astype(int)]
    shown = wrong[np.argsort(-confidence, kind="stable")][:max_images]
    captions = [
        f"{labels[index]} as {classes[index]}, {probabilities[index, int(classes[index])]:.2f}\nimage {index}"
        for index in shown
    ]
    return _grid(images[shown], captions, columns=4, fontsize=11, cmap="gray_r", vmin=0, vmax=255)


def reliability_diagram(calibration: Calibration) -> Figure:
    """Plot accuracy by predicted probability, with the number of images in each bin below."""
    bins = len(calibration.counts)
    figure = Figure(figsize=(_WIDTH, 4.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color=_GREY, linestyle=":", label="perfect calibration")
    above.plot(calibration.confidence, calibration.accuracy, "o-", label="this model")
    above.set(ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
    above.legend()
    below.bar((np.arange(bins) + 0.5) / bins, calibration.counts, 0.9 / bins, color="C0")
    below.set(xlabel="predicted probability", ylabel="images", yscale="symlog")
    return figure


def first_weights(weights: Array) -> Figure:
    """Show the weights of the first layer: [784, 10] as one image per class, [H, W, 1, C] as one per channel."""
    dense = weights.ndim == 2  # noqa: PLR2004 - a matrix
    maps = weights.T.reshape(-1, *IMAGE_SHAPE) if dense else np.moveaxis(weights[:, :, 0], -1, 0)
    maps = maps[:_MAX_FILTERS]
    largest = float(np.abs(maps).max()) or 1.0
    captions = [str(number) for number in range(len(maps))]
    return _grid(maps, captions, columns=5 if dense else 8, fontsize=8, cmap="RdBu_r", vmin=-largest, vmax=largest)


def _grid(
    images: Array, captions: Sequence[str], *, columns: int, fontsize: int, cmap: str, vmin: float, vmax: float
) -> Figure:
    """Show square images [N, H, W] in rows, each with its caption above.

    All are in one `Axes`, whose unit is an inch: an `Axes` for each of forty images takes matplotlib two seconds.
    """
    cell = _WIDTH / columns
    side, gap = 0.9 * cell, 0.1 * cell
    above = 1.4 * fontsize / _POINTS_PER_INCH * (max(caption.count("\n") for caption in captions) + 1)
    rows = -(-len(images) // columns)
    height = rows * (above + cell)
    figure = Figure(figsize=(_WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = gap / 2 + number % columns * cell, above + number // columns * (above + cell)
        axes.imshow(image, cmap, vmin=vmin, vmax=vmax, extent=(left, left + side, top + side, top))
        axes.text(left + side / 2, top - 0.03, caption, ha="center", va="bottom", fontsize=fontsize)
    axes.set(xlim=(0, _WIDTH), ylim=(height, 0))
    return figure
