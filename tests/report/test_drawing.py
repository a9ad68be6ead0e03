"""Numbers in drawings: each is drawn where its axis, its colour and its label say, and is that of the records."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest
from matplotlib.patches import Patch

from shipbench.report import build_report
from shipbench.report.document import Figure, Report
from shipbench.report.drawing.chart import Axis, Band, Box, Chart, ColourBar, Heat, Line, Note, Panel, Points, Reference
from shipbench.report.drawing.lower import lower
from shipbench.report.drawing.palette import CIVIDIS, PAPER, VERMILION, mapped, rgb
from shipbench.report.drawing.scales import log_axis, with_ticks
from shipbench.report.drawing.shapes import Drawing, Grid, Marker, Text
from shipbench.report.figures.differences import TaskDifferences, draw_difference_map
from shipbench.report.figures.pareto import CostPoint, draw_pareto
from shipbench.report.figures.style import series_styles
from shipbench.report.render.plot import plot
from shipbench.report.render.svg import svg_file
from tests.report.builders import DEMO_TASKS, VTAB_TASKS, grid, make_record, make_results


def figure_named(report: Report, name: str) -> Figure:
    return next(figure for figure in report.figures() if figure.name == name)


def marks_of(figure: Figure, kind: type[Any]) -> list[Any]:
    return [mark for panel in figure.draw().panels for mark in panel.marks if isinstance(mark, kind)]


@pytest.mark.parametrize("ends", [(0, 1), (0, 10), (0, 100), (-3, 3), (69.7, 71.2), (0.98, 1.0), (1, 0)])
def test_a_tick_is_labelled_with_its_value(ends: tuple[float, float]) -> None:
    for count in (3, 4, 5):
        ticks = with_ticks(Axis(*ends), count).ticks
        assert len(ticks) >= 2
        assert [float(label.replace("\N{MINUS SIGN}", "-")) for _, label in ticks] == pytest.approx(
            [value for value, _ in ticks]
        )


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (with_ticks(Axis(0, 10)), with_ticks(Axis(40, 80))),
        (log_axis([80.0, 700.0], "minutes", 60.0), with_ticks(Axis(80, 40))),
    ],
)
def test_a_point_lies_at_the_labels_of_its_values(x: Axis, y: Axis) -> None:
    (across, x_label), (up, y_label) = x.ticks[-1], y.ticks[0]
    marks = (
        Points([across], [up], VERMILION),
        Reference(across),
        Reference(up, "y"),
        Box(across, across, up, up, "#0072b2"),
    )
    drawing = lower(Chart((Panel(x, y, marks),), 100))
    (marker,) = drawing.markers()
    labels = {(text.text, text.anchor): text for text in drawing.texts()}
    below, beside = labels[x_label, "middle"], labels[y_label, "end"]
    assert marker.x == pytest.approx(below.x)
    assert marker.y == pytest.approx(beside.y - 0.35 * beside.size)
    upright, level, (box, *_) = (path.points for path in drawing.paths()[-3:])
    assert [point[0] for point in upright] == pytest.approx([marker.x] * 2)
    assert [point[1] for point in level] == pytest.approx([marker.y] * 2)
    assert box == pytest.approx((marker.x, marker.y))
    heights = [text.y for _, text in sorted((float(t.text), t) for t in drawing.texts() if t.anchor == "end")]
    assert heights == sorted(heights, reverse=y.low < y.high)


def test_the_first_row_of_a_heat_map_is_at_its_top() -> None:
    heat = Heat(-0.5, 1.5, -0.5, 1.5, (("#000000", "#000000"), ("#ffffff", "#ffffff")))
    chart = Chart((Panel(Axis(-0.5, 1.5), Axis(1.5, -0.5, ((0.0, "first"),)), (heat,)),), 100)
    drawing = lower(chart)
    (grid,) = (shape for shape in drawing.shapes if isinstance(shape, Grid))
    (label,) = (text for text in drawing.texts() if text.text == "first")
    assert grid.height > 0
    assert grid.y < label.y < grid.y + grid.height / 2


def test_a_colour_bar_runs_up_to_its_highest_value() -> None:
    bar = ColourBar(0.2, 1.0, "share", CIVIDIS)
    drawing = lower(Chart((Panel(Axis(0, 1), Axis(0, 1), ()),), 100, bar=bar))
    (grid,) = (shape for shape in drawing.shapes if isinstance(shape, Grid))
    assert (grid.colours[0], grid.colours[-1]) == ((CIVIDIS[-1],), (CIVIDIS[0],))
    values = [text.text for text in sorted(drawing.texts(), key=lambda text: text.y) if text.text != "share"]
    assert values == ["1.00", "0.60", "0.20"]
    assert [mapped(value, 0.2, 1.0) for value in (0.0, 0.2, 0.6, 1.0, 2.0)] == [CIVIDIS[i] for i in (0, 0, 5, -1, -1)]


def test_pictures_have_their_shapes_where_the_drawing_has_them() -> None:
    drawing = Drawing(200, 100, (Marker(50, 20, "o", 6, VERMILION), Text(50, 20, "here", 8)))
    figure = plot(drawing)
    (circle,), (text,) = figure.artists, figure.texts
    # Matplotlib counts from the bottom.
    place = pytest.approx((50 / 72 * figure.dpi, 80 / 72 * figure.dpi))
    assert isinstance(circle, Patch)
    assert tuple(circle.get_extents().get_points().mean(axis=0)) == place
    assert tuple(figure.transFigure.transform(text.get_position())) == place
    svg = svg_file(drawing).decode()
    assert 'cx="50" cy="20" r="3"' in svg
    assert 'x="50" y="20"' in svg


def test_filled_points_are_those_that_no_method_beats_in_both() -> None:
    (look,) = series_styles(["ship"])
    values = [("cheap", 1e5, 60.0), ("beaten", 2e5, 59.0), ("costly", 4e5, 70.0), ("beaten too", 4e5, 69.0)]
    chart = draw_pareto([CostPoint(*value, float("nan"), look) for value in values], "", "")
    fills = {mark.key: mark.fill for mark in chart.panels[0].marks if isinstance(mark, Points)}
    assert fills == {"cheap": "", "beaten": PAPER, "costly": "", "beaten too": PAPER}


def test_parameters_are_those_of_the_tasks_that_the_accuracy_is_over() -> None:
    records = grid(("linear", "vpt-deep", "ship"), VTAB_TASKS[:4], (0,))
    records = [r | {"trainable_params": 9_000_000} if r["task"] == VTAB_TASKS[3] else r for r in records[:-1]]
    figure = figure_named(build_report(make_results(records)), "pareto-vtab-1k")
    assert [list(mark.xs) for mark in marks_of(figure, Points)] == [[300_000]] * 3


def test_the_last_epoch_is_filled_and_the_best_one_open() -> None:
    records = [make_record(task="dtd", seed=seed, accuracy=0.5, best_test_acc=0.6) for seed in (0, 1)]
    figure = figure_named(build_report(make_results(records)), "oracle-gap-vtab-1k")
    points = {mark.fill: (list(mark.xs), mark.tips) for mark in marks_of(figure, Points)}
    assert points == {PAPER: ([60], ("SHIP, best epoch: 60.0 %",)), "": ([50], ("SHIP, last epoch: 50.0 %",))}


def test_the_diagram_of_ranks_writes_each_rank_beside_its_method() -> None:
    scores = {"linear": (0.1, 0.4, 0.2, 0.7), "vpt-deep": (0.8, 0.5, 0.8, 0.5), "ship": (0.9, 0.5, 0.7, 0.8)}
    records = [make_record(m, t, 0, s) for m, row in scores.items() for t, s in zip(DEMO_TASKS, row, strict=False)]
    figure = figure_named(build_report(make_results(records)), "critical-difference-demo")
    texts = {note.text for note in marks_of(figure, Note)}
    assert {"SHIP  1.38", "VPT-deep  1.88", "2.75  Linear probe"} <= texts
    # 2.343 sqrt(3 * 4 / (6 * 4)): no two of the methods are told apart.
    assert "critical difference 1.66" in texts
    (bar,) = (mark for mark in marks_of(figure, Line) if mark.width == 3)
    assert list(bar.xs) == pytest.approx([1.375 - 0.03, 2.75 + 0.03])


def test_curves_are_means_in_percent_that_end_with_the_last_epoch() -> None:
    records = [make_record(task="dtd", seed=seed) for seed in (0, 1)]
    rows = [
        {"run_id": r["run_id"], "epoch": epoch, "split": "test", "accuracy": 0.2 + 0.4 * r["seed"] + epoch / 1000}
        for r in records
        for epoch in range(119)
    ]
    figure = figure_named(build_report(make_results(records), pd.DataFrame(rows)), "curves-accuracy-vtab-1k")
    (line,), (band,) = marks_of(figure, Line), marks_of(figure, Band)
    assert (line.xs[-1], line.tips[-1]) == (119, "SHIP, epoch 119: 51.8")
    assert (line.ys[-1], band.lows[-1], band.highs[-1]) == pytest.approx((51.8, 31.8, 71.8))


def test_levels_are_drawn_over_the_blocks_that_share_prompts() -> None:
    affinity = [[1.0, 0.9, 0.5, 0.4], [0.9, 1.0, 0.6, 0.3], [0.5, 0.6, 1.0, 0.7], [0.4, 0.3, 0.7, 1.0]]
    report = build_report(make_results([make_record(task="dtd", levels="[0, 2, 3]", affinity=json.dumps(affinity))]))
    levels, heat_map = (figure_named(report, f"{name}-vtab-1k") for name in ("levels", "affinity"))
    tips = ["DTD, level 1: blocks 1 to 2", "DTD, level 2: block 3", "DTD, level 3: block 4"]
    assert [mark.tip for mark in marks_of(levels, Box)] == tips
    bars = [(round(mark.left), round(mark.right)) for mark in marks_of(levels, Box)]
    assert bars == [(1, 2), (3, 3), (4, 4)]
    assert [note.text for note in marks_of(levels, Note)] == ["3 levels"]
    squares = {(mark.left, mark.right, mark.low, mark.high) for mark in marks_of(heat_map, Box)}
    assert squares == {(0.5, 2.5, 0.5, 2.5), (2.5, 3.5, 2.5, 3.5), (3.5, 4.5, 3.5, 4.5)}
    (heat,) = marks_of(heat_map, Heat)
    assert heat.tips[1][2] == "DTD, blocks 2 and 3: 0.600"
    (points,) = marks_of(figure_named(report, "adjacent-affinity-vtab-1k"), Points)
    assert (points.xs, points.ys) == ([1, 2, 3], [0.9, 0.6, 0.7])


def test_better_is_blue_and_worse_is_red() -> None:
    lines = [TaskDifferences("SHIP", {"dtd": 5.0, "svhn": -5.0})]
    chart = draw_difference_map(lines, {"Natural": ("dtd", "svhn")}, "VPT-deep", "")
    colours = {mark.tip: rgb(mark.fill) for mark in chart.panels[0].marks if isinstance(mark, Box)}
    (red, _, blue), (other_red, _, other_blue) = colours.values()
    assert list(colours) == ["SHIP, DTD: +5.0", "SHIP, SVHN: \N{MINUS SIGN}5.0"]
    assert blue > red
    assert other_red > other_blue
