"""How far accuracies could move: bootstrap intervals over test images per task, Student's over tasks for the mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.differences import over_tasks
from shipbench.report.analysis.predictions import TaskPredictions
from shipbench.report.analysis.study import Study
from shipbench.report.document import MISSING, Cell, Column, Row, Table, text_cell
from shipbench.report.wording.captions import caption
from shipbench.report.wording.names import MEAN_OF_TASKS, suite_name, task_name
from shipbench.report.wording.numbers import known, percent
from shipbench.report.wording.text import slug
from shipbench.statistics import Interval, bootstrap_interval

_EXTRAS = ("low", "high")
_CAPTION = (
    "{suite}: test accuracy in percent with a 95 % interval: per task the percentile bootstrap over its test images "
    "(every image with the share of seeds that classify it right), in the last column Student's t over the suite's "
    "tasks. Neither knows how much a method varies between trainings: that is the deviation over seeds."
)


def intervals_table(
    study: Study, suite: str, predictions: Mapping[str, TaskPredictions], gaps: Sequence[str] = ()
) -> Table | None:
    """Return the table of intervals; None if no predictions are stored; ``gaps`` are notes."""
    arms = study.arms_of(suite, main=True)
    found = {task: _per_arm(arms, in_task) for task, in_task in predictions.items()}
    tasks = list(found)
    if not tasks:
        return None
    rows = []
    for arm in arms:
        means = study.means([arm])[arm.key].reindex(study.tasks_of(suite))
        mean = over_tasks(list(means)) if not means.isna().any() else None
        cells = [_cell(found[task].get(arm.key)) for task in tasks]
        rows.append(Row((text_cell(arm.label), *cells, _cell(mean))))
    return Table(
        name=f"intervals-{slug(suite)}",
        title=f"{suite_name(suite)}: intervals",
        caption=caption(_CAPTION.format(suite=suite_name(suite)), study.selection, suite),
        columns=(
            Column("method", "Method", align="left"),
            *(Column(task, task_name(task), upright=True, extras=_EXTRAS) for task in tasks),
            Column(MEAN_OF_TASKS, MEAN_OF_TASKS, upright=True, extras=_EXTRAS),
        ),
        rows=tuple(rows),
        notes=tuple(gaps),
    )


def _per_arm(arms: Sequence[Arm], found: TaskPredictions) -> Mapping[int, Interval]:
    present = [arm for arm in arms if arm.key in found.predicted]
    seeds = {arm.key: found.shared_seeds(arm, arm) for arm in present}
    shares = {arm.key: found.times_right(arm, seeds[arm.key]).to_numpy() / len(seeds[arm.key]) for arm in present}
    return {key: bootstrap_interval(100 * share) for key, share in shares.items()}


def _cell(interval: Interval | None) -> Cell:
    if interval is None or not known(interval.mean):
        return Cell(MISSING)
    below = f"{percent(interval.low)} to {percent(interval.high)}" if known(interval.low) else ""
    return Cell(percent(interval.mean), below, interval.mean, (("low", interval.low), ("high", interval.high)))
