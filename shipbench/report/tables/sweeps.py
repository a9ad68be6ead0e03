"""Runs with single settings varied: a table of all variants, and the curves of sweeps."""

from __future__ import annotations

from collections.abc import Sequence

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.cautions import cautions
from shipbench.report.analysis.study import Study
from shipbench.report.analysis.sweeps import families, shared_tasks
from shipbench.report.document import Cell, Column, Row, Table
from shipbench.report.tables.common import (
    SCORE_EXTRAS,
    arm_seeds,
    empty_mean,
    label_cell,
    mean_over_tasks,
    millions_cell,
    score_cell,
)
from shipbench.report.wording.captions import caption
from shipbench.report.wording.names import MEAN_OF_GROUPS, MEAN_OF_TASKS, suite_name
from shipbench.report.wording.numbers import percent
from shipbench.report.wording.text import counted, slug

_CAPTION = (
    "{suite}: runs in which settings were changed, with the unchanged runs of the same setup. Test accuracy in "
    "percent, mean over seeds with the sample deviation below. Group means and averages need every task of the suite; "
    "the last columns average the tasks that all runs of the setup share, and say how many."
)


def variants_table(study: Study, suite: str) -> Table | None:
    """Return the table of runs with changed settings beside their unchanged ones; None if there are none."""
    varied = families(study, suite)
    if not varied:
        return None
    arms = [arm for family in varied for arm in family]
    columns = (
        Column("method", "Method", align="left"),
        *(Column(group, group, "Means", extras=SCORE_EXTRAS) for group in study.groups_of(suite)),
        Column(MEAN_OF_GROUPS, MEAN_OF_GROUPS, "Means", extras=SCORE_EXTRAS),
        Column(MEAN_OF_TASKS, MEAN_OF_TASKS, "Means", extras=SCORE_EXTRAS),
        Column("shared_mean", "mean", "Shared tasks"),
        Column("shared_tasks", "tasks", "Shared tasks"),
        Column("trainable_params", "Trainable (M)"),
    )
    runs = study.runs_of(arms)
    return Table(
        name=f"settings-varied-{slug(suite)}",
        title=f"{suite_name(suite)}: settings varied",
        caption=caption(_CAPTION.format(suite=suite_name(suite)), study.selection, suite),
        columns=columns,
        rows=tuple(row for family in varied for row in _rows(study, family)),
        warnings=cautions(runs),
    )


def _rows(study: Study, family: Sequence[Arm]) -> list[Row]:
    shared = shared_tasks(study, family)
    rows = []
    for i, arm in enumerate(family):
        summary, seeds = study.summary(arm), arm_seeds(study, arm)
        means = [*summary.groups.values(), summary.mean_of_groups, summary.mean_of_tasks]
        over_shared = float(study.accuracies(arm).reindex(columns=shared).mean().mean())
        runs = study.runs_of([arm])
        cells = (
            label_cell(study, arm),
            *(empty_mean(score_cell(score, seeds)) for score in means),
            Cell(percent(over_shared), value=over_shared if shared else None),
            Cell(counted(len(shared), "task"), value=len(shared)),
            millions_cell(mean_over_tasks(runs, "trainable_params")),
        )
        rows.append(Row(cells, rule=i == 0))
    return rows
