"""The oracle gap: what choosing the epoch on test images would have claimed, per method."""

from __future__ import annotations

from shipbench.report.analysis.oracle import OracleGap, oracle_gaps
from shipbench.report.analysis.study import Study
from shipbench.report.document import Cell, Column, Row, Table, text_cell
from shipbench.report.wording.captions import caption
from shipbench.report.wording.names import suite_name
from shipbench.report.wording.numbers import percent, signed
from shipbench.report.wording.text import slug

_CAPTION = (
    "{suite}: mean test accuracy in percent after the last epoch and at each run's best test epoch, over the runs that "
    "were tested during training, whatever rule the other tables follow. The gap is what choosing the epoch on test "
    "images would add; the largest one is that of a single task."
)


def oracle_table(study: Study, suite: str) -> Table | None:
    """Return the table of oracle gaps; None if no run was tested at more than its last epoch."""
    gaps = oracle_gaps(study, suite)
    if not gaps:
        return None
    return Table(
        name=f"oracle-gaps-{slug(suite)}",
        title=f"{suite_name(suite)}: the oracle gap in numbers",
        caption=caption(_CAPTION.format(suite=suite_name(suite)), study.selection, suite),
        columns=(
            Column("method", "Method", align="left"),
            Column("final", "last epoch"),
            Column("oracle", "best test epoch"),
            Column("gap", "oracle gap"),
            Column("largest_gap", "largest gap"),
            Column("tasks", "tasks"),
        ),
        rows=tuple(_row(gap) for gap in gaps),
    )


def _row(gap: OracleGap) -> Row:
    difference = gap.best - gap.final
    return Row(
        (
            text_cell(gap.arm.label),
            Cell(percent(gap.final), value=gap.final),
            Cell(percent(gap.best), value=gap.best),
            Cell(signed(difference), value=difference),
            Cell(signed(gap.largest), value=gap.largest),
            Cell(str(gap.tasks), value=gap.tasks),
        )
    )
