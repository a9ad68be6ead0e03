"""The main table: methods x tasks with both averages and parameters, above the published rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, TypeAlias

import pandas as pd

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.comparisons import BETTER, WORSE, TaskTest, image_tests
from shipbench.report.analysis.study import Score, Study, mean_over_tasks
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import MISSING, Cell, Column, Row, Table, distinct
from shipbench.report.tables.common import (
    COLLAPSED,
    DEVIATION_BELOW,
    MILLION,
    SCORE_EXTRAS,
    evenly,
    fewer_seeds_note,
    label_cell,
    marked,
    mean_cells,
    mean_columns,
    millions_cell,
    score_cell,
    tuned_note,
)
from shipbench.report.tables.imported import imported_notes, imported_rows
from shipbench.report.tables.part_means import PART, part_cells, part_columns, part_notes, parts_compare
from shipbench.report.tables.published import published_notes, published_rows
from shipbench.report.tables.ranks import unranked_note
from shipbench.report.wording.names import task_name

Statistic: TypeAlias = Literal["mean", "deviation", "seeds"]
_PARAMETERS = (
    Column("trainable_params", "with head", "Params (M)", upright=True),
    Column("trainable_params_without_head", "without head", "Params (M)", upright=True),
)
_CAPTION = "Test accuracy in percent{seeds}. Best in bold, second best underlined, as printed."
_DETAILS = (
    "The mean of groups averages the group means, the mean of tasks {tasks}; a mean with a missing task is "
    "left blank. Trainable parameters are in millions, averaged over tasks."
)


def main_results_table(view: SuiteView, arms: Sequence[Arm] | None = None) -> Table | None:
    """Return the main table of a suite with ``arms``, by default all main arms; None without any.

    Accuracies that differ significantly from those of the baseline are marked.
    """
    arms = view.arms if arms is None else arms
    if not arms:
        return None
    columns = _columns(view, arms)
    tests = {comparison.arm.key: comparison.tasks for comparison in view.comparisons}
    made = {arm.key: _row(view, arm, tests.get(arm.key, {})) for arm in arms}
    compared = [arm.key for arm in view.compared if arm.key in made]
    best = marked([made[key] for key in compared], _ranked(view, columns))
    rows = [*(made | dict(zip(compared, best, strict=True))).values()]
    sizes = range(len(columns) - len(_PARAMETERS), len(columns))
    rows = evenly(
        [*rows, *imported_rows(view, partial(_last_cells, view), len(columns)), *published_rows(view, arms)],
        dict.fromkeys(sizes, MILLION),
    )
    unranked = unranked_note(view)
    return Table(
        name=f"main-{view.slug}",
        title=f"{view.name}: methods and tasks",
        caption=view.caption(
            _CAPTION.format(seeds=view.over_seeds(DEVIATION_BELOW, arms)),
            _DETAILS.format(tasks=_all_tasks(len(view.tasks))),
        ),
        columns=columns,
        rows=tuple(rows),
        notes=(
            *_sign_notes(view, columns, [row for row in rows if row.kind == "ours"]),
            *fewer_seeds_note(rows),
            *([view.shots_note] if view.shots_note else []),
            *tuned_note(arms),
            *part_notes(view),
            *view.prediction_notes,
            *([unranked] if unranked else []),
            *imported_notes(view),
            *published_notes(view),
        ),
        warnings=view.cautions,
    )


def _all_tasks(count: int) -> str:
    return "the only task" if count == 1 else f"all {count} tasks"


def main_frame(study: Study, suite: str, statistic: Statistic) -> pd.DataFrame:
    """Return the main table's numbers: a row per arm; columns of tasks, groups, averages (percent) and parameters."""
    view = SuiteView(study, suite)
    names = [column.key for column in _columns(view, view.arms)[1:] if column.kind or column.key != PART]
    rows = {arm.label: dict(zip(names, _frame_row(study, arm, statistic), strict=False)) for arm in view.arms}
    frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
    frame.attrs["warnings"] = list(view.cautions)
    return frame


