"""Imported results beside ours in the main table, and the note that keeps them apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from shipbench.counts import counted
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.cautions import FOREIGN
from shipbench.report.analysis.imported import StatedRow, stated_results, stated_rows
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Cell, Row
from shipbench.report.tables.common import label_cell, mean_cells, score_cell
from shipbench.report.wording.numbers import percent
from shipbench.report.wording.text import joined

UNKNOWN_RULE = "?"
# Limits that a note names; files may state one for every result.
_LIMITS = 4


def imported_rows(view: SuiteView, parameters: Callable[[Arm], Sequence[Cell]], columns: int) -> list[Row]:
    """Return a row for each imported method beside ours, then one for each whose epoch rule is not stated.

    ``parameters`` returns the cells of an arm after its means; a row has ``columns`` cells.
    """
    rows = [_arm_row(view, arm, parameters) for arm in view.imported]
    rows += [_stated_row(view, row, columns) for row in stated_rows(view.study, view.suite)]
    return [Row(row.cells, "imported", rule=i == 0) for i, row in enumerate(rows)]


def imported_notes(view: SuiteView) -> list[str]:
    """Explain the imported rows, if there are any."""
    notes = []
    stated = stated_results(view.study, view.suite)
    apart = pd.concat([view.study.runs_of(view.imported), stated])
    if len(apart):
        notes.append(
            f"{FOREIGN} Imported results ({_origins(apart)}) come from other harnesses under their own protocols. They "
            "are shown for comparison only and enter no mark, rank or test."
        )
    if len(stated):
        notes.append(
            f"{UNKNOWN_RULE} Imported without a statement of which epoch the accuracy is from; it enters no mean."
        )
    return notes + _limits(view)


def _limits(view: SuiteView) -> list[str]:
    """Say what limits imported results according to their files: the most frequent limits first."""
    imported = [*view.imported, *(arm for arm in view.arms if arm.imported)]
    results = pd.concat([view.study.runs_of(imported), stated_results(view.study, view.suite)])
    limited = results.loc[results["origin_note"] != "", ["origin", "origin_note"]].value_counts(sort=False)
    frequent_first = sorted(limited.items(), key=lambda item: (-item[1], item[0]))
    limits = [f"{note} ({counted(number, 'result')} of {origin})" for (origin, note), number in frequent_first]
    if len(limits) > _LIMITS:
        limits[_LIMITS:] = [f"{len(limits) - _LIMITS} more in the column origin_note of the records"]
    return [f"{FOREIGN} What limits imported results: {'; '.join(limits)}."] if limits else []


def _origins(runs: pd.DataFrame) -> str:
    counts = runs["origin"].value_counts().sort_index()
    return joined([f"{counted(int(number), 'result')} of {origin}" for origin, number in counts.items()])


def _arm_row(view: SuiteView, arm: Arm, parameters: Callable[[Arm], Sequence[Cell]]) -> Row:
    summary, seeds = view.study.summary(arm), view.study.seeds_of(arm)
    tasks = [score_cell(score, seeds) for score in summary.tasks.values()]
    return Row((label_cell(view.study, arm), *tasks, *mean_cells(summary, seeds), *parameters(arm)))


def _stated_row(view: SuiteView, stated: StatedRow, columns: int) -> Row:
    label = f"{stated.method} (from {stated.source}) {FOREIGN}"
    tasks = [_stated_cell(stated.means.get(task)) for task in view.tasks]
    return Row((Cell(label, value=label), *tasks, *[Cell()] * (columns - 1 - len(tasks))))


def _stated_cell(mean: float | None) -> Cell:
    return Cell() if mean is None else Cell(percent(mean), value=mean, sign=UNKNOWN_RULE)
