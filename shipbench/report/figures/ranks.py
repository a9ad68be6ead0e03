"""The critical-difference diagram: average ranks, and the methods that Nemenyi's test cannot distinguish."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor

from matplotlib.axes import Axes
from matplotlib.figure import Figure as MplFigure

from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Figure
from shipbench.report.figures.style import (
    INK,
    MUTED,
    NARROW,
    WIDE,
    SeriesStyle,
    arm_styles,
    new_figure,
    style,
    text_width,
)
from shipbench.report.wording.text import counted, shortened
from shipbench.statistics import cliques

_STEP, _CLIQUE_STEP = 1.0, 0.42


def rank_figure(view: SuiteView) -> Figure | None:
    """Return the critical-difference diagram of the main arms; None without a ranking."""
    ranking = view.ranking
    if ranking is None:
        return None
    arm_style = arm_styles(view.arms)
    labels = [arm.short_label for arm in ranking.arms]
    styles = [arm_style[arm.key] for arm in ranking.arms]
    ranks = [float(rank) for rank in ranking.ranks]
    text = (
        f"{view.name}: critical-difference diagram; a bar joins methods whose average ranks differ by less "
        f"than the critical difference. {ranking.sentence}"
    )
    return Figure(
        name=f"critical-difference-{view.slug}",
        title=f"{view.name}: critical differences",
        caption=view.caption(text),
        draw=lambda: draw_ranks(labels, ranks, styles, ranking.distance, view.footer),
        alt=f"Critical-difference diagram of {counted(len(labels), 'method')}.",
        wide=_needs_room(labels),
    )


def draw_ranks(
    labels: Sequence[str], ranks: Sequence[float], styles: Sequence[SeriesStyle], distance: float, footer: str
) -> MplFigure:
    """Draw ascending ``ranks`` on an axis, labels on both sides, cliques below the axis and the distance above it."""
    bars = cliques(ranks, distance)
    better = ceil(len(labels) / 2)
    depth = 0.5 + _CLIQUE_STEP * len(bars)
    height = 2.7 + depth + _STEP * better
    width = WIDE if _needs_room(labels) else NARROW
    labels = [shortened(label, 34) for label in labels]
    with style():
        figure = new_figure(width, 0.3 + 0.23 * height, footer)
        figure.set_layout_engine("none")
        axis = figure.add_axes(_place(figure, labels))
        low, high = floor(min(ranks)), max(ceil(max(ranks)), floor(min(ranks)) + 1)
        _scale(axis, low, high, min(distance, high - low), distance)
        _bars(axis, ranks, bars)
        _elbows(axis, labels, ranks, styles, depth, (low, high))
        axis.set_ylim(-depth - _STEP * (better - 0.5), 2.7)
        axis.axis("off")
        return figure


def _needs_room(labels: Sequence[str]) -> bool:
    return len(labels) > 8 or max(map(len, labels)) > 20


def _place(figure: MplFigure, labels: Sequence[str]) -> tuple[float, float, float, float]:
    """Return the axes' left, bottom, width and height, in fractions of the figure, so that the labels fit."""
    better = ceil(len(labels) / 2)
    sides = (labels[:better], labels[better:])
    left, right = (max(text_width(figure, f"{label}  0.00", 7.5) for label in side) + 0.02 for side in sides)
    foot = 0.2 / figure.get_figheight()
    return left, foot, max(0.1, 1 - left - right), 1 - foot


def _scale(axis: Axes, low: int, high: int, drawn: float, distance: float) -> None:
    """Draw the rank axis and the critical difference as a bar of length ``drawn``, at most that of the axis."""
    axis.plot([low, high], [0, 0], color=INK, linewidth=1)
    for rank in range(low, high + 1):
        axis.plot([rank, rank], [0, 0.22], color=INK, linewidth=1)
        axis.text(rank, 0.32, str(rank), ha="center", va="bottom", fontsize=7)
    axis.plot([low, low + drawn], [1.55, 1.55], color=MUTED, linewidth=1.2)
    ends = (low, low + drawn) if distance <= drawn else (low,)
    for end in ends:
        axis.plot([end, end], [1.4, 1.7], color=MUTED, linewidth=1.2)
    beyond = "" if distance <= drawn else " (beyond the axis)"
    axis.text(low, 1.85, f"critical difference {distance:.2f}{beyond}", fontsize=7, color=MUTED, va="bottom")


def _bars(axis: Axes, ranks: Sequence[float], bars: Sequence[tuple[int, int]]) -> None:
    for i, (first, last) in enumerate(bars):
        y = -0.45 - _CLIQUE_STEP * i
        axis.plot([ranks[first] - 0.03, ranks[last] + 0.03], [y, y], color=INK, linewidth=3, solid_capstyle="round")


def _elbows(
    axis: Axes,
    labels: Sequence[str],
    ranks: Sequence[float],
    styles: Sequence[SeriesStyle],
    depth: float,
    ends: tuple[int, int],
) -> None:
    """Draw lines from the axis to the labels: the better half on the left, the others on the right."""
    half = ceil(len(labels) / 2)
    gap = 0.04 * (ends[1] - ends[0])
    for i, (label, rank, series) in enumerate(zip(labels, ranks, styles, strict=True)):
        better = i < half
        y = -depth - _STEP * (i if better else len(labels) - 1 - i)
        edge = ends[0] - gap if better else ends[1] + gap
        axis.plot([rank, rank, edge], [0, y, y], color=series.colour, linewidth=1)
        axis.plot(rank, 0, marker=series.marker, markersize=5, color=series.colour, clip_on=False)
        number = f"{rank:.2f}" if better else f"{rank:.2f}".rjust(len(f"{ranks[-1]:.2f}"), "\N{FIGURE SPACE}")
        text = f"{label}  {number}" if better else f"{number}  {label}"
        axis.annotate(
            text,
            (edge, y),
            xytext=(-3 if better else 3, 0),
            textcoords="offset points",
            ha="right" if better else "left",
            va="center",
            fontsize=7.5,
            annotation_clip=False,
        )
