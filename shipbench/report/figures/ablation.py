"""Differences of ablations to the full method, with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure as MplFigure

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.differences import Ablation, PairedDifference
from shipbench.report.analysis.study import Study
from shipbench.report.document import Figure
from shipbench.report.figures.style import GREY, INK, NARROW, VERMILION, new_figure, note_beside, only_grid, style
from shipbench.report.tables.ablation import difference_to_full, interval_over
from shipbench.report.wording.captions import caption, footer
from shipbench.report.wording.names import component_name, method_name, suite_name
from shipbench.report.wording.numbers import known, signed
from shipbench.report.wording.text import counted, joined, slug, wrapped

_ABOVE = 0.26


@dataclass(frozen=True)
class AblationLine:
    """One ablated arm: its label and its paired difference to the full method."""

    label: str
    difference: PairedDifference


def ablation_figure(study: Study, suite: str, ablation: Ablation, number: int = 0) -> Figure | None:
    """Return the differences of an ablation with their intervals; None without a full arm to compare to."""
    found = [(arm, difference_to_full(study, arm, ablation)) for arm in ablation.ablated]
    lines = [AblationLine(_parts(arm), difference) for arm, difference in found if difference]
    if not lines or ablation.full is None:
        return None
    method, small = method_name(ablation.full.method), footer(study.selection, suite)
    text = (
        f"{suite_name(suite)}: difference to full {method} in percentage points when a part is switched off, "
        f"with 95 % Student t intervals ({interval_over(study, ablation)}); small points above them are single tasks. "
        "Pairs share task and seed; the number of shared tasks stands on the right."
    )
    return Figure(
        name=f"ablation-{slug(suite)}" + (f"-{number + 1}" if number else ""),
        title=f"{suite_name(suite)}: what each part of {method} adds",
        caption=caption(text, study.selection, suite),
        draw=lambda: draw_ablation(lines, method, small),
        alt=f"Differences of {counted(len(lines), 'ablation')} to full {method} with intervals.",
    )


def _parts(arm: Arm) -> str:
    """Name what is switched off, in lines of a margin's width."""
    return wrapped(f"without {joined([component_name(switch) for switch in arm.switches])}", 28)


def draw_ablation(lines: Sequence[AblationLine], method: str, small: str) -> MplFigure:
    """Draw a forest plot: mean, interval and single tasks of every ablated arm."""
    heights = [max(1.0, 0.62 * (1 + line.label.count("\n"))) for line in lines]
    places = [sum(heights[:i]) + heights[i] / 2 for i in range(len(lines))]
    with style():
        figure = new_figure(NARROW, 0.85 + 0.36 * sum(heights), small)
        axis = figure.subplots()
        axis.axvline(0, color=INK, linewidth=0.8)
        for y, line in zip(places, lines, strict=True):
            _forest_line(axis, y, line.difference)
        axis.set_yticks(places, [line.label for line in lines])
        axis.set_ylim(sum(heights), 0)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel(f"difference to full {method} (percentage points)")
        only_grid(axis, "x")
        return figure


def _forest_line(axis: Axes, y: float, difference: PairedDifference) -> None:
    interval = difference.interval
    values = list(difference.tasks.values())
    axis.plot(values, [y - _ABOVE] * len(values), "o", color=GREY, alpha=0.7, markersize=3, markeredgewidth=0)
    if known(interval.low):
        axis.plot([interval.low, interval.high], [y, y], color=VERMILION, linewidth=2, solid_capstyle="round")
    axis.plot(interval.mean, y, "o", color=VERMILION, markersize=6)
    note_beside(axis, y, f"{signed(interval.mean)}  ({counted(len(values), 'task')})")
