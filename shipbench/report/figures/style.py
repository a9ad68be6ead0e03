"""The common style of figures: colour-blind-safe colours, vector fonts, and ink that follows a page's theme."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any, cast

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from shipbench.methods import find_method
from shipbench.report.analysis.arms import Arm

INK = "#1f2431"
MUTED = "#666d7c"
RULE = "#d8dce4"
PAPER = "#fefefe"
# Ink on coloured cells keeps its colour on a dark page.
INK_ON_MAP, PAPER_ON_MAP = "#101319", "#fffdf7"
BLUE, VERMILION, GREEN, PINK, ORANGE, SKY, GREY, PURPLE = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#7b7f87",
    "#6f4fa3",
)
PALETTE = (ORANGE, PINK, PURPLE, SKY, BLUE, GREEN, VERMILION, GREY)
GROUP_COLOURS = {"Natural": GREEN, "Specialized": PINK, "Structured": BLUE}
NARROW, WIDE = 4.0, 7.2
_MARKERS = ("D", "v", "P", "X", "<", ">", "d", "*")
# A repeated colour gets a marker far from its first one.
_MARKER_STEP = 3
_LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))

_RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "text.parse_math": False,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.facecolor": "none",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.minor.width": 0.5,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.4,
    "lines.markersize": 5,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "path",
    "svg.hashsalt": "shipbench",
    "pdf.fonttype": 42,
    "path.simplify": True,
}


@dataclass(frozen=True)
class SeriesStyle:
    """How one method looks in every figure."""

    colour: str
    marker: str
    line: Any


@contextmanager
def style() -> Iterator[None]:
    """Apply the style inside the block and restore matplotlib's settings after it."""
    with mpl.rc_context(cast(Any, _RC)):
        yield


def new_figure(width: float, height: float, footer: str) -> Figure:
    """Return an empty figure of ``width`` x ``height`` inches with a footer line, without a window."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.07, h_pad=0.07)  # type: ignore[union-attr, call-arg]
    figure.supxlabel(footer, x=0.008, ha="left", fontsize=5.5, color=MUTED)
    return figure


def arm_styles(arms: Sequence[Arm]) -> dict[int, SeriesStyle]:
    """Return the style of every arm by key."""
    styles = series_styles([arm.method for arm in arms])
    return {arm.key: series for arm, series in zip(arms, styles, strict=True)}


def series_styles(methods: Sequence[str]) -> list[SeriesStyle]:
    """Give every series a look: the method's own at its first appearance, otherwise the next free one."""
    styles: list[SeriesStyle] = []
    strangers = 0
    for i, method in enumerate(methods):
        look = _method_style(method) if method not in methods[:i] else None
        if look is None:
            look = _stranger(strangers)
            strangers += 1
        styles.append(look)
    return styles


def _method_style(method: str) -> SeriesStyle | None:
    """Return the look that a method asks for, or None if it has no colour or is not installed."""
    installed = find_method(method)
    if installed is None or installed.colour is None:
        return None
    return SeriesStyle(installed.colour, installed.marker, "-")


def _stranger(number: int) -> SeriesStyle:
    return SeriesStyle(
        PALETTE[number % len(PALETTE)],
        _MARKERS[(number + _MARKER_STEP * (number // len(PALETTE))) % len(_MARKERS)],
        _LINES[(1 + number // len(PALETTE)) % len(_LINES)],
    )


def panels(figure: Figure, count: int, columns: int, **shared: Any) -> list[Axes]:
    """Return ``count`` axes in rows of ``columns``; the remaining places stay empty."""
    rows = ceil(count / columns)
    grid = figure.subplots(rows, columns, squeeze=False, **shared)
    axes = [axis for line in grid for axis in line]
    for axis in axes[count:]:
        axis.set_visible(False)
    return axes[:count]


def legend_above(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """Add a legend above the axes, with as many columns as fit."""
    widest = max((text_width(figure, label, _RC["legend.fontsize"]) for label in labels), default=0.0)
    beside_text = 0.5 / figure.get_figwidth()
    columns = int(0.98 / (widest + beside_text))
    figure.legend(handles, labels, loc="outside upper left", ncols=max(1, min(len(labels), columns)))


def note_beside(axis: Axes, y: float, text: str) -> None:
    """Write ``text`` to the right of the axes at height ``y`` (data)."""
    axis.annotate(
        text,
        (1.0, y),
        xycoords=axis.get_yaxis_transform(),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=7,
        color=MUTED,
        annotation_clip=False,
    )


def only_grid(axis: Axes, which: str) -> None:
    """Draw grid lines for one axis only, "x" or "y"."""
    axis.grid(False)
    axis.grid(True, axis=which)  # type: ignore[arg-type]


def text_size(figure: Figure, text: str, size: float) -> tuple[float, float]:
    """Return the width and height of ``text`` in pixels at font size ``size`` (points)."""
    probe = figure.text(0, 0, text, fontsize=size)
    extent = probe.get_window_extent()
    probe.remove()
    return float(extent.width), float(extent.height)


def text_width(figure: Figure, text: str, size: float) -> float:
    """Return the width of ``text`` as a fraction of the figure's width."""
    return text_size(figure, text, size)[0] / (figure.get_figwidth() * figure.dpi)
