"""Per-task differences to the baseline: lollipop panels for a few methods, a coloured map for many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MplFigure

from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Figure
from shipbench.report.figures.style import (
    GREY,
    GROUP_COLOURS,
    INK,
    INK_ON_MAP,
    MUTED,
    NARROW,
    PAPER,
    PAPER_ON_MAP,
    WIDE,
    new_figure,
    only_grid,
    panels,
    style,
)
from shipbench.report.wording.names import task_name
from shipbench.report.wording.numbers import signed
from shipbench.report.wording.text import counted, shortened, wrapped

_FEW = 6
_STRONG = 0.6


@dataclass(frozen=True)
class TaskDifferences:
    """The differences of one method by task, in percentage points."""

    label: str
    values: Mapping[str, float]


def task_differences_figure(view: SuiteView) -> Figure | None:
    """Return the differences of the other main arms to the baseline; None if no arm shares a task with it."""
    if view.baseline is None or not view.comparisons:
        return None
    baseline = view.baseline
    lines = [TaskDifferences(comparison.arm.short_label, comparison.differences) for comparison in view.comparisons]
    few = len(lines) <= _FEW
    text = (
        f"{view.name}: difference to {baseline.label} per task in percentage points, mean over shared seeds; "
        "above zero is better than the baseline. "
        + ("Tasks without a shared seed are left out." if few else _colour_sentence(lines))
    )
    draw = draw_task_differences if few else draw_difference_map
    return Figure(
        name=f"differences-{view.slug}",
        title=f"{view.name}: difference to {baseline.label} per task",
        caption=view.caption(text),
        draw=lambda: draw(lines, view.groups, baseline.short_label, view.footer),
        alt=f"Per-task differences to {baseline.label} for {counted(len(lines), 'method')}.",
        wide=True,
    )


def draw_task_differences(
    lines: Sequence[TaskDifferences], groups: Mapping[str, Sequence[str]], baseline: str, footer: str
) -> MplFigure:
    """Draw a panel of lollipops per method, with tasks from top to bottom."""
    tasks = _present_tasks(lines, groups)
    colours = {task: GROUP_COLOURS.get(group, GREY) for group, names in groups.items() for task in names}
    columns = min(len(lines), 4)
    rows = -(-len(lines) // columns)
    titles = [wrapped(line.label, 20) for line in lines]
    height = 0.9 + 0.15 * max(title.count("\n") + 1 for title in titles) + 0.165 * len(tasks)
    with style():
        figure = new_figure(max(NARROW, 1.1 + 1.6 * columns), rows * height, footer)
        axes = panels(figure, len(lines), columns, sharex=True, sharey=True)
        for axis, line, title in zip(axes, lines, titles, strict=True):
            _lollipops(axis, line, tasks, colours)
            axis.set_title(title)
        for axis in axes[-columns:]:
            axis.tick_params(labelbottom=True)
        figure.axes[0].margins(x=0.3)
        figure.axes[0].set_ylim(len(tasks) - 0.4, -0.6)
        figure.axes[0].set_yticks(range(len(tasks)), [shortened(task_name(task), 20) for task in tasks])
        _heading(figure, baseline)
        return figure


def _heading(figure: MplFigure, baseline: str) -> None:
    text = f"difference to {shortened(baseline, 30)} (percentage points)"
    figure.suptitle(text, x=0.008, ha="left", fontsize=8, color=INK)


def _present_tasks(lines: Sequence[TaskDifferences], groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the tasks that any method has, group by group."""
    present = {task for line in lines for task in line.values}
    return [task for names in groups.values() for task in names if task in present]


def _lollipops(axis: Axes, line: TaskDifferences, tasks: Sequence[str], colours: Mapping[str, str]) -> None:
    rows = [(i, line.values[task], colours[task]) for i, task in enumerate(tasks) if task in line.values]
    axis.axvline(0, color=INK, linewidth=0.8)
    for i, value, colour in rows:
        axis.hlines(i, 0, value, color=colour, linewidth=2)
        axis.plot(value, i, marker="o", markersize=3.5, color=colour)
        axis.annotate(
            signed(value),
            (value, i),
            xytext=(4 if value >= 0 else -4, 0),
            textcoords="offset points",
            ha="left" if value >= 0 else "right",
            va="center_baseline",
            fontsize=5.5,
            color=MUTED,
        )
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)
    only_grid(axis, "x")


def draw_difference_map(
    lines: Sequence[TaskDifferences], groups: Mapping[str, Sequence[str]], baseline: str, footer: str
) -> MplFigure:
    """Draw methods x tasks as coloured cells with their values, and white gaps between groups."""
    tasks = _present_tasks(lines, groups)
    values = np.array([[line.values.get(task, np.nan) for task in tasks] for line in lines])
    limit = _limit(lines)
    with style():
        figure = new_figure(max(NARROW, min(WIDE, 2.0 + 0.3 * len(tasks))), 1.3 + 0.2 * len(lines), footer)
        axis = figure.subplots()
        axis.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        for (y, x), value in np.ndenumerate(values):
            colour = PAPER_ON_MAP if abs(value) > _STRONG * limit else INK_ON_MAP
            axis.text(x, y, signed(value), ha="center", va="center_baseline", fontsize=5.5, color=colour)
        starts = np.cumsum([sum(task in tasks for task in names) for names in groups.values()])
        axis.vlines(starts[:-1] - 0.5, -0.5, len(lines) - 0.5, color=PAPER, linewidth=3)
        axis.set_xticks(range(len(tasks)), [shortened(task_name(task), 20) for task in tasks], rotation=90)
        axis.set_yticks(range(len(lines)), [shortened(line.label, 34) for line in lines])
        axis.tick_params(length=0, labeltop=True, labelbottom=False)
        axis.grid(False)
        axis.spines[:].set_visible(False)
        _heading(figure, baseline)
        return figure


def _limit(lines: Sequence[TaskDifferences]) -> float:
    """Return the difference at which colours saturate: the 90 % quantile of absolute values, at least one point."""
    return max(1.0, float(np.quantile([abs(value) for line in lines for value in line.values.values()], 0.9)))


def _colour_sentence(lines: Sequence[TaskDifferences]) -> str:
    return f"Blue is better, red is worse; colours saturate at {_limit(lines):.1f} points. Empty cells share no seed."
