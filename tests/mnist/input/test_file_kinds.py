import gzip
import io
import tarfile
import zipfile

import numpy as np
import pytest

from mnist.input import file_kinds


def archive(write):
    """The bytes of an archive that a function writes to a file."""
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def zip_of(file):
    """Write a zip archive of one text file."""
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr("train-images-idx3-ubyte", "content")


def tar_of(file):
    """Write a tar archive of one empty file."""
    with tarfile.open(fileobj=file, mode="w") as opened:
        opened.addfile(tarfile.TarInfo("train-images-idx3-ubyte"))


KINDS = {
    "an empty file": b"",
    "a web page (HTML)": b'\n<!doctype HTML><html lang="en">403 Forbidden</html>',
    "an XML page": b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code></Error>',
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9912422\n",
    "gzip data": gzip.compress(b"content"),
    "a zip archive": archive(zip_of),
    "an .npz archive": archive(lambda file: np.savez(file, x_train=np.zeros(3))),
    "a tar archive": archive(tar_of),
    "a .npy array": archive(lambda file: np.save(file, np.zeros(3))),
    "a CSV table": b"label,pixel0,pixel1\n5,0,0\n",
    "an IDX file of 32-bit integers with 1 dimension (60000)": b"\0\0\x0c\x01\0\0\xea\x60",
    "an IDX file of 32-bit integers with 2 dimensions (60000 x 8, the labels of QMNIST)": (
        b"\0\0\x0c\x02\0\0\xea\x60\0\0\0\x08"
    ),
    "an IDX file of unsigned bytes with 3 dimensions": b"\0\0\x08\x03\0\0",
    "zero bytes only": bytes(100),
    "the first bytes [6e 6f 74 20]": b"not any of these",
}


@pytest.mark.parametrize(("name", "content"), KINDS.items(), ids=KINDS)
def test_the_format_is_named(name, content):
    """By the first bytes of the file."""
    assert file_kinds.name(content[: file_kinds.START_BYTES]).name == name


@pytest.mark.parametrize("start", [b"5,0,0,0\n", b"\xef\xbb\xbflabel,1x1\n", b"pixel0,pixel1\n", b'"label","pixel0"\n'])
def test_csv_is_recognised_with_and_without_a_header(start):
    """Headers of Kaggle's tables, quoted or not, a byte order mark, and numbers alone."""
    assert file_kinds.name(start).name == "a CSV table"


def test_any_bytes_have_a_name():
    """No start of a file raises."""
    generator = np.random.default_rng(0)
    for size in [*range(1, 40), file_kinds.START_BYTES]:
        for first in (b"", b"PK\x03\x04", b"\0\0\x08", b"\0\0\x0c\x02"):
            assert file_kinds.name(first + generator.bytes(size)).name
