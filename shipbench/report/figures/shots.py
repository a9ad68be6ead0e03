"""Accuracy against the number of training images per class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import log2

from shipbench.counts import counted
from shipbench.report.analysis.shots import ALL, MEAN, FewShots, ShotsFamily, shots_name
from shipbench.report.analysis.study import Score
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Figure, joint_key
from shipbench.report.drawing.chart import Axis, Chart, Key, Line, Mark, Panel, Points
from shipbench.report.drawing.scales import number_axis
from shipbench.report.figures.style import SeriesStyle, panel_columns, series_styles
from shipbench.report.wording.names import task_name
from shipbench.report.wording.numbers import has_value, percent
from shipbench.report.wording.text import shortened, shortened_apart
from shipbench.statistics import mean_of_tasks_name

_MOST_TASKS = 8


def shots_figure(view: SuiteView) -> Figure | None:
    """Return accuracy against shots, a panel per task and one for their mean; None as for ``shots_table``."""
    few = view.few_shots
    if few is None:
        return None
    panels = _panels(few)
    draw = partial(draw_shots, few, mean_of_tasks_name(few.tasks, view.tasks), view.footer)
    return Figure(
        name=f"shots-{view.slug}",
        title=f"{view.name}: accuracy and number of shots",
        caption=view.caption(
            "Test accuracy by number of training images per class"
            f"{view.over_seeds(', mean over seeds, which also draw the images; bars show the standard deviation')}.",
            "The axis is logarithmic; all training images stand at its end.",
        ),
        draw=draw,
        alt=f"Accuracy against shots for {counted(len(few.families), 'method')} on {counted(len(few.tasks), 'task')}.",
        wide=len(panels) > 2,
        narrow=partial(draw, narrow=True) if len(panels) > 2 else None,
    )


def _panels(few: FewShots) -> list[str]:
    """Return the keys of the panels: the mean alone if there are many tasks, the task alone if there is one."""
    if len(few.tasks) == 1:
        return list(few.tasks)
    return [MEAN, *(few.tasks if len(few.tasks) <= _MOST_TASKS else ())]


def draw_shots(few: FewShots, mean_name: str, footer: str, *, narrow: bool = False) -> Chart:
    """Draw a panel per task with a line per method; two to a row if it is ``narrow``."""
    panels = _panels(few)
    columns = panel_columns(len(panels), 3, narrow=narrow)
    names = shortened_apart([family.name for family in few.families])
    families = [replace(family, name=name) for family, name in zip(few.families, names, strict=True)]
    looks = list(zip(families, series_styles([family.method for family in families]), strict=True))
    places = _places(few.shots)
    drawn = tuple(_panel(panel, looks, places, mean_name) for panel in panels)
    legend = tuple(
        Key(family.name, look.colour, look.marker, look.dashes, key=joint_key(family.arms)) for family, look in looks
    )
    label = "test accuracy (%)"
    return Chart(drawn, 110, columns, wide=columns > 2, legend=legend, y_label=label, footer=footer)


def _places(shots: Sequence[int]) -> dict[int, float]:
    """Map numbers of shots to x on a scale of powers of two, with all images one power beyond."""
    places = {number: log2(number) for number in shots if number != ALL}
    return places if ALL not in shots else {**places, ALL: max(places.values(), default=0.0) + 1}


def _panel(
    panel: str, looks: Sequence[tuple[ShotsFamily, SeriesStyle]], places: Mapping[int, float], mean_name: str
) -> Panel:
    room = 0.08 * (max(places.values()) - min(places.values()) or 1.0)
    ticks = tuple((place, shots_name(number)) for number, place in places.items())
    x = Axis(min(places.values()) - room, max(places.values()) + room, ticks, "images per class")
    ends = [end for family, _ in looks for score in family.scores[panel].values() for end in _ends(score)]
    marks = [mark for family, look in looks for mark in _marks(family, family.scores[panel], look, places)]
    title = mean_name if panel == MEAN else shortened(task_name(panel), 20)
    return Panel(x, number_axis([end for end in ends if has_value(end)]), tuple(marks), title)


def _ends(score: Score) -> tuple[float, float]:
    room = score.deviation if has_value(score.deviation) else 0.0
    return score.mean - room, score.mean + room


def _marks(
    family: ShotsFamily, scores: Mapping[int, Score], look: SeriesStyle, places: Mapping[int, float]
) -> Iterator[Mark]:
    key = joint_key(family.arms)
    known = {number: score for number, score in scores.items() if has_value(score.mean)}
    for number, score in known.items():
        if has_value(score.deviation):
            yield Line([places[number]] * 2, _ends(score), look.colour, 1, key=key)
    xs, ys = [places[number] for number in known], [score.mean for score in known.values()]
    tips = tuple(
        f"{family.name}, {shots_name(number)} per class: {percent(score.mean)} %" for number, score in known.items()
    )
    yield Line(xs, ys, look.colour, 1.4, look.dashes, key=key)
    yield Points(xs, ys, look.colour, look.marker, 4, key=key, tips=tips)
