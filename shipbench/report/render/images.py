"""Figures as files, and as inline SVG that follows the colours of the page."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shipbench.report.document import Figure
from shipbench.report.figures.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    PINK,
    PURPLE,
    RULE,
    SKY,
    VERMILION,
    style,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MplFigure

_DPI = 220
_DATES = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
}
_THEME = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    PAPER: "paper",
    BLUE: "blue",
    VERMILION: "vermilion",
    GREEN: "green",
    PINK: "pink",
    ORANGE: "orange",
    SKY: "sky",
    GREY: "grey",
    PURPLE: "purple",
}
_COLOURS = re.compile("|".join(_THEME))
_HEAD = re.compile(r"^.*?(?=<svg )", re.DOTALL)
_UNSEEN = re.compile(r"\s*<metadata>.*?</metadata>|\s*<!--.*?-->", re.DOTALL)
_OUTLINES = re.compile(rb'\sd="[^"]*"')
_DECIMALS = re.compile(rb"(\.\d\d)\d+")
_IDS = re.compile(r'(\bid="|href="#|url\(#)')


def images(figure: Figure, suffixes: Sequence[str]) -> dict[str, bytes]:
    """Draw ``figure`` once and return it in each of the formats ``suffixes`` (png, svg, pdf)."""
    if not suffixes:
        return {}
    with style():
        drawn = figure.draw()
        _solve_layout(drawn)
        return {suffix: _save(drawn, suffix) for suffix in suffixes}


def _solve_layout(drawn: MplFigure) -> None:
    """Place the axes once; solving the layout again for every format would take most of the time."""
    engine = drawn.get_layout_engine()
    if engine is not None:
        engine.execute(drawn)
        drawn.set_layout_engine("none")


def _save(drawn: MplFigure, suffix: str) -> bytes:
    stream = io.BytesIO()
    drawn.savefig(stream, format=suffix, dpi=_DPI, metadata=_DATES[suffix])
    return _shortened(stream.getvalue()) if suffix == "svg" else stream.getvalue()


def _shortened(svg: bytes) -> bytes:
    """Round outlines to two decimals of a point, which stays below a tenth of a pixel on a page."""
    return _OUTLINES.sub(lambda match: _DECIMALS.sub(rb"\1", match[0]), svg)


def inline_svg(svg: bytes, name: str) -> str:
    """Return an SVG for a page: unique ids, width set by the page, and theme colours as CSS variables."""
    text = _UNSEEN.sub("", _HEAD.sub("", svg.decode("utf-8"), count=1))
    text = _IDS.sub(lambda match: f"{match[1]}{name}-", text)
    text = _COLOURS.sub(lambda match: f"var(--fig-{_THEME[match[0]]}, {match[0]})", text)
    return _sized(text)


def _sized(text: str) -> str:
    """Replace the size of the SVG by a style with its natural width in CSS pixels; its height follows."""
    start, end = text.index("<svg "), text.index(">", text.index("<svg "))
    tag = text[start:end]
    width = re.search(r'\swidth="([\d.]+)pt"', tag)
    pixels = round(float(width[1]) * 96 / 72) if width else 600
    tag = re.sub(r'\s(?:width|height)="[\d.]+pt"', "", tag)
    return f'{tag} style="--width: {pixels}px" aria-hidden="true" focusable="false"{text[end:]}'
