"""The table of varied settings: every variant beside the unchanged runs of its setup."""

from __future__ import annotations

from collections.abc import Sequence

from shipbench.counts import counted
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.cautions import cautions
from shipbench.report.analysis.differences import shared_tasks
from shipbench.report.analysis.study import Study, mean_over_tasks
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Cell, Column, Row, Table, distinct
from shipbench.report.tables.common import (
    DEVIATION_BELOW,
    MILLION,
    evenly,
    fewer_seeds_note,
    label_cell,
    mean_cells,
    mean_columns,
    millions_cell,
)
from shipbench.report.wording.numbers import percent

_CAPTION = "Runs with changed settings beside the unchanged runs of the same setup: test accuracy in percent{seeds}."
_DETAILS = (
    "Group means and averages need every task of the suite; the last columns give the mean over the tasks that all "
    "rows of the setup with a result share on the same images, and their number."
)


def variants_table(view: SuiteView) -> Table | None:
    """Return the table of runs with varied settings beside the unchanged ones; None if no setting was varied."""
    if not view.families:
        return None
    columns = distinct(
        (
            Column("method", "Method", align="left"),
            *mean_columns(view),
            Column("shared_mean", "mean", "Shared tasks"),
            Column("shared_tasks", "tasks", "Shared tasks"),
            Column("trainable_params", "Trainable (M)"),
        )
    )
    rows = [row for family in view.families for row in _rows(view.study, family)]
    arms = [arm for family in view.families for arm in family]
    return Table(
        name=f"settings-varied-{view.slug}",
        title=f"{view.name}: settings varied",
        caption=view.caption(_CAPTION.format(seeds=view.over_seeds(DEVIATION_BELOW, arms)), _DETAILS),
        columns=columns,
        rows=tuple(evenly(rows, {len(columns) - 1: MILLION})),
        notes=fewer_seeds_note(rows),
        warnings=cautions(view.study.runs_of(arms)),
    )


def _rows(study: Study, family: Sequence[Arm]) -> list[Row]:
    tasks = shared_tasks(study, family)
    return [Row(_cells(study, arm, tasks), rule=i == 0) for i, arm in enumerate(family)]


def _cells(study: Study, arm: Arm, tasks: Sequence[str]) -> tuple[Cell, ...]:
    accuracies = study.accuracies(arm)
    tasks = tasks if len(accuracies) else ()
    mean = float(accuracies.reindex(columns=list(tasks)).mean().mean())
    return (
        label_cell(study, arm),
        *mean_cells(study.summary(arm), study.seeds_of(arm)),
        Cell(percent(mean), value=mean if tasks else None),
        Cell(counted(len(tasks), "task"), value=len(tasks)),
        millions_cell(mean_over_tasks(study.runs_of([arm]), "trainable_params")),
    )
