"""Figures of SHIP's hierarchy: block affinities, adjacent affinities and levels per task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from shipbench.counts import counted
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.normalise import json_list
from shipbench.report.analysis.study import Study
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Figure
from shipbench.report.drawing.chart import Axis, Band, Box, Chart, ColourBar, Heat, Key, Line, Mark, Note, Panel, Points
from shipbench.report.drawing.palette import (
    BLUE,
    CIVIDIS,
    GREY,
    GROUP_COLOURS,
    INK,
    INK_ON_MAP,
    PAPER_ON_MAP,
    SKY,
    mapped,
)
from shipbench.report.drawing.scales import downwards, number_axis
from shipbench.report.figures.style import panel_columns
from shipbench.report.wording.names import task_name
from shipbench.report.wording.text import numbered, shortened


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """The hierarchy on a task: the first block of each level (from 0), the affinity and its deviation over images.

    Both are (blocks x blocks), or empty if they are not recorded.
    """

    task: str
    group: str
    levels: tuple[int, ...]
    affinity: NDArray[np.float64]
    deviation: NDArray[np.float64]

    @property
    def blocks(self) -> int:
        """The number of blocks: the size of the affinity, or the fewest that the levels need."""
        return len(self.affinity) or max(self.levels) + 1


def hierarchies(study: Study, suite: str, arm: Arm) -> list[Hierarchy]:
    """Return the hierarchies of an arm in task order, each from the run with the lowest seed."""
    runs = study.runs[(study.runs["arm"] == arm.key) & (study.runs["levels"] != "")].sort_values("seed")
    first = runs.drop_duplicates("task").set_index("task")
    groups = {task: group for group, tasks in study.groups_of(suite).items() for task in tasks}
    result = []
    for task in study.tasks_of(suite):
        if task in first.index:
            levels = tuple(int(level) for level in json_list(str(first.at[task, "levels"])))
            if levels:
                affinity, deviation = (_square(str(first.at[task, name])) for name in ("affinity", "affinity_std"))
                same = deviation.shape == affinity.shape
                result.append(Hierarchy(task, groups[task], levels, affinity, deviation if same else affinity[:0, :0]))
    return result


def _square(text: str) -> NDArray[np.float64]:
    rows = json_list(text)
    if not rows or any(not isinstance(row, list) or len(row) != len(rows) for row in rows):
        return np.empty((0, 0))
    return np.asarray(rows, dtype=float)


def structure_figures(view: SuiteView) -> list[Figure]:
    """Return heat maps, adjacent affinities and levels of every main arm that recorded levels."""
    figures: list[Figure] = []
    by_arm = [(arm, of_arm) for arm in view.arms if (of_arm := hierarchies(view.study, view.suite, arm))]
    for number, (arm, of_arm) in enumerate(by_arm, 1):
        suffix = numbered(view.slug, number)
        measured = [hierarchy for hierarchy in of_arm if len(hierarchy.affinity) > 1]
        if measured:
            figures += [_heat_maps(view, arm, measured, suffix), _adjacent(view, arm, measured, suffix)]
        figures.append(_levels(view, arm, of_arm, suffix))
    return figures


def _name(view: SuiteView, arm: Arm) -> str:
    """Name the suite and, if several main arms may have levels, the arm."""
    alike = [other for other in view.arms if other.method == arm.method]
    return f"{view.name}, {arm.label}" if len(alike) > 1 else view.name


def _heat_maps(view: SuiteView, arm: Arm, shown: Sequence[Hierarchy], suffix: str) -> Figure:
    draw = partial(draw_heat_maps, shown, view.footer)
    return Figure(
        name=f"affinity-{suffix}",
        title=f"{_name(view, arm)}: block affinity and levels",
        caption=view.caption(
            f"{arm.label}: affinity between blocks of the frozen backbone (cosine similarity of their features, mean "
            "over training images). Squares on the diagonal are levels: groups of blocks that share prompts.",
            "Each task is shown for its lowest seed.",
        ),
        draw=draw,
        alt=f"Heat maps of block affinity for {counted(len(shown), 'task')} with the levels drawn in.",
        wide=len(shown) > 2,
        narrow=partial(draw, narrow=True) if len(shown) > 2 else None,
    )


def draw_heat_maps(shown: Sequence[Hierarchy], footer: str, *, narrow: bool = False) -> Chart:
    """Draw a heat map per task on a common colour scale, with the levels as squares; two to a row if ``narrow``."""
    columns = panel_columns(len(shown), 5 if len(shown) > 6 else 3, narrow=narrow)
    lowest = min(float(np.min(hierarchy.affinity)) for hierarchy in shown)
    panels = tuple(_heat_map(hierarchy, lowest, 0.8 if columns > 3 else 1.3) for hierarchy in shown)
    bar = ColourBar(lowest, 1.0, "affinity", CIVIDIS)
    return Chart(panels, 0, columns, wide=columns > 2, footer=footer, bar=bar)


def _heat_map(hierarchy: Hierarchy, lowest: float, line: float) -> Panel:
    blocks, affinity = hierarchy.blocks, hierarchy.affinity
    colours = tuple(tuple(mapped(value, lowest, 1.0) for value in row) for row in affinity.tolist())
    tips = tuple(
        tuple(f"{task_name(hierarchy.task)}, blocks {i + 1} and {j + 1}: {value:.3f}" for j, value in enumerate(row))
        for i, row in enumerate(affinity.tolist())
    )
    marks: list[Mark] = [Heat(0.5, blocks + 0.5, 0.5, blocks + 0.5, colours, tips)]
    for first, last in _spans(hierarchy):
        for colour, width in ((INK_ON_MAP, 2 * line), (PAPER_ON_MAP, line)):
            marks.append(Box(first + 0.5, last + 0.5, first + 0.5, last + 0.5, "", colour, width))
    ticks = tuple((float(tick), str(tick)) for tick in sorted({1, (blocks + 1) // 2, blocks}))
    across = Axis(0.5, blocks + 0.5, ticks, grid=False, line=False)
    down = Axis(blocks + 0.5, 0.5, ticks, grid=False, line=False)
    return Panel(across, down, tuple(marks), shortened(task_name(hierarchy.task), 20))


def _spans(hierarchy: Hierarchy) -> list[tuple[int, int]]:
    """Return each level as (first block, last block + 1), counted from 0."""
    ends = [*hierarchy.levels[1:], hierarchy.blocks]
    return list(zip(hierarchy.levels, ends, strict=True))


def _adjacent(view: SuiteView, arm: Arm, shown: Sequence[Hierarchy], suffix: str) -> Figure:
    spread = any(len(hierarchy.deviation) for hierarchy in shown)
    draw = partial(draw_adjacent, shown, view.footer)
    return Figure(
        name=f"adjacent-affinity-{suffix}",
        title=f"{_name(view, arm)}: affinity of adjacent blocks",
        caption=view.caption(
            f"{arm.label}: affinity of each block with the next, a thin line per task and a bold line for the mean of "
            "each group. At a dip, features change most and a level is likely to begin.",
            "Bands show the deviation over training images, averaged over the tasks of a group." if spread else "",
        ),
        draw=draw,
        alt=f"Affinity of adjacent blocks over depth for {counted(len(shown), 'task')}.",
        narrow=partial(draw, narrow=True),
    )


def draw_adjacent(shown: Sequence[Hierarchy], footer: str, *, narrow: bool = False) -> Chart:
    """Draw adjacent affinity over depth: a thin line per task, a bold mean and a band of deviations per group.

    If it is ``narrow``, fewer pairs of blocks are labelled, in larger text.
    """
    groups: dict[str, list[Hierarchy]] = {}
    for hierarchy in shown:
        groups.setdefault(hierarchy.group, []).append(hierarchy)
    marks = [mark for group, members in groups.items() for mark in _adjacent_marks(group, members)]
    pairs = max(hierarchy.blocks for hierarchy in shown) - 1
    ticks = tuple((float(i), f"{i}–{i + 1}") for i in range(1, pairs + 1))  # noqa: RUF001
    across = Axis(0.5, pairs + 0.5, ticks, "blocks", grid=False, text=6 if pairs > 8 and not narrow else 7)
    ends = [y for mark in marks for y in _heights(mark)]
    legend = tuple(
        Key(f"{group} ({len(members)})", GROUP_COLOURS.get(group, GREY), "o") for group, members in groups.items()
    )
    return Chart((Panel(across, number_axis(ends, "affinity"), tuple(marks)),), 150, legend=legend, footer=footer)


def _heights(mark: Mark) -> Sequence[float]:
    if isinstance(mark, Band):
        return [*mark.lows, *mark.highs]
    return mark.ys if isinstance(mark, (Line, Points)) else []


def _adjacent_marks(group: str, members: Sequence[Hierarchy]) -> Iterator[Mark]:
    colour = GROUP_COLOURS.get(group, GREY)
    lines = [np.diagonal(member.affinity, offset=1) for member in members]
    for line in lines:
        yield Line(list(range(1, len(line) + 1)), line.tolist(), colour, 0.7, opacity=0.45)
    if len({len(line) for line in lines}) > 1:
        return
    mean, places = np.mean(lines, axis=0), list(range(1, len(lines[0]) + 1))
    spreads = [np.diagonal(member.deviation, offset=1) for member in members if len(member.deviation)]
    if len(spreads) == len(members):
        spread = np.mean(spreads, axis=0)
        yield Band(places, (mean - spread).tolist(), (mean + spread).tolist(), colour)
    tips = tuple(f"{group}, blocks {i} and {i + 1}: {value:.3f}" for i, value in zip(places, mean, strict=True))
    yield Line(places, mean.tolist(), colour, 2)
    yield Points(places, mean.tolist(), colour, size=3.5, tips=tips)


def _levels(view: SuiteView, arm: Arm, shown: Sequence[Hierarchy], suffix: str) -> Figure:
    return Figure(
        name=f"levels-{suffix}",
        title=f"{_name(view, arm)}: levels per task",
        caption=view.caption(
            f"{arm.label}: blocks in the same bar share prompts; the number of levels is on the right.",
            "Colours alternate between bars. Each task is shown for its lowest seed.",
        ),
        draw=lambda: draw_levels(shown, view.footer),
        alt=f"Levels of {counted(len(shown), 'task')} over the depth of the backbone.",
    )


def draw_levels(shown: Sequence[Hierarchy], footer: str) -> Chart:
    """Draw the levels of every task as bars of alternating colour over the blocks."""
    blocks = max(hierarchy.blocks for hierarchy in shown)
    marks: list[Mark] = []
    for y, hierarchy in enumerate(shown):
        for i, (first, last) in enumerate(_spans(hierarchy)):
            blocks_named = f"block {last}" if last == first + 1 else f"blocks {first + 1} to {last}"
            tip = f"{task_name(hierarchy.task)}, level {i + 1}: {blocks_named}"
            marks.append(Box(first + 0.55, last + 0.45, y - 0.35, y + 0.35, (BLUE, SKY)[i % 2], tip=tip))
        marks.append(Note(blocks, y, counted(len(hierarchy.levels), "level"), 7, INK, beside="right"))
    ticks = tuple((float(block), str(block)) for block in range(1, blocks + 1))
    across = Axis(0.5, blocks + 0.5, ticks, "block", grid=False, line=False)
    down = downwards([shortened(task_name(hierarchy.task), 20) for hierarchy in shown])
    return Chart((Panel(across, down, tuple(marks)),), 13.5 * len(shown) + 4, footer=footer)
