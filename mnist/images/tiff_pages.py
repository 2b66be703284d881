"""Find the pages of a TIFF file that are pictures, before Pillow reads it.

Source: TIFF 6.0, "Image File Directory": pages are a chain of directories, each a list of entries of 12 bytes.
"""

import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mnist.errors import ImageError
from mnist.images import other_formats
from mnist.input import regular_file

BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}

# Pillow takes 10 us for each number in a directory, for example the position of a strip.
_MAX_NUMBERS = 1_000_000
_TYPES_OF_BYTES, _SHORT = {1, 2, 7}, 3  # bytes are read as one value

_SUBFILE_TYPE, _PHOTOMETRIC, _SUB_DIRECTORIES, _DNG_VERSION = 254, 262, 330, 50706
_REDUCED, _MASK = 1, 4  # bits of the subfile type: a smaller copy of another page, a transparency mask
_RAW_PHOTOMETRICS = {32803, 34892}  # colour filter array, linear raw
_CANON_RAW = b"CR"


class _Page(NamedTuple):
    """What a directory says; `entries` are the first values by tag, none if it is damaged."""

    entries: dict[int, int]
    numbers: int

    @property
    def is_picture(self) -> bool:
        return not self.entries.get(_SUBFILE_TYPE, 0) & (_REDUCED | _MASK)

    @property
    def is_raw(self) -> bool:
        return _DNG_VERSION in self.entries or self.entries.get(_PHOTOMETRIC) in _RAW_PHOTOMETRICS


def find(path: Path, file: BinaryIO, max_pages: int) -> list[int]:
    """Return the numbers of the pages that are no thumbnails and no masks, `max_pages` at most and one more.

    A damaged page is among them: reading it raises an error.

    Raises:
      ImageError: it is a camera's raw image, or Pillow would take minutes for it.
    """
    file.seek(0)
    start = file.read(10)
    pages = _pages(path, file, BYTE_ORDERS[start[:4]], max_pages)
    pictures = [number for number, page in enumerate(pages) if page.is_picture]
    only_thumbnails = not pictures and any(_SUB_DIRECTORIES in page.entries for page in pages)
    if start.endswith(_CANON_RAW) or only_thumbnails or any(page.is_raw for page in pages):
        name, hint = other_formats.RAW
        raise ImageError(f"{path}: expected a picture, got {name}", hint=hint)
    return pictures or list(range(len(pages)))


def _pages(path: Path, file: BinaryIO, order: str, max_pages: int) -> list[_Page]:
    pages: list[_Page] = []
    file_bytes = regular_file.size(file)
    file.seek(4)
    at, seen, numbers = _number(file, order), set[int](), 0
    while at and at not in seen and len(pages) <= max_pages:
        seen.add(at)
        file.seek(at)
        page = _read_page(file, order, file_bytes)
        pages.append(page)
        numbers += page.numbers
        if numbers > _MAX_NUMBERS:
            message = f"{path}: expected at most {_MAX_NUMBERS:,} numbers in the directories of a TIFF, got more"
            raise ImageError(message, hint="save it as PNG")
        at = _number(file, order) if page.entries else 0
    return pages


def _number(file: BinaryIO, order: str) -> int:
    content = file.read(4)
    return int(struct.unpack(f"{order}I", content)[0]) if len(content) == 4 else 0  # noqa: PLR2004 - bytes


def _read_page(file: BinaryIO, order: str, file_bytes: int) -> _Page:
    """Read a directory; the file's position is then at the place of the next one's."""
    content = file.read(2)
    count = struct.unpack(f"{order}H", content)[0] if len(content) == 2 else 0  # noqa: PLR2004 - bytes
    content = file.read(12 * count)
    if not count or len(content) < 12 * count:
        return _Page({}, 1)
    entries, numbers = {}, 0
    for tag, kind, values, data in struct.iter_unpack(f"{order}HHI4s", content):
        entries[tag] = int(struct.unpack_from(f"{order}{'H' if kind == _SHORT else 'I'}", data)[0])
        numbers += 1 if kind in _TYPES_OF_BYTES or values > file_bytes else max(1, values)  # damaged: Pillow skips it
    return _Page(entries, numbers)
