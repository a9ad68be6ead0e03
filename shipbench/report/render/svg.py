"""Drawings as SVG: a file of its own, or a part of a page that follows its theme and answers the pointer."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from html import escape
from itertools import chain, compress, groupby
from operator import sub

from shipbench.report.drawing.palette import THEME, rgb
from shipbench.report.drawing.shapes import Drawing, Grid, Marker, Path, Shape, Text, outline

_FONT = "Verdana, DejaVu Sans, sans-serif"
_SERIF = "STIX Two Text, Times New Roman, serif"
_CELL_PIXELS = 8
_VALUES = re.compile(r' data-tip="([^"]*)"(?: data-form="([^"]*)")?')
_NUMBERS = re.compile(r"([-\N{MINUS SIGN}]?\d[\d.,]*(?:e[-+]?\d+)?)")
# A sign parts a step from the one before it, and so does a point after a point.
_BETWEEN = re.compile(r" (?=-)|(?<=\.\d) (?=\.)")
# Stands for a number in the form of several texts.
_GAP = "#"
# Parts the texts of a shape, none of which has a line break.
_PART = "\n"


def svg_file(drawing: Drawing, *, serif: bool = False) -> bytes:
    """Return the drawing as an SVG file on white paper."""
    size = f'width="{_number(drawing.width)}pt" height="{_number(drawing.height)}pt"'
    paper = f'<rect width="{_number(drawing.width)}" height="{_number(drawing.height)}" fill="#fefefe"/>'
    font = f'font-family="{_SERIF if serif else _FONT}"'
    body = "\n".join(_shape(shape, str, interactive=False) for shape in drawing.shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="{_box(drawing)}" {font}>\n{paper}\n{body}\n</svg>\n'
    ).encode()


def inline_svg(drawing: Drawing, screen: str = "") -> str:
    """Return the drawing for a page: theme colours as CSS variables, series keys and exact values as attributes.

    ``screen`` names the class of screens that show it, all if empty.
    """
    shown = f' class="{screen}"' if screen else ""
    look = f'style="--width: {round(drawing.width * 96 / 72)}px" aria-hidden="true" focusable="false"'
    body = "".join(_together(list(alike)) for _, alike in groupby(drawing.shapes, key=_look))
    return f'<svg{shown} viewBox="{_box(drawing)}" {look}>{body}</svg>'


def without_values_of(svg: str, other: str) -> str:
    """Return ``svg`` with its exact values emptied if ``other`` has the same; the page's script takes them from there.

    Large drawings are mostly values, and a page holds up to two drawings of a figure.
    """
    return _VALUES.sub(' data-tip=""', svg) if _VALUES.findall(svg) == _VALUES.findall(other) else svg


def _look(shape: Shape) -> tuple[object, ...]:
    """Return what solid data points of one series share; it differs for every other shape.

    Points with corners and texts stay apart, because the page finds the place of a text by them.
    """
    if not isinstance(shape, Marker) or shape.fill or (shape.tip and outline(shape)):
        return (id(shape),)
    return shape.shape, shape.size, shape.colour, shape.key, bool(shape.tip)


def _together(shapes: Sequence[Shape]) -> str:
    """Return shapes of one look; data points are one path, because a large figure has thousands of them."""
    markers = [shape for shape in shapes if isinstance(shape, Marker)]
    if len(markers) < 2:
        return _shape(shapes[0], themed, interactive=True)
    first = markers[0]
    data = _data(first.key, [marker.tip for marker in markers] if first.tip else ())
    if outline(first):
        outlines = "".join(_outline(outline(marker), closed=True) for marker in markers)
        return f'<path d="{outlines}" fill="{themed(first.colour)}"{data}/>'
    # A line without length, whose round ends are the point.
    points = "".join(f"M{_number(marker.x)},{_number(marker.y)}h0" for marker in markers)
    stroke = f'stroke="{themed(first.colour)}" stroke-width="{_number(first.size)}" stroke-linecap="round"'
    return f'<path d="{points}" {stroke}{data}/>'


def _box(drawing: Drawing) -> str:
    return f"0 0 {_number(drawing.width)} {_number(drawing.height)}"


def themed(colour: str) -> str:
    """Return a colour as the page's variable of that name, if it has one."""
    return f"var(--fig-{THEME[colour]})" if colour in THEME else colour


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _shape(shape: Shape, colour: Callable[[str], str], *, interactive: bool) -> str:
    match shape:
        case Path():
            return _path(shape, colour, interactive)
        case Marker():
            return _marker(shape, colour, interactive)
        case Text():
            return _text(shape, colour, interactive)
        case Grid():
            return _grid(shape, interactive)


