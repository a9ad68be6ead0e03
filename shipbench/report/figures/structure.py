"""SHIP's own figures: affinities of blocks, the levels cut from them, and levels per task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MplFigure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.normalise import json_list
from shipbench.report.analysis.study import Study
from shipbench.report.document import Figure
from shipbench.report.figures.style import (
    BLUE,
    GREY,
    GROUP_COLOURS,
    INK,
    INK_ON_MAP,
    MUTED,
    NARROW,
    PAPER_ON_MAP,
    SKY,
    WIDE,
    legend_above,
    new_figure,
    only_grid,
    panels,
    style,
)
from shipbench.report.wording.captions import caption, footer
from shipbench.report.wording.names import suite_name, task_name
from shipbench.report.wording.text import counted, shortened, slug


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """One task's levels (first blocks, from 0), its affinity (blocks x blocks, or empty) and block count."""

    task: str
    group: str
    levels: tuple[int, ...]
    affinity: NDArray[np.float64]

    @property
    def blocks(self) -> int:
        """The number of blocks: the affinity's size, or as many as the levels need."""
        return len(self.affinity) or max(self.levels) + 1


def hierarchies(study: Study, suite: str, arm: Arm) -> list[Hierarchy]:
    """Return the hierarchy of an arm on every task it was run on, from the run with the lowest seed."""
    runs = study.runs[(study.runs["arm"] == arm.key) & (study.runs["levels"] != "")].sort_values("seed")
    first = runs.drop_duplicates("task").set_index("task")
    groups = {task: group for group, tasks in study.groups_of(suite).items() for task in tasks}
    found = []
    for task in study.tasks_of(suite):
        if task in first.index:
            levels = tuple(int(level) for level in json_list(str(first.at[task, "levels"])))
            if levels:
                found.append(Hierarchy(task, groups[task], levels, _square(str(first.at[task, "affinity"]))))
    return found


def _square(text: str) -> NDArray[np.float64]:
    rows = json_list(text)
    if not rows or any(not isinstance(row, list) or len(row) != len(rows) for row in rows):
        return np.empty((0, 0))
    return np.asarray(rows, dtype=float)


def structure_figures(study: Study, suite: str) -> list[Figure]:
    """Return heat maps, adjacent affinities and levels for every main arm that recorded levels."""
    figures: list[Figure] = []
    for arm in study.arms_of(suite, main=True):
        found = hierarchies(study, suite, arm)
        suffix = slug(suite) if not figures else f"{slug(suite)}-{arm.key}"
        measured = [hierarchy for hierarchy in found if len(hierarchy.affinity) > 1]
        if measured:
            figures += [_heat_maps(study, suite, arm, measured, suffix), _adjacent(study, suite, arm, measured, suffix)]
        if found:
            figures.append(_levels(study, suite, arm, found, suffix))
    return figures


def _heat_maps(study: Study, suite: str, arm: Arm, found: Sequence[Hierarchy], suffix: str) -> Figure:
    small = footer(study.selection, suite)
    text = (
        f"{suite_name(suite)}, {arm.label}: affinity of the blocks of the frozen backbone (cosine similarity of their "
        "features, mean over training images). Squares on the diagonal are the levels: blocks that share prompts. "
        "Lowest seed of each task."
    )
    return Figure(
        name=f"affinity-{suffix}",
        title=f"{suite_name(suite)}: block affinity and levels",
        caption=caption(text, study.selection, suite),
        draw=lambda: draw_heat_maps(found, small),
        alt=f"Heat maps of block affinity for {counted(len(found), 'task')} with the levels drawn in.",
        wide=True,
    )


