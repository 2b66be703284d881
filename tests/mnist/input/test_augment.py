import numpy as np
import pytest
import tensorflow as tf

from mnist.input.augment import Augmentation, augment

ALL = Augmentation(rotation=15, zoom=0.2, shear=0.2, shift=3)
EACH = [Augmentation(**{name: amount}) for name, amount in ALL._asdict().items()]


def crosses(count=64):
    """Images of a cross at the centre: uint8 [count, 28, 28]."""
    image = np.zeros((28, 28), np.uint8)
    image[12:16, 6:22] = image[6:22, 12:16] = 200
    return np.repeat(image[None], count, axis=0)


def augmented(augmentation, images=None, key=(0, 0)):
    """Augment images; by default a batch of crosses."""
    images = crosses() if images is None else images
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        return session.run(augment(tf.constant(images), tf.constant(key, tf.int64), augmentation))


def centres(images):
    """The centre of mass of each image, float [B, 2] as (y, x)."""
    places = np.arange(28)
    mass = images.sum(axis=(1, 2))
    return np.stack([(images.sum(axis=2) @ places) / mass, (images.sum(axis=1) @ places) / mass], axis=1)


def test_without_augmentation_images_are_unchanged():
    """With all amounts 0 the same uint8 pixels are returned."""
    found = augmented(Augmentation())
    assert found.dtype == np.uint8
    assert np.array_equal(found, crosses())


@pytest.mark.parametrize("augmentation", [*EACH, ALL])
def test_augmentation_is_a_function_of_seed_and_step(augmentation):
    """The same key gives the same bits; another seed or another step gives other images."""
    found = augmented(augmentation, key=(1, 2))
    assert np.array_equal(found, augmented(augmentation, key=(1, 2)))
    assert not np.array_equal(found, augmented(augmentation, key=(1, 3)))
    assert not np.array_equal(found, augmented(augmentation, key=(2, 2)))


@pytest.mark.parametrize("augmentation", [*EACH, ALL])
def test_shape_and_range_are_kept(augmentation):
    """The result is float32 [B, 28, 28] in 0..255, and the images of a batch differ from one another."""
    found = augmented(augmentation)
    assert found.shape == (64, 28, 28)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 200 + 1e-3
    assert len(np.unique(found.reshape(64, -1), axis=0)) > 32


def test_shift_moves_images_by_at_most_its_amount():
    """The centre moves by up to 3 pixels in all directions, and by 0 on average."""
    moved = centres(augmented(Augmentation(shift=3), crosses(500))) - 13.5
    assert np.abs(moved).max() <= 3 + 1e-3
    assert np.abs(moved).max() > 2.8
    assert np.abs(moved.mean(axis=0)).max() < 0.3


@pytest.mark.parametrize("augmentation", [Augmentation(rotation=20), Augmentation(zoom=0.2), Augmentation(shear=0.2)])
def test_rotation_zoom_and_shear_keep_the_centre(augmentation):
    """They are applied about the centre of the image."""
    assert np.abs(centres(augmented(augmentation)) - 13.5).max() < 0.05


def test_rotation_turns_images_by_at_most_its_amount():
    """A bar on the right of the centre is found at an angle of up to 30 degrees."""
    image = np.zeros((28, 28), np.uint8)
    image[13:15, 14:24] = 255
    found = augmented(Augmentation(rotation=30), np.repeat(image[None], 500, axis=0))
    y, x = (centres(found) - 13.5).T
    angles = np.degrees(np.arctan2(y, x))
    assert 28 < np.abs(angles).max() <= 30.5
