"""Label placement: labels beside points that cover neither each other nor a point."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import cos, hypot, pi, sin
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from shipbench.report.figures.style import MUTED, text_size

_ANGLES = tuple(pi * step / 8 for step in (0, 8, 2, 6, 4, 12, 14, 10, 1, 7, 15, 9, 3, 5, 11, 13))
_RADII = (7, 12, 18, 26, 36, 50)
# A label farther away than this gets a line to its point.
_NEAR = 12
_POINT = 5.5


def place_labels(
    axis: Axes,
    points: Sequence[tuple[float, float]],
    labels: Sequence[str],
    size: float,
    lines: Sequence[Sequence[tuple[float, float]]] = (),
) -> None:
    """Annotate ``points`` (data coordinates) with ``labels`` that avoid each other, the points and ``lines``.

    A label that has to be far from its point is connected to it by a thin line.
    """
    figure = axis.get_figure()
    if not isinstance(figure, Figure):
        return
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    pixels = [axis.transData.transform(point) for point in points]
    taken = [_square(pixel, _POINT * scale) for pixel in pixels]
    for line in lines:
        corners = [axis.transData.transform(point) for point in line]
        taken += [_square(pixel, scale) for pixel in _along(corners, 3 * scale)]
    frame = axis.get_window_extent()
    for point, pixel, label in zip(points, pixels, labels, strict=True):
        width, height = text_size(figure, label, size)
        radius, angle = _best(pixel, width, height, taken, frame, scale)
        taken.append(_box(pixel, width, height, radius * scale, angle))
        _annotate(axis, point, label, size, radius, angle)


def _square(pixel: Any, half: float) -> Bbox:
    return Bbox.from_bounds(pixel[0] - half, pixel[1] - half, 2 * half, 2 * half)


def _along(corners: Sequence[Any], step: float) -> list[Any]:
    """Return points every ``step`` pixels along a line through ``corners``."""
    points = []
    for start, end in pairwise(corners):
        count = max(2, int(hypot(*(end - start)) / step))
        points += [start + (end - start) * i / count for i in range(count)]
    return points


def _anchor(angle: float) -> tuple[float, float]:
    """Return the part of the label nearest to the point (x, y): 0 left or lower edge, 0.5 middle, 1 far edge."""
    across = 0.0 if cos(angle) > 0.5 else 1.0 if cos(angle) < -0.5 else 0.5
    up = 0.0 if sin(angle) > 0.5 else 1.0 if sin(angle) < -0.5 else 0.5
    return across, up


def _box(pixel: Any, width: float, height: float, radius: float, angle: float) -> Bbox:
    """Return the box of a label at distance ``radius`` (pixels) in direction ``angle``."""
    across, up = _anchor(angle)
    x = pixel[0] + radius * cos(angle) - across * width
    y = pixel[1] + radius * sin(angle) - up * height
    return Bbox.from_bounds(x, y, width, height)


def _best(
    pixel: Any, width: float, height: float, taken: Sequence[Bbox], frame: Bbox, scale: float
) -> tuple[float, float]:
    """Return the radius (points) and angle whose label covers least, near positions first."""

    def cost(radius: float, angle: float) -> float:
        box = _box(pixel, width, height, radius * scale, angle)
        covered = sum(_overlap(box, other) for other in taken)
        outside = width * height - _overlap(box, frame)
        return 10 * covered + 10 * outside + radius

    return min(
        ((r, a) for r in _RADII for a in _ANGLES if not _looks_like_error_bar(r, a)), key=lambda choice: cost(*choice)
    )


def _looks_like_error_bar(radius: float, angle: float) -> bool:
    """Return whether the line to the label would be steep enough to look like an error bar."""
    return radius > _NEAR and abs(cos(angle)) < 0.5


def _overlap(one: Bbox, other: Bbox) -> float:
    wide = min(one.x1, other.x1) - max(one.x0, other.x0)
    high = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(wide * high) if wide > 0 and high > 0 else 0.0


def _annotate(axis: Axes, point: tuple[float, float], label: str, size: float, radius: float, angle: float) -> None:
    across, up = _anchor(angle)
    line = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.5} if radius > _NEAR else None
    axis.annotate(
        label,
        point,
        xytext=(radius * cos(angle), radius * sin(angle)),
        textcoords="offset points",
        ha={0.0: "left", 0.5: "center", 1.0: "right"}[across],
        va={0.0: "bottom", 0.5: "center", 1.0: "top"}[up],
        fontsize=size,
        arrowprops=line,
    )
