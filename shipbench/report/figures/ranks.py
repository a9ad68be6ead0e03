"""The critical-difference diagram: average ranks, and the methods that Nemenyi's test cannot distinguish."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import ceil, floor

from shipbench.counts import counted
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Figure
from shipbench.report.drawing.chart import Axis, Chart, Line, Mark, Note, Panel, Points
from shipbench.report.drawing.palette import INK, MUTED
from shipbench.report.drawing.scales import with_ticks
from shipbench.report.drawing.shapes import Anchor
from shipbench.report.figures.style import SeriesStyle, arm_styles
from shipbench.report.wording.text import shortened_apart
from shipbench.statistics import cliques

_STEP, _CLIQUE_STEP, _TEXT = 1.0, 0.42, 7.5
_MOST_NUMBERS = 12
# Of a list: its longest label, the height of a row, and the room of an upright bar as a share of the axis.
_LONGEST, _ROW, _BAR_ROOM = 38, 14, 0.06


def rank_figure(view: SuiteView) -> Figure | None:
    """Return the critical-difference diagram of the main arms; None without a ranking."""
    ranking = view.ranking
    if ranking is None:
        return None
    arm_style = arm_styles(view.arms)
    labels = [arm.short_label for arm in ranking.arms]
    styles = [arm_style[arm.key] for arm in ranking.arms]
    ranks = [float(rank) for rank in ranking.ranks]
    arguments = (labels, ranks, styles, ranking.distance, view.footer)
    return Figure(
        name=f"critical-difference-{view.slug}",
        title=f"{view.name}: critical differences",
        caption=view.caption(
            "Average ranks; a bar joins methods whose ranks differ by at most the critical difference.",
            ranking.sentence,
        ),
        draw=partial(draw_ranks, *arguments),
        alt=f"Critical-difference diagram of {counted(len(labels), 'method')}.",
        wide=_needs_room(labels),
        narrow=partial(draw_rank_list, *arguments),
    )


def draw_ranks(
    labels: Sequence[str], ranks: Sequence[float], styles: Sequence[SeriesStyle], distance: float, footer: str
) -> Chart:
    """Draw ascending ``ranks`` on an axis, labels on both sides, cliques below the axis and the distance above it."""
    bars = cliques(ranks, distance)
    better = ceil(len(labels) / 2)
    depth = 0.5 + _CLIQUE_STEP * len(bars)
    low, high = _ends(ranks)
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


def draw_rank_list(
    labels: Sequence[str], ranks: Sequence[float], styles: Sequence[SeriesStyle], distance: float, footer: str
) -> Chart:
    """Draw ascending ``ranks`` from top to bottom, cliques as upright bars and the distance above the first rank."""
    low, high = _ends(ranks)
    # To scale, because a row has no room to say that the distance is longer than the axis.
    end = max(float(high), low + distance)
    bars = cliques(ranks, distance)
    lanes = _lanes(bars)
    step = _BAR_ROOM * (end - low)
    marks: list[Mark] = [
        *_distance(low, distance, distance, -1),
        Note(low, -1, f"critical difference {distance:.2f}", anchor="end", beside="left"),
    ]
    for (first, last), lane in zip(bars, lanes, strict=True):
        marks.append(Line([end + step * (lane + 1)] * 2, [first - 0.3, last + 0.3], INK, 2.5))
    shown = shortened_apart(labels, _LONGEST)
    for y, (label, name, rank, series) in enumerate(zip(labels, shown, ranks, styles, strict=True)):
        marks += _rank_row(y, label, name, rank, series)
    across = with_ticks(Axis(low, end, label="average rank", line=False), 4, whole=True)
    across = replace(across, high=end + step * (max(lanes, default=-1) + 2))
    down = Axis(len(labels) - 0.5, -1.6, tuple((float(y), "") for y in range(len(labels))), line=False)
    return Chart((Panel(across, down, tuple(marks)),), _ROW * (len(labels) + 1), footer=footer)


def _rank_row(y: int, label: str, name: str, rank: float, series: SeriesStyle) -> Iterator[Mark]:
    yield Points([rank], [y], series.colour, series.marker, key=label, tips=(_rank_tip(label, rank),))
    yield Note(rank, y, name, _TEXT, INK, "end", beside="left", key=label)
    yield Note(rank, y, f"{rank:.2f}", _TEXT, INK, beside="right", key=label)


def _rank_tip(label: str, rank: float) -> str:
    return f"{label}: average rank {rank:.2f}"


def _lanes(bars: Sequence[tuple[int, int]]) -> list[int]:
    """Give every bar a lane in which it follows the others without touching them."""
    ends: list[int] = []
    lanes = []
    for first, last in bars:
        lane = next((i for i, end in enumerate(ends) if end < first), len(ends))
        ends[lane : lane + 1] = [last]
        lanes.append(lane)
    return lanes


def _ends(ranks: Sequence[float]) -> tuple[int, int]:
    """Return the whole ranks between which all ``ranks`` lie, at least one apart."""
    low = floor(min(ranks))
    return low, max(ceil(max(ranks)), low + 1)


def _needs_room(labels: Sequence[str]) -> bool:
    return len(labels) > 8 or max(map(len, labels)) > 20


def _scale(low: int, high: int, drawn: float, distance: float) -> Iterator[Mark]:
    """Draw the rank axis and the critical difference as a bar of length ``drawn``, at most that of the axis."""
    yield Line([low, high], [0, 0], INK, 1)
    for rank in range(low, high + 1):
        yield Line([rank, rank], [0, 0.22], INK, 1)
        if (rank - low) % ceil((high - low) / _MOST_NUMBERS) == 0:
            yield Note(rank, 0.62, str(rank), 7, INK, "middle")
    yield from _distance(low, drawn, distance, 1.55)
    beyond = "" if distance <= drawn else " (beyond the axis)"
    yield Note(low, 2.15, f"critical difference {distance:.2f}{beyond}")


def _distance(low: float, drawn: float, distance: float, y: float) -> Iterator[Mark]:
    """Draw the critical difference as a bar from ``low``, without its end if it is longer than ``drawn``."""
    yield Line([low, low + drawn], [y, y], MUTED, 1.2)
    for end in (low, low + drawn) if distance <= drawn else (low,):
        yield Line([end, end], [y - 0.15, y + 0.15], MUTED, 1.2)


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
        yield Points([rank], [0], series.colour, series.marker, key=label, tips=(_rank_tip(label, rank),))
        text = f"{label}  {rank:.2f}" if better else f"{rank:.2f}  {label}"
        anchor: Anchor = "end" if better else "start"
        yield Note(edge, y, text, _TEXT, INK, anchor, beside="left" if better else "right", key=label)
