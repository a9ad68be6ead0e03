"""The oracle figure: accuracy after the last epoch against accuracy at the best test epoch."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure as MplFigure

from shipbench.report.analysis.oracle import OracleGap
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Figure
from shipbench.report.figures.style import (
    NARROW,
    PAPER,
    SeriesStyle,
    arm_styles,
    new_figure,
    note_beside,
    only_grid,
    style,
)
from shipbench.report.wording.numbers import signed
from shipbench.report.wording.text import counted, wrapped


def oracle_figure(view: SuiteView) -> Figure | None:
    """Return the oracle gaps of the main arms; None if no run was tested before its last epoch."""
    gaps = view.oracle_gaps
    if not gaps:
        return None
    styles = arm_styles(view.arms)
    gap_styles = [styles[gap.arm.key] for gap in gaps]
    text = (
        f"{view.name}: accuracy after the last epoch (filled) and at the best test epoch (open), each method's "
        "mean over the tasks it was run on. The difference is what choosing the epoch on test images would add; "
        "both are shown under every selection rule."
    )
    return Figure(
        name=f"oracle-gap-{view.slug}",
        title=f"{view.name}: the oracle gap",
        caption=view.caption(text),
        draw=lambda: draw_oracle(gaps, gap_styles, view.footer),
        alt=f"Accuracy after the last and at the best epoch for {counted(len(gaps), 'method')}.",
    )


def draw_oracle(gaps: Sequence[OracleGap], styles: Sequence[SeriesStyle], footer: str) -> MplFigure:
    """Draw a dumbbell per method."""
    with style():
        figure = new_figure(NARROW, 0.8 + 0.34 * len(gaps), footer)
        axis = figure.subplots()
        for y, (gap, series) in enumerate(zip(gaps, styles, strict=True)):
            axis.plot([gap.final, gap.best], [y, y], color=series.colour, linewidth=2, zorder=2)
            axis.plot(gap.best, y, marker="o", color=series.colour, markerfacecolor=PAPER, zorder=3)
            axis.plot(gap.final, y, marker="o", color=series.colour, zorder=4)
            note_beside(axis, y, f"{signed(gap.best - gap.final)}  ({counted(gap.tasks, 'task')})")
        axis.set_yticks(range(len(gaps)), [wrapped(gap.arm.short_label, 24) for gap in gaps])
        axis.set_ylim(len(gaps) - 0.5, -0.5)
        axis.margins(x=0.08)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel("mean test accuracy (%)")
        only_grid(axis, "x")
        return figure
