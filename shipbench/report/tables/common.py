"""Columns, cells and marks that several tables share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from shipbench.record import SHIPBENCH
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.cautions import FOREIGN, ON_TEST, on_test
from shipbench.report.analysis.comparisons import FEWEST_WILCOXON, fewest_tasks
from shipbench.report.analysis.study import Score, Study, Summary
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import MISSING, Cell, Column, Mark, Row
from shipbench.report.wording.numbers import aligned, deviation, has_value, p_text, percent, short
from shipbench.report.wording.text import joined, with_seeds
from shipbench.statistics import MEAN_OF_GROUPS, MEAN_OF_TASKS

FEWER_SEEDS = "\N{DAGGER}"
COLLAPSED = "\N{DOUBLE DAGGER}"
SCORE_EXTRAS = ("deviation", "seeds")
MILLION = 1e6
BY_CLASS = (
    " Where the accuracy is the mean over classes, each image is weighted by the inverse of the size of its class; "
    "with classes of several sizes, p is an upper bound instead of exact."
)
DEVIATION_BELOW = ", mean over seeds with the standard deviation (n \N{MINUS SIGN} 1) below"


def group_columns(groups: Mapping[str, Collection[str]]) -> list[str]:
    """Return the name of each group's column: its own, marked as a group's where a task has it too."""
    tasks = {task for names in groups.values() for task in names}
    return [f"{group} (group)" if group in tasks else group for group in groups]


def mean_columns(view: SuiteView, *, upright: bool = False) -> list[Column]:
    """Return a column for the mean of each group and for both averages."""
    kinds = [*((name, "group") for name in group_columns(view.groups)), (MEAN_OF_GROUPS, ""), (MEAN_OF_TASKS, "")]
    return [Column(name, name, "Means", upright=upright, extras=SCORE_EXTRAS, kind=kind) for name, kind in kinds]


def mean_cells(summary: Summary, seeds: Sequence[int]) -> list[Cell]:
    """Return the cells of ``mean_columns``; a mean with missing tasks is blank, not marked as a missing run."""
    scores = [*summary.groups.values(), summary.mean_of_groups, summary.mean_of_tasks]
    cells = [score_cell(score, seeds) for score in scores]
    return [replace(cell, text="") if cell.value is None else cell for cell in cells]


def label_cell(study: Study, arm: Arm) -> Cell:
    """Return the name of an arm above its seeds, with a sign if its settings were chosen on test images."""
    name = name_cell(arm)
    text = f"{name.text} {ON_TEST}" if on_test(study.runs_of([arm])).any() else name.text
    return replace(name, text=text, below=with_seeds(study.seeds_of(arm)))


def name_cell(arm: Arm) -> Cell:
    """Return the label of an arm, with a sign if its records lack the seal of shipbench."""
    text = arm.label if arm.origin == SHIPBENCH else f"{arm.label} {FOREIGN}"
    return Cell(text, value=arm.label, imported=arm.imported)


def score_cell(score: Score, expected: Sequence[int]) -> Cell:
    """Return a mean in percent above its deviation, with a dagger if it has fewer seeds than ``expected``."""
    extras = (("deviation", score.deviation), ("seeds", len(score.seeds)))
    if not has_value(score.mean):
        return Cell(text=MISSING, extras=extras)
    dagger = FEWER_SEEDS if len(score.seeds) < len(expected) else ""
    return Cell(percent(score.mean), deviation(score.deviation), score.mean, extras, sign=dagger)


def fewer_seeds_note(
    rows: Sequence[Row], than: str = "the method was run with, because runs are missing or failed"
) -> tuple[str, ...]:
    """Explain the dagger of ``score_cell`` if a cell of ``rows`` has one; ``than`` says what seeds are expected."""
    has_dagger = any(FEWER_SEEDS in cell.sign for row in rows for cell in row.cells)
    return (f"{FEWER_SEEDS} fewer seeds than {than}.",) if has_dagger else ()


def tuned_note(arms: Iterable[Arm]) -> tuple[str, ...]:
    """Explain the word of rows whose settings were tuned, if there are any."""
    return ("Tuned: settings chosen on validation images.",) if any(arm.tuned for arm in arms) else ()


def millions_cell(value: float) -> Cell:
    """Return a number of parameters, printed in millions."""
    return Cell(text=short(value, MILLION), value=value if has_value(value) else None)


def evenly(rows: Sequence[Row], scales: Mapping[int, float]) -> list[Row]:
    """Print the numbers of each column in ``scales`` (index to unit) with equally many decimals."""
    texts = {column: _even_texts(rows, column, scale) for column, scale in scales.items()}
    return [
        replace(row, cells=tuple(replace(c, text=texts[j][i]) if j in texts else c for j, c in enumerate(row.cells)))
        for i, row in enumerate(rows)
    ]


def _even_texts(rows: Sequence[Row], column: int, scale: float) -> list[str]:
    values = [row.cells[column].value for row in rows]
    return aligned([float(value) if isinstance(value, (int, float)) else float("nan") for value in values], scale)


def p_cell(value: float) -> Cell:
    """Return a p-value."""
    return Cell(p_text(value) or MISSING, value=value if has_value(value) else None)


def contradicted(arms: Sequence[Arm]) -> str:
    """Say of ``arms`` that their Wilcoxon's tests contradict the differences beside them; empty without any."""
    names = joined([arm.label for arm in arms])
    return f"Wilcoxon's test of {names} is beyond chance against the direction of the difference" if arms else ""


def untested_note(counts: Sequence[int]) -> tuple[str, ...]:
    """Say over how many tasks comparisons have no Wilcoxon test because of Holm's correction; nothing without any.

    ``counts`` holds the number of tasks of every comparison.
    """
    enough = [count for count in counts if count >= FEWEST_WILCOXON]
    untested = sorted({count for count in enough if count < fewest_tasks(counts)})
    if not untested:
        return ()
    tasks = " to ".join(map(str, dict.fromkeys([untested[0], untested[-1]])))
    return (
        f"No Wilcoxon test over {tasks} tasks: with Holm's correction for {len(enough)} methods, it could not reach "
        "the 5 % level.",
    )


def marked(rows: Sequence[Row], columns: Sequence[int]) -> list[Row]:
    """Mark the best and second-best printed value of each column among our rows."""
    marks = {(row, column): mark for column in columns for row, mark in _marks(rows, column).items()}
    return [
        replace(
            row,
            cells=tuple(replace(cell, mark=marks.get((i, column), "")) for column, cell in enumerate(row.cells)),
        )
        for i, row in enumerate(rows)
    ]


def _marks(rows: Sequence[Row], column: int) -> dict[int, Mark]:
    """Compare rounded values, so that cells that look equal are marked equally; if all are equal, none is."""
    values = [(i, row.cells[column].value) for i, row in enumerate(rows) if row.kind == "ours"]
    printed = {i: round(value, 1) for i, value in values if isinstance(value, float)}
    ranking = sorted(set(printed.values()), reverse=True)
    if len(ranking) < 2:
        return {}
    names: dict[float, Mark] = {ranking[0]: "best", ranking[1]: "second"}
    return {i: names[value] for i, value in printed.items() if value in names}
