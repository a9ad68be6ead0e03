"""The oracle figure: accuracy after the last epoch against accuracy at the best test epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shipbench.counts import counted
from shipbench.report.analysis.oracle import OracleGap
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Figure
from shipbench.report.drawing.chart import Chart, Line, Mark, Note, Panel, Points
from shipbench.report.drawing.palette import PAPER
from shipbench.report.drawing.scales import downwards, number_axis
from shipbench.report.figures.style import SeriesStyle, arm_styles, rows_height
from shipbench.report.wording.numbers import percent, signed
from shipbench.report.wording.text import shortened_apart


def oracle_figure(view: SuiteView) -> Figure | None:
    """Return the oracle gaps of the main arms; None if no run was tested before its last epoch."""
    gaps = view.oracle_gaps
    if not gaps:
        return None
    styles = arm_styles(view.arms)
    gap_styles = [styles[gap.arm.key] for gap in gaps]
    return Figure(
        name=f"oracle-gap-{view.slug}",
        title=f"{view.name}: the oracle gap",
        caption=view.caption(
            "Accuracy after the last epoch (filled) and at the best test epoch (open), each method's mean over its "
            "tasks. The difference is what choosing the epoch on test images would add.",
            "Both are shown under every selection rule.",
        ),
        draw=lambda: draw_oracle(gaps, gap_styles, view.footer),
        alt=f"Accuracy after the last and at the best epoch for {counted(len(gaps), 'method')}.",
    )


def draw_oracle(gaps: Sequence[OracleGap], styles: Sequence[SeriesStyle], footer: str) -> Chart:
    """Draw a dumbbell per method."""
    axis = number_axis([value for gap in gaps for value in (gap.final, gap.best)], "mean test accuracy (%)")
    marks = [
        mark for y, (gap, series) in enumerate(zip(gaps, styles, strict=True)) for mark in _dumbbell(y, gap, series)
    ]
    labels = downwards(shortened_apart([gap.arm.label for gap in gaps], 30))
    return Chart((Panel(axis, labels, tuple(marks)),), rows_height(len(gaps)), footer=footer)


def _dumbbell(y: int, gap: OracleGap, series: SeriesStyle) -> Iterator[Mark]:
    name, colour = gap.arm.short_label, series.colour
    yield Line([gap.final, gap.best], [y, y], colour, 2, key=name)
    yield Points([gap.best], [y], colour, fill=PAPER, key=name, tips=(f"{name}, best epoch: {percent(gap.best)} %",))
    yield Points([gap.final], [y], colour, key=name, tips=(f"{name}, last epoch: {percent(gap.final)} %",))
    text = f"{signed(gap.best - gap.final)}  ({counted(gap.tasks, 'task')})"
    yield Note(gap.final, y, text, beside="right", key=name)