def _path(path: Path, colour: Callable[[str], str], interactive: bool) -> str:
    dashes = f' stroke-dasharray="{" ".join(map(_number, path.dashes))}"' if path.dashes else ""
    stroke = f' stroke="{colour(path.colour)}" stroke-width="{_number(path.width)}"{dashes}' if path.colour else ""
    fill = f' fill="{colour(path.fill) if path.fill else "none"}"'
    opacity = f' opacity="{path.opacity:g}"' if path.opacity < 1 else ""
    data = _data(path.key, path.tips) if interactive else ""
    return f'<path d="{_outline(path.points, closed=path.closed)}"{fill}{stroke}{opacity}{data}/>'


def _outline(points: Sequence[tuple[float, float]], *, closed: bool) -> str:
    """Return a path by its start and the steps from point to point, which are shorter than places."""
    xs, ys = ([round(10 * place) for place in axis] for axis in zip(*points, strict=True))
    across, down = (map(_tenths, map(sub, axis[1:], axis)) for axis in (xs, ys))
    steps = _BETWEEN.sub("", " ".join(chain.from_iterable(zip(across, down, strict=True))))
    return f"M{_tenths(xs[0])},{_tenths(ys[0])}{'l' if steps else ''}{steps}{'z' if closed else ''}"


@cache
def _tenths(number: int) -> str:
    """Return a number of tenths without a zero before the point."""
    return f"{number / 10:g}".replace("0.", ".") if abs(number) < 10 else f"{number / 10:.1f}".removesuffix(".0")


def _marker(marker: Marker, colour: Callable[[str], str], interactive: bool) -> str:
    look = f' fill="{colour(marker.fill or marker.colour)}"'
    if marker.fill:
        look += f' stroke="{colour(marker.colour)}" stroke-width="1.4"'
    data = _data(marker.key, (marker.tip,) if marker.tip else ()) if interactive else ""
    corners = outline(marker)
    if corners:
        return f'<path d="{_outline(corners, closed=True)}"{look}{data}/>'
    return f'<circle cx="{_number(marker.x)}" cy="{_number(marker.y)}" r="{_number(marker.size / 2)}"{look}{data}/>'


def _text(text: Text, colour: Callable[[str], str], interactive: bool) -> str:
    x, y = _number(text.x), _number(text.y)
    place = f'x="{x}" y="{y}"' + (f' transform="rotate(-90 {x} {y})"' if text.turned else "")
    anchor = f' text-anchor="{text.anchor}"' if text.anchor != "start" else ""
    weight = ' font-weight="bold"' if text.bold else ""
    data = _data(text.key, ()) if interactive else ""
    fill = f' fill="{colour(text.colour)}"'
    return f'<text {place} font-size="{_number(text.size)}"{anchor}{weight}{fill}{data}>{escape(text.text)}</text>'


def _data(key: str, tips: Sequence[str]) -> str:
    of_series = f' data-key="{escape(key)}"' if key else ""
    return of_series + _values(tips)


def _values(tips: Sequence[str]) -> str:
    """Return the attributes with the texts of a shape, once the words and numbers that all of them share."""
    if not tips:
        return ""
    lines = [" ".join(tip.splitlines()) for tip in tips]
    parts = [_NUMBERS.split(line) for line in lines]
    words = parts[0][::2]
    if len(tips) < 2 or any(part[::2] != words for part in parts) or any(_GAP in word for word in words):
        return f' data-tip="{escape(_PART.join(lines))}"'
    columns = list(zip(*(part[1::2] for part in parts), strict=True))
    varied = [len(set(column)) > 1 for column in columns]
    gaps = (_GAP if gap else column[0] for gap, column in zip(varied, columns, strict=True))
    form = words[0] + "".join(f"{gap}{word}" for gap, word in zip(gaps, words[1:], strict=True))
    numbers = _PART.join(" ".join(compress(part[1::2], varied)) for part in parts)
    return f' data-tip="{numbers}" data-form="{escape(form)}"'


def _grid(grid: Grid, interactive: bool) -> str:
    place = f'x="{_number(grid.x)}" y="{_number(grid.y)}" width="{_number(grid.width)}" height="{_number(grid.height)}"'
    data = ""
    if interactive and grid.tips:
        cells = [tip for row in grid.tips for tip in row]
        data = f' data-columns="{len(grid.colours[0])}"{_values(cells)}'
    source = base64.b64encode(_png(grid)).decode()
    return (
        f'<image {place} preserveAspectRatio="none" style="image-rendering: pixelated"{data} '
        f'href="data:image/png;base64,{source}"/>'
    )


def _png(grid: Grid) -> bytes:
    """Return the cells as a PNG, each several pixels wide so that a viewer that smooths images keeps their edges."""
    rows = [b"".join(bytes(rgb(colour)) * _CELL_PIXELS for colour in row) for row in grid.colours]
    pixels = b"".join((b"\0" + row) * _CELL_PIXELS for row in rows)
    width, height = len(grid.colours[0]) * _CELL_PIXELS, len(rows) * _CELL_PIXELS
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(pixels, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, content) for name, content in chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
