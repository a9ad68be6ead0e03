"""Charts: panels with axes and marks in data coordinates, without a format and without a size in print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from shipbench.report.drawing.palette import INK, MUTED
from shipbench.report.drawing.shapes import Anchor


@dataclass(frozen=True)
class Axis:
    """An axis from ``low`` to ``high`` (``low > high`` reverses it) with labelled ticks.

    ``line`` draws the axis itself, ``grid`` a line per tick, ``on_top`` puts the labels of an x axis above the panel,
    ``turned`` turns them.
    """

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...] = ()
    label: str = ""
    log: bool = False
    grid: bool = True
    line: bool = True
    on_top: bool = False
    turned: bool = False
    text: float = 7


@dataclass(frozen=True)
class Line:
    """A line through points; ``tips`` holds a text per point."""

    xs: Sequence[float]
    ys: Sequence[float]
    colour: str
    width: float = 1.4
    dashes: tuple[float, ...] = ()
    opacity: float = 1.0
    key: str = ""
    tips: tuple[str, ...] = ()


@dataclass(frozen=True)
class Points:
    """Data points of one look; ``fill`` is the colour inside (empty: solid), ``tips`` a text per point."""

    xs: Sequence[float]
    ys: Sequence[float]
    colour: str
    marker: str = "o"
    size: float = 5
    fill: str = ""
    key: str = ""
    tips: tuple[str, ...] = ()


@dataclass(frozen=True)
class Band:
    """The area between ``lows`` and ``highs``."""

    xs: Sequence[float]
    lows: Sequence[float]
    highs: Sequence[float]
    colour: str
    key: str = ""


@dataclass(frozen=True)
class Box:
    """A rectangle; ``edge`` is the colour of its outline."""

    left: float
    right: float
    low: float
    high: float
    fill: str = ""
    edge: str = ""
    width: float = 1.0
    key: str = ""
    tip: str = ""


@dataclass(frozen=True)
class Heat:
    """Coloured cells that fill the rectangle, row by row from the top."""

    left: float
    right: float
    top: float
    bottom: float
    colours: tuple[tuple[str, ...], ...]
    tips: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Note:
    """A text at a data point, moved to the right by ``dx`` points and centred vertically.

    ``beside`` puts it on that side of the panel at the height of the point.
    """

    x: float
    y: float
    text: str
    size: float = 7
    colour: str = MUTED
    anchor: Anchor = "start"
    dx: float = 0
    beside: Literal["", "left", "right"] = ""
    key: str = ""


@dataclass(frozen=True)
class Reference:
    """A line through the whole panel at ``value``: upright on the x axis, level on the y axis."""

    value: float
    axis: str = "x"
    colour: str = INK
    width: float = 0.8


@dataclass(frozen=True)
class Labels:
    """Texts beside points, placed so that they cover neither each other, the points nor ``avoid`` (lines).

    ``optional`` leaves out a text without such a place.
    """

    points: tuple[tuple[float, float], ...]
    texts: tuple[str, ...]
    avoid: tuple[tuple[tuple[float, float], ...], ...] = ()
    optional: bool = False


Mark: TypeAlias = Line | Points | Band | Box | Heat | Note | Reference | Labels


@dataclass(frozen=True)
class Panel:
    """Axes with marks; later marks cover earlier ones."""

    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    title: str = ""


@dataclass(frozen=True)
class Key:
    """An entry of the legend; ``settings`` say whether it shows with default settings, tuned ones or both.

    ``name`` is the label in full, as in tables.
    """

    label: str
    colour: str
    marker: str = ""
    dashes: tuple[float, ...] = ()
    line: bool = True
    key: str = ""
    settings: tuple[str, ...] = ()
    name: str = ""


@dataclass(frozen=True)
class ColourBar:
    """The scale of a heat map."""

    low: float
    high: float
    label: str
    colours: tuple[str, ...]


@dataclass(frozen=True)
class Chart:
    """Panels in rows of ``columns``, each ``height`` points high (0: as high as wide).

    ``heading`` stands above all panels, ``y_label`` left of them, ``footer`` below.
    """

    panels: tuple[Panel, ...]
    height: float
    columns: int = 1
    wide: bool = False
    legend: tuple[Key, ...] = ()
    heading: str = ""
    y_label: str = ""
    footer: str = ""
    bar: ColourBar | None = None
