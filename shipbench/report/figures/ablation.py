"""The ablation figure: differences to the full method with their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shipbench.counts import counted
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.differences import (
    Ablation,
    PairedDifference,
    difference_to_full,
    interval_over,
    notes_on_changed,
)
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Figure
from shipbench.report.drawing.chart import Chart, Line, Mark, Note, Panel, Points, Reference
from shipbench.report.drawing.palette import GREY
from shipbench.report.drawing.scales import downwards, number_axis
from shipbench.report.figures.style import arm_styles, rows_height
from shipbench.report.wording.names import component_name, method_name, task_name
from shipbench.report.wording.numbers import has_value, signed
from shipbench.report.wording.text import joined, shortened

_ABOVE = 0.26
_DETAILS = "Differences are paired over tasks and seeds; the number of shared tasks is on the right."


@dataclass(frozen=True)
class AblationLine:
    """The label of an ablated arm, its paired difference to the full method, and the method's colour."""

    label: str
    difference: PairedDifference
    colour: str


def ablation_figure(view: SuiteView, ablation: Ablation) -> Figure | None:
    """Return a forest plot of one ablation; None without a difference to the full method."""
    differences = [(arm, difference_to_full(view.study, arm, ablation)) for arm in ablation.ablated]
    if ablation.full is None:
        return None
    colour = arm_styles([ablation.full])[ablation.full.key].colour
    lines = [AblationLine(_label(arm), difference, colour) for arm, difference in differences if difference]
    if not lines:
        return None
    method = method_name(ablation.full.method)
    return Figure(
        name=f"ablation-{view.slug}{ablation.suffix}",
        title=f"{view.name}: what each part of {method} adds",
        caption=view.caption(
            f"Difference to full {method} in percentage points when a part is switched off, with 95 % Student t "
            f"intervals ({interval_over(view.study, ablation)}). Small points above them are single tasks.",
            " ".join((_DETAILS, *notes_on_changed(view.study, ablation))),
        ),
        draw=lambda: draw_ablation(lines, method, view.footer),
        alt=f"Differences of {counted(len(lines), 'ablation')} to full {method} with intervals.",
    )


def _label(arm: Arm) -> str:
    """Name the parts that are switched off."""
    return shortened(f"without {joined([component_name(switch, arm.method) for switch in arm.switches])}", 40)


def draw_ablation(lines: Sequence[AblationLine], method: str, footer: str) -> Chart:
    """Draw the mean, interval and single tasks of every ablated arm."""
    values = [value for line in lines for value in _values(line.difference)]
    axis = number_axis([0.0, *values], f"difference to full {method} (percentage points)")
    marks = [Reference(0.0), *(mark for y, line in enumerate(lines) for mark in _forest_line(y, line))]
    labels = downwards([line.label for line in lines])
    return Chart((Panel(axis, labels, tuple(marks)),), rows_height(len(lines)), footer=footer)


def _values(difference: PairedDifference) -> list[float]:
    interval = difference.interval
    ends = [interval.low, interval.high] if has_value(interval.low) else []
    return [*difference.tasks.values(), interval.mean, *ends]


def _forest_line(y: int, line: AblationLine) -> Iterator[Mark]:
    interval, tasks = line.difference.interval, line.difference.tasks
    tips = tuple(f"{line.label}, {task_name(task)}: {signed(value)}" for task, value in tasks.items())
    yield Points(list(tasks.values()), [y - _ABOVE] * len(tasks), GREY, size=3, tips=tips)
    between = ""
    if has_value(interval.low):
        yield Line([interval.low, interval.high], [y, y], line.colour, 2)
        between = f" ({signed(interval.low)} to {signed(interval.high)})"
    tip = f"{line.label}: {signed(interval.mean)}{between}"
    yield Points([interval.mean], [y], line.colour, size=6, tips=(tip,))
    yield Note(interval.mean, y, f"{signed(interval.mean)}  ({counted(len(tasks), 'task')})", beside="right")
