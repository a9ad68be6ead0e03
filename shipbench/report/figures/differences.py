"""Differences: of every method to a baseline per task, and of ablations to the full method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure as MplFigure

from shipbench.report.arms import Arm
from shipbench.report.captions import caption, footer
from shipbench.report.differences import Ablation, PairedDifference, paired_difference
from shipbench.report.figures.style import (
    GREY,
    GROUP_COLOURS,
    INK,
    MUTED,
    NARROW,
    VERMILION,
    new_figure,
    only_grid,
    panels,
    style,
)
from shipbench.report.labels import (
    component_name,
    counted,
    method_name,
    shortened,
    slug,
    suite_name,
    task_name,
    wrapped,
)
from shipbench.report.model import Figure
from shipbench.report.numbers import known, signed
from shipbench.report.study import Study
from shipbench.report.tables.ablation import difference_to_full, interval_over


@dataclass(frozen=True)
class TaskDifferences:
    """One method's difference per task (percentage points), in the order of the tasks."""

    label: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class AblationLine:
    """One ablated arm: its label and its paired difference to the full method."""

    label: str
    difference: PairedDifference


def baseline_arm(study: Study, suite: str, method: str) -> Arm | None:
    """Return the suite's first main arm of ``method``; None if it was not run."""
    return next((arm for arm in study.arms_of(suite, main=True) if arm.method == method), None)


def task_differences_figure(study: Study, suite: str, baseline: Arm) -> Figure | None:
    """Return the per-task differences of the other main arms to ``baseline``; None if there is nothing shared."""
    reference = study.accuracies(baseline)
    lines = []
    for arm in study.arms_of(suite, main=True):
        tasks = paired_difference(study.accuracies(arm), reference).tasks if arm != baseline else {}
        if tasks:
            lines.append(TaskDifferences(arm.short_label, tasks))
    if not lines:
        return None
    groups, small = study.groups_of(suite), footer(study.selection, suite)
    text = (
        f"{suite_name(suite)}: difference to {baseline.label} per task in percentage points, paired over the seeds "
        "that both have (mean); above zero is better than the baseline. Tasks without a pair are left out."
    )
    return Figure(
        name=f"differences-{slug(suite)}",
        title=f"{suite_name(suite)}: difference to {baseline.label} per task",
        caption=caption(text, study.selection, suite),
        draw=lambda: draw_task_differences(lines, groups, baseline.short_label, small),
        alt=f"Per-task differences to {baseline.label} for {counted(len(lines), 'method')}.",
        wide=True,
    )


def draw_task_differences(
    lines: Sequence[TaskDifferences], groups: Mapping[str, Sequence[str]], baseline: str, small: str
) -> MplFigure:
    """Draw one panel of lollipops per method, tasks from top to bottom."""
    shown = {task for line in lines for task in line.values}
    tasks = [task for names in groups.values() for task in names if task in shown]
    colours = {task: GROUP_COLOURS.get(group, GREY) for group, names in groups.items() for task in names}
    columns = min(len(lines), 4)
    rows = -(-len(lines) // columns)
    titles = [wrapped(line.label, 20) for line in lines]
    height = 0.9 + 0.15 * max(title.count("\n") + 1 for title in titles) + 0.165 * len(tasks)
    with style():
        figure = new_figure(max(NARROW, 1.1 + 1.6 * columns), rows * height, small)
        axes = panels(figure, len(lines), columns, sharex=True, sharey=True)
        for axis, line, title in zip(axes, lines, titles, strict=True):
            _lollipops(axis, line, tasks, colours)
            axis.set_title(title)
        figure.axes[0].margins(x=0.3)
        figure.axes[0].set_ylim(len(tasks) - 0.4, -0.6)
        figure.axes[0].set_yticks(range(len(tasks)), [shortened(task_name(task), 20) for task in tasks])
        figure.suptitle(
            f"difference to {shortened(baseline, 30)} (percentage points)", x=0.008, ha="left", fontsize=8, color=INK
        )
        return figure


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


def ablation_figure(study: Study, suite: str, ablation: Ablation, number: int = 0) -> Figure | None:
    """Return the differences of an ablation with their intervals; None without a full arm to compare to."""
    found = [(arm, difference_to_full(study, arm, ablation)) for arm in ablation.ablated]
    lines = [AblationLine(_parts(arm), difference) for arm, difference in found if difference]
    if not lines or ablation.full is None:
        return None
    method, small = method_name(ablation.full.method), footer(study.selection, suite)
    text = (
        f"{suite_name(suite)}: difference to full {method} in percentage points when a part is switched off, "
        f"with 95 % Student t intervals ({interval_over(study, ablation)}); small points are single tasks. "
        "Pairs share task and seed; the number of shared tasks stands on the right."
    )
    return Figure(
        name=f"ablation-{slug(suite)}" + (f"-{number + 1}" if number else ""),
        title=f"{suite_name(suite)}: what each part of {method} adds",
        caption=caption(text, study.selection, suite),
        draw=lambda: draw_ablation(lines, method, small),
        alt=f"Differences of {counted(len(lines), 'ablation')} to full {method} with intervals.",
    )


def _parts(arm: Arm) -> str:
    """Name what is switched off, one part per line."""
    return "\n".join(f"{'–' if i else 'without'} {component_name(s)}" for i, s in enumerate(arm.switches))  # noqa: RUF001


def draw_ablation(lines: Sequence[AblationLine], method: str, small: str) -> MplFigure:
    """Draw a forest plot: mean, interval and single tasks of every ablated arm."""
    heights = [max(1.0, 0.62 * (1 + line.label.count("\n"))) for line in lines]
    places = [sum(heights[:i]) + heights[i] / 2 for i in range(len(lines))]
    with style():
        figure = new_figure(NARROW, 0.85 + 0.36 * sum(heights), small)
        axis = figure.subplots()
        axis.axvline(0, color=INK, linewidth=0.8)
        for y, line in zip(places, lines, strict=True):
            _forest_line(axis, y, line.difference)
        axis.set_yticks(places, [line.label for line in lines])
        axis.set_ylim(sum(heights), 0)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel(f"difference to full {method} (percentage points)")
        only_grid(axis, "x")
        return figure


def _forest_line(axis: Axes, y: float, difference: PairedDifference) -> None:
    interval = difference.interval
    values = list(difference.tasks.values())
    axis.plot(values, [y] * len(values), "o", color=GREY, alpha=0.45, markersize=3, markeredgewidth=0)
    if known(interval.low):
        axis.plot([interval.low, interval.high], [y, y], color=VERMILION, linewidth=2, solid_capstyle="round")
    axis.plot(interval.mean, y, "o", color=VERMILION, markersize=6)
    tasks = counted(len(values), "task")
    axis.annotate(
        f"{signed(interval.mean)}  ({tasks})",
        (1.0, y),
        xycoords=axis.get_yaxis_transform(),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=7,
        color=MUTED,
        annotation_clip=False,
    )
