"""Final against best-epoch accuracy: what choosing the epoch on test images would have claimed."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure as MplFigure

from shipbench.report.analysis.oracle import OracleGap, oracle_gaps
from shipbench.report.analysis.study import Study
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
from shipbench.report.wording.captions import caption, footer
from shipbench.report.wording.names import suite_name
from shipbench.report.wording.numbers import signed
from shipbench.report.wording.text import counted, slug, wrapped


def oracle_figure(study: Study, suite: str) -> Figure | None:
    """Return the figure for a suite's main arms; None if no run was tested at more than its last epoch."""
    gaps = oracle_gaps(study, suite)
    if not gaps:
        return None
    styles = arm_styles(study.arms_of(suite, main=True))
    looks = [styles[gap.arm.key] for gap in gaps]
    small = footer(study.selection, suite)
    text = (
        f"{suite_name(suite)}: accuracy after the last epoch (filled) and at the best test epoch (open), each method's "
        "mean over the tasks it was run on. The difference is what choosing the epoch on test images would add; "
        "both ends are shown whatever the rule of the tables."
    )
    return Figure(
        name=f"oracle-gap-{slug(suite)}",
        title=f"{suite_name(suite)}: the oracle gap",
        caption=caption(text, study.selection, suite),
        draw=lambda: draw_oracle(gaps, looks, small),
        alt=f"Accuracy after the last and at the best epoch for {counted(len(gaps), 'method')}.",
    )


def draw_oracle(gaps: Sequence[OracleGap], looks: Sequence[SeriesStyle], small: str) -> MplFigure:
    """Draw a dumbbell per method."""
    with style():
        figure = new_figure(NARROW, 0.8 + 0.34 * len(gaps), small)
        axis = figure.subplots()
        for y, (gap, look) in enumerate(zip(gaps, looks, strict=True)):
            axis.plot([gap.final, gap.best], [y, y], color=look.colour, linewidth=2, zorder=2)
            axis.plot(gap.best, y, marker="o", color=look.colour, markerfacecolor=PAPER, zorder=3)
            axis.plot(gap.final, y, marker="o", color=look.colour, zorder=4)
            note_beside(axis, y, f"{signed(gap.best - gap.final)}  ({counted(gap.tasks, 'task')})")
        axis.set_yticks(range(len(gaps)), [wrapped(gap.arm.short_label, 24) for gap in gaps])
        axis.set_ylim(len(gaps) - 0.5, -0.5)
        axis.margins(x=0.08)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel("mean test accuracy (%)")
        only_grid(axis, "x")
        return figure
