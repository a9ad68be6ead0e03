"""Accuracy against the severity of corruptions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from statistics import fmean

from shipbench.counts import counted
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.robustness import Shift
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Figure
from shipbench.report.drawing.chart import Axis, Chart, Line, Mark, Panel, Points
from shipbench.report.drawing.scales import number_axis
from shipbench.report.figures.style import SeriesStyle, arm_keys, arm_styles, panel_columns, without_labels
from shipbench.report.wording.names import corruption_name
from shipbench.report.wording.numbers import percent
from shipbench.report.wording.text import sentence_case


def robustness_figure(view: SuiteView) -> Figure | None:
    """Return accuracy against severity, a panel per corruption; None without corrupted test images of a shared task."""
    corrupted = [shift for shift in view.shifts if shift.corruption and not shift.images]
    names = dict.fromkeys(shift.corruption for shift in corrupted)
    panels = {name: shifts for name in names if (shifts := _on_shared_tasks(corrupted, name))}
    if not panels:
        return None
    draw = partial(draw_robustness, view, panels)
    return Figure(
        name=f"robustness-{view.slug}",
        title=f"{view.name}: accuracy and severity of corruption",
        caption=view.caption(
            "Test accuracy by the severity of the corruption, mean over seeds; severity 0 is the clean test images.",
            "Each panel averages over the tasks that all of its methods were evaluated on at the same severities.",
        ),
        draw=draw,
        alt=f"Accuracy against the severity of {counted(len(panels), 'corruption')}.",
        wide=len(panels) > 2,
        narrow=partial(draw, narrow=True) if len(panels) > 2 else None,
    )


def _on_shared_tasks(shifts: Sequence[Shift], corruption: str) -> dict[int, list[Shift]]:
    """Return the shifts of a corruption by arm key, on the tasks that all of these arms share; empty without any."""
    by_arm: dict[int, list[Shift]] = {}
    for shift in shifts:
        if shift.corruption == corruption:
            by_arm.setdefault(shift.arm.key, []).append(shift)
    shared = set.intersection(*({(s.task, tuple(s.by_severity)) for s in members} for members in by_arm.values()))
    if not shared:
        return {}
    return {key: [s for s in members if (s.task, tuple(s.by_severity)) in shared] for key, members in by_arm.items()}


def draw_robustness(view: SuiteView, panels: dict[str, dict[int, list[Shift]]], *, narrow: bool = False) -> Chart:
    """Draw a panel per corruption with a line per method; two to a row if it is ``narrow``."""
    columns = panel_columns(len(panels), 4, narrow=narrow)
    lines = {name: {key: _points(members) for key, members in arms.items()} for name, arms in panels.items()}
    y = number_axis([value for arms in lines.values() for points in arms.values() for value in points.values()])
    shown = [arm for arm in view.arms if any(arm.key in arms for arms in lines.values())]
    styles = arm_styles(view.arms)
    drawn = [
        _panel(name, arms, shown, styles, y if place % columns == 0 else without_labels(y))
        for place, (name, arms) in enumerate(lines.items())
    ]
    label = "test accuracy (%)"
    wide = columns > 2
    return Chart(tuple(drawn), 110, columns, wide=wide, legend=arm_keys(shown), y_label=label, footer=view.footer)


def _points(members: Sequence[Shift]) -> dict[int, float]:
    """Return mean accuracies by severity, from 0 for clean images; severities that a member lacks are left out."""
    shared = sorted(set.intersection(*(set(shift.by_severity) for shift in members)))
    means = {severity: fmean(shift.by_severity[severity] for shift in members) for severity in shared}
    return {0: fmean(shift.clean for shift in members), **means}


def _panel(
    name: str, lines: dict[int, dict[int, float]], arms: Sequence[Arm], styles: dict[int, SeriesStyle], y: Axis
) -> Panel:
    last = max(severity for points in lines.values() for severity in points)
    ticks = tuple((float(severity), str(severity)) for severity in range(last + 1))
    marks = [mark for arm in arms if arm.key in lines for mark in _marks(arm, lines[arm.key], styles[arm.key])]
    return Panel(Axis(-0.3, last + 0.3, ticks, "severity"), y, tuple(marks), sentence_case(corruption_name(name)))


def _marks(arm: Arm, points: dict[int, float], look: SeriesStyle) -> Iterator[Mark]:
    xs, ys, key = [float(severity) for severity in points], list(points.values()), arm.short_label
    tips = tuple(f"{key}, severity {severity}: {percent(value)} %" for severity, value in points.items())
    yield Line(xs, ys, look.colour, 1.4, look.dashes, key=key)
    yield Points(xs, ys, look.colour, look.marker, 4, key=key, tips=tips)
