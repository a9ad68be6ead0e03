"""Final against best-epoch accuracy: what choosing the epoch on test images would have claimed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure as MplFigure

from shipbench.report.captions import caption, footer
from shipbench.report.figures.style import (
    MUTED,
    NARROW,
    PAPER,
    SeriesStyle,
    arm_styles,
    new_figure,
    only_grid,
    style,
)
from shipbench.report.labels import counted, slug, suite_name, wrapped
from shipbench.report.model import Figure
from shipbench.report.numbers import signed
from shipbench.report.study import Study


@dataclass(frozen=True)
class OracleGap:
    """One method's mean accuracies in percent after the last and at the best test epoch."""

    label: str
    final: float
    best: float
    tasks: int
    look: SeriesStyle


def oracle_figure(study: Study, suite: str) -> Figure | None:
    """Return the figure for a suite's main arms; None if no run was tested at more than its last epoch."""
    arms = study.arms_of(suite, main=True)
    looks = arm_styles(arms)
    runs = _tested_along_the_way(study.runs)
    gaps = []
    for arm in arms:
        own = runs[runs["arm"] == arm.key]
        if len(own):
            final, best = (_mean(own, column) for column in ("final_test_acc", "best_test_acc"))
            gaps.append(OracleGap(arm.short_label, final, best, own["task"].nunique(), looks[arm.key]))
    if not gaps:
        return None
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
        draw=lambda: draw_oracle(gaps, small),
        alt=f"Accuracy after the last and at the best epoch for {counted(len(gaps), 'method')}.",
    )


def _tested_along_the_way(runs: pd.DataFrame) -> pd.DataFrame:
    """Leave out runs that were tested once, at the end: their gap is not zero but unknown."""
    finished = runs[runs["status"] == "done"].dropna(subset=["final_test_acc", "best_test_acc"])
    if "cfg.eval_every" not in finished:
        return finished
    return finished[finished["cfg.eval_every"].fillna(1) > 0]


def _mean(runs: pd.DataFrame, column: str) -> float:
    return 100 * float(runs.groupby("task")[column].mean().mean())


def draw_oracle(gaps: Sequence[OracleGap], small: str) -> MplFigure:
    """Draw a dumbbell per method."""
    with style():
        figure = new_figure(NARROW, 0.8 + 0.34 * len(gaps), small)
        axis = figure.subplots()
        for y, gap in enumerate(gaps):
            axis.plot([gap.final, gap.best], [y, y], color=gap.look.colour, linewidth=2, zorder=2)
            axis.plot(gap.best, y, marker="o", color=gap.look.colour, markerfacecolor=PAPER, zorder=3)
            axis.plot(gap.final, y, marker="o", color=gap.look.colour, zorder=4)
            axis.annotate(
                f"{signed(gap.best - gap.final)}  ({counted(gap.tasks, 'task')})",
                (1.0, y),
                xycoords=axis.get_yaxis_transform(),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
                color=MUTED,
                annotation_clip=False,
            )
        axis.set_yticks(range(len(gaps)), [wrapped(gap.label, 24) for gap in gaps])
        axis.set_ylim(len(gaps) - 0.5, -0.5)
        axis.margins(x=0.08)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel("mean test accuracy (%)")
        only_grid(axis, "x")
        return figure
