"""Tests of every method against the baseline: one table across tasks, one task by task."""

from __future__ import annotations

from shipbench.report.analysis.cautions import cautions, foreign_records
from shipbench.report.analysis.comparisons import BETTER, WORSE, PairedComparison, image_tests
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import MISSING, Cell, Column, Row, Table, distinct
from shipbench.report.tables.common import BY_CLASS, contradicted, name_cell, p_cell, untested_note
from shipbench.report.wording.names import task_name
from shipbench.report.wording.numbers import has_value, p_text, signed

_WILCOXON = (Column("wilcoxon_p", "p", "Wilcoxon"), Column("wilcoxon_holm_p", "p, Holm", "Wilcoxon"))
_ACROSS = (
    "Difference to {baseline} in percentage points, mean over shared tasks with its 95 % interval; tasks won and "
    "lost{across}. Tasks beyond chance by {tests}."
)
_ACROSS_DETAILS = (
    "Differences are paired over seeds; the Student t interval needs three or more tasks. The Wilcoxon signed-rank "
    "test is two-sided, with Holm's correction for the number of methods tested; it needs six or more tasks, and more "
    "where the correction would keep it above the 5 % level. The tests on images have Holm's correction over all "
    "methods and tasks, at the 5 % level."
)
_PER_TASK = (
    "p-value with Holm's correction, and below it the difference to {baseline} in percentage points: {tests}. The "
    "tests are conditional on the trained models and do not include the spread over seeds."
)
_PER_TASK_DETAILS = (
    "Holm's correction is over all methods and tasks. Each image counts once, with the share of shared seeds that "
    "classify it correctly. Predictions are those after the last epoch."
)


def across_tasks_table(view: SuiteView) -> Table | None:
    """Return the table of tests across tasks; None if no method shares a task with the baseline."""
    if not view.comparisons:
        return None
    baseline, tests = view.baselines.name, image_tests(view.comparisons)
    tested = any(has_value(comparison.wilcoxon) for comparison in view.comparisons)
    across = ", and Wilcoxon's test across tasks" if tested else ""
    against = contradicted([c.arm for c in view.comparisons if c.contradicts(c.interval.mean)])
    return Table(
        name=f"significance-{view.slug}",
        title=f"{view.name}: difference to {baseline}",
        caption=view.caption(_ACROSS.format(baseline=baseline, across=across, tests=tests), _ACROSS_DETAILS),
        columns=(
            Column("method", "Method", align="left"),
            Column("difference", "difference", extras=("low", "high")),
            Column("tasks", "tasks"),
            Column("won", "won", "Tasks by mean"),
            Column("lost", "lost", "Tasks by mean"),
            *(_WILCOXON if tested else ()),
            Column("beyond_chance_better", "better", "Beyond chance"),
            Column("beyond_chance_worse", "worse", "Beyond chance"),
        ),
        rows=tuple(_across_row(comparison, tested=tested) for comparison in view.comparisons),
        notes=(
            *([f"{against}."] if against else []),
            *view.comparison_notes,
            *untested_note([len(comparison.differences) for comparison in view.comparisons]),
            *view.prediction_notes,
        ),
        warnings=cautions(view.study.runs_of([arm for c in view.comparisons for arm in (c.baseline, c.arm)])),
    )


def per_task_table(view: SuiteView) -> Table | None:
    """Return the table of paired tests on the images of each task; None without predictions to compare."""
    tasks = [task for task in view.tasks if any(task in comparison.tasks for comparison in view.comparisons)]
    if not tasks:
        return None
    baseline, tests = view.baselines.name, image_tests(view.comparisons)
    by_class = any(test.by_class for comparison in view.comparisons for test in comparison.tasks.values())
    details = _PER_TASK_DETAILS + (BY_CLASS if by_class else "")
    extras = ("p", "difference", "images won", "images lost")
    return Table(
        name=f"paired-tests-{view.slug}",
        title=f"{view.name}: {baseline} task by task",
        caption=view.caption(_PER_TASK.format(baseline=baseline, tests=tests), details),
        columns=distinct(
            (
                Column("method", "Method", align="left"),
                *(Column(task, task_name(task), upright=True, extras=extras, kind="task") for task in tasks),
            )
        ),
        rows=tuple(
            Row((name_cell(comparison.arm), *(_task_cell(comparison, task) for task in tasks)))
            for comparison in view.comparisons
        ),
        notes=(
            f"{BETTER} better, {WORSE} worse than {baseline} beyond chance at the 5 % level.",
            *view.comparison_notes,
            *view.prediction_notes,
        ),
        warnings=foreign_records(view.runs),
    )


def _across_row(comparison: PairedComparison, *, tested: bool) -> Row:
    interval, values = comparison.interval, comparison.differences.values()
    below = f"{signed(interval.low)} to {signed(interval.high)}" if has_value(interval.low) else ""
    marks = [test.mark for test in comparison.tasks.values()]
    counts = [sum(value > 0 for value in values), sum(value < 0 for value in values)]
    beyond = [marks.count(BETTER), marks.count(WORSE)] if comparison.tasks else [None, None]
    return Row(
        (
            name_cell(comparison.arm),
            Cell(signed(interval.mean), below, interval.mean, (("low", interval.low), ("high", interval.high))),
            Cell(str(len(values)), value=len(values)),
            *(Cell(str(count), value=count) for count in counts),
            *(p_cell(value) for value in (comparison.wilcoxon, comparison.wilcoxon_adjusted) if tested),
            *(Cell(MISSING if count is None else str(count), value=count) for count in beyond),
        )
    )


def _task_cell(comparison: PairedComparison, task: str) -> Cell:
    if task not in comparison.tasks:
        return Cell(MISSING)
    test = comparison.tasks[task]
    images, points = test.images, 100 * test.images.difference
    extras = (
        ("p", images.p_value),
        ("difference", points),
        ("images won", images.wins),
        ("images lost", images.losses),
    )
    return Cell(p_text(test.adjusted), signed(points), test.adjusted, extras, sign=test.mark)
