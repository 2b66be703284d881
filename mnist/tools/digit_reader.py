"""Find the digits in image files, and predict their classes in batches."""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from checkpointing.storage import durable
from mnist.errors import ImageError
from mnist.images import digit_segmentation, image_files
from mnist.images.digit_segmentation import Digit
from mnist.images.ink import Floats
from mnist.input.idx import Bytes

Arrays = Mapping[str, np.ndarray[Any, Any]]
# A class, and the probabilities of all: float32 [10].
_Reading = tuple[int, Floats]
_Item = TypeVar("_Item")

_BATCH = 500
# With label smoothing a model never exceeds 0.91; of images like MNIST's, few are below this.
_CONFIDENT = 0.7
_RUNNERS_UP = 3
_BLANK = "no digit found: the picture is blank, or nothing but noise"
_SHADES, _ASCII_SHADES = " ░▒▓█", " .:+#"


class FoundDigit(NamedTuple):
    """A digit in an image file.

    name: of the file, with the image's number if the file holds several.
    digit: None if there is no digit in the image.
    """

    name: str
    digit: Digit | None


def find_digits(paths: Sequence[Path], report: Callable[[ImageError], object]) -> Iterator[FoundDigit]:
    """Find the digits in files, and in the files of directories.

    Args:
      paths: files and directories.
      report: called with an error for each file or image that cannot be read, and each image without a digit.
    """
    for path in paths:
        try:
            files = image_files.files_in(path)
        except ImageError as error:
            report(error)
            continue
        for file in files:
            try:
                for picture in image_files.read(file, report):
                    digits = digit_segmentation.digits(picture.pixels)
                    if not digits:
                        report(ImageError(f"{picture.name}: {_BLANK}"))
                        yield FoundDigit(picture.name, None)
                    yield from (FoundDigit(picture.name, digit) for digit in digits)
            except ImageError as error:
                report(error)


def predict(
    model: Callable[[Arrays], Arrays], found: Iterable[FoundDigit]
) -> Iterator[tuple[FoundDigit, dict[str, Any]]]:
    """Predict the classes of digits. Memory does not grow with their number.

    Args:
      model: maps images, uint8 [N, 28, 28], to classes, int64 [N], and probabilities, float32 [N, 10].
      found: the digits.

    Yields:
      Each digit with a record for JSON: file, digit, probability, runners_up, warnings.
    """
    for batch in _batches(found):
        digits = [each.digit for each in batch if each.digit]
        read = iter(_read(model, [digit.image for digit in digits]))
        halves = iter(_read(model, [half for digit in digits for pair in digit.halves for half in pair]))
        for each in batch:
            if each.digit is None:
                yield each, _blank_record(each)
                continue
            record = _record(each, *next(read))
            pairs = [(next(halves), next(halves)) for _ in each.digit.halves]
            record["warnings"] += _warnings(record, pairs)
            yield each, record


def _read(model: Callable[[Arrays], Arrays], images: Sequence[Bytes]) -> Iterator[_Reading]:
    """Yield the class and the probabilities, [10], of each image."""
    for batch in _batches(images):
        outputs = model({"images": np.stack(batch)})
        yield from zip(outputs["classes"].tolist(), outputs["probabilities"], strict=True)


def _warnings(record: Mapping[str, Any], pairs: Sequence[tuple[_Reading, _Reading]]) -> list[str]:
    """Say what else a digit may be: another one, or two of which the model is more certain than of the whole."""
    found = []
    if record["probability"] < _CONFIDENT:
        found.append(f"unsure: it could be {record['runners_up'][0]['digit']} as well")
    if pairs:
        (left, _), (right, _) = surest = max(pairs, key=_certainty)
        if _certainty(surest) > record["probability"]:
            found.append(f"it may be two digits that touch: {left} and {right}")
    return found


def _certainty(readings: Sequence[_Reading]) -> float:
    return min(float(probabilities.max()) for _, probabilities in readings)


def _batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    remaining = iter(items)
    while batch := list(islice(remaining, _BATCH)):
        yield batch


def _blank_record(found: FoundDigit) -> dict[str, Any]:
    return {"file": found.name, "digit": None, "probability": None, "runners_up": [], "warnings": [_BLANK]}


def _record(found: FoundDigit, digit: int, probabilities: np.ndarray[Any, Any]) -> dict[str, Any]:
    assert found.digit is not None
    others = [int(each) for each in np.argsort(-probabilities, kind="stable") if each != digit][:_RUNNERS_UP]
    return {
        "file": found.name,
        "digit": int(digit),
        "probability": _rounded(probabilities[digit]),
        "runners_up": [{"digit": each, "probability": _rounded(probabilities[each])} for each in others],
        "warnings": list(found.digit.warnings),
    }


def _rounded(probability: float) -> float:
    return round(float(probability), 6)


def in_words(found: FoundDigit, record: Mapping[str, Any]) -> str:
    """Return a prediction as a line for people."""
    assert found.digit is not None
    others = ", ".join(f"{each['digit']} {each['probability']:.3f}" for each in record["runners_up"])
    warnings = "".join(f"; warning: {each}" for each in record["warnings"])
    return f"{found.name}: {record['digit']}  {record['probability']:.3f}  (then {others}; {found.digit.ink}{warnings})"


def as_text(image: Bytes, encoding: str = "utf-8") -> str:
    """Draw an image (uint8 [28, 28]) as text, two characters per pixel, in ASCII if the encoding has no blocks."""
    shades = _SHADES if _SHADES.encode(encoding, "ignore").decode(encoding) == _SHADES else _ASCII_SHADES
    shade = (image.astype(int) * (len(shades) - 1) + 127) // 255
    return "\n".join("".join(shades[value] * 2 for value in row).rstrip() for row in shade)


def write_png(image: Bytes, path: Path) -> None:
    """Write an image (uint8 [28, 28]) as a PNG file; make the directory if it is missing."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    durable.make_directory(path.parent)
    durable.atomic_write(path, content.getvalue())
