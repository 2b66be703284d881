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
    (picture,) = image_files.read(path)
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
    (digit,) = digit_segmentation.digits(read_one(path))
    (wanted,) = digit_segmentation.digits(read_one(saved(drawn(seven), tmp_path / "grey.png")))
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
        assert len(list(image_files.read(tmp_path / "odd.npy"))) == 28
    except ImageError as error:
        assert "expected" in str(error)  # noqa: PT017 - either will do


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
    (digit,) = digit_segmentation.digits(read_one(saved(image, tmp_path / "7.png")))
    assert digit.ink == ("light on dark" if sum(ink) > 600 else "dark on light")


def test_idx_and_npy_hold_many(seven, tmp_path):
    """Each picture has its number in its name."""
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
    """Bytes, floats of either scale, 16 bits, colours."""
    np.save(tmp_path / "7.npy", make(seven))
    (picture,) = image_files.read(tmp_path / "7.npy")
    np.testing.assert_array_equal(picture.pixels, seven)


def test_a_directory_gives_its_files_in_order(seven, tmp_path):
    """Those below as well, and no hidden ones."""
    for name in ("b.png", "a.png", "below/c.png", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        saved(Image.fromarray(seven), tmp_path / name)
    assert [path.name for path in image_files.files_in(tmp_path)] == ["a.png", "b.png", "c.png"]
    with pytest.raises(ImageError, match="no file found"):
        image_files.files_in((tmp_path / "empty").mkdir() or tmp_path / "empty")


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
        (gzip.compress(b"\x00\x00\x08\x03" + struct.pack(">III", 100_000, 200, 200) + bytes(1000)), "expected at most"),
        (b"\x93NUMPY\x01\x00", "not an array"),
        (bomb(), "too large a picture"),
    ],
)
def test_what_is_no_picture_is_named(content, told, tmp_path):
    """One sentence, with the file's name first."""
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=re.escape(told)) as error:
        list(image_files.read(path))
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def complaint(path):
    """The one sentence, naming the file, with which it is refused at once."""
    with odd_files.no_hang(), pytest.raises(ImageError) as refused:
        list(image_files.read(path))
    sentence = str(refused.value)
    assert re.fullmatch(rf"{re.escape(str(path))}[:\[][^\n]+", sentence), sentence
    assert len(sentence) < 1000
    return sentence


def test_an_array_of_objects_is_refused(tmp_path):
    """Nothing that is read can run code."""
    np.save(tmp_path / "bad.npy", np.array([{}], object), allow_pickle=True)
    assert "Python objects, which are never unpickled" in complaint(tmp_path / "bad.npy")


@pytest.mark.parametrize("kind", odd_files.KINDS)
def test_what_is_no_file_is_named_at_once(kind, tmp_path):
    """A FIFO, an endless device, a socket, a directory or a link to such: nothing waits for it."""
    assert "cannot be read" in complaint(odd_files.make(kind, tmp_path / "odd.png"))


def test_a_directory_names_what_is_no_file(seven, tmp_path):
    """What is no picture in a directory is listed, so that reading it names it, and the pictures are read."""
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
def test_other_kinds_of_files_are_named(content, kind, tmp_path):
    """What is no picture that is read here is told as what it is, and no other program is started for it."""
    (tmp_path / "odd").write_bytes(content)
    assert f", got {kind}" in complaint(tmp_path / "odd") or kind in complaint(tmp_path / "odd")


@pytest.mark.parametrize("kind", ["TIFF", "PPM", "ICO", "EPS", "PCX", "TGA", "JPEG2000"])
def test_no_other_decoder_of_pillow_runs(kind, seven, tmp_path):
    """Of all that Pillow knows, five formats are promised and read."""
    complaint(saved(drawn(seven, "RGB", 32), tmp_path / "odd", format=kind))


