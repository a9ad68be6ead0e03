"""Drawings as PNG and PDF, through matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, cast

from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch, Polygon
from matplotlib.transforms import Affine2D

from shipbench.report.drawing.palette import PAPER
from shipbench.report.drawing.shapes import Drawing, Grid, Marker, Path, Text, outline
from shipbench.runtime.plotting import default_style

_DPI = 220
_DATES: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
}
_RC: dict[str, Any] = {"text.parse_math": False, "pdf.fonttype": 42}
_ALIGN = {"start": "left", "middle": "center", "end": "right"}


def plots(drawing: Drawing, suffixes: Sequence[str], *, serif: bool = False) -> dict[str, bytes]:
    """Return the drawing in each of ``suffixes`` (png, pdf)."""
    family = "STIXGeneral" if serif else "DejaVu Sans"
    with default_style(**_RC, **{"font.family": family}):
        figure = plot(drawing)
        return {suffix: _save(figure, suffix) for suffix in suffixes}


def plot(drawing: Drawing) -> Figure:
    """Return a matplotlib figure with the shapes of ``drawing``, without a window."""
    figure = Figure(figsize=(drawing.width / 72, drawing.height / 72))
    FigureCanvasAgg(figure)
    in_points = Affine2D().scale(1, -1).translate(0, drawing.height).scale(1 / 72) + figure.dpi_scale_trans
    for order, shape in enumerate(drawing.shapes):
        if isinstance(shape, Text):
            _write(figure, drawing, shape, order)
        else:
            artist = _artist(shape)
            artist.set(zorder=order, transform=in_points)
            figure.add_artist(artist)
    return figure


def _save(figure: Figure, suffix: str) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format=suffix, dpi=_DPI, facecolor=PAPER, metadata=cast(Any, _DATES[suffix]))
    return stream.getvalue()


def _write(figure: Figure, drawing: Drawing, text: Text, order: int) -> None:
    figure.text(
        text.x / drawing.width,
        1 - text.y / drawing.height,
        text.text,
        fontsize=text.size,
        color=text.colour,
        ha="left" if text.turned and text.anchor == "start" else _ALIGN[text.anchor],
        va="baseline",
        rotation=90 if text.turned else 0,
        rotation_mode="anchor",
        weight="bold" if text.bold else "normal",
        zorder=order,
    )


def _artist(shape: Path | Marker | Grid) -> Artist:
    match shape:
        case Path():
            return _area(shape) if shape.closed else _line(shape)
        case Marker():
            return _marker(shape)
        case Grid():
            return _grid(shape)


def _area(path: Path) -> Patch:
    look = {"facecolor": path.fill or "none", "edgecolor": path.colour or "none", "linewidth": path.width}
    return Polygon(path.points, closed=True, alpha=path.opacity, **look)


def _line(path: Path) -> Line2D:
    xs, ys = zip(*path.points, strict=True)
    style: Any = (0, tuple(dash / path.width for dash in path.dashes)) if path.dashes else "-"
    return Line2D(xs, ys, color=path.colour, linewidth=path.width, linestyle=style, alpha=path.opacity)


def _marker(marker: Marker) -> Patch:
    corners = outline(marker)
    fill, edge = marker.fill or marker.colour, marker.colour if marker.fill else "none"
    look: dict[str, Any] = {"facecolor": fill, "edgecolor": edge, "linewidth": 1.4}
    if corners:
        return Polygon(list(corners), closed=True, **look)
    return Circle((marker.x, marker.y), marker.size / 2, **look)


def _grid(grid: Grid) -> PolyCollection:
    rows, columns = len(grid.colours), len(grid.colours[0])
    xs = [grid.x + grid.width * i / columns for i in range(columns + 1)]
    ys = [grid.y + grid.height * i / rows for i in range(rows + 1)]
    cells = [
        [(xs[i], ys[j]), (xs[i + 1], ys[j]), (xs[i + 1], ys[j + 1]), (xs[i], ys[j + 1])]
        for j in range(rows)
        for i in range(columns)
    ]
    colours = [colour for row in grid.colours for colour in row]
    # Edges of the same colour hide the gaps that antialiasing leaves between cells.
    return PolyCollection(cells, facecolors=colours, edgecolors=colours, linewidths=0.3)
