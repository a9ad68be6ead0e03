"""What a reader takes from a figure: the values at its marks, their places, and what is filled or coloured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from shipbench.report.analysis.differences import PairedDifference
from shipbench.report.analysis.oracle import OracleGap
from shipbench.report.analysis.shots import ALL, ShotsFamily
from shipbench.report.analysis.study import Score
from shipbench.report.analysis.sweeps import Sweep, SweepPoint
from shipbench.report.drawing.chart import Box, Chart, Heat, Line, Mark, Note, Points
from shipbench.report.drawing.palette import INK_ON_MAP, PAPER, PAPER_ON_MAP, RED_BLUE
from shipbench.report.figures.ablation import AblationLine, draw_ablation
from shipbench.report.figures.curves import draw_sweeps, draw_training
from shipbench.report.figures.differences import TaskDifferences, draw_difference_map, draw_task_differences
from shipbench.report.figures.oracle import draw_oracle
from shipbench.report.figures.pareto import MINUTES, PARAMETERS, CostPoint, draw_pareto
from shipbench.report.figures.ranks import draw_ranks
from shipbench.report.figures.shots import draw_shots
from shipbench.report.figures.standing import draw_standing
from shipbench.report.figures.structure import Hierarchy, draw_heat_maps, draw_levels
from shipbench.report.figures.style import SeriesStyle, series_styles
from shipbench.statistics import Interval

NAN = float("nan")
MINUS = "\N{MINUS SIGN}"
STYLE = SeriesStyle("#123456", "o", "-")


def arm(name: str, key: int = 0) -> Any:
    return SimpleNamespace(short_label=name, label=name, method=name, key=key, tuned=False)


def marks_of(chart: Chart) -> list[Mark]:
    return [mark for panel in chart.panels for mark in panel.marks]


def tips_of(marks: Iterable[Mark]) -> list[str]:
    return [tip for mark in marks if isinstance(mark, (Line, Points)) for tip in mark.tips]


def notes_of(marks: Iterable[Mark]) -> list[str]:
    return [mark.text for mark in marks if isinstance(mark, Note)]


def test_an_oracle_gap_names_both_epochs_and_leaves_the_best_one_open() -> None:
    marks = marks_of(draw_oracle([OracleGap(arm("SHIP"), 70.0, 72.5, 3.0, 4)], [STYLE], ""))
    assert tips_of(marks) == ["SHIP, best epoch: 72.5 %", "SHIP, last epoch: 70.0 %"]
    assert [(mark.xs, mark.fill) for mark in marks if isinstance(mark, Points)] == [([72.5], PAPER), ([70.0], "")]
    assert notes_of(marks) == ["+2.5  (4 tasks)"]


def test_an_ablation_tells_its_mean_its_interval_and_its_tasks() -> None:
    difference = PairedDifference(Interval(-2.0, -3.5, -0.5, 2), "tasks", {"dtd": -1.0, "svhn": -3.0}, (0,))
    alone = PairedDifference(Interval(1.0, NAN, NAN, 1), "tasks", {"dtd": 1.0}, (0,))
    lines = [AblationLine("without levels", difference, "#111111"), AblationLine("without loss", alone, "#111111")]
    marks = marks_of(draw_ablation(lines, "SHIP", ""))
    assert tips_of(marks) == [
        f"without levels, DTD: {MINUS}1.0",
        f"without levels, SVHN: {MINUS}3.0",
        f"without levels: {MINUS}2.0 ({MINUS}3.5 to {MINUS}0.5)",
        "without loss, DTD: +1.0",
        "without loss: +1.0",
    ]
    assert notes_of(marks) == [f"{MINUS}2.0  (2 tasks)", "+1.0  (1 task)"]


def test_a_map_of_differences_is_blue_where_a_method_is_better_and_readable_where_it_is_dark() -> None:
    # Colours saturate at 5, the 90 % quantile of the absolute values.
    values = {"dtd": 5.0, "svhn": -5.0, "pets": 2.0, **{f"t{i}": 0.5 for i in range(8)}}
    marks = marks_of(draw_difference_map([TaskDifferences("SHIP", values)], {"all": list(values)}, "VPT", ""))
    fills = {mark.tip: mark.fill for mark in marks if isinstance(mark, Box)}
    assert fills["SHIP, DTD: +5.0"] == RED_BLUE[-1]
    assert fills[f"SHIP, SVHN: {MINUS}5.0"] == RED_BLUE[0]
    inks = [mark.colour for mark in marks if isinstance(mark, Note)]
    assert inks[:4] == [PAPER_ON_MAP, PAPER_ON_MAP, INK_ON_MAP, INK_ON_MAP]


def test_a_difference_is_told_at_its_task_on_its_side_of_zero() -> None:
    lines = [TaskDifferences("SHIP", {"dtd": 2.0, "svhn": -1.0})]
    marks = marks_of(draw_task_differences(lines, {"Natural": ["dtd", "svhn", "pets"]}, "VPT", ""))
    assert tips_of(marks) == ["SHIP, DTD: +2.0", f"SHIP, SVHN: {MINUS}1.0"]
    assert [(note.x, note.y, note.anchor) for note in marks if isinstance(note, Note)] == [
        (2.0, 0, "start"),
        (-1.0, 1, "end"),
    ]


def test_the_points_of_a_standing_tell_their_accuracy_and_deviation() -> None:
    arms = [arm("ship", 0), arm("linear", 1)]
    standing: Any = SimpleNamespace(
        name="mean of tasks", scores=[(arms[0], Score(70.0, 1.5, (0, 1))), (arms[1], Score(60.0, NAN, (0,)))]
    )
    view: Any = SimpleNamespace(arms=arms, footer="")
    marks = marks_of(draw_standing(view, standing))
    assert tips_of(marks) == ["ship: 70.0 \N{PLUS-MINUS SIGN}1.5 %", "linear: 60.0 %"]
    assert [mark.xs for mark in marks if isinstance(mark, Line)] == [(68.5, 71.5)]


def test_points_of_the_pareto_front_are_filled_and_costs_have_their_unit() -> None:
    values = [("cheap", 1e5, 60.0, NAN), ("bad", 2e6, 59.0, NAN), ("good", 3e6, 70.0, 0.5)]
    points = [CostPoint(*value, STYLE) for value in values]
    drawn = [mark for mark in marks_of(draw_pareto(points, "mean", "", PARAMETERS)) if isinstance(mark, Points)]
    assert [(mark.key, mark.fill) for mark in drawn] == [("cheap", ""), ("bad", PAPER), ("good", "")]
    assert tips_of(drawn)[1:] == [
        "bad: 59.0 %, 2.00 million parameters",
        "good: 70.0 \N{PLUS-MINUS SIGN} 0.5 %, 3.00 million parameters",
    ]
    timed = [CostPoint(name, 60.0 * minutes, 50.0, NAN, STYLE) for name, minutes in (("a", 2), ("b", 3), ("c", 30))]
    assert tips_of(marks_of(draw_pareto(timed, "mean", "", MINUTES)))[2] == "c: 50.0 %, 30.0 minutes"


def test_the_better_half_of_a_ranking_stands_on_the_left() -> None:
    labels = ["a", "b", "c"]
    marks = marks_of(draw_ranks(labels, [1.25, 2.0, 2.75], series_styles(labels), 1.0, ""))
    written = {note.text: (note.x, note.beside) for note in marks if isinstance(note, Note) and note.key}
    assert written == {"a  1.25": (1, "left"), "b  2.00": (1, "left"), "2.75  c": (3, "right")}
    assert tips_of(marks) == ["a: average rank 1.25", "b: average rank 2.00", "c: average rank 2.75"]


def few_shots(tasks: int) -> Any:
    scores = {1: Score(40.0, 2.0, (0, 1)), 4: Score(60.0, NAN, (0,)), ALL: Score(80.0, NAN, (0,))}
    family = ShotsFamily("SHIP", "ship", ("SHIP (1 shot)", "SHIP"), defaultdict(lambda: scores))
    return SimpleNamespace(tasks=[f"task {i}" for i in range(tasks)], families=[family], shots=(1, 4, ALL))


def test_shots_stand_on_powers_of_two_with_all_images_beyond() -> None:
    mean, *of_tasks = draw_shots(few_shots(2), "mean of these 2 tasks", "").panels
    assert [panel.title for panel in (mean, *of_tasks)] == ["mean of these 2 tasks", "task 0", "task 1"]
    assert mean.x.ticks == ((0.0, "1"), (2.0, "4"), (3.0, "all"))
    assert tips_of(mean.marks) == [
        f"SHIP, {shots} per class: {score}.0 %" for shots, score in ((1, 40), (4, 60), ("all", 80))
    ]
    assert [len(draw_shots(few_shots(tasks), "mean", "").panels) for tasks in (1, 8, 9)] == [1, 9, 1]


def test_a_curve_tells_its_epochs_and_ends_with_the_last_one() -> None:
    epochs = np.arange(1, 121)
    curve = pd.DataFrame({"arm": 0, "task": "dtd", "epoch": epochs, "mean": 1.0 * epochs, "last": 120})
    curve = curve.assign(low=curve["mean"] - 1, high=curve["mean"] + 1, share=100 * curve["epoch"] / 120)
    chart = draw_training(curve, ["dtd"], [arm("ship")], "loss", "", "share")
    (line,) = (mark for mark in marks_of(chart) if isinstance(mark, Line))
    assert len(line.xs) == 40
    assert (line.xs[-1], line.tips[-1], line.tips[0]) == (100, "ship, epoch 120: 120", "ship, epoch 3: 3")


def test_the_value_of_the_recipe_has_a_ring() -> None:
    points = tuple(SweepPoint(value, 50.0 + value, NAN, value == 5) for value in (1, 5, 10))
    marks = marks_of(draw_sweeps([Sweep("SHIP", "SHIP", "ship", "prompt_length", 3, points)], ""))
    rings = [mark.ys for mark in marks if isinstance(mark, Points) and mark.fill == PAPER]
    assert rings == [[55.0]]
    assert tips_of(marks)[1] == "SHIP, prompt length 5: 55.0 %"


def test_levels_and_affinities_name_blocks_from_1() -> None:
    affinity = np.array([[1.0, 0.9, 0.5], [0.9, 1.0, 0.25], [0.5, 0.25, 1.0]])
    shown = [Hierarchy("dtd", "Natural", (0, 2), affinity, np.empty((0, 0)))]
    bars = [(mark.tip, mark.left, mark.right) for mark in marks_of(draw_levels(shown, "")) if isinstance(mark, Box)]
    assert bars == [("DTD, level 1: blocks 1 to 2", 0.55, 2.45), ("DTD, level 2: block 3", 2.55, 3.45)]
    heat, *squares = marks_of(draw_heat_maps(shown, ""))
    assert isinstance(heat, Heat)
    assert heat.tips[1][2] == "DTD, blocks 2 and 3: 0.250"
    assert {(box.left, box.right) for box in squares if isinstance(box, Box)} == {(0.5, 2.5), (2.5, 3.5)}
