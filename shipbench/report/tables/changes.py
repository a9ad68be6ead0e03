"""The tables and the figure of ``shipbench diff``."""

from __future__ import annotations

from collections.abc import Sequence

from shipbench.report.analysis.changes import Changes, MethodChange, TaskChange, Unpaired
from shipbench.report.analysis.comparisons import names_of_image_tests
from shipbench.report.document import Caption, Cell, Column, Figure, Row, Table, text_cell
from shipbench.report.figures.differences import TaskDifferences, draw_task_differences
from shipbench.report.tables.common import BY_CLASS, p_cell, untested_note
from shipbench.report.wording.names import group_order, task_name, task_order
from shipbench.report.wording.numbers import has_value, percent, signed
from shipbench.report.wording.text import joined, seed_list

_AGAINST_MEAN = "A verdict against the mean is that of the signed ranks: few tasks decide the mean."
_TESTS = {"images": "test images", "seeds": "seeds", "": ""}


def task_changes_table(changes: Changes) -> Table:
    """Return a row per method and task: both accuracies, their difference and its test."""
    return Table(
        name="tasks",
        title="Difference per task",
        caption=Caption(
            "Accuracy of A and B in percent, mean over shared seeds, and B minus A in percentage points. "
            "p-values are adjusted by Holm's method over all rows; the verdict is at the 5 % level.",
            _details(changes),
            f"Selection rule: {changes.select}.",
        ),
        columns=(
            Column("method", "Method", align="left"),
            Column("task", "Task", align="left"),
            Column("seeds", "Seeds", align="left"),
            Column("a", "A"),
            Column("b", "B"),
            Column("difference", "B − A"),  # noqa: RUF001
            Column("p", "p", keep=True),
            Column("test", "Test over", align="left", keep=True),
            Column("verdict", "Verdict", align="left"),
        ),
        rows=tuple(_task_row(change) for change in changes.tasks),
        warnings=changes.warnings,
    )


def method_changes_table(changes: Changes) -> Table:
    """Return a row per method: the mean difference over tasks, its interval and Wilcoxon's test."""
    return Table(
        name="methods",
        title="Difference over tasks",
        caption=Caption(
            "Mean over the shared tasks of B minus A in percentage points with its 95 % interval (Student's t over "
            "three or more tasks), and Wilcoxon's signed-rank test where there are enough, adjusted by Holm's method.",
            _AGAINST_MEAN if any(change.against_mean for change in changes.methods) else "",
            f"Selection rule: {changes.select}.",
        ),
        columns=(
            Column("method", "Method", align="left"),
            Column("tasks", "Tasks"),
            Column("difference", "B − A"),  # noqa: RUF001
            Column("interval", "95 % interval", align="left", keep=True),
            Column("p", "p", keep=True),
            Column("verdict", "Verdict", align="left"),
        ),
        rows=tuple(_method_row(change) for change in changes.methods),
        notes=untested_note([change.interval.n for change in changes.methods]),
        warnings=changes.warnings,
    )


def unpaired_table(changes: Changes) -> Table:
    """Return a row for every run that only one side has, or that failed in B alone."""
    sides = (("only in A", changes.only_a), ("only in B", changes.only_b), ("failed in B", changes.failed_in_b))
    return Table(
        name="unpaired",
        title="Runs without a partner",
        caption=Caption("Runs that only one side has, and runs that finished in A and failed in B."),
        columns=(
            Column("where", "Where", align="left"),
            Column("method", "Method", align="left"),
            Column("task", "Task", align="left"),
            Column("seeds", "Seeds", align="left"),
        ),
        rows=tuple(row for where, runs in sides for row in _unpaired_rows(where, runs)),
    )


def changes_figure(changes: Changes) -> Figure | None:
    """Return the differences per task as a figure; None without a pair."""
    if not changes.tasks:
        return None
    labels = dict.fromkeys(change.label for change in changes.tasks)
    lines = [
        TaskDifferences(label, {change.task: change.difference for change in changes.tasks if change.label == label})
        for label in labels
    ]
    present = sorted({(change.group, change.task) for change in changes.tasks}, key=lambda pair: task_order(pair[1]))
    groups = {
        group: [task for other, task in present if other == group]
        for group in sorted({group for group, _ in present}, key=group_order)
    }
    return Figure(
        name="differences",
        title="B minus A per task",
        caption=Caption("B minus A per task in percentage points, mean over shared seeds."),
        draw=lambda: draw_task_differences(lines, groups, "A", f"selection rule: {changes.select}"),
        alt="Differences between B and A per task.",
        wide=True,
    )


def _details(changes: Changes) -> str:
    """Name the tests per task, and the tasks whose accuracy is the mean over classes."""
    on_images = [(len(change.seeds), change.by_class) for change in changes.tasks if change.test == "images"]
    images = f"{names_of_image_tests(on_images)} where both sides have predictions, else " if on_images else ""
    names = joined([task_name(task) for task in dict.fromkeys(c.task for c in changes.tasks if c.by_class)])
    metric = f" The accuracy on {names} is the mean of the accuracies of the classes." if names else ""
    weighted = BY_CLASS if any(by_class for _, by_class in on_images) else ""
    return f"Tests are {images}Student's t over seeds.{weighted}{metric}"


def _task_row(change: TaskChange) -> Row:
    cells = (
        text_cell(change.label),
        Cell(task_name(change.task), value=change.task),
        text_cell(seed_list(change.seeds)),
        Cell(percent(change.a), value=change.a),
        Cell(percent(change.b), value=change.b),
        Cell(signed(change.difference), value=change.difference),
        p_cell(change.adjusted),
        text_cell(_TESTS[change.test]),
        text_cell(change.verdict),
    )
    return Row(cells)


def _method_row(change: MethodChange) -> Row:
    low, high = change.interval.low, change.interval.high
    interval = f"{signed(low)} to {signed(high)}" if has_value(low) else ""
    cells = (
        text_cell(change.label),
        Cell(str(change.interval.n), value=change.interval.n),
        Cell(signed(change.interval.mean), value=change.interval.mean),
        text_cell(interval),
        p_cell(change.adjusted),
        text_cell(change.verdict),
    )
    return Row(cells)


def _unpaired_rows(where: str, runs: Sequence[Unpaired]) -> list[Row]:
    seeds: dict[tuple[str, str], list[int]] = {}
    for run in runs:
        seeds.setdefault((run.label, run.task), []).append(run.seed)
    return [
        Row(
            (
                text_cell(where),
                text_cell(label),
                Cell(task_name(task), value=task),
                text_cell(seed_list(of_task)),
            )
        )
        for (label, task), of_task in seeds.items()
    ]
