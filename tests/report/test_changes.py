"""The tables and the figure of ``shipbench diff``: every number stands under its own name."""

from __future__ import annotations

from shipbench.report.analysis.changes import Changes, MethodChange, TaskChange, Unpaired
from shipbench.report.drawing.chart import Points
from shipbench.report.tables.changes import (
    changes_figure,
    method_changes_table,
    task_changes_table,
    unpaired_table,
)
from shipbench.report.wording.numbers import MINUS
from shipbench.statistics import Interval

CHANGES = Changes(
    select="final",
    pairs=(),
    tasks=(
        TaskChange("SHIP", "dtd", "Natural", (0, 2), 75.0, 65.0, "images", 0.01, 0.02),
        TaskChange("SHIP", "kitti", "Structured", (0,), 50.0, 51.5, "seeds", 0.2, 0.4),
    ),
    methods=(MethodChange("SHIP", Interval(-4.25, -15.5, 7.0, 2), 0.3, -0.5, 0.6),),
    only_a=(Unpaired("r1", "SHIP", "svhn", 0), Unpaired("r2", "SHIP", "svhn", 1)),
    only_b=(Unpaired("r3", "LoRA", "svhn", -1),),
    failed_in_b=(Unpaired("r4", "SSF", "dtd", 7),),
)


def test_a_row_has_the_numbers_of_its_columns() -> None:
    table = task_changes_table(CHANGES)
    keys = [column.key for column in table.columns]
    shown = [dict(zip(keys, (cell.text for cell in row.cells), strict=True)) for row in table.rows]
    common = {"method": "SHIP", "task": "DTD", "seeds": "0, 2", "a": "75.0", "b": "65.0", "difference": f"{MINUS}10.0"}
    assert shown[0] == {**common, "p": "0.020", "test": "test images", "verdict": "worse"}
    assert [shown[1][key] for key in ("difference", "p", "test", "verdict")] == [
        *("+1.5", "0.400", "seeds", "not beyond chance"),
    ]
    (row,) = method_changes_table(CHANGES).rows
    assert [cell.text for cell in row.cells] == [
        *("SHIP", "2", f"{MINUS}4.2", f"{MINUS}15.5 to +7.0", "0.600", "not beyond chance"),
    ]


def test_runs_without_a_partner_are_listed_at_their_side() -> None:
    assert [[cell.text for cell in row.cells] for row in unpaired_table(CHANGES).rows] == [
        ["only in A", "SHIP", "SVHN", "0, 1"],
        ["only in B", "LoRA", "SVHN", "not stated"],
        ["failed in B", "SSF", "DTD", "7"],
    ]


def test_the_figure_shows_b_minus_a() -> None:
    figure = changes_figure(CHANGES)
    assert figure is not None
    chart = figure.draw()
    assert chart.heading == "difference to A (percentage points)"
    (panel,) = chart.panels
    drawn = {mark.tips[0]: list(mark.xs) for mark in panel.marks if isinstance(mark, Points)}
    assert drawn == {f"SHIP, DTD: {MINUS}10.0": [-10], "SHIP, KITTI-Dist: +1.5": [1.5]}
