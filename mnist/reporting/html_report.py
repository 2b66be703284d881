"""Render text, plots and tables as one HTML page.

    page = html_report.render("cnn: model.ckpt-5500", headline, [Section("Checkpoints", text, rows=rows)])

The plots are inside the page, and also returned as PNG.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 130
_TEMPLATE = Path(__file__).parent / "report.html"


class Section(NamedTuple):
    """A part of the page.

    title: its heading; the plot's file is named after it.
    text: one paragraph.
    figure: a plot, or None.
    columns: names of the table's columns; empty for a table without a header.
    rows: the table's cells; empty for no table.
    """

    title: str
    text: str
    figure: Figure | None = None
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()


class Page(NamedTuple):
    """A rendered page. pngs: the plots by file name."""

    html: str
    pngs: dict[str, bytes]


def render(title: str, headline: Sequence[tuple[str, str]], sections: Sequence[Section]) -> Page:
    """Render a page.

    Args:
      title: of the page.
      headline: the most important numbers: name and value.
      sections: the parts, in order.
    """
    import jinja2  # noqa: PLC0415 - --help does not wait for it

    pngs = {section.title: _png(section.figure) for section in sections if section.figure}
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        _TEMPLATE.read_text(encoding="utf-8")
    )
    encoded = [(section, base64.b64encode(pngs.get(section.title, b"")).decode()) for section in sections]
    html = template.render(title=title, headline=headline, sections=encoded)
    return Page(html, {f"{name.lower().replace(' ', '-')}.png": png for name, png in pngs.items()})


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=_DPI)
    return content.getvalue()
