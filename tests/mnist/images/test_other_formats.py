import struct

import pytest

from mnist.errors import ImageError
from mnist.images import image_files, other_formats


def box(brand):
    """Return the beginning of a file of ISO media."""
    return struct.pack(">I4s4s", 24, b"ftyp", brand) + bytes(12)


def zipped(name, content=b""):
    """Return the header of the first file in a zip file."""
    return b"PK\x03\x04" + bytes(22) + struct.pack("<HH", len(name), 0) + name + content


FORMATS = [
    (box(b"heic"), "HEIC", "save it as JPEG or PNG"),
    (box(b"mif1"), "HEIC", "save it as JPEG or PNG"),
    (box(b"avif"), "AVIF", "save it as JPEG or PNG"),
    (box(b"crx "), "a camera's raw image", "export it as JPEG or PNG"),
    (b"IIU\0" + bytes(20), "a camera's raw image", "export it as JPEG or PNG"),
    (b"FUJIFILMCCD-RAW 0201", "a camera's raw image", "export it as JPEG or PNG"),
    (box(b"isom"), "a video", "save a frame of it as JPEG or PNG"),
    (b"%PDF-1.7\n", "PDF", "save its pages as PNG, or as one TIFF"),
    (b"\r\n%PDF-1.4\n", "PDF", "save its pages as PNG, or as one TIFF"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n", "EPS or PostScript", "save its pages as PNG, or as one TIFF"),
    (b"\xc5\xd0\xd3\xc6" + bytes(28), "EPS or PostScript", "save its pages as PNG, or as one TIFF"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG", "export it as JPEG or PNG"),
    (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- a -->\n<svg width='1'>", "SVG", "export it as JPEG or PNG"),
    (b"<!DOCTYPE svg PUBLIC '-//W3C//DTD SVG 1.1//EN'>\n<svg>", "SVG", "export it as JPEG or PNG"),
    (b"<?xml version='1.0'?>\n<note/>", "XML", "export it as JPEG or PNG"),
    (b"<!DOCTYPE html>\n<html><body><svg/>", "a web page", "download or copy the file again"),
    (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer", "run `git lfs pull`"),
    (zipped(b"[Content_Types].xml"), "DOCX, PPTX or XLSX", "save its pages as PNG, or as one TIFF"),
    (zipped(b"word/document.xml"), "DOCX, PPTX or XLSX", "save its pages as PNG, or as one TIFF"),
    (zipped(b"mimetype", b"application/vnd.oasis"), "OpenDocument or EPUB", "save its pages as PNG, or as one TIFF"),
    (zipped(b"x_train.npy"), ".npz", "save each array as .npy with numpy.save"),
    (zipped(b"photos/7.png"), "a zip file, maybe .npz", "unpack it, and give the images in it"),
    (b"Rar!\x1a\x07\x01\0", "an archive", "unpack it, and give the images in it"),
    (bytes(257) + b"ustar\0", "a tar file", "unpack it, and give the images in it"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000", "save it as JPEG or PNG"),
    (b"\xff\x0a" + bytes(8), "JPEG XL", "save it as JPEG or PNG"),
    (b"8BPS\0\1", "a drawing program's file", "export it as JPEG or PNG"),
    (b"P5\n28 28\n255\n", "another picture format", "save it as JPEG or PNG"),
    (b"hello", "another format or a damaged file", "convert it to one of these formats"),
]


@pytest.mark.parametrize(
    ("content", "name", "hint"), FORMATS, ids=[f"{name}-{n}" for n, (_, name, _) in enumerate(FORMATS)]
)
def test_a_format_is_named_with_what_to_do(content, name, hint, tmp_path):
    """The error has the file, the formats that are read, and the format found; the hint says what to do."""
    (tmp_path / "picture.jpg").write_bytes(content)
    with pytest.raises(ImageError) as refused:
        list(image_files.read(tmp_path / "picture.jpg"))
    expected = "expected PNG, JPEG, GIF, BMP, WebP, TIFF, IDX or .npy"
    assert str(refused.value) == f"{tmp_path / 'picture.jpg'}: {expected}, got {name}"
    assert refused.value.hint == hint


def test_any_bytes_have_a_description():
    """An empty file and bytes that say nothing, too."""
    for content in (b"", b"\0", bytes(4096), b"<" * 4096, b"PK\x03\x04"):
        name, hint = other_formats.describe(content)
        assert name
        assert hint
