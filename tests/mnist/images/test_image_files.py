import gzip
import io
import itertools
import os
import pickle
import re
import struct
import time
import tracemalloc
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from mnist.errors import ImageError
from mnist.images import digit_segmentation, image_files
from mnist.input import dataset, idx
from tests import odd_files

FORMATS = {"PNG": ".png", "JPEG": ".jpg", "GIF": ".gif", "BMP": ".bmp", "WEBP": ".webp", "TIFF": ".tif"}


@pytest.fixture(scope="module")
def seven():
    """Return MNIST's first test image, a seven."""
    return dataset.load(None, 0).test.images[0]


def saved(image, path, **options):
    """Write an image; return the path."""
    image.save(path, **options)
    return path


def read_one(path):
    """Return the pixels of a file with one image."""
    (picture,) = image_files.read(path)
    assert picture.name == str(path)
    return picture.pixels


def drawn(seven, mode="L", size=112):
    """Return the seven, scaled up, in one of Pillow's modes."""
    return Image.fromarray(seven).resize((size, size), Image.Resampling.BICUBIC).convert(mode)


def test_a_grey_png_is_read_exactly(seven, tmp_path):
    """The pixels are those that were written."""
    np.testing.assert_array_equal(read_one(saved(Image.fromarray(seven), tmp_path / "7.png")), seven)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_every_format_shows_the_same_digit(kind, mode, seven, tmp_path):
    """Grey, in colour or with a palette: the digit is nearly the same."""
    if kind in {"JPEG", "WEBP"} and mode == "P":
        mode = "RGB"
    path = saved(drawn(seven, mode), tmp_path / f"7{FORMATS[kind]}", format=kind)
    (digit,) = digit_segmentation.digits(read_one(path))
    (expected,) = digit_segmentation.digits(read_one(saved(drawn(seven), tmp_path / "grey.png")))
    assert np.abs(digit.image.astype(int) - expected.image).mean() < 8
    assert digit.ink == "light on dark"


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA", "I;16"])
def test_a_grey_image_in_any_mode_is_read_exactly(mode, seven, tmp_path):
    """Equal colours and full opacity change no pixel."""
    grey = Image.fromarray(seven)
    image = Image.fromarray(seven.astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    np.testing.assert_array_equal(read_one(saved(image, tmp_path / "7.png")), seven)
    if mode == "RGB":
        np.testing.assert_array_equal(read_one(saved(image, tmp_path / "7.webp", lossless=True)), seven)


@pytest.mark.parametrize("shape", [(28, 28, 2), (3, 28, 28, 2), (28,), (1, 1, 1, 1, 1)])
def test_arrays_of_other_shapes_are_errors(shape, tmp_path):
    """With two channels, one dimension or five: an error, or as many images as the shape may mean."""
    np.save(tmp_path / "odd.npy", np.zeros(shape, np.uint8))
    try:
        assert len(list(image_files.read(tmp_path / "odd.npy"))) == 28
    except ImageError as error:
        assert "expected" in str(error)  # noqa: PT017 - either will do


def test_the_file_name_does_not_matter(seven, tmp_path):
    """The format is recognised by the content."""
    path = saved(Image.fromarray(seven), tmp_path / "seven.txt", format="PNG")
    np.testing.assert_array_equal(read_one(path), seven)


def test_16_bits_keep_their_scale(seven, tmp_path):
    """A 16-bit PNG is as bright as the 8-bit one."""
    path = saved(Image.fromarray(seven.astype(np.uint16) * 257), tmp_path / "16.png")
    np.testing.assert_array_equal(read_one(path), seven)


def test_a_photograph_is_rotated_as_exif_says(seven, tmp_path):
    """The camera was held sideways."""
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise
    sideways = drawn(seven).rotate(90, expand=True)
    found = read_one(saved(sideways, tmp_path / "7.jpg", exif=exif, quality=95))
    assert np.abs(found.astype(int) - np.asarray(drawn(seven))).mean() < 3


@pytest.mark.parametrize("ink", [(0, 0, 0), (255, 255, 255), (200, 30, 30)])
def test_transparent_drawings_are_blended_onto_contrasting_paper(ink, seven, tmp_path):
    """Dark ink gets white paper, white ink gets black paper."""
    image = Image.new("RGBA", (112, 112), (*ink, 0))
    image.putalpha(drawn(seven))
    (digit,) = digit_segmentation.digits(read_one(saved(image, tmp_path / "7.png")))
    assert digit.ink == ("light on dark" if sum(ink) > 600 else "dark on light")


def test_idx_and_npy_hold_many(seven, tmp_path):
    """Each image has its number in its name."""
    two = np.stack([seven, seven[::-1]])
    (tmp_path / "two.idx").write_bytes(idx.header(two) + two.tobytes())
    (tmp_path / "two.idx.gz").write_bytes(gzip.compress(idx.header(two) + two.tobytes()))
    np.save(tmp_path / "two.npy", two)
    for name in ("two.idx", "two.idx.gz", "two.npy"):
        found = list(image_files.read(tmp_path / name))
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
    """Bytes, floats of either range, 16 bits and colours are read exactly."""
    np.save(tmp_path / "7.npy", make(seven))
    (picture,) = image_files.read(tmp_path / "7.npy")
    np.testing.assert_array_equal(picture.pixels, seven)


def test_a_directory_gives_its_files_in_order(seven, tmp_path):
    """Files in directories below are included, hidden ones are not."""
    for name in ("b.png", "a.png", "below/c.png", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        saved(Image.fromarray(seven), tmp_path / name)
    assert [path.name for path in image_files.files_in(tmp_path)] == ["a.png", "b.png", "c.png"]
    with pytest.raises(ImageError, match="no files found"):
        image_files.files_in((tmp_path / "empty").mkdir() or tmp_path / "empty")


def bomb():
    """Return a PNG of a few KB whose header says 50,000 x 50,000."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1_000_000))), (b"IEND", b""))
    parts = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got another format"),
        (b"hello", "got another format"),
        (b"\x89PNG\r\n\x1a\n", "got another format"),
        (b"\x00\x00\x08\x03\x00\x00", "ends inside its header"),
        # Without the time of day: each test process must have the same parameters.
        (
            gzip.compress(b"\x00\x00\x08\x03" + struct.pack(">III", 100_000, 200, 200) + bytes(1000), mtime=0),
            "expected at most",
        ),
        (b"\x93NUMPY\x01\x00", "not an array"),
        (bomb(), "the image is too large"),
    ],
)
def test_a_file_that_is_no_image_is_an_error(content, message, tmp_path):
    """The message is one line that begins with the file's name."""
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=re.escape(message)) as error:
        list(image_files.read(path))
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def message_of(path):
    """Return the message of the error, which begins with the file's name and has one line."""
    with odd_files.no_hang(), pytest.raises(ImageError) as refused:
        list(image_files.read(path))
    message = str(refused.value)
    assert re.fullmatch(rf"{re.escape(str(path))}[:\[][^\n]+", message), message
    assert len(message) < 1000
    return message


def test_an_array_of_objects_is_refused(tmp_path):
    """No file can run code."""
    np.save(tmp_path / "bad.npy", np.array([{}], object), allow_pickle=True)
    assert "Python objects, which are never unpickled" in message_of(tmp_path / "bad.npy")


@pytest.mark.parametrize("kind", odd_files.KINDS)
def test_special_files_are_errors(kind, tmp_path):
    """Reading never blocks on a FIFO, an endless device, a socket or a link to one."""
    assert "cannot be read" in message_of(odd_files.make(kind, tmp_path / "odd.png"))


def test_special_files_in_a_directory_are_listed(seven, tmp_path):
    """So reading them raises an error that names them."""
    saved(Image.fromarray(seven), tmp_path / "7.png")
    for kind in ("FIFO", "socket", "device", "dangling link"):
        odd_files.make(kind, tmp_path / kind)
    names = [path.name for path in image_files.files_in(tmp_path)]
    assert names == ["7.png", "FIFO", "dangling link", "device", "socket"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "PostScript"),
        (b"\xc5\xd0\xd3\xc6" + bytes(28), "EPS"),
        (b"%PDF-1.7\n", "PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\0\0\0\x18ftypheic" + bytes(12), "HEIC"),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (b"PK\x03\x04" + bytes(26), "npz"),
        (pickle.dumps(np.zeros((28, 28)), protocol=4), "pickle"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_formats_are_errors_that_name_the_format(content, kind, tmp_path):
    """No other program is started to read them."""
    (tmp_path / "odd").write_bytes(content)
    assert f", got {kind}" in message_of(tmp_path / "odd") or kind in message_of(tmp_path / "odd")


@pytest.mark.parametrize("kind", ["AVIF", "PPM", "ICO", "EPS", "PCX", "TGA", "JPEG2000"])
def test_no_other_decoder_of_pillow_runs(kind, seven, tmp_path):
    """Of all that Pillow knows, six formats are promised and read."""
    message_of(saved(drawn(seven, "RGB", 32), tmp_path / "odd", format=kind))


def npy(shape, descr="|u1", order="False", data=b"", version=1):
    """Return a `.npy` file with any header."""
    header = f"{{'descr': {descr!r}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy("(1000000000, 0, 28)"), "no images found"),
        (npy("(-1, 28, 28)", data=bytes(784)), "no images found"),
        (npy("(0, 4294967296, 4294967296)"), "the dimensions in the header are too large"),
        (npy("(4294967296, 4294967296, 28)"), "the dimensions in the header are too large"),
        (npy(f"({10**30}, 28, 28)"), "the dimensions in the header are too large"),
        (npy(f"(0x{'f' * 5000}, 28, 28)"), "the dimensions in the header are too large"),
        (npy("(1000000000, 28, 28)", data=bytes(784)), "expected 784,000,000,000 bytes of data, got 784"),
        (npy("(28, 28)", "|O", data=b"cos\nsystem\n(S'false'\ntR."), "never unpickled"),
        (npy("(28, 28)", "<c8", data=bytes(784 * 8)), "got complex64"),
        (npy("(28, 28)", [("a", "<f4", (28,))] * 1, data=bytes(784 * 112)), "expected numbers"),
        (npy(f"({'-' * 5000}1, 28)"), "not an array that can be read"),
        (npy(f"({'(' * 5000}1, 28)"), "not an array that can be read"),
        (npy("(28.0, 28)"), "not an array that can be read"),
        (npy("(28, 28)", "nonsense"), "not an array that can be read"),
        (npy(f"(28, 28{' ' * 12_000})"), "not an array that can be read"),
        (npy("(28, 28)", version=9), "not an array that can be read"),
        (b"\x93NUMPY\x02\0\xff\xff\xff\xff{", "not an array that can be read"),
        (npy("(28, 28)", "<f8", data=np.full(784, 1e300).tobytes()), "expected finite numbers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_header_of_an_array_is_an_error(content, message, tmp_path):
    """The memory that it claims is not allocated, and there are no warnings."""
    (tmp_path / "odd.npy").write_bytes(content)
    with odd_files.little_memory(512 << 20):
        assert message in message_of(tmp_path / "odd.npy")


def test_an_array_of_python_2_is_read(seven, tmp_path):
    """The sizes in its header end in L."""
    (tmp_path / "7.npy").write_bytes(npy("(28L, 28L)", data=seven.tobytes()))
    np.testing.assert_array_equal(read_one(tmp_path / "7.npy"), seven)


@pytest.mark.parametrize("shape", [(28, 28), (3, 28, 28), (28, 28, 3), (2, 28, 28, 4), (2, 28, 28, 1)])
def test_the_order_of_an_array_does_not_matter(shape, tmp_path):
    """Fortran and C order give the same images, one or several, grey or in colour."""
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.save(tmp_path / "c.npy", array)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(array))
    c, fortran = (list(image_files.read(tmp_path / name)) for name in ("c.npy", "fortran.npy"))
    for one, other in zip(c, fortran, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_of_a_large_array_one_image_is_in_memory(tmp_path):
    """Eight gigabytes of images in a sparse file are read one after the other."""
    path = tmp_path / "large.npy"
    path.write_bytes(npy("(10000000, 28, 28)"))
    os.truncate(path, path.stat().st_size + 10_000_000 * 784)
    with odd_files.little_memory(256 << 20):
        assert len(list(itertools.islice(image_files.read(path), 3))) == 3


def test_too_little_memory_is_an_error(tmp_path):
    """An image within the limits may still be too large for the machine."""
    array, drawing = tmp_path / "large.npy", tmp_path / "large.png"
    np.save(array, np.zeros((8000, 8000), np.uint8))
    saved(Image.new("RGB", (8000, 8000)), drawing)
    for path in (array, drawing):
        with odd_files.little_memory(96 << 20):
            assert "not enough memory" in message_of(path)


def chunk(name, data):
    """Return a chunk of a PNG file."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_of(*chunks):
    """Return a PNG of 28 x 28 black pixels with these chunks before them."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 28, 28, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(29 * 28)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + chunk(b"IEND", b"")


ZEROS = zlib.compress(bytes(128 << 20))


@pytest.mark.parametrize(
    "content",
    [
        png_of(chunk(b"iCCP", b"x\0\0" + ZEROS)),
        png_of(chunk(b"zTXt", b"x\0\0" + ZEROS)),
        png_of(chunk(b"iTXt", b"x\0\1\0\0\0" + ZEROS)),
        png_of(chunk(b"IDAT", ZEROS)),
    ],
    ids=["profile", "text", "international text", "pixels"],
)
def test_a_png_bomb_does_not_fill_the_memory(content, tmp_path):
    """Small chunks that decompress to 128 MiB are an error or are not decompressed."""
    (tmp_path / "bomb.png").write_bytes(content)
    with odd_files.no_hang(), odd_files.little_memory(96 << 20), suppress(ImageError):
        assert read_one(tmp_path / "bomb.png").shape == (28, 28)


@pytest.mark.parametrize(("start", "size"), [(b"GIF89a", 1 << 30), (png_of()[:33], 1 << 40), (b"\xff\xd8", 1 << 30)])
def test_a_file_that_is_too_large_is_not_read(start, size, tmp_path):
    """No image within the limits needs so many bytes, and searching them would take minutes."""
    path = tmp_path / "sparse"
    path.write_bytes(start)
    os.truncate(path, size)
    assert "expected an image file of at most" in message_of(path)


def test_an_array_that_is_not_finite_does_not_hide_the_others(seven, tmp_path):
    """It is reported by its number; by default the error is raised."""
    images = np.stack([seven, seven, seven]) / 255
    images[1, 0, 0] = np.nan
    np.save(tmp_path / "three.npy", images)
    errors = []
    found = list(image_files.read(tmp_path / "three.npy", errors.append))
    assert [each.name for each in found] == [f"{tmp_path / 'three.npy'}[{number}]" for number in (0, 2)]
    assert [str(each) for each in errors] == [
        f"{tmp_path / 'three.npy'}[1]: expected finite numbers, got NaN or infinity"
    ]
    assert "[1]: expected finite numbers" in message_of(tmp_path / "three.npy")


def progressive(scans):
    """Return a large progressive JPEG whose last scan is repeated."""
    content = io.BytesIO()
    Image.new("L", (4000, 4000), 200).save(content, "JPEG", progressive=True)
    jpeg = content.getvalue()
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return jpeg[:-2] + (scans - jpeg.count(b"\xff\xda")) * last + b"\xff\xd9"


def test_a_jpeg_of_too_many_scans_is_an_error(tmp_path):
    """Each scan of 100 bytes is decoded for all pixels: a megabyte of scans would take minutes."""
    (tmp_path / "ten.jpg").write_bytes(progressive(10))
    assert read_one(tmp_path / "ten.jpg").max() == 200
    (tmp_path / "many.jpg").write_bytes(progressive(10_000))
    assert "expected a JPEG of at most 100 scans" in message_of(tmp_path / "many.jpg")


def test_bytes_after_the_end_of_a_jpeg_are_not_scans(seven, tmp_path):
    """Telephones append videos and further images."""
    path = saved(drawn(seven), tmp_path / "7.jpg")
    path.write_bytes(path.read_bytes() + 1000 * b"\xff\xda\0\x08")
    assert read_one(path).shape == (112, 112)


def test_a_missing_file_is_an_error(tmp_path):
    """The message has the system's reason."""
    with pytest.raises(ImageError, match=r"none\.png: cannot be read \(No such file"):
        list(image_files.read(tmp_path / "none.png"))


def valid(seven):
    """Yield an image in each format, as bytes."""
    for kind in FORMATS:
        content = io.BytesIO()
        drawn(seven, "RGB" if kind != "GIF" else "P", 64).save(content, kind)
        yield content.getvalue()
    content = io.BytesIO()
    drawn(seven, "RGBA", 64).save(content, "PNG")
    yield content.getvalue()
    for kind in ("PNG", "GIF", "WEBP", "TIFF", "MPO"):
        content = io.BytesIO()
        drawn(seven, "L", 64).save(content, kind, save_all=True, append_images=[drawn(seven[::-1], "L", 64)])
        yield content.getvalue()
    yield idx.header(seven[None]) + seven.tobytes()
    content = io.BytesIO()
    np.save(content, seven)
    yield content.getvalue()


def mutated(content, generator):
    """Return the bytes with some changed, cut off, inserted or flipped."""
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


TOKENS = (
    *(
        "-1",
        "0",
        "1",
        "28",
        "784",
        "4294967295",
        "9223372036854775807",
        "1e9",
        "None",
        "True",
        "False",
        "'|O'",
        "'<f8'",
    ),
    *(
        "'|V0'",
        "(",
        ")",
        ",",
        "[",
        "]",
        "{",
        "}",
        ":",
        "'shape'",
        "'descr'",
        "'a'",
        "\\0",
        "é",
        "L",
        "0x1",
        "**",
        "#",
        "\n",
    ),
)


def test_a_thousand_wrong_headers_are_read_or_errors(tmp_path):
    """Random headers of arrays and IDX files give images or one error, in little memory."""
    generator = np.random.default_rng(7)
    path = tmp_path / "wrong"
    read = 0
    for number in range(1000):
        if number % 4:
            words = re.split(r"(\W)", "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 28, 28), }\n")
            for _ in range(int(generator.integers(1, 4))):
                words[int(generator.integers(len(words)))] = TOKENS[int(generator.integers(len(TOKENS)))]
            header = "".join(words).encode()
            content = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header
        else:
            sizes = generator.choice([0, 1, 2, 28, 784, 1 << 16, (1 << 32) - 1], 3)
            content = b"\0\0\x08\x03" + struct.pack(">III", *map(int, sizes))
        path.write_bytes(content + bytes(2 * 784))
        try:
            with odd_files.little_memory(256 << 20):
                read += len(list(image_files.read(path)))
        except ImageError as error:
            assert re.fullmatch(r"[^\n]+", str(error)), error  # noqa: PT017 - one line, or an image
    assert read


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutated_files_are_read_or_errors(seven, tmp_path, count):
    """Each gives an image or one error, without a crash, a hang or growing memory."""
    generator = np.random.default_rng(5)
    sources = list(valid(seven))
    path = tmp_path / "mutated"
    read, slowest = 0, 0.0
    messages = []
    tracemalloc.start()
    try:
        for number in range(count):
            path.write_bytes(mutated(sources[number % len(sources)], generator))
            began = time.monotonic()
            try:
                for picture in image_files.read(path):
                    digit_segmentation.digits(picture.pixels)
                read += 1
            except ImageError as error:
                messages.append(str(error))
            slowest = max(slowest, time.monotonic() - began)
        _, highest = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert read > count / 10
    assert len(messages) > count / 10
    assert all(re.fullmatch(r"[^\n]+", each) for each in messages), messages
    assert slowest < 20
    assert highest < 1_500_000_000
