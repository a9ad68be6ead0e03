"""Curves: accuracy and loss over training, and accuracy over swept settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, pairwise
from math import log
from typing import Any

import pandas as pd

from shipbench.counts import counted
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.configurations import sortable
from shipbench.report.analysis.study import Study
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.analysis.sweeps import Sweep, SweepPoint
from shipbench.report.document import Figure
from shipbench.report.drawing.chart import Axis, Band, Chart, Key, Line, Mark, Panel, Points
from shipbench.report.drawing.palette import PAPER
from shipbench.report.drawing.scales import number_axis, with_ticks
from shipbench.report.figures.style import (
    SeriesStyle,
    arm_keys,
    arm_styles,
    panel_columns,
    series_styles,
    without_labels,
)
from shipbench.report.wording.names import setting_name, task_name
from shipbench.report.wording.numbers import has_value, percent, setting
from shipbench.report.wording.text import joined, shortened

_LETTERS = 28
_FEW_POINTS, _MOST_POINTS = 12, 50
_BY = {"epoch": "by epoch", "share": "by share of training"}


@dataclass(frozen=True)
class Quantity:
    """A column of the history on one split, its scale, its axis label and an extra sentence for the caption."""

    split: str
    column: str
    scale: float
    label: str
    remark: str = ""


_ACCURACY = Quantity(
    "test",
    "accuracy",
    100.0,
    "test accuracy (%)",
    " Test accuracy is shown here only to illustrate the course of training.",
)
_OVER_IMAGES = "test accuracy over all images (%)"
_LOSS = Quantity("train", "loss", 1.0, "training loss")


def accuracy_curves_figure(view: SuiteView) -> Figure | None:
    """Return test accuracy over training, a panel per task; None if no curve has two points.

    A history holds the accuracy over images alone, which is named where it is not the metric of a task.
    """
    return _training_figure(view, replace(_ACCURACY, label=_OVER_IMAGES) if view.by_class else _ACCURACY)


def loss_curves_figure(view: SuiteView) -> Figure | None:
    """Return training loss over training, a panel per task; None if no curve has two points."""
    return _training_figure(view, _LOSS)


def _training_figure(view: SuiteView, quantity: Quantity) -> Figure | None:
    """Return the curves by epoch, or by share of training if methods train for different numbers of epochs."""
    if not view.arms:
        return None
    curves = training_curves(view.study, view.arms, quantity)
    present = set(curves["task"].unique())
    tasks = [task for task in view.tasks if task in present]
    if curves.groupby(["arm", "task"]).size().max() < 2 or not tasks:
        return None
    by = "epoch" if curves["last"].nunique() == 1 else "share"
    draw = partial(draw_training, curves, tasks, view.arms, quantity.label, view.footer, by)
    return Figure(
        name=f"curves-{quantity.column}-{view.slug}",
        title=f"{view.name}: {quantity.label} {_BY[by]}",
        caption=view.caption(
            f"{quantity.label[0].upper()}{quantity.label[1:]} {_BY[by]}, mean over seeds; the band spans the lowest "
            f"to the highest seed.{quantity.remark}",
            "" if by == "epoch" else f"Methods train for different numbers of epochs ({_lengths(curves)}).",
            over_images=quantity.column == "accuracy",
        ),
        draw=draw,
        alt=f"{quantity.label} {_BY[by]} for {counted(len(view.arms), 'method')} on {counted(len(tasks), 'task')}.",
        wide=len(tasks) > 2,
        narrow=partial(draw, narrow=True) if len(tasks) > 2 else None,
    )


def training_curves(study: Study, arms: Sequence[Arm], quantity: Quantity) -> pd.DataFrame:
    """Return mean, low and high over seeds per arm, task and epoch (from 1).

    ``last`` is the last epoch of the curve, ``share`` the epoch in percent of it.
    """
    runs = study.runs.loc[study.runs["arm"].isin([arm.key for arm in arms]), ["run_id", "arm", "task"]]
    rows = (
        study.history[study.history["split"] == quantity.split]
        .dropna(subset=[quantity.column])
        .merge(runs, on="run_id")
    )
    rows = rows.assign(value=quantity.scale * rows[quantity.column].astype(float), epoch=rows["epoch"].astype(int) + 1)
    grouped = rows.groupby(["arm", "task", "epoch"])["value"]
    curves = grouped.agg(mean="mean", low="min", high="max").reset_index()
    last = curves.groupby(["arm", "task"])["epoch"].transform("max")
    return curves.assign(last=last, share=100 * curves["epoch"] / last)


def _lengths(curves: pd.DataFrame) -> str:
    return joined([str(epochs) for epochs in sorted(set(curves["last"]))])


def draw_training(
    curves: pd.DataFrame,
    tasks: Sequence[str],
    arms: Sequence[Arm],
    label: str,
    footer: str,
    by: str,
    *,
    narrow: bool = False,
) -> Chart:
    """Draw a panel per task with a line per method; ``by`` is the x axis, "epoch" or "share" (percent of epochs).

    If it is ``narrow``, there are two panels to a row.
    """
    columns = panel_columns(len(tasks), 5 if len(tasks) > 9 else 3, narrow=narrow)
    styles = arm_styles(arms)
    by_task = {str(task): of_task for task, of_task in curves.groupby("task")}
    x = _progress_axis(curves, by)
    panels = tuple(
        _curve_panel(by_task[task], task, arms, styles, x if i + columns >= len(tasks) else replace(x, label=""), by)
        for i, task in enumerate(tasks)
    )
    present = set(curves["arm"].unique())
    shown = [arm for arm in arms if arm.key in present]
    height = 68 if columns > 3 else 95
    legend = arm_keys(shown)
    return Chart(panels, height, columns, wide=columns > 2, legend=legend, y_label=label, footer=footer)


def _progress_axis(curves: pd.DataFrame, by: str) -> Axis:
    if by == "share":
        ticks = ((0.0, "0"), (50.0, "50"), (100.0, "100"))
        return Axis(0, 103, ticks, "training (% of epochs)")
    low, high = float(curves["epoch"].min()), float(curves["epoch"].max())
    room = 0.04 * (high - low or 1.0)
    return with_ticks(Axis(low - room, high + room, label="epoch"), 4, whole=True)


def _curve_panel(
    curves: pd.DataFrame, task: str, arms: Sequence[Arm], styles: Mapping[int, SeriesStyle], x: Axis, by: str
) -> Panel:
    by_arm = {int(str(key)): line for key, line in curves.groupby("arm")}
    marks = [mark for arm in arms if arm.key in by_arm for mark in _curve(by_arm[arm.key], arm, styles[arm.key], by)]
    y = number_axis([float(curves["low"].min()), float(curves["high"].max())], count=3)
    return Panel(x, y, tuple(marks), shortened(task_name(task), 20))


def _curve(line: pd.DataFrame, arm: Arm, series: SeriesStyle, by: str) -> Iterator[Mark]:
    thin = _thinned(line)
    xs, means, lows, highs = (thin[name].to_list() for name in (by, "mean", "low", "high"))
    name = arm.short_label
    if lows != highs:
        yield Band(xs, lows, highs, series.colour, name)
    tips = tuple(f"{name}, epoch {epoch}: {mean:.4g}" for epoch, mean in zip(thin["epoch"], means, strict=True))
    yield Line(xs, means, series.colour, 1.2, series.dashes, key=name, tips=tips)
    if len(thin) < _FEW_POINTS:
        yield Points(xs, means, series.colour, series.marker, 2.5, key=name)


def _thinned(line: pd.DataFrame) -> pd.DataFrame:
    """Return at most about ``_MOST_POINTS`` rows of a curve, evenly spaced, with the last one."""
    step = -(-len(line) // _MOST_POINTS)
    return line.iloc[(len(line) - 1) % step :: step]


def sweep_figure(view: SuiteView) -> Figure | None:
    """Return accuracy over swept settings, a panel per setting; None without a sweep."""
    if not view.sweeps:
        return None
    settings = len({sweep.key for sweep in view.sweeps})
    draw = partial(draw_sweeps, view.sweeps, view.footer)
    bars = view.over_seeds("; bars show the standard deviation over seeds", chain(*view.families))
    return Figure(
        name=f"sweeps-{view.slug}",
        title=f"{view.name}: single settings varied",
        caption=view.caption(
            f"Mean test accuracy when a single setting is varied and all others are fixed{bars}. A ring marks the "
            "recipe's value.",
            "The axis is logarithmic if values span a wide range, and evenly spaced if their labels would touch. Each "
            "curve is the mean over the tasks that all of its points share (number in the legend).",
        ),
        draw=draw,
        alt=f"Accuracy over {counted(settings, 'swept setting')}.",
        wide=settings > 2,
        narrow=partial(draw, narrow=True) if settings > 2 else None,
    )


def draw_sweeps(sweeps: Sequence[Sweep], footer: str, *, narrow: bool = False) -> Chart:
    """Draw a panel per setting with a curve per sweep; two to a row if it is ``narrow``."""
    keys = list(dict.fromkeys(sweep.key for sweep in sweeps))
    columns = panel_columns(len(keys), 3, narrow=narrow)
    # A method keeps its look in every panel.
    series = {(sweep.label, sweep.tasks): sweep for sweep in sweeps}
    looks = dict(zip(series, series_styles([sweep.method for sweep in series.values()]), strict=True))
    lines = [(sweep, looks[sweep.label, sweep.tasks]) for sweep in sweeps]
    y = number_axis([end for sweep in sweeps for point in sweep.points for end in _ends(point)], margin=0.15)
    panels = [
        _sweep_panel([line for line in lines if line[0].key == key], y if i % columns == 0 else without_labels(y))
        for i, key in enumerate(keys)
    ]
    legend = tuple(
        Key(_sweep_label(series[name]), look.colour, look.marker, key=series[name].series)
        for name, look in looks.items()
    )
    label = "mean test accuracy (%)"
    return Chart(tuple(panels), 125, columns, wide=columns > 2, legend=legend, y_label=label, footer=footer)


def _sweep_label(sweep: Sweep) -> str:
    return f"{shortened(sweep.label)} ({counted(sweep.tasks, 'task')})"


def _ends(point: SweepPoint) -> tuple[float, float]:
    room = point.deviation if has_value(point.deviation) else 0.0
    return point.mean - room, point.mean + room


def _sweep_panel(lines: Sequence[tuple[Sweep, SeriesStyle]], y: Axis) -> Panel:
    values = sorted({point.value for sweep, _ in lines for point in sweep.points}, key=sortable)
    places = _places(values)
    name = setting_name(lines[0][0].key)
    ticks = tuple((place, setting(value)) for value, place in places.items())
    spots = list(places.values())
    room = 0.12 * (max(spots) - min(spots) or 1.0)
    x = Axis(min(spots) - room, max(spots) + room, ticks, shortened(name))
    marks = [mark for sweep, look in lines for mark in _sweep_marks(sweep, look, places, name)]
    return Panel(x, y, tuple(marks))


def _sweep_marks(sweep: Sweep, look: SeriesStyle, places: Mapping[Any, float], name: str) -> Iterator[Mark]:
    xs, means = [places[point.value] for point in sweep.points], [point.mean for point in sweep.points]
    key = sweep.series
    for x, point in zip(xs, sweep.points, strict=True):
        if has_value(point.deviation):
            yield Line([x, x], _ends(point), look.colour, 1, key=key)
        if point.default:
            yield Points([x], [point.mean], look.colour, "o", 9.5, PAPER, key)
    yield Line(xs, means, look.colour, 1.4, look.dashes, key=key)
    tips = tuple(f"{sweep.label}, {name} {setting(point.value)}: {percent(point.mean)} %" for point in sweep.points)
    yield Points(xs, means, look.colour, look.marker, 4, key=key, tips=tips)


def _places(values: Sequence[Any]) -> dict[Any, float]:
    """Map values to x: numbers to scale (wide ranges logarithmic), words and crowds evenly spaced."""
    labels = [setting(value) for value in values]
    spots = _spots(values)
    if _crowded(spots, labels):
        spots = list(range(len(values)))
    return dict(zip(values, spots, strict=True))


def _spots(values: Sequence[Any]) -> list[float]:
    if any(isinstance(value, (str, bool)) for value in values):
        return list(range(len(values)))
    wide = min(values) > 0 and max(values) / min(values) >= 8
    return [log(value) if wide else float(value) for value in values]


def _crowded(spots: Sequence[float], labels: Sequence[str]) -> bool:
    """Return whether labels would touch in a panel that has room for ``_LETTERS`` letters."""
    scale = _LETTERS / (max(spots) - min(spots) or 1.0)
    pairs = zip(pairwise(spots), pairwise(labels), strict=True)
    return any((right - left) * scale < (len(one) + len(other)) / 2 + 1 for (left, right), (one, other) in pairs)
