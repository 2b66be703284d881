import numpy as np
import pytest
import tensorflow as tf

from mnist.input.augment import Augmentation, augment

ALL = Augmentation(rotation=15, zoom=0.2, shear=0.2, shift=3, elastic=1.0, cutout=6)
EACH = [Augmentation(**{name: amount}) for name, amount in ALL._asdict().items()]


def crosses(count=64):
    """Images that are the same turned by 90 degrees, but not shifted: uint8 [count, 28, 28]."""
    image = np.zeros((28, 28), np.uint8)
    image[12:16, 6:22] = image[6:22, 12:16] = 200
    return np.repeat(image[None], count, axis=0)


def changed(amounts, images=None, key=(0, 0)):
    """What becomes of images."""
    images = crosses() if images is None else images
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        return session.run(augment(tf.constant(images), tf.constant(key, tf.int64), amounts))


def centres(images):
    """The centre of mass of each image, [B, 2]."""
    places = np.arange(28)
    mass = images.sum(axis=(1, 2))
    return np.stack([(images.sum(axis=2) @ places) / mass, (images.sum(axis=1) @ places) / mass], axis=1)


def test_nothing_asked_for_leaves_the_images_alone():
    """With all amounts 0 the very pixels come back, as bytes."""
    found = changed(Augmentation())
    assert found.dtype == np.uint8
    assert np.array_equal(found, crosses())


@pytest.mark.parametrize("amounts", [*EACH, ALL])
def test_what_is_drawn_is_a_function_of_seed_and_step(amounts):
    """The same key changes a batch to the same bits; another seed or another step otherwise."""
    found = changed(amounts, key=(1, 2))
    assert np.array_equal(found, changed(amounts, key=(1, 2)))
    assert not np.array_equal(found, changed(amounts, key=(1, 3)))
    assert not np.array_equal(found, changed(amounts, key=(2, 2)))


@pytest.mark.parametrize("amounts", [*EACH, ALL])
def test_images_keep_their_form_and_their_scale(amounts):
    """float32 [B, 28, 28] in 0 to 255, no two of a batch changed alike."""
    found = changed(amounts)
    assert found.shape == (64, 28, 28)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 200 + 1e-3
    assert len(np.unique(found.reshape(64, -1), axis=0)) > 32


def test_a_shift_moves_the_centre_so_far_at_most():
    """Both ways, evenly, and nothing else happens."""
    moved = centres(changed(Augmentation(shift=3), crosses(500))) - 13.5
    assert np.abs(moved).max() <= 3 + 1e-3
    assert np.abs(moved).max() > 2.8
    assert np.abs(moved.mean(axis=0)).max() < 0.3


@pytest.mark.parametrize("amounts", [Augmentation(rotation=20), Augmentation(zoom=0.2), Augmentation(shear=0.2)])
def test_turning_zooming_and_shearing_keep_the_centre(amounts):
    """They happen about the middle of the image."""
    assert np.abs(centres(changed(amounts)) - 13.5).max() < 0.05


def test_a_rotation_turns_by_so_many_degrees_at_most():
    """The right arm of the cross is found up to the sine of the angle higher or lower."""
    image = np.zeros((28, 28), np.uint8)
    image[13:15, 14:24] = 255
    found = changed(Augmentation(rotation=30), np.repeat(image[None], 500, axis=0))
    y, x = (centres(found) - 13.5).T
    angles = np.degrees(np.arctan2(y, x))
    assert 28 < np.abs(angles).max() <= 30.5


def test_bending_moves_places_by_its_standard_deviation():
    """A dot is found as far from its place as asked for, wherever it is."""
    for place in (5, 14, 22):
        image = np.zeros((28, 28), np.uint8)
        image[place - 1 : place + 2, place - 1 : place + 2] = 255
        found = changed(Augmentation(elastic=0.7), np.repeat(image[None], 2000, axis=0))
        moved = centres(found) - place
        assert moved.std(axis=0) == pytest.approx([0.7, 0.7], rel=0.25)


def test_cutout_blanks_one_square():
    """All of it lies inside the image, and everything else is as it was."""
    white = np.full((200, 28, 28), 255, np.uint8)
    blank = changed(Augmentation(cutout=6), white) == 0
    assert (blank.sum(axis=(1, 2)) == 36).all()
    assert (blank.any(axis=2).sum(axis=1) == 6).all()
    assert blank.any(axis=(0, 1)).all()
    assert blank.any(axis=(0, 2)).all()


def test_things_drawn_for_one_batch_do_not_depend_on_one_another():
    """Bending is drawn by a key of its own, whether or not the image is turned."""
    bent = changed(Augmentation(elastic=1.0))
    assert not np.array_equal(bent, changed(Augmentation(elastic=1.0, rotation=5)))
    assert np.array_equal(bent, changed(Augmentation(elastic=1.0)))
