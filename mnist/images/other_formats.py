"""Name the format of a file that is not read, and what to do about it. Only the file's first bytes are used."""

import re

FIRST_BYTES = 4096

_AS_PICTURE = "save it as JPEG or PNG"
_EXPORTED = "export it as JPEG or PNG"
_PAGES = "save its pages as PNG, or as one TIFF"
_UNPACK = "unpack it, and give the images in it"
_GOOD_COPY = "download or copy the file again"

RAW = ("a camera's raw image", _EXPORTED)

# The file's first bytes, the name of the format and the hint. The first that fits counts.
_STARTS = (
    (rb"%!PS|\xc5\xd0\xd3\xc6", "EPS or PostScript", _PAGES),
    (rb".{0,1020}?%PDF-", "PDF", _PAGES),
    (rb"\0\0\0.ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", "HEIC", _AS_PICTURE),
    (rb"\0\0\0.ftypavi[fs]", "AVIF", _AS_PICTURE),
    (rb"\0\0\0.ftypcrx |(II|MM)(R[OS]|U\0)|FUJIFILMCCD-RAW|FOVb|\0MR[MI]", *RAW),
    (rb"....(ftyp|moov|mdat)|\x1a\x45\xdf\xa3|RIFF....AVI ", "a video", "save a frame of it as JPEG or PNG"),
    (rb"(?i:(\xef\xbb\xbf)?\s*<(!doctype\s+)?html)", "a web page", _GOOD_COPY),
    (rb"(\xef\xbb\xbf)?\s*(<[?!].*)?<(svg:)?svg\b", "SVG", _EXPORTED),
    (rb"(\xef\xbb\xbf)?\s*<\?xml", "XML", _EXPORTED),
    (rb"version https://git-lfs", "a Git LFS pointer", "run `git lfs pull`"),
    (rb"PK\x03\x04.{22}.{4}(\[Content_Types\]\.xml|_rels/|docProps/|word/|ppt/|xl/)", "DOCX, PPTX or XLSX", _PAGES),
    (rb"PK\x03\x04.{26}mimetypeapplication/", "OpenDocument or EPUB", _PAGES),
    (rb"PK\x03\x04.{26}[^\0/]*\.npy", ".npz", "save each array as .npy with numpy.save"),
    (rb"PK(\x03\x04|\x05\x06|\x07\x08)", "a zip file, maybe .npz", _UNPACK),
    (rb"Rar!\x1a\x07|7z\xbc\xaf\x27\x1c|BZh\d|\xfd7zXZ\0|\x28\xb5\x2f\xfd", "an archive", _UNPACK),
    (rb".{257}ustar", "a tar file", _UNPACK),
    (rb"\x80[\x02-\x05]", "a Python pickle, which is never loaded", "save the array with numpy.save"),
    (rb"\x89HDF\r\n\x1a\n", "HDF5", "save the array with numpy.save"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000", _AS_PICTURE),
    (rb"\0\0\0\x0cJXL |\xff\x0a", "JPEG XL", _AS_PICTURE),
    (rb"(II\x2b\0|MM\0\x2b)", "BigTIFF", "save it as TIFF or PNG"),
    (rb"(II\*\0|MM\0\*)", "a damaged TIFF, or a kind that is not read", "save it as PNG"),
    (rb"8BPS|gimp xcf|AT&TFORM|\xd7\xcd\xc6\x9a|.{40} EMF", "a drawing program's file", _EXPORTED),
    (rb"\0\0[\1\2]\0|P[1-7]\s|#\?RADIANCE|qoif|icns", "another picture format", _AS_PICTURE),
)
_PATTERNS = tuple((re.compile(pattern, re.DOTALL), name, hint) for pattern, name, hint in _STARTS)


def describe(start: bytes) -> tuple[str, str]:
    """Return the format of a file that begins with these bytes, and what to do about it."""
    for pattern, name, hint in _PATTERNS:
        if pattern.match(start):
            return name, hint
    return "another format or a damaged file", "convert it to one of these formats"
