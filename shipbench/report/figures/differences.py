"""Per-task differences to the baseline: lollipop panels for a few methods, a coloured map for many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate

import numpy as np

from shipbench.counts import counted
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Figure
from shipbench.report.drawing.chart import Box, Chart, Line, Mark, Note, Panel, Points, Reference
from shipbench.report.drawing.palette import GREY, GROUP_COLOURS, INK_ON_MAP, PAPER, PAPER_ON_MAP, RED_BLUE, mapped
from shipbench.report.drawing.scales import category_axis, downwards, number_axis
from shipbench.report.figures.style import panel_columns, without_labels
from shipbench.report.wording.names import task_name
from shipbench.report.wording.numbers import signed
from shipbench.report.wording.text import shortened, shortened_apart, wrapped

_FEW, _FEW_TASKS = 6, 6
_STRONG = 0.6
_GAPS = "Tasks without a shared seed are left out."


@dataclass(frozen=True)
class TaskDifferences:
    """The differences of one method by task, in percentage points."""

    label: str
    values: Mapping[str, float]


def task_differences_figure(view: SuiteView) -> Figure | None:
    """Return the differences of the other main arms to their baselines; None if no arm shares a task with its own."""
    if not view.comparisons:
        return None
    baseline = view.baselines.name
    lines = [TaskDifferences(comparison.arm.short_label, comparison.differences) for comparison in view.comparisons]
    few = len(lines) <= _FEW
    arguments = (lines, view.groups, baseline, view.footer)
    draw = partial(draw_task_differences if few else draw_difference_map, *arguments)
    wide = len(lines) > 2 if few else len(_present_tasks(lines, view.groups)) > _FEW_TASKS
    return Figure(
        name=f"differences-{view.slug}",
        title=f"{view.name}: difference to {baseline} per task",
        caption=view.caption(
            f"Difference to {baseline} per task in percentage points, mean over shared seeds.",
            " ".join((_GAPS if few else _colour_sentence(lines), *view.comparison_notes)),
        ),
        draw=draw,
        alt=f"Per-task differences to {baseline} for {counted(len(lines), 'method')}.",
        wide=True,
        narrow=partial(draw, narrow=True) if wide else None,
    )


def draw_task_differences(
    lines: Sequence[TaskDifferences],
    groups: Mapping[str, Sequence[str]],
    baseline: str,
    footer: str,
    *,
    narrow: bool = False,
) -> Chart:
    """Draw a panel of lollipops per method, with tasks from top to bottom; two to a row if it is ``narrow``."""
    tasks = _present_tasks(lines, groups)
    colours = {task: GROUP_COLOURS.get(group, GREY) for group, names in groups.items() for task in names}
    columns = panel_columns(len(lines), 4, narrow=narrow)
    values = [value for line in lines for value in line.values.values()]
    across = replace(number_axis([0.0, *values], margin=0.3, count=3), line=False)
    down = downwards([shortened(task_name(task), 20) for task in tasks])
    panels = [
        Panel(across, down if i % columns == 0 else without_labels(down), _lollipops(line, tasks, colours), title)
        for i, (line, title) in enumerate((line, wrapped(line.label, 14 if narrow else 20)) for line in lines)
    ]
    wide, heading = columns > 2, _heading(baseline, narrow=narrow)
    return Chart(tuple(panels), 12 * len(tasks) + 6, columns, wide=wide, heading=heading, footer=footer)


def _heading(baseline: str, *, narrow: bool) -> str:
    return f"difference to {shortened(baseline, 18 if narrow else 30)} (percentage points)"


def _present_tasks(lines: Sequence[TaskDifferences], groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the tasks that any method has, group by group."""
    present = {task for line in lines for task in line.values}
    return [task for names in groups.values() for task in names if task in present]


def _lollipops(line: TaskDifferences, tasks: Sequence[str], colours: Mapping[str, str]) -> tuple[Mark, ...]:
    marks: list[Mark] = [Reference(0.0)]
    for y, task in enumerate(tasks):
        if task in line.values:
            marks += _lollipop(line, y, task, colours[task])
    return tuple(marks)


def _lollipop(line: TaskDifferences, y: int, task: str, colour: str) -> Iterator[Mark]:
    value, key = line.values[task], line.label
    right = value >= 0
    tip = f"{line.label}, {task_name(task)}: {signed(value)}"
    yield Line([0.0, value], [y, y], colour, 2, key=key)
    yield Points([value], [y], colour, size=4, key=key, tips=(tip,))
    yield Note(value, y, signed(value), 5.5, anchor="start" if right else "end", dx=4 if right else -4, key=key)


def draw_difference_map(
    lines: Sequence[TaskDifferences],
    groups: Mapping[str, Sequence[str]],
    baseline: str,
    footer: str,
    *,
    narrow: bool = False,
) -> Chart:
    """Draw methods x tasks as coloured cells with their values, and white gaps between groups.

    If it is ``narrow``, the values are left out.
    """
    tasks = _present_tasks(lines, groups)
    limit = _limit(lines)
    marks: list[Mark] = []
    for y, line in enumerate(lines):
        for x, task in enumerate(tasks):
            if task in line.values:
                marks += _map_cell(line, x, y, task, limit, printed=not narrow)
    starts = list(accumulate(sum(task in tasks for task in names) for names in groups.values()))
    marks += [Reference(start - 0.5, "x", PAPER, 3) for start in starts[:-1]]
    across = category_axis([shortened(task_name(task), 20) for task in tasks], on_top=True, turned=True)
    down = downwards(shortened_apart([line.label for line in lines], 20 if narrow else 34))
    panel = Panel(across, down, tuple(marks))
    wide, heading = len(tasks) > _FEW_TASKS and not narrow, _heading(baseline, narrow=narrow)
    return Chart((panel,), 14.5 * len(lines), wide=wide, heading=heading, footer=footer)


def _map_cell(line: TaskDifferences, x: int, y: int, task: str, limit: float, *, printed: bool) -> Iterator[Mark]:
    value = line.values[task]
    fill = mapped(value, -limit, limit, RED_BLUE)
    tip = f"{line.label}, {task_name(task)}: {signed(value)}"
    yield Box(x - 0.5, x + 0.5, y - 0.5, y + 0.5, fill, key=line.label, tip=tip)
    if printed:
        ink = PAPER_ON_MAP if abs(value) > _STRONG * limit else INK_ON_MAP
        yield Note(x, y, signed(value), 5.5, ink, "middle", key=line.label)


def _limit(lines: Sequence[TaskDifferences]) -> float:
    """Return the difference at which colours saturate: the 90 % quantile of absolute values, at least one point."""
    return max(1.0, float(np.quantile([abs(value) for line in lines for value in line.values.values()], 0.9)))


def _colour_sentence(lines: Sequence[TaskDifferences]) -> str:
    return f"Blue is better, red is worse; colours saturate at {_limit(lines):.1f} points. Empty cells share no seed."
