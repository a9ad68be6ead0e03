"""Drawings as SVG: a file of its own, or a part of a page that follows its theme and answers the pointer."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from html import escape

from shipbench.report.drawing.palette import THEME, rgb
from shipbench.report.drawing.shapes import Drawing, Grid, Marker, Path, Shape, Text, outline

_FONT = "Verdana, DejaVu Sans, sans-serif"
_SERIF = "STIX Two Text, Times New Roman, serif"
_CELL_PIXELS = 8
_VALUES = re.compile(r' data-tip="([^"]*)"')


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
    body = "".join(_shape(shape, themed, interactive=True) for shape in drawing.shapes)
    return f'<svg{shown} viewBox="{_box(drawing)}" {look}>{body}</svg>'


def without_values_of(svg: str, other: str) -> str:
    """Return ``svg`` with its exact values emptied if ``other`` has the same; the page's script takes them from there.

    Large drawings are mostly values, and a page holds up to two drawings of a figure.
    """
    return _VALUES.sub(' data-tip=""', svg) if _VALUES.findall(svg) == _VALUES.findall(other) else svg


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
    places = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
    return f"M{places}{'z' if closed else ''}"


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
    values = f' data-tip="{escape("|".join(tips))}"' if tips else ""
    return of_series + values


def _grid(grid: Grid, interactive: bool) -> str:
    place = f'x="{_number(grid.x)}" y="{_number(grid.y)}" width="{_number(grid.width)}" height="{_number(grid.height)}"'
    data = ""
    if interactive and grid.tips:
        cells = "|".join(tip for row in grid.tips for tip in row)
        data = f' data-columns="{len(grid.colours[0])}" data-tip="{escape(cells)}"'
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
