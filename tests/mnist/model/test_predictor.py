import numpy as np
import pytest
import tensorflow as tf

from mnist.input.dataset import Split
from mnist.model import predictor
from mnist.training import evaluation


def count_correct(images, make_predictions):
    """Classify images of classes 1, 2 and 3 (upper left pixel), labelled 1, 2 and 4, with a graph made here.

    images: dtype and shape of the placeholder. make_predictions: maps the classes, int32 [N], to the predictions.
    """
    raw = np.zeros((3, 28, 28), np.uint8)
    raw[:, 0, 0] = [1, 2, 3]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        placeholder = tf.compat.v1.placeholder(*images)
        pixels = tf.reshape(placeholder, [-1, 784])[:, 0]
        unit = tf.cast(255 if placeholder.dtype.is_floating else 1, tf.float64)
        classes = tf.cast(tf.round(tf.cast(pixels, tf.float64) * unit), tf.int32)
        made = predictor.make_predictor(placeholder, make_predictions(classes))
        return evaluation.count_correct(session, made, Split(raw, np.array([1, 2, 4], np.uint8)))


def as_is(classes):
    """Predictions that are the classes."""
    return classes


@pytest.mark.parametrize("shape", [[None, 784], [None, 28, 28], [None, 28, 28, 1], [None, 1, 28, 28], [None] * 4, None])
@pytest.mark.parametrize("dtype", [tf.uint8, tf.float32, tf.float64, tf.float16, tf.bfloat16])
def test_pixels_are_fed_in_the_form_of_the_placeholder(shape, dtype):
    """Raw for uint8, 0 to 1 for floats; in any of the four shapes."""
    assert count_correct((dtype, shape), as_is) == 2


@pytest.mark.parametrize("dtype", [tf.float32, tf.int8, tf.bool])
def test_the_class_is_the_largest_of_ten_numbers(dtype):
    """Ten numbers per image, of any dtype: logits, probabilities, votes."""
    assert count_correct((tf.uint8, [None, 784]), lambda classes: tf.cast(tf.one_hot(classes, 10), dtype)) == 2


@pytest.mark.parametrize(
    "images",
    [(tf.int32, [None, 784]), (tf.string, [None]), (tf.float32, [None, 32, 32, 1]), (tf.float32, [100, 784])],
)
def test_other_images_raise(images):
    """Another dtype, another size, or a fixed number of images; the message has expected and actual."""
    with pytest.raises(ValueError, match=r"expected images of uint8 or floats \[None, 784\], .*, got "):
        count_correct(images, lambda _: tf.constant([1, 2, 3]))


@pytest.mark.parametrize(
    "make_predictions",
    [
        lambda classes: tf.cast(classes, tf.float32),
        tf.as_string,
        lambda classes: tf.one_hot(classes, 11),
        lambda classes: classes[:, None],
    ],
)
def test_other_predictions_raise(make_predictions):
    """Floats or strings [N], eleven numbers, a column."""
    with pytest.raises(ValueError, match=r"expected predictions of integers \[N\] or numbers \[N, 10\], got "):
        count_correct((tf.uint8, [None, 784]), make_predictions)


def test_one_class_is_not_broadcast_to_all_images():
    """A graph must return one class per image."""
    with pytest.raises(ValueError, match=r"expected predictions \[3\], one per image, got \[1\]"):
        count_correct((tf.uint8, [None, 784]), lambda _: tf.constant([1]))
