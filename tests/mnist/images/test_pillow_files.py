import re
import struct

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from mnist.errors import ImageError
from mnist.images import digit_segmentation, image_files, pillow_files
from mnist.input import dataset
from tests import odd_files

SEVERAL = {
    "TIFF": {},
    "TIFF, group 4": {"compression": "group4"},
    "TIFF, LZW": {"compression": "tiff_lzw"},
    "TIFF, JPEG": {"compression": "jpeg"},
    "GIF": {},
    "WEBP": {},
    "PNG": {},
    "MPO": {},
}
SUBFILE_TYPE, STRIP_OFFSETS, DNG_VERSION = 254, 273, 50706


@pytest.fixture(scope="module")
def three():
    """Return MNIST's first three test images, 7, 2 and 1, scaled up."""
    images = dataset.load(None, 0).test.images[:3]
    return [Image.fromarray(each).resize((112, 112), Image.Resampling.BICUBIC) for each in images]


def saved(images, path, kind, **options):
    """Write images as one file; return its path."""
    # Copies, because Pillow keeps options in the images that it saves.
    images = [
        each if hasattr(each, "encoderinfo") else each.convert("1" if "group" in kind else None) for each in images
    ]
    options = SEVERAL.get(kind, {}) | options
    images[0].save(path, kind.partition(",")[0], save_all=True, append_images=images[1:], **options)
    return path


def read(path):
    """Return the images of a file, and the messages of the errors, without its path."""
    errors = []
    with odd_files.no_hang():
        found = list(image_files.read(path, errors.append))
    assert all(str(each).startswith(str(path)) for each in (*errors, *(image.name for image in found)))
    return {each.name[len(str(path)) :]: each.pixels for each in found}, [
        str(each)[len(str(path)) :] for each in errors
    ]


@pytest.mark.parametrize("kind", SEVERAL)
def test_every_page_and_frame_is_read(kind, three, tmp_path):
    """They are numbered from 0, and each shows its digit."""
    found, errors = read(saved(three, tmp_path / "three", kind))
    assert (list(found), errors) == (["[0]", "[1]", "[2]"], [])
    for pixels, original in zip(found.values(), three, strict=True):
        ((digit,), (expected,)) = (digit_segmentation.digits(each) for each in (pixels, np.asarray(original)))
        assert np.abs(digit.image.astype(int) - expected.image).mean() < 12


@pytest.mark.parametrize("kind", SEVERAL)
def test_a_single_page_or_frame_has_no_number(kind, three, tmp_path):
    """Its name is the file's."""
    found, errors = read(saved(three[:1], tmp_path / "one", kind))
    assert (list(found), errors) == ([""], [])


@pytest.mark.parametrize("kind", [kind for kind in SEVERAL if kind not in {"WEBP", "TIFF, group 4"}])
def test_the_pages_before_a_damaged_one_are_read(kind, three, tmp_path, capfd):
    """The damaged one is an error with its number; no library writes a message."""
    path = saved(three, tmp_path / "three", kind)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.55)])
    found, errors = read(path)
    assert list(found) == ["[0]"]
    assert errors[0].startswith("[1]: the image is damaged")
    with pytest.raises(ImageError, match=re.escape("[1]: the image is damaged")):
        list(image_files.read(path))
    assert capfd.readouterr().err == ""


def test_the_pages_after_a_damaged_one_are_read(three, tmp_path):
    """Pages of a TIFF do not build on each other."""
    path = saved(three, tmp_path / "three.tif", "TIFF", compression="tiff_adobe_deflate")
    with Image.open(path) as image:
        image.seek(1)
        at = image.tag_v2[STRIP_OFFSETS][0]
    content = bytearray(path.read_bytes())
    content[at : at + 20] = bytes(20)
    path.write_bytes(content)
    found, errors = read(path)
    assert list(found) == ["[0]", "[2]"]
    assert [each[:26] for each in errors] == ["[1]: the image is damaged "]


