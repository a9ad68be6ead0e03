"""The interval table: bootstrap intervals over test images per task, and Student's t interval over tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.cautions import foreign_records
from shipbench.report.analysis.differences import over_tasks
from shipbench.report.analysis.predictions import TaskPredictions
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import MISSING, Cell, Column, Row, Table, distinct
from shipbench.report.tables.common import name_cell
from shipbench.report.wording.names import task_name
from shipbench.report.wording.numbers import has_value, percent
from shipbench.statistics import MEAN_OF_TASKS, Interval

_EXTRAS = ("low", "high")
_CAPTION = (
    "Test accuracy in percent with 95 % intervals: bootstrap over the test images of each task, Student's t over tasks "
    "in the last column. Neither includes the variation between trainings, which the deviation over seeds shows."
)
_DETAILS = (
    "The bootstrap is a percentile bootstrap, in which each image counts with the share of seeds that classify it "
    "correctly."
)
_BY_CLASS = " Where the accuracy is the mean over classes, the images of each class are resampled on their own."


def intervals_table(view: SuiteView) -> Table | None:
    """Return the table of intervals; None without predictions."""
    if not view.predictions:
        return None
    by_task = {task: _intervals(view.arms, predictions) for task, predictions in view.predictions.items()}
    return Table(
        name=f"intervals-{view.slug}",
        title=f"{view.name}: intervals",
        caption=view.caption(_CAPTION, _DETAILS + (_BY_CLASS if view.by_class else "")),
        columns=distinct(
            (
                Column("method", "Method", align="left"),
                *(Column(task, task_name(task), upright=True, extras=_EXTRAS, kind="task") for task in by_task),
                Column(MEAN_OF_TASKS, MEAN_OF_TASKS, upright=True, extras=_EXTRAS),
            )
        ),
        rows=tuple(_row(view, arm, by_task) for arm in view.arms),
        notes=view.prediction_notes,
        warnings=foreign_records(view.runs),
    )


def _row(view: SuiteView, arm: Arm, by_task: Mapping[str, Mapping[int, Interval]]) -> Row:
    means = view.study.means([arm])[arm.key].reindex(view.tasks)
    mean = over_tasks(list(means)) if not means.isna().any() else None
    cells = [_cell(intervals.get(arm.key)) for intervals in by_task.values()]
    return Row((name_cell(arm), *cells, _cell(mean)))


def _intervals(arms: Sequence[Arm], predictions: TaskPredictions) -> Mapping[int, Interval]:
    """Return the bootstrap interval of every arm that has predictions, by key."""
    present = [(part, arm) for part in predictions.groups for arm in arms if arm.key in part.predicted]
    return {arm.key: part.times_correct(arm, part.shared_seeds(arm, arm)).interval() for part, arm in present}


def _cell(interval: Interval | None) -> Cell:
    if interval is None or not has_value(interval.mean):
        return Cell(MISSING)
    below = f"{percent(interval.low)} to {percent(interval.high)}" if has_value(interval.low) else ""
    return Cell(percent(interval.mean), below, interval.mean, (("low", interval.low), ("high", interval.high)))