def _frame_row(study: Study, arm: Arm, statistic: Statistic) -> list[float]:
    numbers = [_statistic(score, statistic) for score in study.summary(arm).scores]
    return [*numbers, *(_parameters(study, arm).values() if statistic == "mean" else ())]


def _statistic(score: Score, statistic: Statistic) -> float:
    if statistic == "seeds":
        return float(len(score.seeds))
    return score.deviation if statistic == "deviation" else score.mean


def _parameters(study: Study, arm: Arm) -> dict[str, float]:
    runs = study.runs_of([arm])
    return {column.key: mean_over_tasks(runs, column.key) for column in _PARAMETERS}


def _columns(view: SuiteView, arms: Sequence[Arm]) -> tuple[Column, ...]:
    tried = set(view.study.runs_of(arms)["task"])
    tasks = [
        Column(task, task_name(task), group, upright=True, extras=SCORE_EXTRAS, keep=task in tried, kind="task")
        for group, names in view.groups.items()
        for task in names
    ]
    means = (*mean_columns(view, upright=True), *part_columns(view))
    return distinct((Column("method", "Method", align="left"), *tasks, *means, *_PARAMETERS))


def _ranked(view: SuiteView, columns: Sequence[Column]) -> list[int]:
    """Return the columns in which rows compare."""
    others = {column.key for column in _PARAMETERS} | (set() if parts_compare(view) else {PART})
    return [i for i, column in enumerate(columns) if i and (column.kind or column.key not in others)]


def _row(view: SuiteView, arm: Arm, tests: Mapping[str, TaskTest]) -> Row:
    study = view.study
    summary, seeds = study.summary(arm), study.seeds_of(arm)
    collapsed = study.collapsed(arm)
    tasks = [
        _task_cell(score_cell(score, seeds), tests.get(task), task in collapsed)
        for task, score in summary.tasks.items()
    ]
    return Row((label_cell(study, arm), *tasks, *mean_cells(summary, seeds), *_last_cells(view, arm)))


def _last_cells(view: SuiteView, arm: Arm) -> tuple[Cell, ...]:
    """Return the mean over part of the suite, and the trained parameters with and without the head over tasks."""
    return (*part_cells(view, arm), *(millions_cell(value) for value in _parameters(view.study, arm).values()))


def _task_cell(cell: Cell, test: TaskTest | None, collapsed: bool) -> Cell:
    below = f"{cell.below} {test.mark if test else ''}".strip()
    return replace(cell, sign=cell.sign + COLLAPSED if collapsed else cell.sign, below=below)


def _sign_notes(view: SuiteView, columns: Sequence[Column], rows: Sequence[Row]) -> list[str]:
    """Explain every other sign and mark that occurs in the printed ``columns`` of ``rows``."""
    cells = [cell for row in rows for cell in row.cells[1:]]
    signs = "".join(cell.sign for cell in cells)
    notes = []
    if any(row.cells[i].text == MISSING for row in rows for i, column in enumerate(columns) if column.keep):
        notes.append(f"{MISSING} no finished run that counts; see the table of missing and failed runs.")
    if any(cell.below.endswith((BETTER, WORSE)) for cell in cells):
        notes.append(
            f"{BETTER} better, {WORSE} worse than {view.baselines.name} beyond chance: "
            f"{image_tests(view.comparisons)}, with Holm's correction over all methods and tasks, at the 5 % level. "
            "The tests are conditional on the trained models and do not include the spread over seeds. They compare "
            "the seeds that both have."
        )
        notes += view.comparison_notes
    if COLLAPSED in signs:
        notes.append(
            f"{COLLAPSED} collapsed: at least one seed does not exceed the majority-class accuracy; it is kept in the "
            "mean and listed in the table of missing and failed runs."
        )
    return notes
