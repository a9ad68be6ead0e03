"""The agreement table: how often two methods predict the same class, right or wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from shipbench.counts import counted
from shipbench.report.analysis.agreement import Agreement
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.cautions import foreign_records
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Cell, Column, Row, Table, distinct
from shipbench.report.tables.common import name_cell
from shipbench.report.wording.numbers import percent

_CAPTION = (
    "Share of test images, in percent, to which two methods assign the same class after the last epoch. The diagonal "
    "compares the seeds of one method with each other."
)
_DETAILS = "Mean over shared seeds, then over shared tasks."


def agreement_table(view: SuiteView) -> Table | None:
    """Return the lower triangle of agreements; None with fewer than two arms that have predictions."""
    arms = [arm for arm in view.arms if any(arm.key in pair for pair in view.agreement)]
    if len(arms) < 2:
        return None
    return Table(
        name=f"agreement-{view.slug}",
        title=f"{view.name}: agreement of predictions",
        caption=view.caption(_CAPTION, _DETAILS),
        columns=distinct(
            (
                Column("method", "Method", align="left"),
                *(
                    Column(arm.label, arm.label, upright=len(arms) > 4, extras=("tasks",), kind="method")
                    for arm in arms
                ),
            )
        ),
        rows=tuple(_row(arm, arms, view.agreement) for arm in arms),
        notes=view.prediction_notes,
        warnings=foreign_records(view.runs),
    )


def _row(arm: Arm, arms: Sequence[Arm], agreement: Agreement) -> Row:
    return Row((name_cell(arm), *(_cell(agreement.get((arm.key, other.key), {})) for other in arms)))


def _cell(tasks: Mapping[str, float]) -> Cell:
    if not tasks:
        return Cell(extras=(("tasks", 0),))
    mean = 100 * fmean(tasks.values())
    return Cell(percent(mean), counted(len(tasks), "task"), mean, (("tasks", len(tasks)),))
