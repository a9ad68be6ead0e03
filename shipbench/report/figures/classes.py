"""Figures by class and by confidence: confusion matrices, accuracy per class, and reliability diagrams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import ceil

import numpy as np

from shipbench.counts import counted
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.classes import (
    Bin,
    calibration_error,
    class_accuracies,
    class_names,
    confusion,
    has_class_names,
)
from shipbench.report.analysis.headline import Standing, standings
from shipbench.report.analysis.predictions import TaskPredictions
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Figure
from shipbench.report.drawing.chart import Axis, Chart, ColourBar, Heat, Line, Mark, Panel, Points
from shipbench.report.drawing.palette import CIVIDIS, MUTED, mapped
from shipbench.report.drawing.scales import number_axis, with_ticks
from shipbench.report.figures.style import arm_keys, arm_styles, panel_columns
from shipbench.report.wording.names import task_name
from shipbench.report.wording.numbers import percent
from shipbench.report.wording.text import shortened

_MOST_CLASSES, _MOST_TIPS = 50, 20
_LEAST_SHARE = 0.01
_SPARSE = f" For more than {_MOST_TIPS} classes, the page has the values of cells from {100 * _LEAST_SHARE:g} % on."
# More names, or longer ones, would not fit beside a matrix.
_MOST_NAMES, _LONGEST_NAME = 12, 14


def class_figures(view: SuiteView) -> list[Figure]:
    """Return confusion matrices of the best method, and accuracies per class; empty without predictions."""
    small = {task: p for task, p in view.predictions.items() if 2 < p.class_count <= _MOST_CLASSES}
    figures = [_confusion_figure(view, standing, small) for standing in standings(view)[:1]]
    return [*filter(None, figures), _per_class_figure(view, small)] if small else []


def reliability_figure(view: SuiteView) -> Figure | None:
    """Return a reliability diagram per task; None without recorded confidences."""
    tasks = list(view.calibration)
    if not tasks:
        return None
    draw = partial(draw_reliability, view)
    return Figure(
        name=f"reliability-{view.slug}",
        title=f"{view.name}: reliability",
        caption=view.caption(
            "Accuracy of the predictions by their confidence, in 15 equal bins over all seeds. On the dashed line, "
            "confidence is the accuracy.",
            "Bins with less than one percent of the images are not drawn; the error in the table counts all bins.",
            over_images=True,
        ),
        draw=draw,
        alt=f"Reliability diagrams of {counted(len(tasks), 'task')}.",
        wide=len(tasks) > 2,
        narrow=partial(draw, narrow=True) if len(tasks) > 2 else None,
    )


def draw_reliability(view: SuiteView, *, narrow: bool = False) -> Chart:
    """Draw a panel per task with a line per method; if it is ``narrow``, two to a row and lines without markers."""
    tasks = view.calibration
    columns = _columns(len(tasks), narrow=narrow)
    ticks = ((0.0, "0"), (0.5, "0.5"), (1.0, "1"))
    across, up = Axis(0, 1, ticks, "confidence"), Axis(0, 1, ticks)
    panels = [
        Panel(
            across if i + columns >= len(tasks) else replace(across, label=""),
            up,
            (Line([0, 1], [0, 1], MUTED, 0.8, (3, 2)), *_reliability_marks(view, by_arm, markers=not narrow)),
            shortened(task_name(task), 20),
        )
        for i, (task, by_arm) in enumerate(tasks.items())
    ]
    wide = columns > 2
    shown = [arm for arm in view.arms if any(arm.key in by_arm for by_arm in tasks.values())]
    legend = arm_keys(shown, marker=not narrow)
    return Chart(tuple(panels), 0, columns, wide=wide, legend=legend, y_label="accuracy", footer=view.footer)


def _reliability_marks(view: SuiteView, by_arm: Mapping[int, Sequence[Bin]], *, markers: bool) -> Iterator[Mark]:
    styles = arm_styles(view.arms)
    for arm in view.arms:
        if arm.key in by_arm:
            bins = by_arm[arm.key]
            shown = [part for part in bins if part.share >= 0.01]
            look, key = styles[arm.key], arm.short_label
            xs, ys = [part.confidence for part in shown], [part.accuracy for part in shown]
            tips = tuple(_bin_tip(key, part, calibration_error(bins)) for part in shown)
            yield Line(xs, ys, look.colour, 1.2, look.dashes, key=key, tips=tips)
            if markers:
                yield Points(xs, ys, look.colour, look.marker, 3, key=key)


def _bin_tip(name: str, part: Bin, error: float) -> str:
    return (
        f"{name}: accuracy {percent(100 * part.accuracy)} % at confidence {part.confidence:.2f} "
        f"({percent(100 * part.share)} % of images; ECE {percent(100 * error)} %)"
    )


def _columns(tasks: int, *, narrow: bool) -> int:
    return panel_columns(tasks, 5 if tasks > 6 else 3, narrow=narrow)


def _confusion_figure(view: SuiteView, standing: Standing, small: Mapping[str, TaskPredictions]) -> Figure | None:
    """Return the confusions of the best method by ``standing``; None if it has no predictions."""
    (arm, _), *_ = standing.scores
    tasks = {task: predictions for task, predictions in small.items() if arm.key in predictions.predicted}
    if not tasks:
        return None
    draw = partial(draw_confusions, view, arm, tasks)
    named = any(_has_names(view, arm, task, predictions) for task, predictions in tasks.items())
    wide = len(tasks) > (1 if named else 2)
    large = any(predictions.class_count > _MOST_TIPS for predictions in tasks.values())
    return Figure(
        name=f"confusion-{view.slug}",
        title=f"{view.name}: confusions of {arm.label}",
        caption=view.caption(
            f"Share of the test images of each class (row) that the best method by {standing.name} assigns to each "
            "class (column), mean over seeds.",
            f"Tasks with 3 to {_MOST_CLASSES} classes.{_SPARSE if large else ''}",
        ),
        draw=draw,
        alt=f"Confusion matrices of {arm.label} on {counted(len(tasks), 'task')}.",
        wide=wide,
        narrow=partial(draw, narrow=True) if wide else None,
    )


def draw_confusions(view: SuiteView, arm: Arm, tasks: Mapping[str, TaskPredictions], *, narrow: bool = False) -> Chart:
    """Draw the confusion matrix of each task on a common scale.

    If it is ``narrow``, there are two matrices to a row, or one if the names of classes stand beside any.
    """
    panels = tuple(_confusion_panel(view, arm, task, predictions) for task, predictions in tasks.items())
    columns = _columns(len(tasks), narrow=narrow)
    named = any(panel.x.turned for panel in panels)
    if named:
        # Names of classes take most of the width.
        columns = 1 if narrow else min(columns, 2)
    bar = ColourBar(0.0, 1.0, "share", CIVIDIS)
    wide = columns > (1 if named else 2) and not narrow
    return Chart(panels, 0, columns, wide=wide, footer=view.footer, bar=bar)


def _has_names(view: SuiteView, arm: Arm, task: str, predictions: TaskPredictions) -> bool:
    """Return whether the names of classes stand beside a matrix."""
    size = predictions.class_count
    return size <= _MOST_NAMES and has_class_names(view.study, arm, task, size)


def _confusion_panel(view: SuiteView, arm: Arm, task: str, predictions: TaskPredictions) -> Panel:
    shares = confusion(predictions, arm).tolist()
    size = len(shares)
    names = class_names(view.study, arm, task, size)
    colours = tuple(tuple(mapped(value, 0, 1) for value in row) for row in shares)
    least = _LEAST_SHARE if size > _MOST_TIPS else 0.0
    tips = tuple(
        tuple(_cell_tip(names[i], names[j], value) if value >= least else "" for j, value in enumerate(row))
        for i, row in enumerate(shares)
    )
    named = _has_names(view, arm, task, predictions)
    ticks = _class_ticks(names if named else None, size)
    across = Axis(-0.5, size - 0.5, ticks, grid=False, line=False, turned=named)
    down = Axis(size - 0.5, -0.5, ticks, grid=False, line=False)
    heat = Heat(-0.5, size - 0.5, -0.5, size - 0.5, colours, tips)
    return Panel(across, down, (heat,), shortened(task_name(task), 20))


def _cell_tip(label: str, predicted: str, share: float) -> str:
    return f"{label} as {predicted}: {percent(100 * share)} %"


def _class_ticks(names: Sequence[str] | None, size: int) -> tuple[tuple[float, str], ...]:
    """Return a tick with its name for every class, or at most six numbers if there are no names to print."""
    if names is not None:
        return tuple((float(number), shortened(name, _LONGEST_NAME)) for number, name in enumerate(names))
    return tuple((float(tick), str(tick)) for tick in range(0, size, ceil(size / 6)))


def _per_class_figure(view: SuiteView, tasks: Mapping[str, TaskPredictions]) -> Figure:
    draw = partial(draw_class_accuracies, view, tasks)
    return Figure(
        name=f"class-accuracy-{view.slug}",
        title=f"{view.name}: accuracy per class",
        caption=view.caption(
            "Test accuracy on each class, mean over seeds; classes from hardest to easiest by the mean over methods.",
            f"Tasks with 3 to {_MOST_CLASSES} classes.",
        ),
        draw=draw,
        alt=f"Accuracy per class on {counted(len(tasks), 'task')}.",
        wide=len(tasks) > 2,
        narrow=partial(draw, narrow=True) if len(tasks) > 2 else None,
    )


def draw_class_accuracies(view: SuiteView, tasks: Mapping[str, TaskPredictions], *, narrow: bool = False) -> Chart:
    """Draw a panel per task with a point per class and method; if ``narrow``, two to a row and lines without points."""
    columns = _columns(len(tasks), narrow=narrow)
    panels = tuple(_class_panel(view, task, predictions, points=not narrow) for task, predictions in tasks.items())
    shown = [arm for arm in view.arms if any(arm.key in p.predicted for p in tasks.values())]
    legend = arm_keys(shown, marker=not narrow)
    height = 75 if columns > 3 else 100
    label = "accuracy on the class (%)"
    return Chart(panels, height, columns, wide=columns > 2, legend=legend, y_label=label, footer=view.footer)


def _class_panel(view: SuiteView, task: str, predictions: TaskPredictions, *, points: bool) -> Panel:
    arms = [arm for arm in view.arms if arm.key in predictions.predicted]
    values = 100 * np.array([class_accuracies(predictions, arm) for arm in arms])
    tested = np.flatnonzero(~np.isnan(values[0]))
    order = tested[np.argsort(values[:, tested].mean(axis=0), kind="stable")]
    names = class_names(view.study, arms[0], task, values.shape[1])
    styles = arm_styles(view.arms)
    marks = [
        mark
        for arm, row in zip(arms, values, strict=True)
        for mark in _class_marks(arm, row, order.tolist(), names, styles[arm.key].colour, points=points)
    ]
    across = with_ticks(Axis(0.2, len(order) + 0.8, grid=False), 4, whole=True)
    return Panel(
        across, number_axis(values[:, order].ravel().tolist(), count=3), tuple(marks), shortened(task_name(task), 20)
    )


def _class_marks(
    arm: Arm,
    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    order: Sequence[int],
    names: Sequence[str],
    colour: str,
    *,
    points: bool,
) -> Iterator[Mark]:
    xs, ys, key = list(range(1, len(order) + 1)), values[order].tolist(), arm.short_label
    tips = tuple(f"{names[number]}, {key}: {percent(value)} %" for number, value in zip(order, ys, strict=True))
    yield Line(xs, ys, colour, 0.8, opacity=0.6, key=key, tips=tips)
    if points:
        yield Points(xs, ys, colour, size=2.5, key=key)
