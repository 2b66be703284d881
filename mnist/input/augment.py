"""Training images changed a little, each time otherwise: in the graph, and as a pure function of (seed, step).

    augmentation = Augmentation(rotation=12, zoom=0.12, shear=0.15, shift=2.5, elastic=0.8)
    images = augment(images, key, augmentation)

Nothing is drawn from a generator that would have to be saved: the key names all that is drawn for a batch, so a run
that goes on at a step changes that step's images just as the undisturbed run does.
"""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mnist.input.dataset import IMAGE_SHAPE

_SIDE = IMAGE_SHAPE[0]
_CENTRE = (_SIDE - 1) / 2

# The elastic field is drawn at so many points a side, and smooth between them. MNIST's strokes are 2 to 4 pixels wide,
# and its digits 20 high: points 6.75 pixels apart bend strokes without tearing them.
_ELASTIC_POINTS = 5


class Augmentation(NamedTuple):
    """How far images are changed, each amount drawn evenly from minus to plus the one given; 0 leaves it out.

    rotation: degrees. zoom: in and out, as a share of the size. shear: as a share of the height. shift: pixels.
    elastic: pixels, the standard deviation of the field that bends the image (source: Simard, Steinkraus and Platt,
      "Best Practices for Convolutional Neural Networks Applied to Visual Document Analysis", 2003).
    cutout: the side, in pixels, of a square that is blanked (source: DeVries and Taylor, "Improved Regularization of
      Convolutional Neural Networks with Cutout", 2017).
    """

    rotation: float = 0.0
    zoom: float = 0.0
    shear: float = 0.0
    shift: float = 0.0
    elastic: float = 0.0
    cutout: int = 0


def augment(images: tf.Tensor, key: tf.Tensor, amounts: Augmentation) -> tf.Tensor:
    """Changes a batch of images.

    Args:
      images: uint8 [B, 28, 28], raw pixels, 0 the background.
      key: int64 [2], (seed, step); names what is drawn.
      amounts: how far; where all are 0, the images come back as they are.

    Returns:
      float32 [B, 28, 28] in 0 to 255; what comes in from outside the image is background.
    """
    if amounts == Augmentation():
        return images
    pixels = tf.cast(images, tf.float32)
    if any((amounts.rotation, amounts.zoom, amounts.shear, amounts.shift)):
        pixels = _transform(pixels, _key(key, 1), amounts)
    if amounts.elastic:
        pixels = _bend(pixels, _key(key, 2), amounts.elastic)
    if amounts.cutout:
        pixels = _cut_out(pixels, _key(key, 3), amounts.cutout)
    return pixels


def _key(key: tf.Tensor, number: int) -> tf.Tensor:
    """A key of its own for each thing drawn, so that no two are drawn alike, nor like what dropout draws."""
    return tf.random.experimental.stateless_fold_in(key, number)


def _transform(images: tf.Tensor, key: tf.Tensor, amounts: Augmentation) -> tf.Tensor:
    """Rotates, zooms, shears and shifts about the centre: float32 [B, 28, 28] to the same, bilinear."""
    drawn = tf.random.stateless_uniform([tf.shape(images)[0], 6], key, minval=-1.0)  # [B, 6]
    turn, zoom_x, zoom_y, shear, shift_x, shift_y = tf.unstack(drawn, axis=1)  # each [B]
    angle = turn * math.radians(amounts.rotation)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    # From a place in the new image to one in the old: zoomed, then sheared, then turned.
    scale_x, scale_y = 1 + zoom_x * amounts.zoom, 1 + zoom_y * amounts.zoom
    slant = shear * amounts.shear
    xx, xy = scale_x * cosine, scale_y * (slant * cosine - sine)
    yx, yy = scale_x * sine, scale_y * (slant * sine + cosine)
    from_x = _CENTRE - _CENTRE * (xx + xy) + shift_x * amounts.shift
    from_y = _CENTRE - _CENTRE * (yx + yy) + shift_y * amounts.shift
    none = tf.zeros_like(turn)
    transformed = tf.raw_ops.ImageProjectiveTransformV3(
        images=images[..., None],
        transforms=tf.stack([xx, xy, from_x, yx, yy, from_y, none, none], axis=1),  # [B, 8]
        output_shape=tf.constant(IMAGE_SHAPE),
        fill_value=0.0,
        interpolation="BILINEAR",
    )
    return transformed[..., 0]


def _bend(images: tf.Tensor, key: tf.Tensor, pixels: float) -> tf.Tensor:
    """Moves each place along a smooth random field: float32 [B, 28, 28] to the same, bilinear."""
    batch = tf.shape(images)[0]
    smooth = tf.constant(_smoothing())  # [28, points]
    coarse = tf.random.stateless_normal([2 * batch, _ELASTIC_POINTS, _ELASTIC_POINTS], key, stddev=pixels)
    rows = tf.reshape(tf.reshape(coarse, [-1, _ELASTIC_POINTS]) @ tf.transpose(smooth), [-1, _ELASTIC_POINTS, _SIDE])
    field = tf.einsum("hp,bpw->bhw", smooth, rows)  # [2 B, 28, 28]
    places = tf.range(_SIDE, dtype=tf.float32)
    y = places[:, None] + field[:batch]  # [B, 28, 28]
    x = places + field[batch:]  # [B, 28, 28]
    return _sample(images, y, x)


def _smoothing() -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """From a field's values at points along a side to its 28 places: [28, points], a Gaussian bump each.

    Their squares sum to 1, so the field's standard deviation is the same everywhere.
    """
    points = np.linspace(0, _SIDE - 1, _ELASTIC_POINTS)
    width = points[1] * 0.6
    bumps = np.exp(-0.5 * ((np.arange(_SIDE)[:, None] - points) / width) ** 2)
    bumps /= np.sqrt((bumps**2).sum(axis=1, keepdims=True))
    weights: np.ndarray[tuple[int, int], np.dtype[np.float32]] = bumps.astype(np.float32)
    return weights


def _sample(images: tf.Tensor, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """The images at places between pixels, y and x float32 [B, 28, 28]: of four pixels, the nearer counts the more."""
    padded = tf.pad(images, [[0, 0], [1, 1], [1, 1]])  # the background, wherever a place lies outside
    y, x = tf.clip_by_value(y + 1, 0.0, _SIDE + 0.999), tf.clip_by_value(x + 1, 0.0, _SIDE + 0.999)
    top, left = tf.floor(y), tf.floor(x)
    down, right = y - top, x - left
    side = _SIDE + 2
    corner = tf.cast(top, tf.int32) * side + tf.cast(left, tf.int32)  # [B, 28, 28]
    corner += tf.range(tf.shape(images)[0])[:, None, None] * (side * side)
    flat = tf.reshape(padded, [-1])
    upper = tf.gather(flat, corner) * (1 - right) + tf.gather(flat, corner + 1) * right
    lower = tf.gather(flat, corner + side) * (1 - right) + tf.gather(flat, corner + side + 1) * right
    return upper * (1 - down) + lower * down


def _cut_out(images: tf.Tensor, key: tf.Tensor, side: int) -> tf.Tensor:
    """Blanks a square at a random place, all of it inside the image."""
    corners = tf.random.stateless_uniform([2, tf.shape(images)[0], 1], key, maxval=_SIDE - side + 1, dtype=tf.int32)
    distance = tf.range(_SIDE) - corners  # [2, B, 28], from the square's first row and column
    within = (distance >= 0) & (distance < side)
    return tf.where(within[0][:, :, None] & within[1][:, None, :], 0.0, images)
