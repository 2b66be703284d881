import numpy as np
import pytest
import tensorflow as tf

from mnist.input.dataset import Split
from mnist.model import predictor
from mnist.training import evaluation


def foreign(images, answer):
    """Images of 1, 2 and 3 in the upper left pixel, and how many are right by a graph that is asked that way."""
    raw = np.zeros((3, 28, 28), np.uint8)
    raw[:, 0, 0] = [1, 2, 3]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        placeholder = tf.compat.v1.placeholder(*images)
        pixels = tf.reshape(placeholder, [-1, 784])[:, 0]
        unit = tf.cast(255 if placeholder.dtype.is_floating else 1, tf.float64)
        question = predictor.make_predictor(
            placeholder, answer(tf.cast(tf.round(tf.cast(pixels, tf.float64) * unit), tf.int32))
        )
        return evaluation.correct(session, question, Split(raw, np.array([1, 2, 4], np.uint8)))


def as_is(classes):
    """The classes themselves are the answer."""
    return classes


@pytest.mark.parametrize("shape", [[None, 784], [None, 28, 28], [None, 28, 28, 1], [None, 1, 28, 28], [None] * 4, None])
@pytest.mark.parametrize("dtype", [tf.uint8, tf.float32, tf.float64, tf.float16, tf.bfloat16])
def test_pixels_go_in_as_the_placeholder_wants_them(shape, dtype):
    """Raw where it takes bytes, 0 to 1 where it takes floats; flat or in rows, with a channel or without."""
    assert foreign((dtype, shape), as_is) == 2


@pytest.mark.parametrize("dtype", [tf.float32, tf.int8, tf.bool])
def test_the_largest_number_is_the_class(dtype):
    """Logits, probabilities, votes: ten numbers an image, of any dtype."""
    assert foreign((tf.uint8, [None, 784]), lambda classes: tf.cast(tf.one_hot(classes, 10), dtype)) == 2


@pytest.mark.parametrize(
    "images",
    [(tf.int32, [None, 784]), (tf.string, [None]), (tf.float32, [None, 32, 32, 1]), (tf.float32, [100, 784])],
)
def test_other_images_are_told(images):
    """Another dtype, another size, a fixed number: found and wanted."""
    with pytest.raises(ValueError, match=r"found, uint8 or floats of \[None, 784\], .* wanted"):
        foreign(images, lambda _: tf.constant([1, 2, 3]))


@pytest.mark.parametrize(
    "answer",
    [
        lambda classes: tf.cast(classes, tf.float32),
        tf.as_string,
        lambda classes: tf.one_hot(classes, 11),
        lambda classes: classes[:, None],
    ],
)
def test_other_answers_are_told(answer):
    """Floats or strings [N], eleven numbers, a column."""
    with pytest.raises(ValueError, match=r"found, integers \[N\] or numbers \[N, 10\] wanted"):
        foreign((tf.uint8, [None, 784]), answer)


def test_one_answer_is_not_stretched_over_all_images():
    """As comparing arrays would do."""
    with pytest.raises(ValueError, match=r"answers \[1\] found, one for each of 3 images wanted"):
        foreign((tf.uint8, [None, 784]), lambda _: tf.constant([1]))
