"""The column for rows that lack tasks: the mean over the tasks they have, apart from the means of the whole suite."""

from __future__ import annotations

from dataclasses import replace

from shipbench.counts import counted
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Cell, Column
from shipbench.report.tables.common import SCORE_EXTRAS, score_cell
from shipbench.statistics import mean_of_tasks_name

PART = "mean_of_these_tasks"
_ONE = "The {name} compares with nothing but itself: complete rows leave it blank."
_SEVERAL = (
    "The mean of these tasks averages the tasks that a row has; their number stands below. It compares neither with "
    "that of a row with other tasks nor with the mean of tasks, and complete rows leave it blank."
)
_OTHERS = (
    "In a row with a number of tasks below, the mean of these tasks is over that many, and compares with no other row."
)


def part_columns(view: SuiteView) -> tuple[Column, ...]:
    """Return the column, or nothing if no row lacks tasks."""
    if not view.parts:
        return ()
    shared = _shared(view)
    title = mean_of_tasks_name(shared, view.tasks) if shared else "mean of these tasks"
    # It is printed even if imported rows alone have a value in it, because a note speaks of it.
    return (Column(PART, title, "Means", upright=True, extras=(*SCORE_EXTRAS, "tasks"), keep=True),)


def part_cells(view: SuiteView, arm: Arm | None = None) -> tuple[Cell, ...]:
    """Return the cell of ``part_columns`` for an arm: blank without an arm, and for one that lacks no task."""
    if not view.parts:
        return ()
    tasks = view.parts.get(arm.key) if arm is not None else None
    if arm is None or tasks is None:
        return (Cell(),)
    cell = score_cell(view.study.score_over(arm, tasks), view.study.seeds_of(arm))
    below = cell.below if tasks == _shared(view) else counted(len(tasks), "task")
    return (replace(cell, below=below, extras=(*cell.extras, ("tasks", float(len(tasks))))),)


def parts_compare(view: SuiteView) -> bool:
    """Return whether every compared row has the same part of the suite, so that best and second best can be marked."""
    return bool(_shared(view)) and all(arm.key in view.parts for arm in view.compared)


def part_notes(view: SuiteView) -> list[str]:
    """Say what the column holds; nothing if all rows have the same tasks."""
    shared = _shared(view)
    if not shared:
        return [_SEVERAL] if view.parts else []
    alone = [] if parts_compare(view) else [_ONE.format(name=part_columns(view)[0].title)]
    return [*alone, _OTHERS] if set(view.parts.values()) != {shared} else alone


def _shared(view: SuiteView) -> tuple[str, ...]:
    """Return the part that all compared rows with one have, or all others if these have none; else nothing."""
    compared = {view.parts[arm.key] for arm in view.compared if arm.key in view.parts}
    parts = compared or set(view.parts.values())
    return next(iter(parts)) if len(parts) == 1 else ()
