"""The critical-difference diagram: average ranks, and which methods Nemenyi's test cannot tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor

from matplotlib.axes import Axes
from matplotlib.figure import Figure as MplFigure

from shipbench.report.analysis.ranks import Ranking
from shipbench.report.analysis.study import Study
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
from shipbench.report.tables.ranks import ranking_sentence
from shipbench.report.wording.captions import caption, footer
from shipbench.report.wording.names import suite_name
from shipbench.report.wording.text import counted, shortened, slug
from shipbench.statistics import cliques

_STEP, _CLIQUE_STEP = 1.0, 0.42


def rank_figure(study: Study, suite: str, found: Ranking) -> Figure:
    """Return the critical-difference diagram of a ranking."""
    looks = arm_styles(study.arms_of(suite, main=True))
    labels = [arm.short_label for arm in found.arms]
    styles = [looks[arm.key] for arm in found.arms]
    ranks = [float(rank) for rank in found.ranks]
    small = footer(study.selection, suite)
    text = (
        f"{suite_name(suite)}: critical-difference diagram; a bar joins methods whose average ranks differ by less "
        f"than the critical difference. {ranking_sentence(found)}"
    )
    return Figure(
        name=f"critical-difference-{slug(suite)}",
        title=f"{suite_name(suite)}: critical differences",
        caption=caption(text, study.selection, suite),
        draw=lambda: draw_ranks(labels, ranks, styles, found.distance, small),
        alt=f"Critical-difference diagram of {counted(len(labels), 'method')}.",
        wide=len(labels) > 8 or max(map(len, labels)) > 20,
    )


def draw_ranks(
    labels: Sequence[str], ranks: Sequence[float], looks: Sequence[SeriesStyle], distance: float, small: str
) -> MplFigure:
    """Draw ranks (ascending) on a line with elbows to both sides, bars below the line, the distance above."""
    bars = cliques(ranks, distance)
    left = ceil(len(labels) / 2)
    depth = 0.5 + _CLIQUE_STEP * len(bars)
    height = 2.7 + depth + _STEP * left
    roomy = len(labels) > 8 or max(map(len, labels)) > 20
    labels = [shortened(label, 34) for label in labels]
    with style():
        figure = new_figure(WIDE if roomy else NARROW, 0.3 + 0.23 * height, small)
        figure.set_layout_engine("none")
        axis = figure.add_axes(_place(figure, labels))
        low, high = floor(min(ranks)), max(ceil(max(ranks)), floor(min(ranks)) + 1)
        _scale(axis, low, high, min(distance, high - low), distance)
        _bars(axis, ranks, bars)
        _elbows(axis, labels, ranks, looks, depth, (low, high))
        axis.set_ylim(-depth - _STEP * (left - 0.5), 2.7)
        axis.axis("off")
        return figure


def _place(figure: MplFigure, labels: Sequence[str]) -> tuple[float, float, float, float]:
    """Leave as much room on each side as its longest label needs (in parts of the figure)."""
    left = ceil(len(labels) / 2)
    sides = (labels[:left], labels[left:])
    before, after = (max(text_width(figure, f"{label}  0.00", 7.5) for label in side) + 0.02 for side in sides)
    foot = 0.2 / figure.get_figheight()
    return before, foot, max(0.1, 1 - before - after), 1 - foot


def _scale(axis: Axes, low: int, high: int, drawn: float, distance: float) -> None:
    """Draw the rank axis, and the critical difference as a bar of its length (at most the axis)."""
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
    looks: Sequence[SeriesStyle],
    depth: float,
    ends: tuple[int, int],
) -> None:
    """Lead the better half of the methods out to the left and the others to the right."""
    left = ceil(len(labels) / 2)
    gap = 0.04 * (ends[1] - ends[0])
    for i, (label, rank, look) in enumerate(zip(labels, ranks, looks, strict=True)):
        better = i < left
        y = -depth - _STEP * (i if better else len(labels) - 1 - i)
        edge = ends[0] - gap if better else ends[1] + gap
        axis.plot([rank, rank, edge], [0, y, y], color=look.colour, linewidth=1)
        axis.plot(rank, 0, marker=look.marker, markersize=5, color=look.colour, clip_on=False)
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
