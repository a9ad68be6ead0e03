"""Shapes in points, with y downwards from the top left corner. A renderer needs nothing but these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sin
from typing import Literal, TypeAlias

from shipbench.report.drawing.palette import INK

Point: TypeAlias = tuple[float, float]
Anchor: TypeAlias = Literal["start", "middle", "end"]


@dataclass(frozen=True)
class Path:
    """A line or, if ``closed``, an area; no stroke without ``colour``, no filling without ``fill``.

    ``key`` names the series for highlighting. ``tips`` holds one text for the shape, or one per point.
    """

    points: tuple[Point, ...]
    colour: str = ""
    width: float = 1.0
    dashes: tuple[float, ...] = ()
    fill: str = ""
    opacity: float = 1.0
    closed: bool = False
    key: str = ""
    tips: tuple[str, ...] = ()


@dataclass(frozen=True)
class Marker:
    """A data point; ``shape`` is a matplotlib marker letter, ``size`` its diameter, ``fill`` empty for a solid one."""

    x: float
    y: float
    shape: str
    size: float
    colour: str
    fill: str = ""
    key: str = ""
    tip: str = ""


@dataclass(frozen=True)
class Text:
    """A line of text with its baseline at ``y``; ``turned`` text runs upwards from there."""

    x: float
    y: float
    text: str
    size: float
    colour: str = INK
    anchor: Anchor = "start"
    bold: bool = False
    turned: bool = False
    key: str = ""


@dataclass(frozen=True)
class Grid:
    """A rectangle of equal cells, row by row from the top; ``tips`` has a text, perhaps empty, per cell or is empty."""

    x: float
    y: float
    width: float
    height: float
    colours: tuple[tuple[str, ...], ...]
    tips: tuple[tuple[str, ...], ...] = ()


Shape: TypeAlias = Path | Marker | Text | Grid


@dataclass(frozen=True)
class Drawing:
    """A picture of ``width`` x ``height`` points; later shapes cover earlier ones."""

    width: float
    height: float
    shapes: tuple[Shape, ...]

    def texts(self) -> list[Text]:
        """Return the texts in drawing order."""
        return [shape for shape in self.shapes if isinstance(shape, Text)]

    def markers(self) -> list[Marker]:
        """Return the data points in drawing order."""
        return [shape for shape in self.shapes if isinstance(shape, Marker)]

    def paths(self) -> list[Path]:
        """Return the lines and areas in drawing order."""
        return [shape for shape in self.shapes if isinstance(shape, Path)]


def _regular(corners: int, start: float, radius: float = 1.0) -> tuple[Point, ...]:
    angles = [start + 2 * pi * i / corners for i in range(corners)]
    return tuple((radius * cos(angle), radius * sin(angle)) for angle in angles)


def _star(points: int, inner: float) -> tuple[Point, ...]:
    outer, within = _regular(points, -pi / 2, 1.15), _regular(points, -pi / 2 + pi / points, inner)
    return tuple(corner for pair in zip(outer, within, strict=True) for corner in pair)


def _cross(half: float) -> tuple[Point, ...]:
    far = 1.0
    quarter = [(half, far), (half, half), (far, half)]
    return tuple((sx * x, sy * y) for sx, sy, flip in _QUADRANTS for x, y in (quarter[::-1] if flip else quarter))


_QUADRANTS = ((1, 1, False), (1, -1, True), (-1, -1, False), (-1, 1, True))
_OUTLINES: dict[str, tuple[Point, ...]] = {
    "s": _regular(4, pi / 4, 1.25),
    "D": _regular(4, 0, 1.25),
    "d": tuple((0.65 * x, 1.25 * y) for x, y in _regular(4, 0)),
    "^": _regular(3, -pi / 2, 1.25),
    "v": _regular(3, pi / 2, 1.25),
    ">": _regular(3, 0, 1.25),
    "<": _regular(3, pi, 1.25),
    "P": _cross(0.42),
    "X": tuple(((x - y) * 0.75, (x + y) * 0.75) for x, y in _cross(0.42)),
    "*": _star(5, 0.5),
}


def outline(marker: Marker) -> Sequence[Point]:
    """Return the corners of a marker; empty for a circle."""
    radius = marker.size / 2
    return [(marker.x + radius * x, marker.y + radius * y) for x, y in _OUTLINES.get(marker.shape, ())]
