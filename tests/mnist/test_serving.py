import numpy as np
import pytest
import tensorflow as tf

from mnist import models, serving

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)


def ask(name, inputs):
    """What the signatures of a fresh cnn answer."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        served = serving.build_signatures(models.Cnn(0, dropout_rate=0.5))[name]
        session.run(tf.compat.v1.global_variables_initializer())
        return session.run(served.outputs, {served.inputs[key]: value for key, value in inputs.items()})


def png(image):
    """The bytes of a PNG file; image uint8 [H, W] or [H, W, channels]."""
    return tf.io.encode_png(np.atleast_3d(image)).numpy()


def test_png_files_are_answered_as_their_pixels():
    """A PNG of 28 x 28 gives what its raw pixels give, bit for bit."""
    raw = ask("serving_default", {"images": IMAGES})
    from_png = ask("png", {"png": [png(image) for image in IMAGES]})
    assert np.array_equal(raw["classes"], from_png["classes"])
    assert np.array_equal(raw["probabilities"], from_png["probabilities"])


def test_answers_have_the_promised_form():
    """Classes are int64 [N]; probabilities float32 [N, 10], add up to 1, and are highest at the class."""
    answers = ask("serving_default", {"images": IMAGES})
    assert answers["classes"].dtype == np.int64
    assert answers["classes"].shape == (3,)
    assert answers["probabilities"].dtype == np.float32
    assert answers["probabilities"].sum(axis=1) == pytest.approx(1, abs=1e-6)
    assert np.array_equal(answers["probabilities"].argmax(axis=1), answers["classes"])


def test_a_picture_of_another_size_is_refused():
    """A PNG that is not 28 x 28 is an error, not a guess."""
    with pytest.raises(tf.errors.InvalidArgumentError):
        ask("png", {"png": [png(np.zeros((29, 28), np.uint8))]})
