"""The main table: methods x tasks with both averages and parameters; published rows under a rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

import pandas as pd

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.cautions import cautions
from shipbench.report.analysis.comparisons import BETTER, WORSE, PairedComparison, TaskTest, tests_named
from shipbench.report.analysis.published import Comparison, PublishedChoice, comparisons, published_means
from shipbench.report.analysis.study import Score, Study, Summary, summarise
from shipbench.report.document import MISSING, Cell, Column, Row, Table
from shipbench.report.tables.common import (
    COLLAPSED,
    FEWER_SEEDS,
    SCORE_EXTRAS,
    arm_seeds,
    empty_mean,
    label_cell,
    marked,
    mean_over_tasks,
    millions_cell,
    score_cell,
)
from shipbench.report.tables.published import incomparable_note, letters, source_note
from shipbench.report.wording.captions import caption
from shipbench.report.wording.names import MEAN_OF_GROUPS, MEAN_OF_TASKS, suite_name, task_name
from shipbench.report.wording.numbers import known, percent, signed
from shipbench.report.wording.text import slug

Statistic: TypeAlias = Literal["mean", "deviation", "seeds"]
_PARAMETERS = (
    Column("trainable_params", "with head", "Params (M)", upright=True),
    Column("trainable_params_without_head", "without head", "Params (M)", upright=True),
)
_CAPTION = (
    "{suite}: test accuracy in percent, mean over seeds with the sample deviation (n \N{MINUS SIGN} 1) below. "
    "The mean of groups averages the group means, the mean of tasks all {tasks} tasks; "
    "a missing task leaves its means empty. "
    "Trainable parameters in millions, averaged over tasks. Best bold, second underlined, compared as printed."
)


def main_results_table(
    study: Study,
    suite: str,
    published: PublishedChoice = "same",
    baseline: str = "",
    found: Sequence[PairedComparison] = (),
    gaps: Sequence[str] = (),
) -> Table:
    """Return the suite's main table; published rows only where they belong (VTAB-1k).

    ``found`` puts a mark under accuracies that differ from those of ``baseline`` (its label) beyond chance; ``gaps``
    are notes on cells without a test.
    """
    arms = study.arms_of(suite, main=True)
    columns = _columns(study, suite)
    tests = {comparison.arm.key: comparison.tasks for comparison in found}
    own = marked([_own_row(study, arm, tests.get(arm.key, {})) for arm in arms], range(1, len(columns) - 2))
    pairs = comparisons(study, arms, published) if suite == "vtab-1k" else []
    sources = [source_note(pair.row) for pair in pairs]
    marks = dict(zip(dict.fromkeys(sources), letters(len(pairs)), strict=False))
    apart = [note] if (note := incomparable_note(pairs)) else []
    rows = [*own, *_published_rows(study, suite, pairs, [marks[source] for source in sources])]
    return Table(
        name=f"main-{slug(suite)}",
        title=f"{suite_name(suite)}: methods and tasks",
        caption=caption(
            _CAPTION.format(suite=suite_name(suite), tasks=len(study.tasks_of(suite))), study.selection, suite
        ),
        columns=columns,
        rows=tuple(rows),
        notes=(
            *_notes(own, baseline, tests_named(found)),
            *gaps,
            *apart,
            *(f"[{mark}] {source}" for source, mark in marks.items()),
        ),
        warnings=cautions(study.runs_of(arms)),
    )


def main_frame(study: Study, suite: str, statistic: Statistic) -> pd.DataFrame:
    """Return the main table's numbers: arms as rows; tasks, groups, averages (percent) and parameters as columns."""
    rows = {arm.label: _frame_row(study, arm, statistic) for arm in study.arms_of(suite, main=True)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def _frame_row(study: Study, arm: Arm, statistic: Statistic) -> dict[str, float]:
    summary = study.summary(arm)
    scores = {
        **summary.tasks,
        **summary.groups,
        MEAN_OF_GROUPS: summary.mean_of_groups,
        MEAN_OF_TASKS: summary.mean_of_tasks,
    }
    numbers = {name: _statistic(score, statistic) for name, score in scores.items()}
    return {**numbers, **(_parameters(study, arm) if statistic == "mean" else {})}


def _statistic(score: Score, statistic: Statistic) -> float:
    if statistic == "seeds":
        return float(len(score.seeds))
    return score.deviation if statistic == "deviation" else score.mean


def _parameters(study: Study, arm: Arm) -> dict[str, float]:
    runs = study.runs_of([arm])
    return {column.key: mean_over_tasks(runs, column.key) for column in _PARAMETERS}


def _columns(study: Study, suite: str) -> tuple[Column, ...]:
    groups = study.groups_of(suite)
    tasks = [
        Column(task, task_name(task), group, upright=True, extras=SCORE_EXTRAS)
        for group, names in groups.items()
        for task in names
    ]
    means = [Column(group, group, "Means", upright=True, extras=SCORE_EXTRAS) for group in groups]
    averages = [
        Column(name, name, "Means", upright=True, extras=SCORE_EXTRAS) for name in (MEAN_OF_GROUPS, MEAN_OF_TASKS)
    ]
    return (Column("method", "Method", align="left"), *tasks, *means, *averages, *_PARAMETERS)


def _own_row(study: Study, arm: Arm, tests: Mapping[str, TaskTest]) -> Row:
    summary, seeds = study.summary(arm), arm_seeds(study, arm)
    collapsed = study.collapsed(arm)
    tasks = [_task_cell(score_cell(s, seeds), tests.get(t), t in collapsed) for t, s in summary.tasks.items()]
    means = [*summary.groups.values(), summary.mean_of_groups, summary.mean_of_tasks]
    averages = [empty_mean(score_cell(score, seeds)) for score in means]
    parameters = [millions_cell(value) for value in _parameters(study, arm).values()]
    return Row((label_cell(study, arm), *tasks, *averages, *parameters))


def _task_cell(cell: Cell, test: TaskTest | None, collapsed: bool) -> Cell:
    below = f"{cell.below} {test.mark if test else ''}".strip()
    return replace(cell, sign=cell.sign + COLLAPSED if collapsed else cell.sign, below=below)


def _published_rows(study: Study, suite: str, pairs: Sequence[Comparison], marks: Sequence[str]) -> list[Row]:
    rows: list[Row] = []
    for pair, mark in zip(pairs, marks, strict=True):
        printed = summarise(
            pd.DataFrame([published_means(pair.row, study.groups_of(suite))], index=[0]), study.groups_of(suite)
        )
        rows.append(_published_row(pair, mark, printed, rule=not rows))
        rows.extend(_difference_row(study, arm, printed, alone=len(pair.arms) == 1) for arm in pair.comparable)
    return rows


def _published_row(pair: Comparison, mark: str, printed: Summary, *, rule: bool) -> Row:
    label = Cell(f"{pair.row.method}, published [{mark}]", value=f"{pair.row.method} (published)")
    cells = [Cell(percent(value) or MISSING, value=value if known(value) else None) for value in _means(printed)]
    return Row((label, *cells, *_published_parameters(pair)), "published", rule)


def _published_parameters(pair: Comparison) -> tuple[Cell, Cell]:
    """Print a published count only where the paper says whether the head is in it."""
    count, with_head = pair.row.trainable_params_millions, pair.row.params_include_head
    cell = millions_cell(count * 1e6) if count is not None else Cell()
    return (cell if with_head is True else Cell()), (cell if with_head is False else Cell())


def _difference_row(study: Study, arm: Arm, printed: Summary, *, alone: bool) -> Row:
    pairs = zip(_means(study.summary(arm)), _means(printed), strict=True)
    cells = [
        Cell(signed(ours - theirs), value=ours - theirs if known(ours - theirs) else None) for ours, theirs in pairs
    ]
    text = "ours − published"  # noqa: RUF001
    label = Cell(text if alone else f"{text}: {arm.label}", value=f"{arm.label}: ours minus published")
    return Row((label, *cells, Cell(), Cell()), "difference")


def _means(summary: Summary) -> list[float]:
    scores = [
        *summary.tasks.values(),
        *summary.groups.values(),
        summary.mean_of_groups,
        summary.mean_of_tasks,
    ]
    return [score.mean for score in scores]


def _notes(rows: Sequence[Row], baseline: str, tests: str) -> list[str]:
    cells = [cell for row in rows for cell in row.cells[1:]]
    signs = "".join(cell.sign for cell in cells)
    notes = []
    if any(cell.text == MISSING for cell in cells):
        notes.append(f"{MISSING} no finished run; see the table of missing and failed runs.")
    if any(cell.below.endswith((BETTER, WORSE)) for cell in cells):
        notes.append(
            f"{BETTER} better, {WORSE} worse than {baseline} beyond chance: {tests}, corrected by Holm over all "
            "methods and tasks, at the 5 % level; given these trained models: the spread over seeds is not in it."
        )
    if COLLAPSED in signs:
        notes.append(
            f"{COLLAPSED} collapsed: at least one seed is no better than always answering the commonest class; it is "
            "kept in the mean and named in the table of missing and failed runs."
        )
    if FEWER_SEEDS in signs:
        notes.append(f"{FEWER_SEEDS} fewer seeds than the rest of the row: some runs are missing or failed.")
    return notes
