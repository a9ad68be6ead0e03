"""The accuracies of the main arms by one mean, as points with their deviation."""

from __future__ import annotations

from collections.abc import Iterator

from shipbench.counts import counted
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.headline import Standing
from shipbench.report.analysis.study import Score
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Figure
from shipbench.report.drawing.chart import Chart, Line, Mark, Note, Panel, Points
from shipbench.report.drawing.scales import downwards, number_axis
from shipbench.report.figures.style import SeriesStyle, arm_styles, rows_height
from shipbench.report.wording.numbers import deviation, has_value, percent


def standing_figure(view: SuiteView, standing: Standing) -> Figure | None:
    """Return a point per main arm; None with fewer than two arms."""
    if len(standing.scores) < 2:
        return None
    spread = view.over_seeds(" with the standard deviation over seeds", [arm for arm, _ in standing.scores])
    return Figure(
        name=f"accuracy-{view.slug}",
        title=f"{view.name}: {standing.name}",
        caption=view.caption(f"Accuracy of each method{spread}."),
        draw=lambda: draw_standing(view, standing),
        alt=f"Accuracies of {counted(len(standing.scores), 'method')}.",
    )


def draw_standing(view: SuiteView, standing: Standing) -> Chart:
    """Draw a row per method, best first."""
    styles = arm_styles(view.arms)
    ends = [end for _, score in standing.scores for end in _ends(score)]
    marks = [mark for y, (arm, score) in enumerate(standing.scores) for mark in _row(y, arm, score, styles[arm.key])]
    labels = downwards([arm.short_label for arm, _ in standing.scores])
    axis = number_axis(ends, f"{standing.name} (%)")
    return Chart((Panel(axis, labels, tuple(marks)),), rows_height(len(standing.scores)), footer=view.footer)


def _ends(score: Score) -> tuple[float, float]:
    room = score.deviation if has_value(score.deviation) else 0.0
    return score.mean - room, score.mean + room


def _row(y: int, arm: Arm, score: Score, series: SeriesStyle) -> Iterator[Mark]:
    name = arm.short_label
    if has_value(score.deviation):
        yield Line(_ends(score), [y, y], series.colour, 2, key=name)
    text = f"{percent(score.mean)} {deviation(score.deviation)}".strip()
    yield Points([score.mean], [y], series.colour, series.marker, 6, key=name, tips=(f"{name}: {text} %",))
    yield Note(score.mean, y, text, beside="right", key=name)
