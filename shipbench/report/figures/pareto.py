"""Accuracy against trainable parameters, with the Pareto front."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure as MplFigure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from shipbench.report.analysis.differences import comparable
from shipbench.report.analysis.study import Study
from shipbench.report.document import Figure
from shipbench.report.figures.placement import place_labels
from shipbench.report.figures.style import INK, MUTED, NARROW, PAPER, WIDE, SeriesStyle, arm_styles, new_figure, style
from shipbench.report.tables.common import mean_over_tasks
from shipbench.report.wording.captions import caption, footer
from shipbench.report.wording.names import suite_name
from shipbench.report.wording.numbers import known
from shipbench.report.wording.text import counted, slug
from shipbench.statistics import pareto_front, sample_deviation

_MANY = 8
_CAPTION = (
    "{suite}: mean of {tasks} against trainable parameters (head included, mean over tasks, logarithmic axis). "
    "Bars: sample deviation over seeds. Filled points on the line form the Pareto front: no method is both "
    "at least as small and at least as accurate.{out}"
)


@dataclass(frozen=True)
class CostPoint:
    """One method: its label, trainable parameters, accuracy in percent with deviation, and look."""

    label: str
    parameters: float
    accuracy: float
    deviation: float
    look: SeriesStyle


def pareto_figure(study: Study, suite: str) -> Figure | None:
    """Return the figure for a suite's main arms; None if fewer than two have parameters and accuracies."""
    arms = study.arms_of(suite, main=True)
    shared = comparable(study, arms)
    table = shared.means
    looks = arm_styles(arms)
    points = []
    for arm in arms:
        runs = study.runs_of([arm])
        parameters = mean_over_tasks(runs[runs["task"].isin(table.index)], "trainable_params")
        if arm.key in table.columns and known(parameters) and parameters > 0:
            seeds = study.accuracies(arm).reindex(columns=list(table.index)).dropna().mean(axis=1)
            points.append(
                CostPoint(
                    arm.short_label,
                    parameters,
                    float(table[arm.key].mean()),
                    sample_deviation(list(seeds)),
                    looks[arm.key],
                )
            )
    if len(points) < 2:
        return None
    small = footer(study.selection, suite)
    return Figure(
        name=f"pareto-{slug(suite)}",
        title=f"{suite_name(suite)}: accuracy and trainable parameters",
        caption=caption(
            _CAPTION.format(suite=suite_name(suite), tasks=counted(len(table), "task"), out=shared.sentence),
            study.selection,
            suite,
        ),
        draw=lambda: draw_pareto(points, counted(len(table), "task"), small),
        alt=f"Scatter plot of accuracy against trainable parameters for {counted(len(points), 'method')}.",
        wide=len(points) > _MANY,
    )


def draw_pareto(points: list[CostPoint], tasks: str, small: str) -> MplFigure:
    """Draw the scatter plot with its front."""
    with style():
        figure = new_figure(*((WIDE, 4.2) if len(points) > _MANY else (NARROW, 3.2)), small)
        axis = figure.subplots()
        front = pareto_front([p.parameters for p in points], [p.accuracy for p in points])
        line = sorted((p.parameters, p.accuracy) for p, on in zip(points, front, strict=True) if on)
        axis.plot(*zip(*line, strict=True), color=MUTED, linewidth=1, linestyle=(0, (4, 2)), zorder=1)
        for point, on in zip(points, front, strict=True):
            axis.errorbar(
                point.parameters,
                point.accuracy,
                yerr=point.deviation if known(point.deviation) else None,
                marker=point.look.marker,
                markersize=6.5,
                color=point.look.colour,
                markerfacecolor=point.look.colour if on else PAPER,
                markeredgewidth=1.4,
                elinewidth=1,
                zorder=3,
            )
        axis.set_xscale("log")
        axis.set(xlabel="trainable parameters (millions)", ylabel=f"mean of {tasks} (%)")
        _millions(axis, [p.parameters for p in points])
        axis.margins(x=0.12, y=0.12)
        axis.tick_params(which="both", colors=MUTED, labelcolor=INK)
        lines = [line, *(_error_bar(point) for point in points if known(point.deviation))]
        place_labels(axis, [(p.parameters, p.accuracy) for p in points], [p.label for p in points], 7.5, lines)
        return figure


def _error_bar(point: CostPoint) -> list[tuple[float, float]]:
    return [(point.parameters, point.accuracy + sign * point.deviation) for sign in (-1, 1)]


def _millions(axis: Axes, parameters: list[float]) -> None:
    """Label a logarithmic axis in millions, between the powers of ten too where it spans less than two of them."""
    steps = (1.0, 2.0, 5.0) if max(parameters) < 100 * min(parameters) else (1.0,)
    axis.xaxis.set_major_locator(LogLocator(subs=steps))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e6:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
