"""The benchmark of handwriting fonts, without a network: fonts, drawings, tables."""

import collections
import json
import stat
from pathlib import Path

import numpy as np
import pytest
from matplotlib import font_manager

from benchmarks import font_drawings, font_files, fonts
from benchmarks.font_drawings import Drawing
from benchmarks.fonts import NO_DIGIT, SEVERAL, Answer
from checkpointing.errors import UserError
from mnist.images import digit_segmentation, image_files

FONT = font_files.FONTS[0]


@pytest.fixture(scope="module")
def dejavu():
    """Return the font that matplotlib brings along."""
    return Path(font_manager.findfont("DejaVu Sans"))


def installed(directory, licence=FONT.licence, weights=FONT.weights):
    """Write a package as npm installs it, without a font in its files."""
    for weight in weights:
        file = font_files.path(directory, FONT, weight)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (file.parents[1] / "package.json").write_text(json.dumps({"license": licence}))


def program(path, script):
    """Write a shell script in the place of npm."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_both_halves_have_twenty_fonts_and_no_family_in_common():
    """The halves are fixed by the fonts' names, and fonts of one family are in the same half."""
    names = [font.name for font in font_files.FONTS]
    assert len(set(names)) == len(names)
    halves = {half: [name for name in names if font_files.half(name) == half] for half in font_files.HALVES}
    assert min(map(len, halves.values())) >= 20
    families = [{name.split("-")[0] for name in half} for half in halves.values()]
    assert not families[0] & families[1]
    assert font_files.half("caveat") == font_files.half("caveat-brush") == "development"
    assert font_files.half("nanum-pen-script") == "held_out"


def test_each_digit_is_drawn_on_each_paper():
    """A font has 50 drawings, whose heights occur equally often, and whose file names state what they are."""
    found = list(font_drawings.drawings("kalam", [300, 700]))
    assert len({(each.digit, each.paper) for each in found}) == len(found) == 50
    heights = collections.Counter(each.height for each in found)
    assert max(heights.values()) - min(heights.values()) <= 1
    assert {each.weight for each in found} == {300, 700}
    assert [Drawing.from_file_name(each.file_name) for each in found] == found
    assert list(font_drawings.drawings("kalam", [300, 700])) == found


@pytest.mark.parametrize("paper", font_drawings.PAPERS)
def test_a_drawing_has_the_ink_and_the_paper_of_its_kind(paper, dejavu):
    """Equal arguments give equal pixels; the digit has the given height, and a margin except on tight pictures."""
    drawing = Drawing("8", "dejavu-sans", 400, paper, 40)
    image = font_drawings.draw(dejavu, drawing)
    pixels = np.asarray(image).astype(float)
    assert (np.asarray(font_drawings.draw(dejavu, drawing)) == pixels).all()
    assert image.height == pytest.approx(40 if paper == "tight" else 64, abs=2)
    middle, corner = pixels[image.height // 2].mean(axis=1), pixels[0, 0].mean()
    assert np.abs(middle - corner).max() > 100
    assert (corner < 128) == (paper == "dark")


def test_drawings_on_white_paper_are_found(dejavu, tmp_path):
    """`mnist.predict`'s own reader finds one digit in each PNG file."""
    weights = {400: dejavu}
    count = font_drawings.write(tmp_path / "pictures", {"dejavu-sans": weights}, [40, 120])
    files = sorted((tmp_path / "pictures").iterdir())
    assert {Drawing.from_file_name(file.name).height for file in files} == {40, 120}
    assert len(files) == count
    for file in files:
        if Drawing.from_file_name(file.name).paper == "white":
            (image,) = image_files.read(file)
            assert len(digit_segmentation.digits(image.pixels)) == 1


def test_installed_fonts_are_not_installed_again(tmp_path):
    """Npm is not started, so the benchmark needs no network the second time."""
    installed(tmp_path)
    assert font_files.install(tmp_path, [FONT], npm="no-such-program") == tmp_path


def test_without_npm_the_error_names_it(tmp_path):
    """One error with a hint."""
    with pytest.raises(UserError, match="no-such-program: No such file") as caught:
        font_files.install(tmp_path, [FONT], npm="no-such-program")
    assert "install npm" in caught.value.hint


def test_an_unreachable_registry_is_one_error(tmp_path):
    """The error has one line, with npm's reason."""
    npm = program(tmp_path / "npm", "echo 'npm error code ENOTFOUND' >&2; echo 'npm error more' >&2; exit 1")
    with pytest.raises(UserError) as caught:
        font_files.install(tmp_path / "fonts", [FONT], npm=npm)
    directory = tmp_path / "fonts"
    assert caught.value.args == (f"{directory}: the fonts could not be installed (npm error code ENOTFOUND)",)
    assert "npm ping" in caught.value.hint


@pytest.mark.parametrize("wrong", [{"licence": "MIT"}, {"licence": None}])
def test_a_package_with_another_licence_is_an_error(wrong, tmp_path):
    """The licences in the list are those of the installed packages."""
    installed(tmp_path, **wrong)
    with pytest.raises(UserError, match=r"expected licence OFL-1.1"):
        font_files.install(tmp_path, [FONT], npm="no-such-program")


def test_a_missing_weight_is_an_error(tmp_path):
    """A package that npm has installed, but that lacks a file, is named."""
    installed(tmp_path, weights=FONT.weights[:1])
    with pytest.raises(UserError, match="or a weight is missing"):
        font_files.install(tmp_path, [FONT], npm=program(tmp_path / "npm", "exit 0"))


def test_a_picture_with_no_digit_or_several_is_wrong():
    """There is a record for each digit, and one for a picture without any."""
    records = [
        {"file": f"pictures/{name}", "digit": digit}
        for name, digit in [("7.a", 7), ("1.b", None), ("4.c", 4), ("4.c", 1), ("3.d", 8)]
    ]
    found = fonts.answers(records)
    assert [each.read for each in found] == ["7", NO_DIGIT, SEVERAL, "8"]
    assert fonts.accuracy(found) == 25


def test_tables_count_by_paper_and_by_failure():
    """Rows have a column for each recipe; failures are sorted by their number."""
    names = [Drawing(digit, "kalam", 400, paper, 40).file_name for digit in "17" for paper in ("white", "dark")]
    recipes = {
        "softmax": [Answer(name, read) for name, read in zip(names, ["1", "7", "7", "1"], strict=True)],
        "cnn": [Answer(name, read) for name, read in zip(names, ["1", "7", "7", NO_DIGIT], strict=True)],
    }
    assert fonts.by(recipes, lambda drawing: drawing.paper) == [
        {"": "white", "pictures": 2, "softmax": 100, "cnn": 100},
        {"": "dark", "pictures": 2, "softmax": 0, "cnn": 0},
    ]
    assert fonts.failures(recipes)[0] == {"failure": "1 read as 7", "softmax": 1, "cnn": 1}
    assert {row["failure"] for row in fonts.failures(recipes)} == {"1 read as 7", "7 read as 1", NO_DIGIT}
