"""Curves: accuracy and loss over training, and accuracy over swept settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MplFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator

from shipbench.report.analysis.arms import Arm, sortable
from shipbench.report.analysis.study import Study
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.analysis.sweeps import Sweep
from shipbench.report.document import Figure
from shipbench.report.figures.style import (
    NARROW,
    WIDE,
    SeriesStyle,
    arm_styles,
    legend_above,
    new_figure,
    panels,
    series_styles,
    style,
)
from shipbench.report.wording.names import setting_name, task_name
from shipbench.report.wording.numbers import has_value, setting
from shipbench.report.wording.text import counted, joined, shortened

_LETTERS = 28
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
    "Test accuracy is shown here only to illustrate the course of training. ",
)
_LOSS = Quantity("train", "loss", 1.0, "training loss")


def accuracy_curves_figure(view: SuiteView) -> Figure | None:
    """Return test accuracy over training, a panel per task; None if no curve has two points."""
    return _training_figure(view, _ACCURACY)


def loss_curves_figure(view: SuiteView) -> Figure | None:
    """Return training loss over training, a panel per task; None if no curve has two points."""
    return _training_figure(view, _LOSS)


def _training_figure(view: SuiteView, quantity: Quantity) -> Figure | None:
    """Return the curves by epoch, or by share of training if methods train for different numbers of epochs."""
    if not view.arms:
        return None
    curves = training_curves(view.study, view.arms, quantity)
    tasks = [task for task in view.tasks if task in set(curves["task"])]
    if curves.groupby(["arm", "task"]).size().max() < 2 or not tasks:
        return None
    by = "epoch" if curves["last"].nunique() == 1 else "share"
    text = (
        f"{view.name}: {quantity.label} {_BY[by]}, mean over seeds; the band spans the lowest to the highest seed. "
        + ("" if by == "epoch" else f"Methods train for different numbers of epochs ({_lengths(curves)}). ")
        + quantity.remark
        + f"One panel per task ({counted(len(tasks), 'task')})."
    )
    return Figure(
        name=f"curves-{quantity.column}-{view.slug}",
        title=f"{view.name}: {quantity.label} {_BY[by]}",
        caption=view.caption(text),
        draw=lambda: draw_training(curves, tasks, view.arms, quantity.label, view.footer, by),
        alt=f"{quantity.label} {_BY[by]} for {counted(len(view.arms), 'method')} on {counted(len(tasks), 'task')}.",
        wide=len(tasks) > 2,
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
    curves: pd.DataFrame, tasks: Sequence[str], arms: Sequence[Arm], label: str, footer: str, by: str
) -> MplFigure:
    """Draw a panel per task with a line per method; ``by`` is the x axis, "epoch" or "share" (percent of epochs)."""
    columns = min(len(tasks), 5 if len(tasks) > 9 else 3)
    rows = -(-len(tasks) // columns)
    styles = arm_styles(arms)
    with style():
        width = WIDE if columns > 2 else NARROW
        figure = new_figure(width, 0.8 + rows * (1.35 if columns > 3 else 1.8), footer)
        axes = panels(figure, len(tasks), columns, sharex=True)
        for axis, task in zip(axes, tasks, strict=True):
            _curves(axis, curves[curves["task"] == task], styles, by)
            axis.set_title(shortened(task_name(task), 20))
            axis.yaxis.set_major_locator(MaxNLocator(4))
            axis.xaxis.set_major_locator(
                MaxNLocator(4, integer=True, min_n_ticks=2) if by == "epoch" else FixedLocator((0, 50, 100))
            )
        for axis in axes[-columns:]:
            axis.tick_params(labelbottom=True)
        for axis in axes[columns * (rows - 1) :]:
            axis.set_xlabel("epoch" if by == "epoch" else "training (% of epochs)")
        figure.supylabel(label, fontsize=8)
        _legend(figure, arms, styles, set(curves["arm"]))
        return figure


def _curves(axis: Axes, curves: pd.DataFrame, styles: Mapping[int, SeriesStyle], by: str) -> None:
    for key, line in curves.groupby("arm"):
        series = styles[int(str(key))]
        few = len(line) < 12
        axis.plot(
            line[by],
            line["mean"],
            color=series.colour,
            linestyle=series.line,
            marker=series.marker if few else "",
            markersize=2.5,
            linewidth=1.2,
        )
        axis.fill_between(line[by], line["low"], line["high"], color=series.colour, alpha=0.18, linewidth=0)


def _legend(figure: MplFigure, arms: Sequence[Arm], styles: Mapping[int, SeriesStyle], present: set[Any]) -> None:
    shown = [arm for arm in arms if arm.key in present]
    handles = [
        Line2D([], [], color=series.colour, marker=series.marker, linestyle=series.line, markersize=4)
        for series in (styles[arm.key] for arm in shown)
    ]
    legend_above(figure, handles, [arm.short_label for arm in shown])


def sweep_figure(view: SuiteView) -> Figure | None:
    """Return accuracy over swept settings, a panel per setting; None without a sweep."""
    if not view.sweeps:
        return None
    settings = len({sweep.key for sweep in view.sweeps})
    text = (
        f"{view.name}: mean test accuracy when a single setting is varied and all others are fixed. "
        "Bars show the sample deviation over seeds, and a ring marks the recipe's value. The axis is logarithmic if "
        "values span a wide range, and evenly spaced if their labels would touch. Each curve is the mean over the "
        "tasks that all of its points share (number in the legend)."
    )
    return Figure(
        name=f"sweeps-{view.slug}",
        title=f"{view.name}: single settings varied",
        caption=view.caption(text),
        draw=lambda: draw_sweeps(view.sweeps, view.footer),
        alt=f"Accuracy over {counted(settings, 'swept setting')}.",
        wide=settings > 2,
    )


def draw_sweeps(sweeps: Sequence[Sweep], footer: str) -> MplFigure:
    """Draw a panel per setting with a curve per sweep."""
    keys = list(dict.fromkeys(sweep.key for sweep in sweeps))
    columns = min(len(keys), 3)
    rows = -(-len(keys) // columns)
    with style():
        figure = new_figure(NARROW if columns < 3 else WIDE, 0.4 + rows * 2.2, footer)
        axes = panels(figure, len(keys), columns, sharey=True)
        for axis, key in zip(axes, keys, strict=True):
            _sweep_panel(axis, [sweep for sweep in sweeps if sweep.key == key])
            axis.set_xlabel(shortened(setting_name(key)))
            axis.tick_params(labelleft=True)
        figure.supylabel("mean test accuracy (%)", fontsize=8)
        return figure


def _sweep_panel(axis: Axes, sweeps: Sequence[Sweep]) -> None:
    values = sorted({point.value for sweep in sweeps for point in sweep.points}, key=sortable)
    places = _places(axis, values)
    styles = series_styles([sweep.method for sweep in sweeps])
    for sweep, series in zip(sweeps, styles, strict=True):
        xs = [places[point.value] for point in sweep.points]
        errors = [point.deviation if has_value(point.deviation) else 0.0 for point in sweep.points]
        label = f"{shortened(sweep.label)} ({counted(sweep.tasks, 'task')})"
        axis.errorbar(
            xs,
            [p.mean for p in sweep.points],
            yerr=errors,
            color=series.colour,
            marker=series.marker,
            markersize=4,
            elinewidth=1,
            label=label,
        )
        default = [(x, p.mean) for x, p in zip(xs, sweep.points, strict=True) if p.default]
        if default:
            colour = series.colour
            axis.plot(*zip(*default, strict=True), "o", markersize=10, markerfacecolor="none", markeredgecolor=colour)
    axis.margins(x=0.12, y=0.15)
    axis.legend(loc="best", handlelength=1.2)


def _places(axis: Axes, values: Sequence[Any]) -> dict[Any, float]:
    """Set the ticks and map values to x: numbers to scale (wide ranges logarithmic), words and crowds evenly spaced."""
    labels = [setting(value) for value in values]
    spots = _spots(values)
    if _crowded(spots, labels):
        spots = list(range(len(values)))
    axis.set_xticks(spots, labels)
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
