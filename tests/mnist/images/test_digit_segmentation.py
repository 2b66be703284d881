import numpy as np
import pytest
from PIL import Image

from mnist.images import digit_segmentation, pixel_arrays
from mnist.input import dataset
from tests import drawing, scenes


@pytest.fixture(scope="module")
def test_split():
    """Return MNIST's test images and labels."""
    return dataset.load(None, 0).test


def as_pixels(picture):
    """Convert a Pillow image to float32 [H, W, 3]."""
    return np.asarray(picture.convert("RGB")).astype(np.float32) / 255


def similarity(one, other):
    """Return the cosine similarity of two digits: 1 for equal ones, of any brightness."""
    one, other = one.astype(float).ravel(), other.astype(float).ravel()
    return one @ other / np.sqrt((one @ one) * (other @ other))


def test_images_of_mnist_are_unchanged():
    """This holds for all test images, a sixth of the training images, and the negatives, which are inverted."""
    data = dataset.load(None, 0)
    for images in (data.train.images[::6], data.test.images):
        assert all(digit_segmentation.is_as_in_mnist(image) for image in images)
    for image in data.test.images[:100]:
        (same,), (inverted,) = digit_segmentation.digits(image), digit_segmentation.digits(255 - image)
        np.testing.assert_array_equal(same.image, image)
        np.testing.assert_array_equal(inverted.image, image)
        assert (same.ink, inverted.ink) == ("as in MNIST", "dark on light")


@pytest.mark.parametrize("kind", [kind for kind in drawing.KINDS if kind not in {"rotated", "thick", "transparent"}])
def test_a_drawing_becomes_the_digit_that_was_drawn(kind, test_split):
    """For each kind of drawing there is one digit, similar to the image of MNIST that was drawn."""
    generator = np.random.default_rng(0)
    found = [
        digit_segmentation.digits(as_pixels(drawing.draw(image, kind, generator))) for image in test_split.images[:10]
    ]
    assert [len(each) for each in found] == [1] * 10
    similarities = [similarity(each[0].image, image) for each, image in zip(found, test_split.images, strict=False)]
    assert np.median(similarities) > (0.7 if kind == "thin" else 0.85), similarities
    if kind != "coloured":  # only the hue differs
        assert {each[0].ink for each in found} == {"light on dark" if kind == "inverted" else "dark on light"}


def test_a_digit_fits_into_20_by_20_in_the_middle(test_split):
    """The longer side is about 20, the centre of mass within half a pixel of row and column 14."""
    generator = np.random.default_rng(1)
    for image in test_split.images[:20]:
        (digit,) = digit_segmentation.digits(as_pixels(drawing.draw(image, "off-centre", generator)))
        rows, columns = np.nonzero(digit.image)
        assert 18 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 20
        mass = digit.image / digit.image.sum()
        centre = [(mass.sum(axis=axis) * np.arange(28)).sum() for axis in (1, 0)]
        assert np.abs(np.array(centre) - 14).max() <= 0.5


def test_digits_are_read_line_by_line(test_split):
    """Two lines of five digits are found in the order in which they are written."""
    generator = np.random.default_rng(2)
    page = Image.new("L", (900, 420), 255)
    images = test_split.images[:10]
    for number, image in enumerate(images):
        cell = Image.fromarray(255 - image).resize((140, 140), Image.Resampling.BICUBIC)
        row, column = divmod(number, 5)
        page.paste(cell, (20 + 175 * column, 30 + 200 * row + int(generator.integers(0, 20))))
    found = digit_segmentation.digits(as_pixels(page))
    assert len(found) == 10
    assert all(similarity(each.image, image) > 0.85 for each, image in zip(found, images, strict=True))


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_blank_image_has_no_digit(value):
    """Black, grey and white images are blank."""
    assert digit_segmentation.digits(np.full((200, 300, 3), value / 255, np.float32)) == []
    assert digit_segmentation.digits(np.full((28, 28), value, np.uint8)) == []


def test_noise_has_no_digit():
    """Random pixels and the grain of paper are noise."""
    generator = np.random.default_rng(3)
    assert digit_segmentation.digits(generator.uniform(size=(120, 120, 3)).astype(np.float32)) == []
    grain = (0.9 + generator.normal(0, 0.01, (300, 300, 3))).clip(0, 1).astype(np.float32)
    assert digit_segmentation.digits(grain) == []


