"""Scatter plots of accuracy against a cost: trainable parameters, and the time of a training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd

from shipbench.counts import counted
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.headline import Standing, left_out, standings
from shipbench.report.analysis.places import places
from shipbench.report.analysis.study import Score, mean_over_tasks
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Figure
from shipbench.report.drawing.chart import Chart, Labels, Line, Mark, Panel, Points
from shipbench.report.drawing.palette import MUTED, PAPER
from shipbench.report.drawing.scales import log_axis, number_axis
from shipbench.report.figures.style import SeriesStyle, arm_styles
from shipbench.report.wording.captions import features_sentence
from shipbench.report.wording.numbers import PLUS_MINUS, has_value, percent, short
from shipbench.report.wording.text import listed, sentence_case
from shipbench.statistics import pareto_front

_MANY, _CROWD = 8, 16
_FEWEST = 3


@dataclass(frozen=True)
class Cost:
    """A cost on the x axis: its column, the unit of the labels, their text and the words of the caption."""

    column: str
    unit: float
    label: str
    words: str


PARAMETERS = Cost("trainable_params", 1e6, "trainable parameters (millions)", "trainable parameters")
MINUTES = Cost("train_seconds", 60.0, "training time of a run (minutes)", "training time")


@dataclass(frozen=True)
class CostPoint:
    """A method as a point: its cost, and accuracy in percent with its standard deviation."""

    label: str
    cost: float
    accuracy: float
    deviation: float
    style: SeriesStyle


def pareto_figure(view: SuiteView, standing: Standing) -> Figure | None:
    """Return accuracy against trainable parameters; None if fewer than three main arms have both."""
    return _scatter(view, PARAMETERS, standing, view.runs)


def training_cost_figure(view: SuiteView) -> Figure | None:
    """Return accuracy against the time of a training, for runs on the place that most runs share.

    None if fewer than three main arms have both.
    """
    done = view.runs[(view.runs["status"] == "done") & (view.runs["device"] != "")]
    by_run, ranked = places(done), standings(view)
    if done.empty or not ranked:
        return None
    numbers = Counter(by_run)
    most = min(numbers, key=lambda place: (-numbers[place], place))
    there = done[[place == most for place in by_run]]
    return _scatter(view, MINUTES, ranked[-1], there, f"Runs on {most.name} only.")


def _scatter(view: SuiteView, cost: Cost, standing: Standing, runs: pd.DataFrame, remark: str = "") -> Figure | None:
    styles = arm_styles(view.arms)
    candidates = [(arm, _point(standing, cost, runs, arm, score, styles[arm.key])) for arm, score in standing.scores]
    drawn = [(arm, point) for arm, point in candidates if has_value(point.cost) and point.cost > 0]
    points = [point for _, point in drawn]
    if len(points) < _FEWEST:
        return None
    tasks = counted(len(standing.tasks), "task")
    name = standing.name if tasks in standing.name else f"{standing.name}, {tasks}"
    accuracy = f"accuracy ({name})" if len(standing.tasks) > 1 else standing.name
    wide, draw = len(points) > _MANY, partial(draw_pareto, points, standing.name, view.footer, cost)
    spread = view.over_seeds(", with the standard deviation over seeds", [arm for arm, _ in drawn])
    timed = features_sentence("times", [arm.method for arm, _ in drawn]) if cost is MINUTES else ""
    return Figure(
        name=f"{'pareto' if cost is PARAMETERS else 'training-cost'}-{view.slug}",
        title=f"{view.name}: accuracy and {cost.words}",
        caption=view.caption(
            " ".join(filter(None, (f"{sentence_case(accuracy)} against {cost.words}{spread}.", timed, remark))),
            "Filled points form the Pareto front: no other method costs at most as much and is at least as accurate."
            f"{' Names without room are left out.' if len(points) > _CROWD else ''}{left_out(view, standing)}"
            f"{_without_cost(candidates, drawn, cost)}",
        ),
        draw=draw,
        narrow=partial(draw, narrow=True) if wide else None,
        alt=f"Scatter plot of accuracy against {cost.words} for {counted(len(points), 'method')}.",
        wide=wide,
    )


def _without_cost(
    candidates: Sequence[tuple[Arm, CostPoint]], drawn: Sequence[tuple[Arm, CostPoint]], cost: Cost
) -> str:
    """Name the arms that have no place on the axis, in a sentence that begins with a space."""
    missing = [arm.label for arm, point in candidates if (arm, point) not in drawn]
    why = "because not all of their tasks ran there" if cost is MINUTES else f"because their {cost.words} are not known"
    return f" Left out, {why}: {listed(missing)}." if missing else ""


def _point(
    standing: Standing, cost: Cost, runs: pd.DataFrame, arm: Arm, score: Score, series: SeriesStyle
) -> CostPoint:
    """Return the point of an arm over the tasks of the standing."""
    of_arm = runs[(runs["arm"] == arm.key) & runs["task"].isin(standing.tasks)]
    complete = of_arm["task"].nunique() == len(standing.tasks)
    price = mean_over_tasks(of_arm, cost.column) if complete else float("nan")
    return CostPoint(arm.short_label, price, score.mean, score.deviation, series)


def draw_pareto(
    points: Sequence[CostPoint], name: str, footer: str, cost: Cost = PARAMETERS, *, narrow: bool = False
) -> Chart:
    """Draw the scatter plot; filled points lie on the Pareto front.

    If it is ``narrow``, it fits a phone whatever the number of points. There, and among a crowd of points, labels
    without room are left out: those of the front have precedence.
    """
    on_front = pareto_front([p.cost for p in points], [p.accuracy for p in points])
    front = sorted((p.cost, p.accuracy) for p, on in zip(points, on_front, strict=True) if on)
    marks: list[Mark] = [_line(front, MUTED, (4, 2))] if len(front) > 2 else []
    for point, on in zip(points, on_front, strict=True):
        marks += _point_marks(point, cost, on=on)
    bars = [_error_bar(point) for point in points if has_value(point.deviation)]
    avoid = (tuple(front), *bars)
    front_first = [point for point, _ in sorted(zip(points, on_front, strict=True), key=lambda pair: not pair[1])]
    places, labels = tuple((p.cost, p.accuracy) for p in front_first), tuple(p.label for p in front_first)
    marks.append(Labels(places, labels, avoid, optional=narrow or len(points) > _CROWD))
    ends = [y for bar in bars for _, y in bar]
    x = log_axis([p.cost for p in points], cost.label, cost.unit)
    y = number_axis([*(p.accuracy for p in points), *ends], f"{name} (%)", margin=0.12)
    wide, crowded = len(points) > _MANY, len(points) > _CROWD
    height = (300 if crowded else 230) if narrow else 320 if crowded else 250 if wide else 180
    return Chart((Panel(x, y, tuple(marks)),), height, wide=wide and not narrow, footer=footer)


def _point_marks(point: CostPoint, cost: Cost, *, on: bool) -> Iterator[Mark]:
    colour, key = point.style.colour, point.label
    spread = ""
    if has_value(point.deviation):
        yield _line(_error_bar(point), colour, key=key)
        spread = f" {PLUS_MINUS} {percent(point.deviation)}"
    tip = f"{point.label}: {percent(point.accuracy)}{spread} %, {short(point.cost, cost.unit)} {_unit(cost)}"
    fill = "" if on else PAPER
    yield Points([point.cost], [point.accuracy], colour, point.style.marker, 7, fill, key, (tip,))


def _line(points: Sequence[tuple[float, float]], colour: str, dashes: tuple[float, ...] = (), key: str = "") -> Line:
    return Line([x for x, _ in points], [y for _, y in points], colour, 1, dashes, key=key)


def _unit(cost: Cost) -> str:
    return "million parameters" if cost is PARAMETERS else "minutes"


def _error_bar(point: CostPoint) -> tuple[tuple[float, float], ...]:
    return tuple((point.cost, point.accuracy + sign * point.deviation) for sign in (-1, 1))
