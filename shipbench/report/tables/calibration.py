"""The calibration table: the expected calibration error of every method on every task."""

from __future__ import annotations

from statistics import fmean

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.cautions import foreign_records
from shipbench.report.analysis.classes import calibration_error
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import MISSING, Cell, Column, Row, Table, distinct
from shipbench.report.tables.common import name_cell
from shipbench.report.wording.names import task_name
from shipbench.report.wording.numbers import percent
from shipbench.statistics import mean_of_tasks_name


def calibration_table(view: SuiteView) -> Table | None:
    """Return expected calibration errors in percent; None without recorded confidences."""
    tasks = list(view.calibration)
    arms = [arm for arm in view.arms if any(arm.key in by_arm for by_arm in view.calibration.values())]
    if not arms:
        return None
    return Table(
        name=f"calibration-{view.slug}",
        title=f"{view.name}: calibration",
        caption=view.caption(
            "Expected calibration error in percent: the mean distance of confidence and accuracy over 15 equal bins of "
            "confidence, weighted by their images. Lower is better.",
            "Over the test images of all seeds, after the last epoch.",
            over_images=True,
        ),
        columns=distinct(
            (
                Column("method", "Method", align="left"),
                *(Column(task, task_name(task), upright=len(tasks) > 3, kind="task") for task in tasks),
                *([Column("mean", mean_of_tasks_name(tasks, view.tasks), upright=True)] if len(tasks) > 1 else []),
            )
        ),
        rows=tuple(_row(view, arm, tasks) for arm in arms),
        notes=view.prediction_notes,
        warnings=foreign_records(view.runs),
    )


def _row(view: SuiteView, arm: Arm, tasks: list[str]) -> Row:
    bins = [view.calibration[task].get(arm.key) for task in tasks]
    errors = [None if in_task is None else 100 * calibration_error(in_task) for in_task in bins]
    cells = [Cell(MISSING) if error is None else Cell(percent(error), value=error) for error in errors]
    complete = [error for error in errors if error is not None]
    mean = fmean(complete) if len(complete) == len(errors) else None
    summary = [Cell(percent(mean), value=mean)] if len(tasks) > 1 else []
    return Row((name_cell(arm), *cells, *summary))
