"""The Pareto figure: accuracy against trainable parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure as MplFigure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.study import mean_over_tasks
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Figure
from shipbench.report.figures.placement import place_labels
from shipbench.report.figures.style import INK, MUTED, NARROW, PAPER, WIDE, SeriesStyle, arm_styles, new_figure, style
from shipbench.report.wording.numbers import has_value
from shipbench.report.wording.text import counted
from shipbench.statistics import pareto_front, sample_deviation

_MANY = 8
_CAPTION = (
    "{suite}: mean accuracy over {tasks} against trainable parameters (with head, mean over tasks, logarithmic axis). "
    "Bars show the sample deviation over seeds. Filled points on the line form the Pareto front: no other method is "
    "at least as small and at least as accurate.{out}"
)


@dataclass(frozen=True)
class CostPoint:
    """A method as a point: trainable parameters, and accuracy in percent with its sample deviation."""

    label: str
    parameters: float
    accuracy: float
    deviation: float
    style: SeriesStyle


def pareto_figure(view: SuiteView) -> Figure | None:
    """Return the scatter plot of the main arms; None if fewer than two have parameters and accuracies."""
    scores, styles = view.complete_scores, arm_styles(view.arms)
    arms = [arm for arm in view.arms if arm.key in scores.means.columns]
    candidates = [_point(view, arm, styles[arm.key]) for arm in arms]
    points = [point for point in candidates if has_value(point.parameters) and point.parameters > 0]
    if len(points) < 2:
        return None
    tasks = counted(len(scores.means), "task")
    return Figure(
        name=f"pareto-{view.slug}",
        title=f"{view.name}: accuracy and trainable parameters",
        caption=view.caption(_CAPTION.format(suite=view.name, tasks=tasks, out=scores.left_out)),
        draw=lambda: draw_pareto(points, tasks, view.footer),
        alt=f"Scatter plot of accuracy against trainable parameters for {counted(len(points), 'method')}.",
        wide=len(points) > _MANY,
    )


def _point(view: SuiteView, arm: Arm, series: SeriesStyle) -> CostPoint:
    """Return the point of an arm over the tasks that all arms of the figure share."""
    study, means = view.study, view.complete_scores.means
    runs = study.runs_of([arm])
    parameters = mean_over_tasks(runs[runs["task"].isin(means.index)], "trainable_params")
    by_seed = study.accuracies(arm).reindex(columns=list(means.index)).dropna().mean(axis=1)
    return CostPoint(arm.short_label, parameters, float(means[arm.key].mean()), sample_deviation(list(by_seed)), series)


def draw_pareto(points: Sequence[CostPoint], tasks: str, footer: str) -> MplFigure:
    """Draw the scatter plot; filled points lie on the Pareto front."""
    with style():
        figure = new_figure(*((WIDE, 4.2) if len(points) > _MANY else (NARROW, 3.2)), footer)
        axis = figure.subplots()
        front = pareto_front([p.parameters for p in points], [p.accuracy for p in points])
        line = sorted((p.parameters, p.accuracy) for p, on in zip(points, front, strict=True) if on)
        axis.plot(*zip(*line, strict=True), color=MUTED, linewidth=1, linestyle=(0, (4, 2)), zorder=1)
        for point, on in zip(points, front, strict=True):
            axis.errorbar(
                point.parameters,
                point.accuracy,
                yerr=point.deviation if has_value(point.deviation) else None,
                marker=point.style.marker,
                markersize=6.5,
                color=point.style.colour,
                markerfacecolor=point.style.colour if on else PAPER,
                markeredgewidth=1.4,
                elinewidth=1,
                zorder=3,
            )
        axis.set_xscale("log")
        axis.set(xlabel="trainable parameters (millions)", ylabel=f"mean of {tasks} (%)")
        _millions(axis, [p.parameters for p in points])
        axis.margins(x=0.12, y=0.12)
        axis.tick_params(which="both", colors=MUTED, labelcolor=INK)
        lines = [line, *(_error_bar(point) for point in points if has_value(point.deviation))]
        place_labels(axis, [(p.parameters, p.accuracy) for p in points], [p.label for p in points], 7.5, lines)
        return figure


def _error_bar(point: CostPoint) -> list[tuple[float, float]]:
    return [(point.parameters, point.accuracy + sign * point.deviation) for sign in (-1, 1)]


def _millions(axis: Axes, parameters: Sequence[float]) -> None:
    """Label a logarithmic axis in millions, also between powers of ten if it spans less than two of them."""
    steps = (1.0, 2.0, 5.0) if max(parameters) < 100 * min(parameters) else (1.0,)
    axis.xaxis.set_major_locator(LogLocator(subs=steps))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e6:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
