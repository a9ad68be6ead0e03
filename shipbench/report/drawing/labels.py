"""Label placement: labels beside points that cover neither each other nor a point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import cos, hypot, inf, pi, sin
from typing import TypeAlias

from shipbench.report.drawing.metrics import text_width
from shipbench.report.drawing.palette import INK, MUTED
from shipbench.report.drawing.shapes import Anchor, Path, Point, Shape, Text

Rectangle: TypeAlias = tuple[float, float, float, float]
_ANGLES = tuple(pi * step / 8 for step in (0, 8, 2, 6, 4, 12, 14, 10, 1, 7, 15, 9, 3, 5, 11, 13))
_RADII = (7, 12, 18, 26, 36, 50)
# A label farther away than this gets a line to its point.
_NEAR = 12
_POINT = 5.5
# The area, in square points, that an optional label may cover: a corner of its box, which holds no ink.
_TOLERANCE = 0.5
# The space between two labels on a line, which would read as one without it.
_GAP = 3
# The price, in points of distance, of a label that looks as if it belonged to another point.
_CLAIMED = 60
_ROUNDING = 1e-6
_ANCHORS: dict[float, Anchor] = {0.0: "start", 0.5: "middle", 1.0: "end"}


@dataclass(frozen=True)
class _Place:
    """A place for a label: distance and direction from its point (angles anticlockwise)."""

    radius: float
    angle: float

    @property
    def anchor(self) -> tuple[float, float]:
        """The part of the label nearest to the point (x, y): 0 left or upper edge, 0.5 middle, 1 far edge."""
        across = 0.0 if cos(self.angle) > 0.5 else 1.0 if cos(self.angle) < -0.5 else 0.5
        down = 1.0 if sin(self.angle) > 0.5 else 0.0 if sin(self.angle) < -0.5 else 0.5
        return across, down

    def tip(self, point: Point) -> Point:
        """Return the place where the label begins."""
        return point[0] + self.radius * cos(self.angle), point[1] - self.radius * sin(self.angle)

    def box(self, point: Point, width: float, height: float) -> Rectangle:
        """Return left, top, right and bottom of a label of this size."""
        (x, y), (across, down) = self.tip(point), self.anchor
        left, top = x - across * width, y - down * height
        return left, top, left + width, top + height


def place_labels(
    points: Sequence[Point],
    texts: Sequence[str],
    keys: Sequence[str],
    size: float,
    avoid: Sequence[Sequence[Point]],
    frame: Rectangle,
    *,
    optional: bool = False,
) -> list[Shape]:
    """Return the labels of ``points`` inside ``frame``, and a thin line to each label that is far from its point.

    If they are ``optional``, labels that would cover a point or another label, or leave the frame, are left out.
    """
    opaque = [_square(point, _POINT) for point in points]
    taken = opaque + [_square(point, 1.5) for line in avoid for point in _along(line, 3)]
    shapes: list[Shape] = []
    for point, text, key in zip(points, texts, keys, strict=True):
        width, height = text_width(text, size), 1.25 * size
        others = [other for other in points if other != point]
        places = [
            place
            for place in _PLACES
            if not optional or _hidden(place.box(point, width, height), opaque, frame) <= _TOLERANCE
        ]
        if not places:
            continue
        place = _best(places, point, width, height, taken, frame, others)
        box = place.box(point, width, height)
        spaced = (box[0] - _GAP, box[1], box[2] + _GAP, box[3])
        opaque.append(spaced)
        taken.append(spaced)
        if place.radius > _NEAR:
            shapes.append(Path((point, place.tip(point)), MUTED, 0.5, key=key))
        across, y = place.anchor[0], (box[1] + box[3]) / 2 + 0.35 * size
        shapes.append(Text(box[0] + across * width, y, text, size, INK, _ANCHORS[across], key=key))
    return shapes


def _hidden(box: Rectangle, opaque: Sequence[Rectangle], frame: Rectangle) -> float:
    """Return the area of a label that covers something or lies outside ``frame``."""
    left, top, right, bottom = box
    outside = (right - left) * (bottom - top) - _overlap(box, frame)
    return outside + sum(_overlap(box, other) for other in opaque)


def _square(point: Point, half: float) -> Rectangle:
    return point[0] - half, point[1] - half, point[0] + half, point[1] + half


def _along(corners: Sequence[Point], step: float) -> list[Point]:
    """Return points every ``step`` points along a line through ``corners``."""
    places = []
    for (x0, y0), (x1, y1) in pairwise(corners):
        count = max(2, int(hypot(x1 - x0, y1 - y0) / step))
        places += [(x0 + (x1 - x0) * i / count, y0 + (y1 - y0) * i / count) for i in range(count)]
    return places


def _best(
    places: Sequence[_Place],
    point: Point,
    width: float,
    height: float,
    taken: Sequence[Rectangle],
    frame: Rectangle,
    others: Sequence[Point],
) -> _Place:
    """Return the one of ``places``, near ones first, whose label covers least and is nearest to its own point."""

    def cost(place: _Place) -> float:
        box = place.box(point, width, height)
        covered = sum(_overlap(box, other) for other in near)
        claimed = sum(_distance(box, other) < min(_distance(box, point), _NEAR) for other in others)
        return 10 * covered + 10 * (width * height - _overlap(box, frame)) + place.radius + _CLAIMED * claimed

    reach_x, reach_y = width + _RADII[-1], height + _RADII[-1]
    surroundings = (point[0] - reach_x, point[1] - reach_y, point[0] + reach_x, point[1] + reach_y)
    near = [box for box in taken if _overlap(box, surroundings)]
    best, lowest = places[0], inf
    for place in places:
        # Places farther away cost at least their radius, up to rounding.
        if place.radius > lowest + _ROUNDING:
            break
        price = cost(place)
        if price < lowest:
            best, lowest = place, price
    return best


def _looks_like_error_bar(place: _Place) -> bool:
    """Return whether the line to the label would be steep enough to look like an error bar."""
    return place.radius > _NEAR and abs(cos(place.angle)) < 0.5


def _distance(box: Rectangle, point: Point) -> float:
    left, top, right, bottom = box
    return hypot(max(left - point[0], 0.0, point[0] - right), max(top - point[1], 0.0, point[1] - bottom))


def _overlap(one: Rectangle, other: Rectangle) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return wide * high if wide > 0 and high > 0 else 0.0


_PLACES = [place for radius in _RADII for angle in _ANGLES if not _looks_like_error_bar(place := _Place(radius, angle))]
