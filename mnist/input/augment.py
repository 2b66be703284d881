"""Data augmentation in the graph: random rotation, zoom, shear and shift of training images.

    augmentation = Augmentation(rotation=12, zoom=0.12, shear=0.15, shift=2.5)
    images = augment(images, key, augmentation)

All random numbers are a pure function of the key (seed, step), so there is no generator state to save: a resumed run
augments the images of a step exactly as the undisturbed run does.
"""

import math
from typing import NamedTuple

import tensorflow as tf

from mnist.input.dataset import IMAGE_SHAPE

_CENTRE = (IMAGE_SHAPE[0] - 1) / 2


class Augmentation(NamedTuple):
    """Largest amount of each change. Amounts are drawn uniformly from minus to plus this value; 0 turns one off.

    rotation: degrees.
    zoom: fraction of the size, drawn for width and height separately.
    shear: horizontal displacement as a fraction of the height.
    shift: pixels, drawn for both axes separately.
    """

    rotation: float = 0.0
    zoom: float = 0.0
    shear: float = 0.0
    shift: float = 0.0


def augment(images: tf.Tensor, key: tf.Tensor, augmentation: Augmentation) -> tf.Tensor:
    """Rotate, zoom, shear and shift a batch of images about their centres, with bilinear interpolation.

    Args:
      images: uint8 [B, 28, 28], raw pixels, 0 is the background.
      key: int64 [2], (seed, step), the key of the random numbers.
      augmentation: how far; if all amounts are 0, `images` is returned unchanged.

    Returns:
      float32 [B, 28, 28], raw pixels in 0..255; pixels from outside the image are 0.
    """
    if augmentation == Augmentation():
        return images
    pixels = tf.cast(images, tf.float32)  # [B, 28, 28]
    # Folding in a constant separates these random numbers from those of dropout, which uses the key as it is.
    return _transform(pixels, tf.random.experimental.stateless_fold_in(key, 1), augmentation)


def _transform(images: tf.Tensor, key: tf.Tensor, augmentation: Augmentation) -> tf.Tensor:
    """Apply one random affine map per image: float32 [B, 28, 28] -> float32 [B, 28, 28]."""
    drawn = tf.random.stateless_uniform([tf.shape(images)[0], 6], key, minval=-1.0)  # [B, 6]
    turn, zoom_x, zoom_y, shear, shift_x, shift_y = tf.unstack(drawn, axis=1)  # each [B]
    angle = turn * math.radians(augmentation.rotation)  # [B]
    cosine, sine = tf.cos(angle), tf.sin(angle)  # each [B]
    # The op maps output coordinates to input coordinates: zoom, then shear, then rotate.
    scale_x, scale_y = 1 + zoom_x * augmentation.zoom, 1 + zoom_y * augmentation.zoom  # each [B]
    slant = shear * augmentation.shear  # [B]
    xx, xy = scale_x * cosine, scale_y * (slant * cosine - sine)  # each [B]
    yx, yy = scale_x * sine, scale_y * (slant * sine + cosine)  # each [B]
    from_x = _CENTRE - _CENTRE * (xx + xy) + shift_x * augmentation.shift  # [B]
    from_y = _CENTRE - _CENTRE * (yx + yy) + shift_y * augmentation.shift  # [B]
    zeros = tf.zeros_like(turn)  # [B]
    transformed = tf.raw_ops.ImageProjectiveTransformV3(
        images=images[..., None],  # [B, 28, 28, 1]
        transforms=tf.stack([xx, xy, from_x, yx, yy, from_y, zeros, zeros], axis=1),  # [B, 8]
        output_shape=tf.constant(IMAGE_SHAPE),
        fill_value=0.0,
        interpolation="BILINEAR",
    )
    return transformed[..., 0]  # [B, 28, 28]