def test_images_after_a_damaged_one_of_an_mpo_are_read(three, tmp_path):
    """An MPO states where each of its images begins."""
    path = saved(three, tmp_path / "three.jpg", "MPO")
    content = path.read_bytes()
    second = content.index(b"\xff\xd8\xff", 1000)
    path.write_bytes(content[:second] + bytes(20) + content[second + 20 :])
    found, errors = read(path)
    assert list(found) == ["[0]", "[2]"]
    assert [each[:4] for each in errors] == ["[1]:"]


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "WEBP", "PNG", "MPO"])
@pytest.mark.parametrize("limit", [("_MAX_FRAMES", 2), ("_MAX_PIXELS", 2 * 112 * 112)], ids=["images", "pixels"])
def test_the_number_of_images_and_of_pixels_is_limited(kind, limit, three, tmp_path, monkeypatch):
    """Those within the limits are read; the first one beyond is an error."""
    monkeypatch.setattr(pillow_files, *limit)
    found, errors = read(saved(three * 3, tmp_path / "many", kind))
    assert list(found) == ["[0]", "[1]"]
    assert len(errors) == 1
    assert re.match(r"\[2\]: expected at most .* images .* pixels together in a file, got more", errors[0])


def test_copies_in_a_smaller_size_are_no_pages(three, tmp_path):
    """A TIFF's thumbnail and a camera's large thumbnail show the picture again."""
    thumbnail = three[0].resize((28, 28))
    thumbnail.encoderinfo = {"tiffinfo": {SUBFILE_TYPE: 1}}
    path = saved([three[0], thumbnail], tmp_path / "two.tif", "TIFF")
    found, errors = read(path)
    assert ([each.shape for each in found.values()], list(found), errors) == ([(112, 112)], [""], [])
    path = saved(three[:2], tmp_path / "two.jpg", "MPO")
    with Image.open(path) as image:
        size = image.mpinfo[0xB002][1]["Size"]
    entry = struct.pack("<LL", 0, size)
    assert path.read_bytes().count(entry) == 1
    path.write_bytes(path.read_bytes().replace(entry, struct.pack("<LL", 0x010001, size)))
    found, errors = read(path)
    assert ([each.shape for each in found.values()], list(found), errors) == ([(112, 112)], [""], [])


def test_a_cameras_raw_image_is_refused(three, tmp_path):
    """Its first page is a thumbnail, which may not show the digit."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[DNG_VERSION] = b"\1\4\0\0"
    three[0].save(tmp_path / "photo.dng", "TIFF", tiffinfo=info)
    with pytest.raises(ImageError, match="got a camera's raw image") as refused:
        list(image_files.read(tmp_path / "photo.dng"))
    assert refused.value.hint == "export it as JPEG or PNG"


def tiff(tags, count=0):
    """Return a TIFF of one page, with numbers after its directory."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    numbers = struct.pack("<I", 8) * count
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + numbers


def test_a_tiff_of_a_million_strips_is_refused(tmp_path):
    """Pillow would take minutes to read its directory."""
    at, count = 8 + 2 + 9 * 12 + 4, 600_000
    sizes = [(256, 4, 1, 1), (257, 4, 1, count), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    strips = [(273, 4, count, at), (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, count, at)]
    (tmp_path / "strips.tif").write_bytes(tiff([*sizes, *strips], count))
    with odd_files.no_hang(10), pytest.raises(ImageError, match="expected at most 1,000,000 numbers"):
        list(image_files.read(tmp_path / "strips.tif"))


def test_a_loop_of_directories_ends(three, tmp_path):
    """A TIFF whose only page is followed by itself has one page."""
    path = saved(three[:1], tmp_path / "loop.tif", "TIFF")
    content = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, first)
    struct.pack_into("<I", content, first + 2 + 12 * entries, first)
    path.write_bytes(content)
    found, errors = read(path)
    assert (list(found), errors) == ([""], [])


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "I;16B", "F", "YCbCr"])
def test_a_tiff_of_any_mode_shows_the_same(mode, three, tmp_path):
    """Black and white, grey, colours, print colours, 16 bits and floats."""
    grey = np.asarray(three[0])
    arrays = {"I;16": grey.astype("<u2") * 257, "I;16B": grey.astype(">u2") * 257, "F": grey.astype(np.float32) / 255}
    image = Image.fromarray(arrays[mode]) if mode in arrays else three[0].convert(mode)
    found, errors = read(saved([image], tmp_path / "page.tif", "TIFF"))
    assert errors == []
    ((digit,), (expected,)) = (digit_segmentation.digits(each) for each in (found[""], grey))
    assert np.abs(digit.image.astype(int) - expected.image).mean() < 12
