"""Handwriting fonts, installed from the npm registry: names, licences, weights, and their split into two halves.

    directory = font_files.install(Path("runs/benchmarks/fonts"))
    font_files.path(directory, FONTS[0], FONTS[0].weights[0])

All are packages `@fontsource/NAME`, which hold the fonts of Google Fonts as `.woff` files. Left out although their
category is handwriting or similar, after a look at their digits: zcool-kuaile (polygons), finger-paint (white scratches
inside the strokes), comic-neue (printed type).
"""

import json
import subprocess
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from checkpointing.errors import UserError

VERSION = "5.3.0"  # of all packages

_OFL, _APACHE = "OFL-1.1", "Apache-2.0"
_REGULAR = (400,)


class Font(NamedTuple):
    """A font. name: of its package, without the scope. licence: SPDX. weights: 400 is regular, 700 is bold."""

    name: str
    licence: str = _OFL
    weights: tuple[int, ...] = _REGULAR


FONTS = (
    Font("amatic-sc", weights=(400, 700)),
    Font("annie-use-your-telescope"),
    Font("architects-daughter"),
    Font("bad-script"),
    Font("caveat", weights=(400, 700)),
    Font("caveat-brush"),
    Font("cedarville-cursive"),
    Font("chilanka"),
    Font("cookie"),
    Font("covered-by-your-grace"),
    Font("damion"),
    Font("dancing-script", weights=(400, 700)),
    Font("delicious-handrawn"),
    Font("delius"),
    Font("gaegu", weights=(300, 400, 700)),
    Font("gloria-hallelujah"),
    Font("gochi-hand"),
    Font("handlee"),
    Font("homemade-apple", _APACHE),
    Font("indie-flower"),
    Font("itim"),
    Font("kalam", weights=(300, 400, 700)),
    Font("licorice"),
    Font("liu-jian-mao-cao"),
    Font("long-cang"),
    Font("mansalva"),
    Font("marck-script"),
    Font("nanum-brush-script"),
    Font("nanum-pen-script"),
    Font("neucha"),
    Font("oooh-baby"),
    Font("patrick-hand"),
    Font("permanent-marker", _APACHE),
    Font("playpen-sans", weights=(200, 400, 800)),
    Font("poor-story"),
    Font("reenie-beanie"),
    Font("rock-salt", _APACHE),
    Font("sacramento"),
    Font("satisfy", _APACHE),
    Font("schoolbell", _APACHE),
    Font("shadows-into-light"),
    Font("shantell-sans", weights=(300, 400, 800)),
    Font("short-stack"),
    Font("sriracha"),
    Font("sue-ellen-francisco"),
    Font("swanky-and-moo-moo"),
    Font("the-girl-next-door"),
    Font("yomogi"),
    Font("yusei-magic"),
    Font("zen-kurenaido"),
    Font("zhi-mang-xing"),
)

HALVES = ("development", "held_out")


def half(name: str) -> str:
    """Return the half of a font: preprocessing is developed on one, the other is only measured.

    The rule: the crc32 of the name's first word, even or odd. Fonts of one family are in the same half.
    """
    return HALVES[zlib.crc32(name.split("-", maxsplit=1)[0].encode()) % 2]


def path(directory: Path, font: Font, weight: int) -> Path:
    """Return the file with a font's digits."""
    return _package(directory, font) / "files" / f"{font.name}-latin-{weight}-normal.woff"


def _package(directory: Path, font: Font) -> Path:
    return directory / "node_modules" / "@fontsource" / font.name


def install(directory: Path, fonts: Sequence[Font] = FONTS, npm: str = "npm") -> Path:
    """Install the fonts that are missing, with npm; return the directory.

    Raises:
      UserError: npm is missing or fails, for example because the registry cannot be reached; or a package holds
        something else than stated here.
    """
    if missing := [font for font in fonts if not _is_installed(directory, font)]:
        names = [f"@fontsource/{font.name}@{VERSION}" for font in missing]
        flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--fetch-retries=1"]
        print(f"installing {len(names)} fonts into {directory}", flush=True)
        try:
            subprocess.run(
                [npm, "install", f"--prefix={directory}", *flags, *names], check=True, capture_output=True, text=True
            )
        except OSError as error:
            raise UserError(f"{npm}: {error.strerror}", hint="install npm, which downloads the fonts") from error
        except subprocess.CalledProcessError as error:
            said = next(iter(error.stderr.strip().splitlines()), "no message")
            message = f"{directory}: the fonts could not be installed ({said})"
            raise UserError(message, hint="check that npm reaches its registry: npm ping") from error
    for font in fonts:
        _check(directory, font)
    return directory


def _is_installed(directory: Path, font: Font) -> bool:
    return all(path(directory, font, weight).is_file() for weight in font.weights)


def _check(directory: Path, font: Font) -> None:
    found = json.loads((_package(directory, font) / "package.json").read_text())["license"]
    if found != font.licence or not _is_installed(directory, font):
        expected = f"licence {font.licence} and weights {font.weights}"
        raise UserError(
            f"{_package(directory, font)}: expected {expected}, got licence {found}, or a weight is missing"
        )