def test_a_filled_square_has_a_warning():
    """It is ink, but hardly a digit."""
    page = np.ones((200, 200, 3), np.float32)
    page[60:140, 60:140] = 0
    (digit,) = digit_segmentation.digits(page)
    assert "hardly a digit" in digit.warnings[0]


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (2, 2), (3, 700), (28, 28), (5, 5)])
def test_images_of_any_size_are_accepted(shape):
    """The digits found, if any, are uint8 [28, 28]."""
    generator = np.random.default_rng(4)
    for _ in range(20):
        picture = (
            generator.uniform(size=(*shape, 3)).astype(np.float32) * (generator.uniform(size=shape) < 0.2)[..., None]
        )
        for digit in digit_segmentation.digits(picture):
            assert digit.image.shape == (28, 28)
            assert digit.image.dtype == np.uint8


def found_in(picture):
    """Find the digits in a picture, uint8 [H, W] or [H, W, 3]."""
    return digit_segmentation.digits(pixel_arrays.from_pillow(Image.fromarray(picture)))


@pytest.mark.parametrize("scene", scenes.SCENES)
def test_a_digit_is_found_in_every_scene(scene, test_split):
    """Each of five digits is found, alone, and similar to the image of MNIST that was drawn."""
    generator = np.random.default_rng(7)
    images = test_split.images[:5]
    found = [found_in(scenes.SCENES[scene](image, generator)) for image in images]
    similarities = [similarity(each[0].image, image) for each, image in zip(found, images, strict=True) if each]
    assert [len(each) for each in found] == [1] * 5
    assert np.median(similarities) > 0.8, similarities


@pytest.mark.parametrize("margin", [0, 2])
@pytest.mark.parametrize(("paper", "ink"), [(15, 230), (255, 0), (160, 120)])
def test_a_tight_crop_is_never_blank(margin, paper, ink, test_split):
    """Each of eight digits is found, and its ink has the right polarity."""
    for image in test_split.images[:8]:
        found = found_in(scenes.cropped(image, margin, paper, ink))
        assert [each.ink for each in found] == ["light on dark" if ink > paper else "dark on light"]


def test_touching_digits_are_split_or_have_a_warning(test_split):
    """72 is split, 44 is split or has a warning, and so has each pair that is wider than high."""
    generator = np.random.default_rng(8)
    images = test_split.images
    found = found_in(scenes.touching(images[0], images[1], generator))
    assert len(found) == 2
    assert all(similarity(each.image, image) > 0.8 for each, image in zip(found, images, strict=False))
    assert all("touches" in each.warnings[0] for each in found)
    found = found_in(scenes.touching(images[4], images[6], generator))
    assert len(found) == 2 or "several" in found[0].warnings[0]
    for first, second in zip(images[:12], images[20:32], strict=True):
        picture = scenes.touching(first, second, generator)
        found = found_in(picture)
        wide = picture.shape[1] - 100 > 1.25 * (picture.shape[0] - 100)
        assert len(found) == 2 or any(each.warnings for each in found) or not wide


def test_a_narrow_pair_comes_with_the_halves_it_may_consist_of(test_split):
    """A 1 and a 4 that touch are one piece of ink, not wide; one of its pairs of halves is similar to both digits."""
    one, four = test_split.images[2], test_split.images[4]
    (found,) = found_in(scenes.touching(one, four, np.random.default_rng(1)))
    assert found.warnings == ()
    similarities = [min(similarity(left, one), similarity(right, four)) for left, right in found.halves]
    assert max(similarities) > 0.8, similarities


def test_only_ink_whose_parts_are_high_enough_has_halves(test_split):
    """A 1 cannot be halved, a digit in MNIST's own format is not, and one with a warning has no second one."""
    assert found_in(scenes.cropped(test_split.images[2], 30))[0].halves == ()
    assert found_in(test_split.images[0])[0].halves == ()
    for first, second in zip(test_split.images[:12], test_split.images[20:32], strict=True):
        for digit in found_in(scenes.touching(first, second, np.random.default_rng(1))):
            assert not (digit.warnings and digit.halves)


def test_a_wide_digit_stays_whole(test_split):
    """A wide 4, a wide 0 and 20 other digits are not split."""
    for image in (test_split.images[number] for number in (33, 297, 380, *range(20))):
        assert len(found_in(scenes.cropped(image, 30))) == 1


def test_lines_alone_are_no_digit():
    """Squared paper without a digit is blank."""
    page = np.full((300, 300), 240, np.uint8)
    page[10::40] = page[:, 10::40] = 60
    assert found_in(page) == []
