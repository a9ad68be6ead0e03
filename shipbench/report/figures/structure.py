"""Figures of SHIP's hierarchy: block affinities, adjacent affinities and levels per task."""

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
from shipbench.report.analysis.suite import SuiteView
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
from shipbench.report.wording.names import task_name
from shipbench.report.wording.text import counted, shortened


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """The hierarchy on a task: the first block of each level (from 0) and the affinity (blocks x blocks, or empty)."""

    task: str
    group: str
    levels: tuple[int, ...]
    affinity: NDArray[np.float64]

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
                result.append(Hierarchy(task, groups[task], levels, _square(str(first.at[task, "affinity"]))))
    return result


def _square(text: str) -> NDArray[np.float64]:
    rows = json_list(text)
    if not rows or any(not isinstance(row, list) or len(row) != len(rows) for row in rows):
        return np.empty((0, 0))
    return np.asarray(rows, dtype=float)


def structure_figures(view: SuiteView) -> list[Figure]:
    """Return heat maps, adjacent affinities and levels of every main arm that recorded levels."""
    figures: list[Figure] = []
    for arm in view.arms:
        of_arm = hierarchies(view.study, view.suite, arm)
        suffix = f"{view.slug}-{arm.key}" if figures else view.slug
        measured = [hierarchy for hierarchy in of_arm if len(hierarchy.affinity) > 1]
        if measured:
            figures += [_heat_maps(view, arm, measured, suffix), _adjacent(view, arm, measured, suffix)]
        if of_arm:
            figures.append(_levels(view, arm, of_arm, suffix))
    return figures


def _heat_maps(view: SuiteView, arm: Arm, shown: Sequence[Hierarchy], suffix: str) -> Figure:
    text = (
        f"{view.name}, {arm.label}: affinity between blocks of the frozen backbone (cosine similarity of their "
        "features, mean over training images). Squares on the diagonal are levels: groups of blocks that share "
        "prompts. Each task is shown for its lowest seed."
    )
    return Figure(
        name=f"affinity-{suffix}",
        title=f"{view.name}: block affinity and levels",
        caption=view.caption(text),
        draw=lambda: draw_heat_maps(shown, view.footer),
        alt=f"Heat maps of block affinity for {counted(len(shown), 'task')} with the levels drawn in.",
        wide=True,
    )


def draw_heat_maps(shown: Sequence[Hierarchy], footer: str) -> MplFigure:
    """Draw a heat map per task on a common colour scale, with the levels as squares."""
    columns = min(len(shown), 5 if len(shown) > 6 else 3)
    rows = -(-len(shown) // columns)
    side = (WIDE - 0.9) / columns
    lowest = min(float(hierarchy.affinity.min()) for hierarchy in shown)
    with style():
        figure = new_figure(WIDE if columns > 1 else NARROW, 0.4 + rows * (min(side, 2.3) + 0.12), footer)
        axes = panels(figure, len(shown), columns)
        line = 0.8 if columns > 3 else 1.3
        images = [_heat_map(axis, hierarchy, lowest, line) for axis, hierarchy in zip(axes, shown, strict=True)]
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
    """Return each level as (first block, last block + 1), counted from 0."""
    ends = [*hierarchy.levels[1:], hierarchy.blocks]
    return list(zip(hierarchy.levels, ends, strict=True))


def _adjacent(view: SuiteView, arm: Arm, shown: Sequence[Hierarchy], suffix: str) -> Figure:
    text = (
        f"{view.name}, {arm.label}: affinity of each block with the next, a thin line per task and a bold line for "
        "the mean of each group (number of tasks in the legend). At a dip, features change most and a level is likely "
        "to begin."
    )
    return Figure(
        name=f"adjacent-affinity-{suffix}",
        title=f"{view.name}: affinity of adjacent blocks",
        caption=view.caption(text),
        draw=lambda: draw_adjacent(shown, view.footer),
        alt=f"Affinity of adjacent blocks over depth for {counted(len(shown), 'task')}.",
    )


def draw_adjacent(shown: Sequence[Hierarchy], footer: str) -> MplFigure:
    """Draw adjacent affinity over depth, a thin line per task and a bold mean per group."""
    groups: dict[str, list[NDArray[np.float64]]] = {}
    for hierarchy in shown:
        groups.setdefault(hierarchy.group, []).append(np.diagonal(hierarchy.affinity, offset=1))
    with style():
        figure = new_figure(NARROW, 3.0, footer)
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


def _levels(view: SuiteView, arm: Arm, shown: Sequence[Hierarchy], suffix: str) -> Figure:
    text = (
        f"{view.name}, {arm.label}: the levels on every task. Blocks in the same bar share "
        "prompts; colours alternate between bars. The number of levels is on the right. Each task is shown for its "
        "lowest seed."
    )
    return Figure(
        name=f"levels-{suffix}",
        title=f"{view.name}: levels per task",
        caption=view.caption(text),
        draw=lambda: draw_levels(shown, view.footer),
        alt=f"Levels of {counted(len(shown), 'task')} over the depth of the backbone.",
    )


def draw_levels(shown: Sequence[Hierarchy], footer: str) -> MplFigure:
    """Draw the levels of every task as bars of alternating colour over the blocks."""
    blocks = max(hierarchy.blocks for hierarchy in shown)
    with style():
        figure = new_figure(NARROW, 0.85 + 0.185 * len(shown), footer)
        axis = figure.subplots()
        for y, hierarchy in enumerate(shown):
            for i, (first, last) in enumerate(_spans(hierarchy)):
                axis.barh(y, last - first - 0.1, left=first + 0.55, height=0.7, color=(BLUE, SKY)[i % 2], linewidth=0)
            axis.text(blocks + 1.4, y, str(len(hierarchy.levels)), va="center", ha="right", fontsize=7, color=INK)
        axis.set_yticks(range(len(shown)), [shortened(task_name(hierarchy.task), 20) for hierarchy in shown])
        axis.set_ylim(len(shown) - 0.4, -0.6)
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
