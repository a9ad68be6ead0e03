"""The ablation figure: differences to the full method with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure as MplFigure

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.differences import Ablation, PairedDifference, difference_to_full, interval_over
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Figure
from shipbench.report.figures.style import GREY, INK, NARROW, VERMILION, new_figure, note_beside, only_grid, style
from shipbench.report.wording.names import component_name, method_name
from shipbench.report.wording.numbers import has_value, signed
from shipbench.report.wording.text import counted, joined, wrapped

_ABOVE = 0.26


@dataclass(frozen=True)
class AblationLine:
    """The label of an ablated arm and its paired difference to the full method."""

    label: str
    difference: PairedDifference


def ablation_figure(view: SuiteView, ablation: Ablation) -> Figure | None:
    """Return a forest plot of one ablation; None without a difference to the full method."""
    differences = [(arm, difference_to_full(view.study, arm, ablation)) for arm in ablation.ablated]
    lines = [AblationLine(_label(arm), difference) for arm, difference in differences if difference]
    if not lines or ablation.full is None:
        return None
    method = method_name(ablation.full.method)
    text = (
        f"{view.name}: difference to full {method} in percentage points when a part is switched off, "
        f"with 95 % Student t intervals ({interval_over(view.study, ablation)}); small points above them are single "
        "tasks. Differences are paired over tasks and seeds; the number of shared tasks is on the right."
    )
    return Figure(
        name=f"ablation-{view.slug}{ablation.suffix}",
        title=f"{view.name}: what each part of {method} adds",
        caption=view.caption(text),
        draw=lambda: draw_ablation(lines, method, view.footer),
        alt=f"Differences of {counted(len(lines), 'ablation')} to full {method} with intervals.",
    )


def _label(arm: Arm) -> str:
    """Name the parts that are switched off, in lines that fit in the margin."""
    return wrapped(f"without {joined([component_name(switch) for switch in arm.switches])}", 28)


def draw_ablation(lines: Sequence[AblationLine], method: str, footer: str) -> MplFigure:
    """Draw the mean, interval and single tasks of every ablated arm."""
    heights = [max(1.0, 0.62 * (1 + line.label.count("\n"))) for line in lines]
    places = [sum(heights[:i]) + heights[i] / 2 for i in range(len(lines))]
    with style():
        figure = new_figure(NARROW, 0.85 + 0.36 * sum(heights), footer)
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
    if has_value(interval.low):
        axis.plot([interval.low, interval.high], [y, y], color=VERMILION, linewidth=2, solid_capstyle="round")
    axis.plot(interval.mean, y, "o", color=VERMILION, markersize=6)
    note_beside(axis, y, f"{signed(interval.mean)}  ({counted(len(values), 'task')})")
