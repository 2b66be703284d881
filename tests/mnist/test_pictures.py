import gzip
import io
import re
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from mnist import dataset, handwriting, idx, pictures
from mnist.errors import PictureError

FORMATS = {"PNG": ".png", "JPEG": ".jpg", "GIF": ".gif", "BMP": ".bmp", "WEBP": ".webp"}


@pytest.fixture(scope="module")
def seven():
    """MNIST's first test image."""
    return dataset.load(None, 0).test.images[0]


def saved(image, path, **options):
    """Writes a picture; gives the path."""
    image.save(path, **options)
    return path


def read_one(path):
    """The pixels of a file that holds one picture."""
    (picture,) = pictures.read(path)
    assert picture.name == str(path)
    return picture.pixels


def drawn(seven, mode="L", size=112):
    """The seven, larger, in one of Pillow's modes."""
    return Image.fromarray(seven).resize((size, size), Image.Resampling.BICUBIC).convert(mode)


def test_a_grey_png_is_read_bit_for_bit(seven, tmp_path):
    """A picture of MNIST's own comes back as it went."""
    np.testing.assert_array_equal(read_one(saved(Image.fromarray(seven), tmp_path / "7.png")), seven)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_every_format_shows_the_same_digit(kind, mode, seven, tmp_path):
    """Grey, coloured or with a palette: the model sees nearly the same."""
    if kind in {"JPEG", "WEBP"} and mode == "P":
        mode = "RGB"
    path = saved(drawn(seven, mode), tmp_path / f"7{FORMATS[kind]}", format=kind)
    (digit,) = handwriting.digits(read_one(path))
    (wanted,) = handwriting.digits(read_one(saved(drawn(seven), tmp_path / "grey.png")))
    assert np.abs(digit.image.astype(int) - wanted.image).mean() < 8
    assert digit.ink == "light on dark"


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA", "I;16"])
def test_a_grey_picture_in_any_mode_is_grey_bit_for_bit(mode, seven, tmp_path):
    """Colours that are none, and opacity that hides nothing, change no pixel."""
    grey = Image.fromarray(seven)
    image = Image.fromarray(seven.astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    np.testing.assert_array_equal(read_one(saved(image, tmp_path / "7.png")), seven)
    if mode == "RGB":
        np.testing.assert_array_equal(read_one(saved(image, tmp_path / "7.webp", lossless=True)), seven)


@pytest.mark.parametrize("shape", [(28, 28, 2), (3, 28, 28, 2), (28,), (1, 1, 1, 1, 1)])
def test_arrays_that_are_no_pictures_are_named(shape, tmp_path):
    """Two channels, one dimension, five: a sentence, or as many pictures as that would be."""
    np.save(tmp_path / "odd.npy", np.zeros(shape, np.uint8))
    try:
        assert len(list(pictures.read(tmp_path / "odd.npy"))) == 28
    except PictureError as error:
        assert "wanted" in str(error)  # noqa: PT017 - either will do


def test_the_name_does_not_matter(seven, tmp_path):
    """What a file is, its content says."""
    path = saved(Image.fromarray(seven), tmp_path / "seven.txt", format="PNG")
    np.testing.assert_array_equal(read_one(path), seven)


def test_16_bits_keep_their_scale(seven, tmp_path):
    """A 16-bit PNG is as bright as its 8-bit sister."""
    path = saved(Image.fromarray(seven.astype(np.uint16) * 257), tmp_path / "16.png")
    np.testing.assert_array_equal(read_one(path), seven)


def test_a_photograph_is_turned_as_its_camera_was(seven, tmp_path):
    """EXIF says that it lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    lying = drawn(seven).rotate(90, expand=True)
    found = read_one(saved(lying, tmp_path / "7.jpg", exif=exif, quality=95))
    assert np.abs(found.astype(int) - np.asarray(drawn(seven))).mean() < 3


@pytest.mark.parametrize("ink", [(0, 0, 0), (255, 255, 255), (200, 30, 30)])
def test_a_transparent_drawing_lies_on_paper_that_shows_it(ink, seven, tmp_path):
    """Black ink on nothing, white ink on nothing: both are digits."""
    image = Image.new("RGBA", (112, 112), (*ink, 0))
    image.putalpha(drawn(seven))
    (digit,) = handwriting.digits(read_one(saved(image, tmp_path / "7.png")))
    assert digit.ink == ("light on dark" if sum(ink) > 600 else "dark on light")


def test_idx_and_npy_hold_many(seven, tmp_path):
    """Each picture has its number in its name."""
    two = np.stack([seven, seven[::-1]])
    (tmp_path / "two.idx").write_bytes(idx.header(two) + two.tobytes())
    (tmp_path / "two.idx.gz").write_bytes(gzip.compress(idx.header(two) + two.tobytes()))
    np.save(tmp_path / "two.npy", two)
    for name in ("two.idx", "two.idx.gz", "two.npy"):
        found = list(pictures.read(tmp_path / name))
        assert [each.name for each in found] == [f"{tmp_path / name}[0]", f"{tmp_path / name}[1]"]
        np.testing.assert_array_equal([each.pixels for each in found], two)


@pytest.mark.parametrize(
    "make",
    [
        lambda seven: seven,
        lambda seven: seven / 255,
        lambda seven: seven.astype(np.float32),
        lambda seven: seven.astype(np.uint16) * 257,
        lambda seven: np.repeat(seven[..., None], 3, axis=2),
        lambda seven: seven[..., None],
        lambda seven: seven[None, ..., None].astype(np.int64),
        lambda seven: seven.astype(np.uint16),
        lambda seven: seven.astype(np.float64)[None] / 255,
    ],
)
def test_arrays_of_any_kind_show_the_same(make, seven, tmp_path):
    """Bytes, floats of either scale, 16 bits, colours."""
    np.save(tmp_path / "7.npy", make(seven))
    (picture,) = pictures.read(tmp_path / "7.npy")
    np.testing.assert_array_equal(picture.pixels, seven)


def test_a_directory_gives_its_files_in_order(seven, tmp_path):
    """Those below as well, and no hidden ones."""
    for name in ("b.png", "a.png", "below/c.png", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        saved(Image.fromarray(seven), tmp_path / name)
    assert [path.name for path in pictures.files_in(tmp_path)] == ["a.png", "b.png", "c.png"]
    with pytest.raises(PictureError, match="no file found"):
        pictures.files_in((tmp_path / "empty").mkdir() or tmp_path / "empty")


def bomb():
    """A PNG of a few KB that says that it is 50,000 x 50,000."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1_000_000))), (b"IEND", b""))
    parts = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "not a picture"),
        (b"hello", "not a picture"),
        (b"\x89PNG\r\n\x1a\n", "picture"),
        (b"\x00\x00\x08\x03\x00\x00", "ends inside its header"),
        (gzip.compress(b"\x00\x00\x08\x03" + struct.pack(">III", 100_000, 200, 200) + bytes(1000)), "at most wanted"),
        (b"\x93NUMPY\x01\x00", "not an array"),
        (bomb(), "too large a picture"),
    ],
)
def test_what_is_no_picture_is_named(content, told, tmp_path):
    """One sentence, with the file's name first."""
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(PictureError, match=re.escape(told)) as error:
        list(pictures.read(path))
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_an_array_of_objects_is_refused(tmp_path):
    """Nothing that is read can run code."""
    np.save(tmp_path / "bad.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(PictureError, match="not an array"):
        list(pictures.read(tmp_path / "bad.npy"))


def test_a_missing_file_is_named(tmp_path):
    """As the system has it."""
    with pytest.raises(PictureError, match=r"none\.png: cannot be read \(No such file"):
        list(pictures.read(tmp_path / "none.png"))


def valid(seven):
    """The bytes of one picture in each format."""
    for kind in FORMATS:
        content = io.BytesIO()
        drawn(seven, "RGB" if kind != "GIF" else "P", 64).save(content, kind)
        yield content.getvalue()
    content = io.BytesIO()
    drawn(seven, "RGBA", 64).save(content, "PNG")
    yield content.getvalue()
    yield idx.header(seven[None]) + seven.tobytes()
    content = io.BytesIO()
    np.save(content, seven)
    yield content.getvalue()


def mutated(content, generator):
    """Bytes changed, cut off, doubled, or moved."""
    content = bytearray(content)
    for _ in range(int(generator.integers(1, 6))):
        at = int(generator.integers(len(content)))
        match int(generator.integers(4)):
            case 0:
                content[at] = int(generator.integers(256))
            case 1:
                content = content[: max(1, at)]
            case 2:
                content[at:at] = content[: int(generator.integers(40))]
            case _:
                content[at] ^= 1 << int(generator.integers(8))
    return bytes(content)


def test_a_thousand_mutated_files_are_read_or_named(seven, tmp_path):
    """No crash, no hang, no growing memory: each is a picture, or one sentence says why not."""
    generator = np.random.default_rng(5)
    sources = list(valid(seven))
    path = tmp_path / "mutated"
    read, slowest = 0, 0.0
    told = []
    tracemalloc.start()
    try:
        for number in range(1000):
            path.write_bytes(mutated(sources[number % len(sources)], generator))
            began = time.monotonic()
            try:
                for picture in pictures.read(path):
                    handwriting.digits(picture.pixels)
                read += 1
            except PictureError as error:
                told.append(str(error))
            slowest = max(slowest, time.monotonic() - began)
        _, highest = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert read > 100
    assert len(told) > 100
    assert all(re.fullmatch(r"[^\n]+\.", each) for each in told), told
    assert slowest < 20
    assert highest < 1_500_000_000
