import numpy as np
import pytest

from mnist.reporting import plots


def test_the_learning_curves_show_the_records():
    """Each record is a point, and each resume is a line in each of the three axes."""
    records = [
        {"step": step, "loss": 1 / step, "learning_rate": 0.1, "images_per_second": 100.0}
        for step in range(10, 100, 10)
    ]
    records[4]["validation_accuracy"] = 0.75
    figure = plots.learning_curve(records, [(40, "killed")])
    losses, rates, speeds, errors = figure.axes
    np.testing.assert_allclose(losses.get_lines()[0].get_ydata(), [each["loss"] for each in records])
    np.testing.assert_allclose(errors.get_lines()[0].get_xydata(), [[50, 25.0]])
    assert [line.get_xdata()[0] for axes in (losses, rates, speeds) for line in axes.get_lines()[1:]] == [40] * 3


def test_the_confusion_matrix_counts_each_image_once():
    """Rows are labels, columns are predictions."""
    labels, classes = np.array([3, 3, 3, 5], np.uint8), np.array([3, 3, 5, 5])
    texts = [text.get_text() for text in plots.confusion_matrix(labels, classes).axes[0].texts]
    assert (texts[33], texts[35], texts[55]) == ("2", "1", "1")
    assert sum(map(int, texts)) == 4


def test_the_most_confident_errors_come_first():
    """At most `max_images` are shown, no correct ones, each below its caption."""
    probabilities = np.full((4, 10), 0.01)
    classes = np.array([1, 2, 3, 4])
    probabilities[range(4), classes] = [0.5, 0.9, 0.99, 0.7]
    images = np.arange(4)[:, None, None] * np.ones((28, 28))
    [axes] = plots.most_confident_errors(images, np.array([0, 0, 3, 0]), classes, probabilities, max_images=2).axes
    assert [text.get_text() for text in axes.texts] == ["0 as 2, 0.90\nimage 1", "0 as 4, 0.70\nimage 3"]
    assert [image.get_array().max() for image in axes.images] == [1, 3]
    for text, image in zip(axes.texts, axes.images, strict=True):
        left, right, bottom, top = image.get_extent()
        x, y = text.get_position()
        assert x == pytest.approx((left + right) / 2)
        assert y < top < bottom


@pytest.mark.parametrize("shape", [(784, 10), (5, 5, 1, 16), (5, 5, 1, 100)])
def test_the_first_layers_weights_do_not_overlap(shape):
    """There is one image per class or channel, at most 64, all within the page."""
    [axes] = plots.first_weights(np.random.default_rng(0).normal(size=shape)).axes
    count = min(64, shape[-1])
    assert [text.get_text() for text in axes.texts] == [str(number) for number in range(count)]
    corners = sorted((image.get_extent()[3], image.get_extent()[0]) for image in axes.images)
    assert len(set(corners)) == count
    width, height = axes.figure.get_size_inches()
    for left, right, bottom, top in (image.get_extent() for image in axes.images):
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert not [(y, x) for y, x in corners if (y, x) != (top, left) and top <= y < bottom and left <= x < right]