def npy(shape, descr="|u1", order="False", data=b"", version=1):
    """A `.npy` file whose header says what it likes."""
    header = f"{{'descr': {descr!r}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (npy("(1000000000, 0, 28)"), "no pictures found"),
        (npy("(-1, 28, 28)", data=bytes(784)), "no pictures found"),
        (npy("(0, 4294967296, 4294967296)"), "dimensions that an array can have"),
        (npy("(4294967296, 4294967296, 28)"), "dimensions that an array can have"),
        (npy(f"({10**30}, 28, 28)"), "dimensions that an array can have"),
        (npy(f"(0x{'f' * 5000}, 28, 28)"), "dimensions that an array can have"),
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
        (npy("(28, 28)", "<f8", data=np.full(784, 1e300).tobytes()), "not finite"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_header_of_an_array_that_lies_is_found_out(content, told, tmp_path):
    """Before memory is taken for what it says, and without any warning."""
    (tmp_path / "odd.npy").write_bytes(content)
    with odd_files.little_memory(512 << 20):
        assert told in complaint(tmp_path / "odd.npy")


def test_an_array_of_python_2_is_read(seven, tmp_path):
    """Its sizes end in L."""
    (tmp_path / "7.npy").write_bytes(npy("(28L, 28L)", data=seven.tobytes()))
    np.testing.assert_array_equal(read_one(tmp_path / "7.npy"), seven)


@pytest.mark.parametrize("shape", [(28, 28), (3, 28, 28), (28, 28, 3), (2, 28, 28, 4), (2, 28, 28, 1)])
def test_the_order_of_an_array_does_not_matter(shape, tmp_path):
    """Fortran's and C's, one picture or several, grey or coloured."""
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.save(tmp_path / "c.npy", array)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(array))
    c, fortran = (list(image_files.read(tmp_path / name)) for name in ("c.npy", "fortran.npy"))
    for one, other in zip(c, fortran, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_of_a_large_array_one_picture_is_in_memory(tmp_path):
    """Eight gigabytes of pictures in a sparse file are read one after the other."""
    path = tmp_path / "large.npy"
    path.write_bytes(npy("(10000000, 28, 28)"))
    os.truncate(path, path.stat().st_size + 10_000_000 * 784)
    with odd_files.little_memory(256 << 20):
        assert len(list(itertools.islice(image_files.read(path), 3))) == 3


def test_too_little_memory_is_one_sentence(tmp_path):
    """A picture within the limits of size may still be too large for the machine."""
    array, drawing = tmp_path / "large.npy", tmp_path / "large.png"
    np.save(array, np.zeros((8000, 8000), np.uint8))
    saved(Image.new("RGB", (8000, 8000)), drawing)
    for path in (array, drawing):
        with odd_files.little_memory(96 << 20):
            assert "not enough memory" in complaint(path)


def chunk(name, data):
    """A part of a PNG file."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_of(*chunks):
    """A PNG of 28 x 28 black pixels with these parts before them."""
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
def test_a_png_bomb_does_not_go_off(content, tmp_path):
    """Small parts that unfold into 128 MiB are refused or left folded."""
    (tmp_path / "bomb.png").write_bytes(content)
    with odd_files.no_hang(), odd_files.little_memory(96 << 20), suppress(ImageError):
        assert read_one(tmp_path / "bomb.png").shape == (28, 28)


@pytest.mark.parametrize(("start", "size"), [(b"GIF89a", 1 << 30), (png_of()[:33], 1 << 40), (b"\xff\xd8", 1 << 30)])
def test_a_file_too_large_for_a_picture_is_not_read(start, size, tmp_path):
    """No picture within the limits needs so many bytes, and looking through them would take minutes."""
    path = tmp_path / "sparse"
    path.write_bytes(start)
    os.truncate(path, size)
    assert "expected a picture file of at most" in complaint(path)


def test_only_the_first_frame_is_read(seven, tmp_path):
    """An animation of many large frames costs what its first one does."""
    frames = [drawn(seven, "P", 112), *(Image.new("P", (112, 112), number % 2) for number in range(500))]
    path = saved(frames[0], tmp_path / "many.gif", save_all=True, append_images=frames[1:])
    (digit,) = digit_segmentation.digits(read_one(path))
    assert digit.image.any()


def progressive(scans):
    """A large progressive JPEG, its last scan repeated until there are so many."""
    content = io.BytesIO()
    Image.new("L", (4000, 4000), 200).save(content, "JPEG", progressive=True)
    jpeg = content.getvalue()
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return jpeg[:-2] + (scans - jpeg.count(b"\xff\xda")) * last + b"\xff\xd9"


def test_a_jpeg_of_scans_without_number_is_refused(tmp_path):
    """Each scan of 100 bytes takes a pass over all pixels: a megabyte of them would take minutes."""
    (tmp_path / "ten.jpg").write_bytes(progressive(10))
    assert read_one(tmp_path / "ten.jpg").max() == 200
    (tmp_path / "many.jpg").write_bytes(progressive(10_000))
    assert "expected a JPEG of at most 100 scans" in complaint(tmp_path / "many.jpg")


def test_what_follows_a_jpeg_is_not_counted_as_its_scans(seven, tmp_path):
    """A telephone appends films and further pictures, in which any bytes may be."""
    path = saved(drawn(seven), tmp_path / "7.jpg")
    path.write_bytes(path.read_bytes() + 1000 * b"\xff\xda\0\x08")
    assert read_one(path).shape == (112, 112)


def test_a_missing_file_is_named(tmp_path):
    """As the system has it."""
    with pytest.raises(ImageError, match=r"none\.png: cannot be read \(No such file"):
        list(image_files.read(tmp_path / "none.png"))


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


def test_a_thousand_lying_headers_are_read_or_named(tmp_path):
    """Whatever the header of an array or an IDX file says: pictures, or one sentence, within the memory there is."""
    generator = np.random.default_rng(7)
    path = tmp_path / "lying"
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
            assert re.fullmatch(r"[^\n]+", str(error)), error  # noqa: PT017 - one sentence, or a picture
    assert read


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
                for picture in image_files.read(path):
                    digit_segmentation.digits(picture.pixels)
                read += 1
            except ImageError as error:
                told.append(str(error))
            slowest = max(slowest, time.monotonic() - began)
        _, highest = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert read > 100
    assert len(told) > 100
    assert all(re.fullmatch(r"[^\n]+", each) for each in told), told
    assert slowest < 20
    assert highest < 1_500_000_000
