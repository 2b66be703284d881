"""Pictures of a run, drawn with matplotlib: arrays and records in, figures out; nothing is read or written here.

All are drawn to be read on a telephone: 6.4 inches wide, nothing smaller than 8 points.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]
Record = Mapping[str, Any]

_WIDTH = 6.4
_POINTS_AN_INCH = 72
_CLASSES = 10
_BINS = 10
_MOST_FILTERS = 64
_GREY = "0.55"


def learning_curve(records: Sequence[Record], resumes: Sequence[tuple[int, str]]) -> Figure:
    """Loss and validation error by step, learning rate below, speed below that.

    Args:
      records: of the logged steps: step, loss, learning_rate, images_per_second, and validation_accuracy or not.
      resumes: where the run was taken up again, and how the attempt before had ended.
    """
    figure = Figure(figsize=(_WIDTH, 7), layout="constrained")
    loss, rates, speeds = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 1))
    steps = [each["step"] for each in records]
    loss.plot(steps, [each["loss"] for each in records], color="C0", label="training: loss of a batch")
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
            label="validation: errors, %",
        )
        errors.set_ylabel("validation errors, %")
        errors.set_ylim(bottom=0)
        loss.legend(handles=[*loss.get_lines(), *errors.get_lines()], loc="upper right")
    rates.plot(steps, [each["learning_rate"] for each in records], color="C2")
    rates.set_ylabel("learning rate")
    speeds.plot(steps, [each["images_per_second"] for each in records], color="C4")
    speeds.set_ylabel("images/s")
    speeds.set_ylim(bottom=0)
    speeds.set_xlabel("step")
    for axes in (loss, rates, speeds):
        _mark(axes, resumes, named=axes is loss)
    return figure


def loss_curve(runs: Mapping[str, Sequence[Record]]) -> Figure:
    """Loss by step of several runs, by their names."""
    figure = Figure(figsize=(_WIDTH, 4), layout="constrained")
    axes = figure.subplots()
    for name, records in runs.items():
        axes.plot([each["step"] for each in records], [each["loss"] for each in records], label=name, linewidth=1)
    axes.set(xlabel="step", ylabel="training: loss of a batch", yscale="log")
    axes.legend()
    return figure


def _mark(axes: Axes, resumes: Sequence[tuple[int, str]], *, named: bool) -> None:
    """A line where each attempt but the first began."""
    for step, ended in resumes:
        axes.axvline(step, color=_GREY, linestyle=":")
        if named:
            text = axes.text(step, 0.02, f"resumed; before: {ended}", transform=axes.get_xaxis_transform())
            text.set(rotation=90, ha="right", va="bottom", fontsize=8, color="0.3")


def confusion(labels: Array, classes: Array) -> Figure:
    """How often each digit (rows) was taken for each (columns); the right answers are left pale."""
    counts = np.zeros((_CLASSES, _CLASSES), int)
    np.add.at(counts, (labels.astype(int), classes.astype(int)), 1)
    wrong = counts * (1 - np.eye(_CLASSES, dtype=int))
    figure = Figure(figsize=(_WIDTH, 5.6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(wrong, cmap="Reds", vmin=0, vmax=max(1, wrong.max()))
    for row in range(_CLASSES):
        for column in range(_CLASSES):
            count = counts[row, column]
            strong = row != column and count > 0.6 * max(1, wrong.max())
            colour = "white" if strong else _GREY if row == column or not count else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=9)
    axes.set(xticks=range(_CLASSES), yticks=range(_CLASSES), xlabel="taken for", ylabel="label")
    return figure


def confusion_matrix(images: Array, labels: Array, classes: Array, probabilities: Array, most: int = 40) -> Figure:
    """The test images that the model got wrong, of which there must be some; the surest first."""
    wrong = np.flatnonzero(classes != labels)
    sure = probabilities[wrong, classes[wrong].astype(int)]
    chosen = wrong[np.argsort(-sure, kind="stable")][:most]
    captions = [
        f"{labels[index]} as {classes[index]}, {probabilities[index, int(classes[index])]:.2f}\nimage {index}"
        for index in chosen
    ]
    return _tiles(images[chosen], captions, columns=4, fontsize=11, cmap="gray_r", vmin=0, vmax=255)


def reliability_diagram(labels: Array, classes: Array, probabilities: Array) -> tuple[Figure, float]:
    """How often answers of each sureness are right; and the expected calibration error (Guo et al., 2017)."""
    sure = probabilities.max(axis=1)
    right = classes == labels
    bins = np.clip((sure * _BINS).astype(int), 0, _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS)
    filled = counts > 0
    mean_sure = np.bincount(bins, sure, _BINS)[filled] / counts[filled]
    share_right = np.bincount(bins, right, _BINS)[filled] / counts[filled]
    error = float((counts[filled] * np.abs(mean_sure - share_right)).sum() / counts.sum())
    figure = Figure(figsize=(_WIDTH, 4.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color=_GREY, linestyle=":", label="as sure as right")
    above.plot(mean_sure, share_right, "o-", label="this model")
    above.set(ylabel="share that is right", xlim=(0, 1.02), ylim=(0, 1.02))
    above.legend()
    below.bar((np.arange(_BINS) + 0.5) / _BINS, counts, 0.9 / _BINS, color="C0")
    below.set(xlabel="probability of the answer", ylabel="images", yscale="symlog")
    return figure, error


def first_weights(weights: Array) -> Figure:
    """What the first layer looks for: float32 [784, 10], an image a class; or [H, W, 1, C], a filter a channel."""
    maps = weights.T.reshape(-1, 28, 28) if weights.ndim == 2 else np.moveaxis(weights[:, :, 0], -1, 0)  # noqa: PLR2004
    maps = maps[:_MOST_FILTERS]
    columns = 5 if weights.ndim == 2 else 8  # noqa: PLR2004 - the softmax's matrix
    largest = float(np.abs(maps).max()) or 1.0
    captions = [str(number) for number in range(len(maps))]
    return _tiles(maps, captions, columns=columns, fontsize=8, cmap="RdBu_r", vmin=-largest, vmax=largest)


def _tiles(
    images: Array, captions: Sequence[str], *, columns: int, fontsize: int, cmap: str, vmin: float, vmax: float
) -> Figure:
    """Square images [N, H, W], so many a row, each below its caption.

    All in one `Axes`, in inches: with one for each image, forty images take matplotlib two seconds.
    """
    cell = _WIDTH / columns
    side, gap = 0.9 * cell, 0.1 * cell
    above = 1.4 * fontsize / _POINTS_AN_INCH * (max(caption.count("\n") for caption in captions) + 1)
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