def draw_heat_maps(found: Sequence[Hierarchy], small: str) -> MplFigure:
    """Draw one heat map per task on a common colour scale, the levels as squares."""
    columns = min(len(found), 5 if len(found) > 6 else 3)
    rows = -(-len(found) // columns)
    side = (WIDE - 0.9) / columns
    lowest = min(float(hierarchy.affinity.min()) for hierarchy in found)
    with style():
        figure = new_figure(WIDE if columns > 1 else NARROW, 0.4 + rows * (min(side, 2.3) + 0.12), small)
        axes = panels(figure, len(found), columns)
        line = 0.8 if columns > 3 else 1.3
        images = [_heat_map(axis, hierarchy, lowest, line) for axis, hierarchy in zip(axes, found, strict=True)]
        bar = figure.colorbar(images[-1], ax=figure.axes[: rows * columns], shrink=0.6, aspect=30, pad=0.015)
        bar.set_label("affinity")
        bar.outline.set_visible(False)
        return figure


def _heat_map(axis: Axes, hierarchy: Hierarchy, lowest: float, line: float) -> AxesImage:
    blocks = hierarchy.blocks
    image = axis.imshow(
        hierarchy.affinity,
        cmap="cividis",
        vmin=lowest,
        vmax=1,
        extent=(0.5, blocks + 0.5, blocks + 0.5, 0.5),
        interpolation="nearest",
    )
    for first, last in _spans(hierarchy):
        size = last - first
        for colour, width in ((INK_ON_MAP, 2 * line), (PAPER_ON_MAP, line)):
            axis.add_patch(
                Rectangle(
                    (first + 0.5, first + 0.5), size, size, fill=False, edgecolor=colour, linewidth=width, clip_on=False
                )
            )
    axis.set_title(shortened(task_name(hierarchy.task), 20))
    ticks = sorted({1, (blocks + 1) // 2, blocks})
    axis.set_xticks(ticks)
    axis.set_yticks(ticks)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    return image


def _spans(hierarchy: Hierarchy) -> list[tuple[int, int]]:
    """Return each level as (first block, one past its last block), from 0."""
    ends = [*hierarchy.levels[1:], hierarchy.blocks]
    return list(zip(hierarchy.levels, ends, strict=True))


def _adjacent(study: Study, suite: str, arm: Arm, found: Sequence[Hierarchy], suffix: str) -> Figure:
    small = footer(study.selection, suite)
    text = (
        f"{suite_name(suite)}, {arm.label}: affinity of each block with the next over depth, one thin line per task, "
        "the mean of each group (with its number of tasks) in bold. A dip is where features change most and a level is "
        "likely to begin."
    )
    return Figure(
        name=f"adjacent-affinity-{suffix}",
        title=f"{suite_name(suite)}: affinity of adjacent blocks",
        caption=caption(text, study.selection, suite),
        draw=lambda: draw_adjacent(found, small),
        alt=f"Affinity of adjacent blocks over depth for {counted(len(found), 'task')}.",
    )


def draw_adjacent(found: Sequence[Hierarchy], small: str) -> MplFigure:
    """Draw adjacent affinity over depth, coloured by group."""
    groups: dict[str, list[NDArray[np.float64]]] = {}
    for hierarchy in found:
        groups.setdefault(hierarchy.group, []).append(np.diagonal(hierarchy.affinity, offset=1))
    with style():
        figure = new_figure(NARROW, 3.0, small)
        axis = figure.subplots()
        for group, lines in groups.items():
            colour = GROUP_COLOURS.get(group, GREY)
            for line in lines:
                axis.plot(np.arange(1, len(line) + 1), line, color=colour, linewidth=0.7, alpha=0.45)
            if len({len(line) for line in lines}) == 1:
                mean = np.mean(lines, axis=0)
                axis.plot(
                    np.arange(1, len(mean) + 1),
                    mean,
                    color=colour,
                    linewidth=2,
                    marker="o",
                    markersize=3.5,
                    label=f"{group} ({len(lines)})",
                )
        pairs = max(len(line) for lines in groups.values() for line in lines)
        axis.set_xticks(range(1, pairs + 1), [f"{i}–{i + 1}" for i in range(1, pairs + 1)])  # noqa: RUF001
        axis.tick_params(axis="x", labelsize=6)
        axis.set(xlabel="blocks", ylabel="affinity")
        only_grid(axis, "y")
        legend_above(figure, *axis.get_legend_handles_labels())
        return figure


def _levels(study: Study, suite: str, arm: Arm, found: Sequence[Hierarchy], suffix: str) -> Figure:
    small = footer(study.selection, suite)
    text = (
        f"{suite_name(suite)}, {arm.label}: the levels on every task. The blocks of one bar share "
        "their prompts; colours alternate from bar to bar. The number of levels stands on the right. Lowest seed of "
        "each task."
    )
    return Figure(
        name=f"levels-{suffix}",
        title=f"{suite_name(suite)}: levels per task",
        caption=caption(text, study.selection, suite),
        draw=lambda: draw_levels(found, small),
        alt=f"Levels of {counted(len(found), 'task')} over the depth of the backbone.",
    )


def draw_levels(found: Sequence[Hierarchy], small: str) -> MplFigure:
    """Draw each task's levels as alternating bars over the blocks."""
    blocks = max(hierarchy.blocks for hierarchy in found)
    with style():
        figure = new_figure(NARROW, 0.85 + 0.185 * len(found), small)
        axis = figure.subplots()
        for y, hierarchy in enumerate(found):
            for i, (first, last) in enumerate(_spans(hierarchy)):
                axis.barh(y, last - first - 0.1, left=first + 0.55, height=0.7, color=(BLUE, SKY)[i % 2], linewidth=0)
            axis.text(blocks + 1.4, y, str(len(hierarchy.levels)), va="center", ha="right", fontsize=7, color=INK)
        axis.set_yticks(range(len(found)), [shortened(task_name(hierarchy.task), 20) for hierarchy in found])
        axis.set_ylim(len(found) - 0.4, -0.6)
        axis.set_xlim(0.5, blocks + 0.5)
        axis.set_xticks(range(1, blocks + 1))
        axis.set_xlabel("block")
        axis.tick_params(length=0)
        axis.grid(False)
        axis.spines[:].set_visible(False)
        axis.annotate(
            "levels", (blocks + 1.4, -0.75), va="bottom", ha="right", fontsize=7, color=MUTED, annotation_clip=False
        )
        return figure
