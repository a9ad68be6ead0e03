"""The critical-difference diagram: average ranks, and the methods that Nemenyi's test cannot distinguish."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, floor

from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Figure
from shipbench.report.drawing.chart import Axis, Chart, Line, Mark, Note, Panel, Points
from shipbench.report.drawing.palette import INK, MUTED
from shipbench.report.drawing.shapes import Anchor
from shipbench.report.figures.style import SeriesStyle, arm_styles
from shipbench.report.wording.text import counted
from shipbench.statistics import cliques

_STEP, _CLIQUE_STEP, _TEXT = 1.0, 0.42, 7.5
_MOST_NUMBERS = 12


def rank_figure(view: SuiteView) -> Figure | None:
    """Return the critical-difference diagram of the main arms; None without a ranking."""
    ranking = view.ranking
    if ranking is None:
        return None
    arm_style = arm_styles(view.arms)
    labels = [arm.short_label for arm in ranking.arms]
    styles = [arm_style[arm.key] for arm in ranking.arms]
    ranks = [float(rank) for rank in ranking.ranks]
    return Figure(
        name=f"critical-difference-{view.slug}",
        title=f"{view.name}: critical differences",
        caption=view.caption(
            "Average ranks; a bar joins methods whose ranks differ by less than the critical difference.",
            ranking.sentence,
        ),
        draw=lambda: draw_ranks(labels, ranks, styles, ranking.distance, view.footer),
        alt=f"Critical-difference diagram of {counted(len(labels), 'method')}.",
        wide=_needs_room(labels),
    )


def draw_ranks(
    labels: Sequence[str], ranks: Sequence[float], styles: Sequence[SeriesStyle], distance: float, footer: str
) -> Chart:
    """Draw ascending ``ranks`` on an axis, labels on both sides, cliques below the axis and the distance above it."""
    bars = cliques(ranks, distance)
    better = ceil(len(labels) / 2)
    depth = 0.5 + _CLIQUE_STEP * len(bars)
    low, high = floor(min(ranks)), max(ceil(max(ranks)), floor(min(ranks)) + 1)
    marks = (
        *_scale(low, high, min(distance, high - low), distance),
        *_bars(ranks, bars),
        *_elbows(labels, ranks, styles, depth, (low, high)),
    )
    bottom = -depth - _STEP * (better - 0.5)
    down = Axis(bottom, 2.7, grid=False, line=False)
    height = 16.5 * (2.7 - bottom)
    return Chart(
        (Panel(Axis(low, high, grid=False, line=False), down, marks),), height, wide=_needs_room(labels), footer=footer
    )


def _needs_room(labels: Sequence[str]) -> bool:
    return len(labels) > 8 or max(map(len, labels)) > 20


def _scale(low: int, high: int, drawn: float, distance: float) -> Iterator[Mark]:
    """Draw the rank axis and the critical difference as a bar of length ``drawn``, at most that of the axis."""
    yield Line([low, high], [0, 0], INK, 1)
    for rank in range(low, high + 1):
        yield Line([rank, rank], [0, 0.22], INK, 1)
        if (rank - low) % ceil((high - low) / _MOST_NUMBERS) == 0:
            yield Note(rank, 0.62, str(rank), 7, INK, "middle")
    yield Line([low, low + drawn], [1.55, 1.55], MUTED, 1.2)
    for end in (low, low + drawn) if distance <= drawn else (low,):
        yield Line([end, end], [1.4, 1.7], MUTED, 1.2)
    beyond = "" if distance <= drawn else " (beyond the axis)"
    yield Note(low, 2.15, f"critical difference {distance:.2f}{beyond}")


def _bars(ranks: Sequence[float], bars: Sequence[tuple[int, int]]) -> Iterator[Mark]:
    for i, (first, last) in enumerate(bars):
        y = -0.45 - _CLIQUE_STEP * i
        yield Line([ranks[first] - 0.03, ranks[last] + 0.03], [y, y], INK, 3)


def _elbows(
    labels: Sequence[str],
    ranks: Sequence[float],
    styles: Sequence[SeriesStyle],
    depth: float,
    ends: tuple[int, int],
) -> Iterator[Mark]:
    """Draw lines from the axis to the labels: the better half on the left, the others on the right."""
    half = ceil(len(labels) / 2)
    for i, (label, rank, series) in enumerate(zip(labels, ranks, styles, strict=True)):
        better = i < half
        y = -depth - _STEP * (i if better else len(labels) - 1 - i)
        edge = ends[0] if better else ends[1]
        yield Line([rank, rank, edge], [0, y, y], series.colour, 1, key=label)
        tips = (f"{label}: average rank {rank:.2f}",)
        yield Points([rank], [0], series.colour, series.marker, key=label, tips=tips)
        text = f"{label}  {rank:.2f}" if better else f"{rank:.2f}  {label}"
        anchor: Anchor = "end" if better else "start"
        yield Note(edge, y, text, _TEXT, INK, anchor, beside="left" if better else "right", key=label)
