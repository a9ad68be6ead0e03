"""The oracle table: what choosing the epoch on test images would add, per method."""

from __future__ import annotations

from shipbench.report.analysis.cautions import foreign_records
from shipbench.report.analysis.oracle import OracleGap
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Cell, Column, Row, Table
from shipbench.report.tables.common import name_cell
from shipbench.report.wording.numbers import percent, signed

_CAPTION = (
    "Mean test accuracy in percent after the last epoch and at the best test epoch of each run. The gap is what "
    "choosing the epoch on test images would add."
)
_DETAILS = (
    "Over runs that were tested during training, under every selection rule; the largest gap is that of a single task."
)


def oracle_table(view: SuiteView) -> Table | None:
    """Return the table of oracle gaps; None if no run was tested before its last epoch."""
    if not view.oracle_gaps:
        return None
    return Table(
        name=f"oracle-gaps-{view.slug}",
        title=f"{view.name}: the oracle gap in numbers",
        caption=view.caption(_CAPTION, _DETAILS),
        columns=(
            Column("method", "Method", align="left"),
            Column("final", "last epoch"),
            Column("oracle", "best test epoch"),
            Column("gap", "oracle gap"),
            Column("largest_gap", "largest gap"),
            Column("tasks", "tasks"),
        ),
        rows=tuple(_row(gap) for gap in view.oracle_gaps),
        warnings=foreign_records(view.runs),
    )


def _row(gap: OracleGap) -> Row:
    difference = gap.best - gap.final
    return Row(
        (
            name_cell(gap.arm),
            Cell(percent(gap.final), value=gap.final),
            Cell(percent(gap.best), value=gap.best),
            Cell(signed(difference), value=difference),
            Cell(signed(gap.largest), value=gap.largest),
            Cell(str(gap.tasks), value=gap.tasks),
        )
    )
