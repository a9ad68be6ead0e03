"""Curves: accuracy and loss over training, and accuracy over a swept setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from shipbench.report.wording.captions import caption, footer
from shipbench.report.wording.names import setting_name, suite_name, task_name
from shipbench.report.wording.numbers import known, setting
from shipbench.report.wording.text import counted, joined, shortened, slug

_LETTERS = 28
_WHAT = {
    "accuracy": ("test", "accuracy", 100.0, "test accuracy (%)"),
    "loss": ("train", "loss", 1.0, "training loss"),
}
_BY = {"epoch": "by epoch", "share": "by share of training"}


def training_figure(study: Study, suite: str, what: str) -> Figure | None:
    """Return curves over training, a panel per task; ``what`` is accuracy or loss; None if no curve has two points.

    Methods with different numbers of epochs share an axis in percent of their own.
    """
    split, column, scale, label = _WHAT[what]
    arms = study.arms_of(suite, main=True)
    curves = training_curves(study, arms, split, column, scale)
    tasks = [task for task in study.tasks_of(suite) if task in set(curves["task"])]
    if curves.groupby(["arm", "task"]).size().max() < 2 or not tasks:
        return None
    small = footer(study.selection, suite)
    by = "epoch" if curves["last"].nunique() == 1 else "share"
    text = (
        f"{suite_name(suite)}: {label} {_BY[by]}, mean over seeds; the band spans the lowest and the highest seed. "
        + ("" if by == "epoch" else f"Methods train for different numbers of epochs ({_lengths(curves)}). ")
        + ("Test images are looked at here only to show the course of training. " if what == "accuracy" else "")
        + f"One panel per task ({counted(len(tasks), 'task')})."
    )
    return Figure(
        name=f"curves-{what}-{slug(suite)}",
        title=f"{suite_name(suite)}: {label} {_BY[by]}",
        caption=caption(text, study.selection, suite),
        draw=lambda: draw_training(curves, tasks, arms, label, small, by),
        alt=f"{label} {_BY[by]} for {counted(len(arms), 'method')} on {counted(len(tasks), 'task')}.",
        wide=len(tasks) > 2,
    )


def training_curves(study: Study, arms: Sequence[Arm], split: str, column: str, scale: float) -> pd.DataFrame:
    """Return mean, low and high over seeds per arm, task and epoch (from 1), with the last one and the share."""
    runs = study.runs.loc[study.runs["arm"].isin([arm.key for arm in arms]), ["run_id", "arm", "task"]]
    rows = study.history[study.history["split"] == split].dropna(subset=[column]).merge(runs, on="run_id")
    rows = rows.assign(value=scale * rows[column].astype(float), epoch=rows["epoch"].astype(int) + 1)
    grouped = rows.groupby(["arm", "task", "epoch"])["value"]
    curves = grouped.agg(mean="mean", low="min", high="max").reset_index()
    last = curves.groupby(["arm", "task"])["epoch"].transform("max")
    return curves.assign(last=last, share=100 * curves["epoch"] / last)


def _lengths(curves: pd.DataFrame) -> str:
    return joined([str(epochs) for epochs in sorted(set(curves["last"]))])


def draw_training(
    curves: pd.DataFrame, tasks: Sequence[str], arms: Sequence[Arm], label: str, small: str, by: str
) -> MplFigure:
    """Draw a panel per task with one line per method; ``by`` is "epoch" or "share" (of a method's epochs)."""
    columns = min(len(tasks), 5 if len(tasks) > 9 else 3)
    rows = -(-len(tasks) // columns)
    looks = arm_styles(arms)
    with style():
        width = WIDE if columns > 2 else NARROW
        figure = new_figure(width, 0.8 + rows * (1.35 if columns > 3 else 1.8), small)
        axes = panels(figure, len(tasks), columns, sharex=True)
        for axis, task in zip(axes, tasks, strict=True):
            _curves(axis, curves[curves["task"] == task], looks, by)
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
        _legend(figure, arms, looks, set(curves["arm"]))
        return figure


def _curves(axis: Axes, curves: pd.DataFrame, looks: Mapping[int, SeriesStyle], by: str) -> None:
    for key, line in curves.groupby("arm"):
        look = looks[int(str(key))]
        few = len(line) < 12
        axis.plot(
            line[by],
            line["mean"],
            color=look.colour,
            linestyle=look.line,
            marker=look.marker if few else "",
            markersize=2.5,
            linewidth=1.2,
        )
        axis.fill_between(line[by], line["low"], line["high"], color=look.colour, alpha=0.18, linewidth=0)


def _legend(figure: MplFigure, arms: Sequence[Arm], looks: Mapping[int, SeriesStyle], present: set[Any]) -> None:
    shown = [arm for arm in arms if arm.key in present]
    handles = [
        Line2D([], [], color=looks[a.key].colour, marker=looks[a.key].marker, linestyle=looks[a.key].line, markersize=4)
        for a in shown
    ]
    labels = [arm.short_label for arm in shown]
    legend_above(figure, handles, labels)


def sweep_figure(study: Study, suite: str, found: Sequence[Sweep]) -> Figure | None:
    """Return sweep curves, a panel per setting; None if nothing was swept."""
    if not found:
        return None
    small = footer(study.selection, suite)
    text = (
        f"{suite_name(suite)}: mean test accuracy when a single setting is varied and everything else is kept; "
        "bars: sample deviation over seeds; the ringed point is the recipe's own value. Values stand at their ratios "
        "where they span a wide range, and side by side where they would touch. Each curve averages the tasks "
        "that all of its points share (their number is in the legend)."
    )
    return Figure(
        name=f"sweeps-{slug(suite)}",
        title=f"{suite_name(suite)}: single settings varied",
        caption=caption(text, study.selection, suite),
        draw=lambda: draw_sweeps(found, small),
        alt=f"Accuracy over {counted(len({sweep.key for sweep in found}), 'swept setting')}.",
        wide=len({sweep.key for sweep in found}) > 2,
    )


def draw_sweeps(found: Sequence[Sweep], small: str) -> MplFigure:
    """Draw a panel per setting with one curve per sweep."""
    keys = list(dict.fromkeys(sweep.key for sweep in found))
    columns = min(len(keys), 3)
    rows = -(-len(keys) // columns)
    with style():
        figure = new_figure(NARROW if columns < 3 else WIDE, 0.4 + rows * 2.2, small)
        axes = panels(figure, len(keys), columns, sharey=True)
        for axis, key in zip(axes, keys, strict=True):
            _sweep_panel(axis, [sweep for sweep in found if sweep.key == key])
            axis.set_xlabel(shortened(setting_name(key)))
            axis.tick_params(labelleft=True)
        figure.supylabel("mean test accuracy (%)", fontsize=8)
        return figure


def _sweep_panel(axis: Axes, found: Sequence[Sweep]) -> None:
    values = sorted({point.value for sweep in found for point in sweep.points}, key=sortable)
    places = _places(axis, values)
    looks = series_styles([sweep.method for sweep in found])
    for sweep, look in zip(found, looks, strict=True):
        xs = [places[point.value] for point in sweep.points]
        errors = [point.deviation if known(point.deviation) else 0.0 for point in sweep.points]
        label = f"{shortened(sweep.label)} ({counted(sweep.tasks, 'task')})"
        axis.errorbar(
            xs,
            [p.mean for p in sweep.points],
            yerr=errors,
            color=look.colour,
            marker=look.marker,
            markersize=4,
            elinewidth=1,
            label=label,
        )
        own = [(x, p.mean) for x, p in zip(xs, sweep.points, strict=True) if p.default]
        if own:
            axis.plot(*zip(*own, strict=True), "o", markersize=10, markerfacecolor="none", markeredgecolor=look.colour)
    axis.margins(x=0.12, y=0.15)
    axis.legend(loc="best", handlelength=1.2)


def _places(axis: Axes, values: Sequence[Any]) -> dict[Any, float]:
    """Map values to x: numbers as they are, wide positive ranges logarithmically; words and crowds side by side."""
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
    """Say whether labels would touch in a panel that has room for some thirty letters."""
    scale = _LETTERS / (max(spots) - min(spots) or 1.0)
    pairs = zip(pairwise(spots), pairwise(labels), strict=True)
    return any((right - left) * scale < (len(one) + len(other)) / 2 + 1 for (left, right), (one, other) in pairs)
