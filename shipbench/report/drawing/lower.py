"""Lower a chart to shapes: lay out its panels for a paper style and map data to points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil

from shipbench.report.drawing.chart import (
    Axis,
    Band,
    Box,
    Chart,
    ColourBar,
    Heat,
    Key,
    Labels,
    Line,
    Mark,
    Note,
    Panel,
    Points,
    Reference,
)
from shipbench.report.drawing.labels import place_labels
from shipbench.report.drawing.metrics import text_width, wrapped_to
from shipbench.report.drawing.palette import INK, MUTED, RULE
from shipbench.report.drawing.paper import PLAIN, PaperStyle
from shipbench.report.drawing.scales import position
from shipbench.report.drawing.shapes import Drawing, Grid, Marker, Path, Point, Shape, Text

_TITLE, _LABEL, _FOOTER = 8.0, 8.0, 5.5
_EDGE, _GAP = 4.0, 3.0
_BAR, _BAR_ROOM = 7.0, 34.0
_SPACING = 10
_NAME = 7.5
_BAND_OPACITY = 0.18


@dataclass(frozen=True)
class _Frame:
    """A panel's place: the plot area in points."""

    panel: Panel
    left: float
    top: float
    width: float
    height: float

    def at(self, x: float, y: float) -> Point:
        """Return the place of a data point."""
        across, up = position(self.panel.x, x), position(self.panel.y, y)
        return self.left + across * self.width, self.top + (1 - up) * self.height

    @property
    def right(self) -> float:
        """The right edge."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return self.top + self.height


@dataclass(frozen=True)
class _Margins:
    """Room around the plot areas of a grid of panels, per column and per row."""

    left: tuple[float, ...]
    right: tuple[float, ...]
    top: tuple[float, ...]
    bottom: tuple[float, ...]


def lower(chart: Chart, paper: PaperStyle = PLAIN) -> Drawing:
    """Return the drawing of ``chart`` in the widths and text size of ``paper``."""
    layout = _Layout(chart, paper)
    shapes = [*layout.around(), *(shape for frame in layout.frames for shape in _panel(frame, paper.text))]
    return Drawing(layout.width, layout.height, tuple(_kept_inside(shape, layout.width) for shape in shapes))


def _kept_inside(shape: Shape, width: float) -> Shape:
    """Move a centred text, such as the title of an axis that is wider than it, into the picture."""
    if not isinstance(shape, Text) or shape.anchor != "middle" or shape.turned:
        return shape
    half = text_width(shape.text, shape.size) / 2
    return replace(shape, x=max(half, min(shape.x, width - half)))


class _Layout:
    """Where the parts of a chart go."""

    def __init__(self, chart: Chart, paper: PaperStyle) -> None:
        self.chart, self.text = chart, paper.text
        self.width = paper.wide if chart.wide else paper.narrow
        self._legend = _legend_rows(chart.legend, self.width - 2 * _EDGE, self.text)
        self.top = _EDGE + (13 * self.text if chart.heading else 0) + 12 * self.text * len(self._legend)
        self.top += _GAP if self._legend else 0
        self._margins = self._measure()
        self.frames = self._place()
        lowest = max(frame.bottom for frame in self.frames) + self._margins.bottom[-1]
        self._footer = wrapped_to(chart.footer, self.width - 2 * _EDGE, _FOOTER * self.text)
        self.height = lowest + 8 * self.text * len(self._footer) + 2 + _GAP

    def around(self) -> Iterator[Shape]:
        """Yield heading, legend, shared label, colour bar and footer."""
        chart, text = self.chart, self.text
        if chart.heading:
            yield Text(_EDGE, _EDGE + 8 * text, chart.heading, _LABEL * text)
        y = _EDGE + (13 * text if chart.heading else 0) + 6 * text
        for row in self._legend:
            yield from _legend_row(row, y, text)
            y += 12 * text
        first, last = self.frames[0], self.frames[-1]
        if chart.y_label:
            yield Text(
                _EDGE + 7 * text,
                (first.top + last.bottom) / 2,
                chart.y_label,
                _LABEL * text,
                INK,
                "middle",
                turned=True,
            )
        if chart.bar:
            yield from _colour_bar(chart.bar, self.width - _BAR_ROOM, first, last, text)
        for i, line in enumerate(reversed(self._footer)):
            yield Text(_EDGE, self.height - 4 - 8 * text * i, line, _FOOTER * text, MUTED)

    def _measure(self) -> _Margins:
        panels, columns = self.chart.panels, self.chart.columns
        by_column = [panels[i::columns] for i in range(min(columns, len(panels)))]
        by_row = [panels[i : i + columns] for i in range(0, len(panels), columns)]
        return _Margins(
            tuple(max(_left(panel, self.text) for panel in column) for column in by_column),
            tuple(max(_right(panel, self.text) for panel in column) for column in by_column),
            tuple(max(_above(panel, self.text) for panel in row) for row in by_row),
            tuple(max(_below(panel, self.text) for panel in row) for row in by_row),
        )

    def _place(self) -> list[_Frame]:
        chart, margins = self.chart, self._margins
        columns = len(margins.left)
        start = _EDGE + (12 * self.text if chart.y_label else 0)
        room = self.width - start - _EDGE - (_BAR_ROOM if chart.bar else 0)
        room -= sum(margins.left) + sum(margins.right) + _SPACING * (columns - 1)
        width = max(20.0, room / columns)
        height = chart.height or width
        frames = []
        y = self.top
        for row in range(ceil(len(chart.panels) / columns)):
            y += margins.top[row]
            x = start
            for column, panel in enumerate(chart.panels[row * columns : (row + 1) * columns]):
                x += margins.left[column]
                frames.append(_Frame(panel, x, y, width, height))
                x += width + margins.right[column] + _SPACING
            y += height + margins.bottom[row] + _GAP
        return frames


def _left(panel: Panel, text: float) -> float:
    widest = max((text_width(label, panel.y.text * text) for _, label in panel.y.ticks), default=0.0)
    return max(widest + (5 if widest else 1) + (12 * text if panel.y.label else 0), _notes_width(panel, "left", text))


def _right(panel: Panel, text: float) -> float:
    return max(2.0, _notes_width(panel, "right", text))


def _notes_width(panel: Panel, side: str, text: float) -> float:
    notes = [mark for mark in panel.marks if isinstance(mark, Note) and mark.beside == side]
    return max((text_width(note.text, note.size * text) + 6 for note in notes), default=0.0)


def _above(panel: Panel, text: float) -> float:
    title = 12 * text * (panel.title.count("\n") + 1) if panel.title else 4.0
    return title + (_labels_height(panel.x, text) if panel.x.on_top else 0)


def _below(panel: Panel, text: float) -> float:
    labels = 0.0 if panel.x.on_top else _labels_height(panel.x, text)
    return labels + (12 * text if panel.x.label else 0) + _GAP


def _labels_height(axis: Axis, text: float) -> float:
    shown = [label for _, label in axis.ticks if label]
    if not shown:
        return 2.0
    size = axis.text * text
    return (max(text_width(label, size) for label in shown) if axis.turned else size) + 5


def _legend_rows(keys: Sequence[Key], room: float, text: float) -> list[list[tuple[float, Key]]]:
    rows: list[list[tuple[float, Key]]] = []
    x = room + 1
    for key in keys:
        width = text_width(key.label, 7.5 * text) + 32
        if x + width > room and (x > 0 or not rows):
            rows.append([])
            x = 0.0
        rows[-1].append((_EDGE + x, key))
        x += width
    return rows


def _legend_row(row: Sequence[tuple[float, Key]], y: float, text: float) -> Iterator[Shape]:
    for x, key in row:
        if key.line:
            yield Path(((x, y), (x + 18, y)), key.colour, 1.4, key.dashes, key=key.key)
        if key.marker:
            yield Marker(x + 9, y, key.marker, 4.5, key.colour, key=key.key)
        yield Text(x + 22, y + 2.6 * text, key.label, 7.5 * text, key=key.key)


def _colour_bar(bar: ColourBar, x: float, first: _Frame, last: _Frame, text: float) -> Iterator[Shape]:
    height = min(160.0, last.bottom - first.top)
    steps = 32
    shades = [bar.colours[round(i * (len(bar.colours) - 1) / (steps - 1))] for i in reversed(range(steps))]
    yield Grid(x, first.top, _BAR, height, tuple((shade,) for shade in shades))
    for share in (0.0, 0.5, 1.0):
        value = bar.low + share * (bar.high - bar.low)
        yield Text(x + _BAR + 2, first.top + (1 - share) * height + 2.4, f"{value:.2f}", 6.5 * text)
    yield Text(x + _BAR, first.top - 5, bar.label, 6.5 * text, INK, "middle")


def _panel(frame: _Frame, text: float) -> Iterator[Shape]:
    yield from _axes(frame, text)
    for mark in frame.panel.marks:
        yield from _shapes(frame, mark, text)
    lines = frame.panel.title.split("\n") if frame.panel.title else []
    top = frame.top - (_labels_height(frame.panel.x, text) if frame.panel.x.on_top else 0)
    for i, line in enumerate(reversed(lines)):
        yield Text(frame.left, top - 4 - 11 * text * i, line, _TITLE * text, INK, bold=True)


def _axes(frame: _Frame, text: float) -> Iterator[Shape]:
    yield from _x_axis(frame, text)
    yield from _y_axis(frame, text)


def _x_axis(frame: _Frame, text: float) -> Iterator[Shape]:
    axis, size = frame.panel.x, frame.panel.x.text * text
    for value, label in axis.ticks if axis.turned else _apart(axis, frame.width, size):
        x = frame.left + position(axis, value) * frame.width
        if axis.grid:
            yield Path(((x, frame.top), (x, frame.bottom)), RULE, 0.6)
        if axis.turned:
            y = frame.top - 4 if axis.on_top else frame.bottom + 4 + text_width(label, size)
            yield Text(x + 0.35 * size, y, label, size, turned=True)
        elif label:
            yield Text(x, frame.top - 4 if axis.on_top else frame.bottom + 3 + size, label, size, INK, "middle")
    if axis.line:
        yield Path(((frame.left, frame.bottom), (frame.right, frame.bottom)), MUTED, 0.7)
    if axis.label:
        y = frame.bottom + (0 if axis.on_top else _labels_height(axis, text)) + 9 * text
        yield Text((frame.left + frame.right) / 2, y, axis.label, _LABEL * text, INK, "middle")


def _apart(axis: Axis, width: float, size: float) -> Iterator[tuple[float, str]]:
    """Yield the ticks of an x axis, without the text of those that would touch the one before."""
    end = float("-inf")
    for value, label in sorted(axis.ticks, key=lambda tick: position(axis, tick[0])):
        place, half = position(axis, value) * width, text_width(label, size) / 2
        shown = place - half > end
        end = place + half + 1 if label and shown else end
        yield value, label if shown else ""


def _y_axis(frame: _Frame, text: float) -> Iterator[Shape]:
    axis, size = frame.panel.y, frame.panel.y.text * text
    for value, label in axis.ticks:
        y = frame.top + (1 - position(axis, value)) * frame.height
        if axis.grid:
            yield Path(((frame.left, y), (frame.right, y)), RULE, 0.6)
        if label:
            yield Text(frame.left - 4, y + 0.35 * size, label, size, INK, "end")
    if axis.line:
        yield Path(((frame.left, frame.top), (frame.left, frame.bottom)), MUTED, 0.7)
    if axis.label:
        x = frame.left - _left(frame.panel, text) + 7 * text
        yield Text(x, (frame.top + frame.bottom) / 2, axis.label, _LABEL * text, INK, "middle", turned=True)


def _shapes(frame: _Frame, mark: Mark, text: float) -> Iterator[Shape]:
    match mark:
        case Line():
            places = tuple(frame.at(x, y) for x, y in zip(mark.xs, mark.ys, strict=True))
            yield Path(places, mark.colour, mark.width, mark.dashes, "", mark.opacity, False, mark.key, mark.tips)
        case Points():
            yield from _points(frame, mark)
        case Band():
            low = [frame.at(x, y) for x, y in zip(mark.xs, mark.lows, strict=True)]
            high = [frame.at(x, y) for x, y in zip(mark.xs, mark.highs, strict=True)]
            yield Path((*low, *reversed(high)), "", 0, (), mark.colour, _BAND_OPACITY, True, mark.key)
        case Box():
            yield _box(frame, mark)
        case Heat():
            (x0, y0), (x1, y1) = frame.at(mark.left, mark.top), frame.at(mark.right, mark.bottom)
            yield Grid(x0, y0, x1 - x0, y1 - y0, mark.colours, mark.tips)
        case Reference():
            yield _reference(frame, mark)
        case Note():
            yield _note(frame, mark, text)
        case Labels():
            places = tuple(frame.at(*point) for point in mark.points)
            avoid = [[frame.at(*point) for point in line] for line in mark.avoid]
            edges = (frame.left, frame.top, frame.right, frame.bottom)
            size, optional = _NAME * text, mark.optional
            yield from place_labels(places, mark.texts, mark.texts, size, avoid, edges, optional=optional)


def _points(frame: _Frame, mark: Points) -> Iterator[Marker]:
    for i, (x, y) in enumerate(zip(mark.xs, mark.ys, strict=True)):
        tip = mark.tips[i] if mark.tips else ""
        yield Marker(*frame.at(x, y), mark.marker, mark.size, mark.colour, mark.fill, mark.key, tip)


def _box(frame: _Frame, mark: Box) -> Path:
    corners = ((mark.left, mark.low), (mark.right, mark.low), (mark.right, mark.high), (mark.left, mark.high))
    places = tuple(frame.at(*corner) for corner in corners)
    return Path(places, mark.edge, mark.width, (), mark.fill, 1.0, True, mark.key, (mark.tip,) if mark.tip else ())


def _reference(frame: _Frame, mark: Reference) -> Path:
    if mark.axis == "x":
        x = frame.left + position(frame.panel.x, mark.value) * frame.width
        return Path(((x, frame.top), (x, frame.bottom)), mark.colour, mark.width)
    y = frame.top + (1 - position(frame.panel.y, mark.value)) * frame.height
    return Path(((frame.left, y), (frame.right, y)), mark.colour, mark.width)


def _note(frame: _Frame, mark: Note, text: float) -> Text:
    x, y = frame.at(mark.x, mark.y)
    if mark.beside:
        x = frame.right + 4 if mark.beside == "right" else frame.left - 4
    size = mark.size * text
    return Text(x + mark.dx, y + 0.35 * size, mark.text, size, mark.colour, mark.anchor, key=mark.key)
