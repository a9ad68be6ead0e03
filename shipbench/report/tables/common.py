"""Cells and marks that several tables share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.cautions import ON_TEST, on_test
from shipbench.report.analysis.study import Score, Study
from shipbench.report.document import MISSING, Cell, Mark, Row
from shipbench.report.wording.numbers import deviation, known, percent, short
from shipbench.report.wording.text import with_seeds

FEWER_SEEDS = "\N{DAGGER}"
COLLAPSED = "\N{DOUBLE DAGGER}"
SCORE_EXTRAS = ("deviation", "seeds")
_MILLION = 1e6


def arm_seeds(study: Study, arm: Arm) -> tuple[int, ...]:
    """Return the seeds that the arm was run with, failed runs included."""
    return tuple(sorted({int(seed) for seed in study.runs.loc[study.runs["arm"] == arm.key, "seed"]}))


def label_cell(study: Study, arm: Arm) -> Cell:
    """Return the arm's name with its seeds below; a sign if its settings were chosen on test images."""
    runs = study.runs_of([arm])
    text = f"{arm.label} {ON_TEST}" if on_test(runs).any() else arm.label
    return Cell(text=text, below=with_seeds(arm_seeds(study, arm)), value=arm.label)


def score_cell(score: Score, expected: Sequence[int]) -> Cell:
    """Return a mean in percent with its deviation below; a dagger if it rests on fewer seeds than the row."""
    extras = (("deviation", score.deviation), ("seeds", len(score.seeds)))
    if not known(score.mean):
        return Cell(text=MISSING, extras=extras)
    dagger = FEWER_SEEDS if len(score.seeds) < len(expected) else ""
    return Cell(percent(score.mean), deviation(score.deviation), score.mean, extras, sign=dagger)


def empty_mean(cell: Cell) -> Cell:
    """Leave a mean over missing tasks blank instead of marking it as a missing run."""
    return replace(cell, text="") if cell.value is None else cell


def millions_cell(value: float) -> Cell:
    """Return a number of parameters in millions."""
    return Cell(text=short(value, _MILLION), value=value if known(value) else None)


def marked(rows: Sequence[Row], columns: Sequence[int]) -> list[Row]:
    """Mark the best and second best printed value of each column among our own rows."""
    marks = {(row, column): mark for column in columns for row, mark in _marks(rows, column).items()}
    return [
        replace(
            row,
            cells=tuple(replace(cell, mark=marks.get((i, column), "")) for column, cell in enumerate(row.cells)),
        )
        for i, row in enumerate(rows)
    ]


def _marks(rows: Sequence[Row], column: int) -> dict[int, Mark]:
    """Compare what is printed, so that equal-looking cells are marked alike; nothing to mark if all are equal."""
    own = [(i, row.cells[column].value) for i, row in enumerate(rows) if row.kind == "ours"]
    printed = {i: round(value, 1) for i, value in own if isinstance(value, float)}
    ranking = sorted(set(printed.values()), reverse=True)
    if len(ranking) < 2:
        return {}
    names: dict[float, Mark] = {ranking[0]: "best", ranking[1]: "second"}
    return {i: names[value] for i, value in printed.items() if value in names}


def mean_over_tasks(runs: pd.DataFrame, column: str) -> float:
    """Return the mean over tasks of a column's mean over finished runs."""
    return float(runs[runs["status"] == "done"].groupby("task")[column].mean().mean())
