"""Name what a file holds by its first bytes, for the error about a file in another format."""

import re
import struct
from typing import NamedTuple

START_BYTES = 512  # so many first bytes are enough

_IDX_TYPES = {
    0x08: "unsigned bytes",
    0x09: "signed bytes",
    0x0B: "16-bit integers",
    0x0C: "32-bit integers",
    0x0D: "32-bit floats",
    0x0E: "64-bit floats",
}
_IDX_MAX_DIMENSIONS = 8
_QMNIST_LABELS = (0x0C, (8,))  # type and number of columns

_ZIP_MAGIC = b"PK\x03\x04"
_ZIP_NAME = slice(30, None)  # where the name of the first member begins


class FileKind(NamedTuple):
    """What a file holds, with an article, and what to do about it."""

    name: str
    hint: str | None


_EMPTY = FileKind("an empty file", "download the file again")

# How the files begin.
_KINDS = {
    rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body|!--)": FileKind(
        "a web page (HTML)", "download the file again: a server's page was saved in its place"
    ),
    rb"<\?xml": FileKind("an XML page", "download the file again: a server's answer was saved in its place"),
    rb"version https://git-lfs": FileKind("a Git LFS pointer", "run git lfs pull, or download the file itself"),
    rb"\x1f\x8b": FileKind("gzip data", "unpack it with gunzip"),
    rb"bzh": FileKind("bzip2 data", "unpack it with bunzip2"),
    rb"\xfd7zxz": FileKind("xz data", "unpack it with unxz"),
    rb"7z\xbc\xaf": FileKind("a 7z archive", "unpack it"),
    rb"rar!": FileKind("a RAR archive", "unpack it"),
    rb".{257}ustar": FileKind("a tar archive", "unpack it with tar"),
    rb"\x93NUMPY": FileKind("a .npy array", None),
    rb"\x89HDF": FileKind("an HDF5 file", None),
    rb"MATLAB ": FileKind("a MATLAB file", None),
    rb"PAR1": FileKind("a Parquet file", None),
    rb"\x80[\x02-\x05]": FileKind("a Python pickle, which is never read", None),
    rb"\x89PNG": FileKind("a PNG picture", None),
    rb"\xff\xd8\xff": FileKind("a JPEG picture", None),
    rb"%PDF": FileKind("a PDF document", None),
    rb"(\xef\xbb\xbf)?(\"?(label|class|pixel_?\d+|1x1)\"?,|\s*\d+\s*,\s*\d+\s*,)": FileKind(
        "a CSV table", "name the two tables mnist_train.csv and mnist_test.csv"
    ),
    rb"\0{5,}\Z": FileKind("zero bytes only", "download the file again"),
}


def name(start: bytes) -> FileKind:
    """Name the format of a file.

    Args:
      start: the first START_BYTES bytes of the file, or the whole file if it is shorter.
    """
    if not start:
        return _EMPTY
    if start.startswith(_ZIP_MAGIC):
        return _zip_kind(start)
    if idx := _idx_kind(start):
        return FileKind(idx, None)
    found = (kind for pattern, kind in _KINDS.items() if re.match(pattern, start, re.IGNORECASE | re.DOTALL))
    return next(found, FileKind(f"the first bytes [{start[:4].hex(' ')}]", None))


def idx_name(type_: int, dimensions: int) -> str:
    """Name an IDX file, as in "an IDX file of unsigned bytes with 3 dimensions"."""
    return f"an IDX file of {_IDX_TYPES[type_]} with {dimensions} dimension{'s' if dimensions > 1 else ''}"


def _zip_kind(start: bytes) -> FileKind:
    (name_bytes,) = struct.unpack("<H", start[26:28]) if len(start) >= _ZIP_NAME.start else (0,)
    if start[_ZIP_NAME][:name_bytes].endswith(b".npy"):
        return FileKind("an .npz archive", "name the file mnist.npz")
    return FileKind("a zip archive", "unpack it with unzip")


def _idx_kind(start: bytes) -> str | None:
    zeros, type_, dimensions = start[:2], *start[2:4].ljust(2, b"\0")
    if zeros != b"\0\0" or type_ not in _IDX_TYPES or not 0 < dimensions <= _IDX_MAX_DIMENSIONS:
        return None
    sizes = start[4 : 4 + 4 * dimensions]
    if len(sizes) < 4 * dimensions:
        return idx_name(type_, dimensions)
    shape = struct.unpack(f">{dimensions}I", sizes)
    of_qmnist = ", the labels of QMNIST" if (type_, shape[1:]) == _QMNIST_LABELS else ""
    return f"{idx_name(type_, dimensions)} ({' x '.join(map(str, shape))}{of_qmnist})"
