"""Figures: every one draws, labels do not overlap, and the content matches the records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest

from shipbench.report import ReportOptions, build_report
from shipbench.report.analysis.study import build_study
from shipbench.report.analysis.sweeps import Sweep, SweepPoint
from shipbench.report.document import Figure, Report
from shipbench.report.drawing.chart import Axis, Band, Chart, Key, Line, Panel, Points
from shipbench.report.drawing.labels import place_labels
from shipbench.report.drawing.lower import lower
from shipbench.report.drawing.metrics import text_width
from shipbench.report.drawing.palette import MUTED, VERMILION
from shipbench.report.drawing.paper import PAPER_STYLES, PHONE, PLAIN, PaperStyle
from shipbench.report.drawing.scales import log_axis
from shipbench.report.drawing.shapes import Drawing, Text
from shipbench.report.figures.curves import draw_sweeps
from shipbench.report.figures.pareto import CostPoint, draw_pareto
from shipbench.report.figures.ranks import draw_rank_list, draw_ranks
from shipbench.report.figures.structure import hierarchies
from shipbench.report.figures.style import series_styles
from shipbench.report.render.images import images
from shipbench.report.wording.numbers import setting
from shipbench.selection import Final, get_selection
from shipbench.statistics import cliques, pareto_front
from tests.report.builders import DEMO_TASKS, METHODS, VTAB_TASKS, grid, histories, make_record, make_results

# The width in pixels of a drawing on a phone of 390 pixels.
_PHONE_PIXELS = 351
NAMES = ["Full fine-tuning", "Linear probe", "VPT-shallow", "VPT-deep", "AdaptFormer", "LoRA-8", "SSF", "SHIP"]


def figure_named(report: Report, name: str) -> Figure:
    return next(figure for figure in report.figures() if figure.name == name)


def drawn(chart: Chart) -> Drawing:
    return lower(chart)


def box(text: Text) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of a text that is not turned."""
    width = text_width(text.text, text.size)
    left = text.x - {"start": 0.0, "middle": 0.5, "end": 1.0}[text.anchor] * width
    return left, text.y - 0.75 * text.size, left + width, text.y + 0.2 * text.size


def boxes_of(drawing: Drawing, wanted: Sequence[str]) -> list[tuple[float, float, float, float]]:
    return [box(text) for text in drawing.texts() if any(name in text.text for name in wanted)]


def inside(drawing: Drawing, edges: tuple[float, float, float, float]) -> bool:
    return edges[0] >= 0 and edges[1] >= 0 and edges[2] <= drawing.width and edges[3] <= drawing.height


def overlapping(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return min(one[2], other[2]) > max(one[0], other[0]) and min(one[3], other[3]) > max(one[1], other[1])


def test_a_study_has_every_figure(demo_report: Report) -> None:
    names = {figure.name for figure in demo_report.figures()}
    assert names == {
        f"{kind}-demo"
        for kind in (
            "pareto",
            "training-cost",
            "oracle-gap",
            "differences",
            "critical-difference",
            "ablation",
            "sweeps",
            "affinity",
            "adjacent-affinity",
            "levels",
            "curves-accuracy",
            "curves-loss",
        )
    }


def test_drawing_is_repeatable_in_every_format(demo_report: Report) -> None:
    figure = figure_named(demo_report, "oracle-gap-demo")
    first, second = (images(figure, ("png", "svg", "pdf", "pgf")) for _ in range(2))
    assert first == second
    assert first["png"].startswith(b"\x89PNG")
    assert first["pdf"].startswith(b"%PDF")
    assert b"tikzpicture" in first["pgf"]


@pytest.mark.parametrize("paper", PAPER_STYLES, ids=lambda paper: paper.name)
def test_every_text_of_every_figure_stays_inside_in_every_style(demo_report: Report, paper: PaperStyle) -> None:
    for figure in demo_report.figures():
        drawing = lower(figure.draw(), paper)
        assert drawing.width in (paper.narrow, paper.wide)
        outside = [t.text for t in drawing.texts() if not t.turned and not inside(drawing, box(t))]
        assert outside == [], figure.name


def test_a_figure_that_is_too_wide_for_a_phone_has_a_narrow_drawing_that_can_be_read(demo_report: Report) -> None:
    for figure in demo_report.figures():
        if figure.narrow_drawing is None:
            assert figure.drawing.width == PLAIN.narrow, figure.name
            continue
        drawing = figure.narrow_drawing
        assert drawing.width == PHONE.narrow
        assert [t.text for t in drawing.texts() if not t.turned and not inside(drawing, box(t))] == [], figure.name
        shown = [text.size * _PHONE_PIXELS / drawing.width for text in drawing.texts() if text.colour != MUTED]
        assert min(shown) > 9, figure.name


def test_labels_of_an_x_axis_that_has_no_room_for_all_keep_apart() -> None:
    ticks = tuple((float(i), f"{i} to {i + 1}") for i in range(20))
    axis = Axis(-0.5, 19.5, ticks)
    drawing = lower(Chart((Panel(axis, Axis(0, 1), ()),), 50), PAPER_STYLES[-1])
    labels = [text for text in drawing.texts() if " to " in text.text]
    assert 5 < len(labels) < 20
    assert not any(overlapping(box(one), box(other)) for one, other in combinations(labels, 2))


def test_ticks_of_a_logarithmic_axis_are_round_in_its_unit() -> None:
    axis = log_axis([80.0, 700.0], "minutes", 60.0)
    assert axis.ticks == ((120.0, "2"), (300.0, "5"), (600.0, "10"))
    assert [text for _, text in log_axis([306_000.0, 306_000.0], "params", 1e6).ticks] == ["0.25", "0.3", "0.4"]
    assert all(len(log_axis([10 ** (i / 50)], "params", 1.0).ticks) > 1 for i in range(100))


@pytest.mark.parametrize("seed", range(3))
def test_labels_of_crowded_points_keep_apart(seed: int) -> None:
    rng = np.random.default_rng(seed)
    looks = series_styles(NAMES)
    points = [
        CostPoint(name, 10 ** rng.uniform(4.5, 6), rng.uniform(70, 76), 0.2, look)
        for name, look in zip(NAMES, looks, strict=True)
    ]
    drawing = drawn(draw_pareto(points, "19 tasks", "selection rule: final"))
    labels = [text for text in drawing.texts() if text.text in NAMES]
    assert sorted(label.text for label in labels) == sorted(NAMES)
    boxes = [box(label) for label in labels]
    assert not any(overlapping(one, other) for one, other in combinations(boxes, 2))
    assert all(inside(drawing, edges) for edges in boxes)


@pytest.mark.parametrize(
    ("count", "narrow", "outlier", "fewest"),
    [
        (17, True, False, 17),
        (60, True, False, 30),
        (28, False, False, 28),
        (60, False, False, 48),
        (60, False, True, 24),
    ],
)
def test_a_crowded_scatter_plot_leaves_out_labels_without_room(
    count: int, narrow: bool, outlier: bool, fewest: int
) -> None:
    rng = np.random.default_rng(0)
    names = [f"method {i}" for i in range(count)]
    looks = series_styles(names)
    points = [
        CostPoint(name, 10 ** rng.uniform(4.5, 6), rng.uniform(70, 76), 0.2, look)
        for name, look in zip(names, looks, strict=True)
    ]
    if outlier:
        points[0] = CostPoint(names[0], 10**8, 40, 0.2, looks[0])
    drawing = drawn(draw_pareto(points, "19 tasks", "selection rule: final", narrow=narrow))
    assert (drawing.width == 288, len(list(drawing.markers()))) == (narrow, count)
    boxes = boxes_of(drawing, ["method "])
    assert fewest <= len(boxes) <= count
    assert not any(overlapping(one, other) for one, other in combinations(boxes, 2))
    assert all(inside(drawing, edges) for edges in boxes)
    on_front = pareto_front([p.cost for p in points], [p.accuracy for p in points])
    assert {p.label for p, on in zip(points, on_front, strict=True) if on} <= {text.text for text in drawing.texts()}


@pytest.mark.parametrize(("count", "said"), [(16, False), (17, True)])
def test_a_crowded_scatter_plot_says_that_names_are_left_out(count: int, said: bool) -> None:
    records = [make_record(backbone=f"vit-{i}", trainable_params=1000 * (i + 1)) for i in range(count)]
    figure = figure_named(build_report(make_results(records)), "pareto-vtab-1k")
    assert ("Names without room are left out." in str(figure.caption)) == said


def test_a_label_without_a_line_is_nearer_to_its_own_point_than_to_another() -> None:
    looks = series_styles(["vpt-deep", "vpt-deep", "ship"])
    values = [("VPT-deep", 50e3, 73.7, 0.6), ("VPT-deep (tuned)", 50e3, 73.1, 0.6), ("SHIP", 54e3, 72.0, 1.1)]
    points = [CostPoint(*value, look) for value, look in zip(values, looks, strict=True)]
    far = CostPoint("Full", 2e7, 60.0, 0.5, looks[0])
    drawing = drawn(draw_pareto([*points, far], "mean of 6 tasks", ""))
    places = {marker.key: (marker.x, marker.y) for marker in drawing.markers()}
    led = {path.key for path in drawing.paths() if path.width == 0.5}
    near = [text for text in drawing.texts() if text.text in places and text.text not in led]
    assert len(near) >= 3
    for text in near:
        left, top, right, bottom = box(text)
        away = {
            key: np.hypot(max(left - x, 0, x - right), max(top - y, 0, y - bottom)) for key, (x, y) in places.items()
        }
        assert min(away, key=away.__getitem__) == text.text


def test_labels_keep_off_error_bars() -> None:
    looks = series_styles(["linear", "vpt-shallow", "full"])
    values = [("Linear probe", 4e3, 61.3, 0.1), ("VPT-shallow", 8e3, 61.3, 1.5), ("Full", 2e7, 58.0, 1.0)]
    points = [CostPoint(*value, look) for value, look in zip(values, looks, strict=True)]
    drawing = drawn(draw_pareto(points, "6 tasks", "selection rule: final"))
    boxes = boxes_of(drawing, ["Linear probe", "VPT-shallow", "Full"])
    bars = [path for path in drawing.paths() if path.key and len(path.points) == 2 and path.width == 1]
    assert len(bars) == 3
    for (x, low), (_, high) in (bar.points for bar in bars):
        assert not any(overlapping((x - 0.5, high, x + 0.5, low), edges) for edges in boxes)


def test_labels_on_a_line_do_not_read_as_one() -> None:
    points = [(float(x), float(y)) for x, y in np.random.default_rng(1).uniform((10, 10), (260, 220), (30, 2))]
    texts = [f"Method {i}" for i in range(len(points))]
    shapes = place_labels(points, texts, texts, 7, (), (0, 0, 270, 230), optional=True)
    boxes = [box(shape) for shape in shapes if isinstance(shape, Text)]
    assert len(boxes) > 20
    for one, other in combinations(boxes, 2):
        apart = max(other[0] - one[2], one[0] - other[2])
        assert apart > 2.9 or one[3] <= other[1] or other[3] <= one[1]


@pytest.mark.parametrize("count", [3, 8, 16])
def test_critical_difference_labels_stay_inside_and_apart(count: int) -> None:
    labels = [f"Method number {i}" for i in range(count)]
    drawing = drawn(draw_ranks(labels, list(np.linspace(1, count, count)), series_styles(labels), 1.4, "footer"))
    boxes = boxes_of(drawing, ["Method number"])
    assert len(boxes) == count
    assert all(inside(drawing, edges) for edges in boxes)
    assert not any(overlapping(one, other) for one, other in combinations(boxes, 2))


@pytest.mark.parametrize(("count", "distance"), [(3, 4.5), (16, 1.4), (40, 6.0)])
def test_a_list_of_ranks_fits_a_phone_and_joins_what_the_diagram_joins(count: int, distance: float) -> None:
    labels = [f"Method number {i} (tuned)" for i in range(count)]
    ranks = list(np.linspace(1, count, count))
    chart = draw_rank_list(labels, ranks, series_styles(labels), distance, "footer")
    drawing = lower(chart, PHONE)
    assert [marker.key for marker in drawing.markers()] == labels
    written = [box(text) for text in drawing.texts() if text.key]
    assert len(written) == 2 * count
    assert all(inside(drawing, edges) for edges in written)
    assert not any(overlapping(one, other) for one, other in combinations(written, 2))
    joined = [mark for mark in chart.panels[0].marks if isinstance(mark, Line) and mark.width == 2.5]
    assert [(round(bar.ys[0] + 0.3), round(bar.ys[1] - 0.3)) for bar in joined] == cliques(ranks, distance)
    assert all(one.xs[0] != other.xs[0] or one.ys[1] < other.ys[0] for one, other in combinations(joined, 2))


def test_methods_look_the_same_in_every_figure() -> None:
    assert series_styles(["linear", "ship"])[1] == series_styles(["full", "vpt-deep", "ship"])[2]
    looks = series_styles([f"other-{i}" for i in range(16)])
    assert len({(look.colour, look.marker, str(look.line)) for look in looks}) == 16


def test_sixteen_other_methods_and_the_built_in_ones_look_different() -> None:
    looks = series_styles([*METHODS, *(f"method {i}" for i in range(16))])
    assert len({(look.colour, look.marker) for look in looks}) == len(looks)


@pytest.mark.parametrize(
    "values",
    [(0, 0.05, 0.1, 0.5, 1, 2), (0.9, 0.92, 0.95, 0.97, 0.98, 1.0), (1, 5, 10, 20, 50, 100), ("cls", "mean"), (8,)],
)
def test_swept_values_are_labelled_without_touching(values: tuple[Any, ...]) -> None:
    points = tuple(SweepPoint(value, 50.0 + i, float("nan"), i == 0) for i, value in enumerate(values))
    chart = draw_sweeps([Sweep("SHIP", "SHIP", "ship", key, 3, points) for key in ("x", "y", "z")], "")
    ticks = [label for _, label in chart.panels[0].x.ticks]
    assert ticks == [setting(value) for value in values]
    labels = [text for text in drawn(chart).texts() if text.text in ticks and text.anchor == "middle"][: len(ticks)]
    assert all(box(left)[2] < box(right)[0] for left, right in pairwise(labels))


def test_a_method_has_one_look_in_all_panels_of_swept_settings() -> None:
    points = tuple(SweepPoint(value, 50.0 + value, float("nan"), value == 1) for value in (1, 5))
    sweeps = [Sweep("SHIP", "SHIP", "ship", key, 3, points) for key in ("x", "y")] + [
        Sweep("Other", "Other", "other", "x", 3, points)
    ]
    chart = draw_sweeps(sweeps, "")
    ship, other = chart.legend
    curves = [{mark.colour for mark in panel.marks if isinstance(mark, Line)} for panel in chart.panels]
    assert curves == [{ship.colour, other.colour}, {ship.colour}]


def test_methods_without_a_known_cost_are_named() -> None:
    records = grid(("linear", "vpt-deep", "ship", "full"), DEMO_TASKS, (0,))
    without = [r | ({"trainable_params": float("nan")} if r["method"] == "full" else {}) for r in records]
    shown = figure_named(build_report(make_results(without)), "pareto-demo")
    sentence = "Left out, because their trainable parameters are not known: Full fine-tuning."
    assert sentence in shown.caption.details
    assert sentence not in figure_named(build_report(make_results(records)), "pareto-demo").caption.details


def test_swept_settings_have_two_panels_to_a_row_on_a_narrow_screen() -> None:
    points = tuple(SweepPoint(value, 50.0 + value, float("nan"), value == 1) for value in (1, 5, 10))
    chart = draw_sweeps([Sweep("SHIP", "SHIP", "ship", key, 3, points) for key in ("x", "y", "z")], "", narrow=True)
    assert (chart.columns, chart.wide) == (2, False)
    assert [bool(panel.y.ticks[0][1]) for panel in chart.panels] == [True, False, True]
    drawing = lower(chart, PHONE)
    assert all(inside(drawing, box(text)) for text in drawing.texts() if not text.turned)


@pytest.mark.parametrize("count", [3, 7])
def test_differences_of_few_and_of_many_methods_show_every_number(count: int) -> None:
    records = grid(["vpt-deep", *(f"m{i}" for i in range(count))], VTAB_TASKS, (0,))
    records = [r for r in records if (r["method"], r["task"]) != ("m1", "svhn")]
    figure = next(f for f in build_report(make_results(records)).figures() if f.name.startswith("differences"))
    drawing = drawn(figure.draw())
    numbers = [text for text in drawing.texts() if text.size == 5.5 and text.text[0] in "+0\N{MINUS SIGN}"]
    assert len(numbers) == count * 19 - 1
    assert drawing.height < 650
    narrow = figure.narrow_drawing
    assert narrow
    assert [t.text for t in narrow.texts() if not t.turned and not inside(narrow, box(t))] == []
    assert {path.tips for path in narrow.paths()} == {path.tips for path in drawing.paths()}


def test_legends_stay_inside_their_figure() -> None:
    names = ("Natural (7 tasks)", "Specialized (4 tasks)", "Structured (8 tasks)")
    panel = Panel(Axis(0, 1), Axis(0, 1), ())
    drawing = drawn(Chart((panel,), 100, legend=tuple(Key(name, VERMILION) for name in names)))
    assert len(boxes_of(drawing, names)) == 3
    assert all(inside(drawing, edges) for edges in boxes_of(drawing, names))


def test_hierarchies_come_from_the_lowest_seed_of_the_main_arm() -> None:
    affinity = np.eye(4).tolist()
    records = [
        make_record(task="dtd", seed=seed, levels=json.dumps(levels), affinity=json.dumps(affinity))
        for seed, levels in [(1, [0, 1]), (0, [0, 2, 3])]
    ]
    records.append(make_record(task="svhn", levels="not json", affinity="[[1, 2]]"))
    study = build_study(make_results(records), None, Final())
    (result,) = hierarchies(study, "vtab-1k", study.arms[0])
    assert (result.task, result.levels, result.blocks) == ("dtd", (0, 2, 3), 4)
    assert np.array_equal(result.affinity, np.eye(4))


@pytest.mark.parametrize(
    ("full", "others", "over", "sentence"),
    [
        (VTAB_TASKS[1:], VTAB_TASKS, "18 tasks", "Tasks left out because some methods lack them: CIFAR-100."),
        (VTAB_TASKS, VTAB_TASKS[:5], "5 tasks", "Tasks left out because some methods lack them: "),
        (VTAB_TASKS[:2], VTAB_TASKS, "19 tasks", "Left out for missing tasks: Full fine-tuning."),
    ],
)
def test_what_is_left_out_of_comparisons_is_named(
    full: tuple[str, ...], others: tuple[str, ...], over: str, sentence: str
) -> None:
    records = [*grid(("full",), full, (0,)), *grid(("linear", "vpt-deep", "ship"), others, (0,))]
    report = build_report(make_results(records))
    caption = figure_named(report, "critical-difference-vtab-1k").caption.alone
    assert sentence in caption
    assert over in caption
    (overview,) = report.overviews
    assert "Full fine-tuning" not in overview.results[0].sentence
    if len(others) == len(VTAB_TASKS):
        assert "Left out for missing tasks: Full" in figure_named(report, "pareto-vtab-1k").caption.details


def test_methods_that_share_too_few_tasks_have_no_ranking() -> None:
    records = [
        r for i, m in enumerate(("full", "linear", "ship")) for r in grid((m,), VTAB_TASKS[3 * i : 3 * i + 3], (0,))
    ]
    report = build_report(make_results(records))
    (note,) = (note for table in report.tables() for note in table.notes if note.startswith("No ranking"))
    assert note == "No ranking of Full fine-tuning, Linear probe and SHIP: no 2 tasks are shared by 3 of them."
    assert not any(figure.name.startswith("critical-difference") for figure in report.figures())


def test_the_baseline_can_be_chosen() -> None:
    records = make_results(grid(("linear", "vpt-deep", "ship"), DEMO_TASKS, (0,)))
    assert "to VPT-deep" in figure_named(build_report(records), "differences-demo").title
    chosen = build_report(records, None, ReportOptions(baseline="linear"))
    assert "to Linear probe" in figure_named(chosen, "differences-demo").title


def test_one_run_alone_makes_a_report_that_draws() -> None:
    record = make_record(task="demo-tiny", levels="[0]", affinity="[[1.0]]")
    rows = [{"run_id": record["run_id"], "epoch": epoch, "split": "test", "accuracy": 0.4} for epoch in (0, 1)]
    report = build_report(make_results([record]), pd.DataFrame(rows))
    names = [figure.name for figure in report.figures()]
    assert names == ["oracle-gap-demo-tiny", "levels-demo-tiny", "curves-accuracy-demo-tiny"]
    tested_once = build_report(make_results([record]), pd.DataFrame(rows[:1]))
    assert [figure.name for figure in tested_once.figures()] == names[:2]
    assert all(images(figure, ("svg",))["svg"] for figure in report.figures())


@pytest.mark.parametrize(("epochs", "last", "label"), [(4, 100, "training (% of epochs)"), (8, 8, "epoch")])
def test_methods_of_unlike_length_share_an_axis_in_percent(epochs: int, last: float, label: str) -> None:
    long, short = make_record("linear", "dtd"), make_record("ship", "dtd")
    rows = [
        {"run_id": record["run_id"], "epoch": epoch, "split": "train", "loss": 1.0}
        for record, count in ((long, 8), (short, epochs))
        for epoch in range(count)
    ]
    (figure,) = (
        f
        for f in build_report(make_results([long, short]), pd.DataFrame(rows)).figures()
        if f.name.startswith("curves")
    )
    (panel,) = figure.draw().panels
    ends = [mark.xs[-1] for mark in panel.marks if isinstance(mark, Line)]
    assert ends == [last, last]
    assert panel.x.label == label
    assert ("(4 and 8)" in figure.caption.alone) is (epochs == 4)


def test_the_legend_of_curves_names_the_methods_that_have_one() -> None:
    records = grid(("linear", "vpt-deep", "ship"), ("dtd", "svhn"), (0,))
    report = build_report(make_results(records), histories([r for r in records if r["method"] != "vpt-deep"]))
    figure = figure_named(report, "curves-loss-vtab-1k")
    assert [key.label for key in figure.draw().legend] == ["Linear probe", "SHIP"]


def test_no_line_to_a_label_looks_like_an_error_bar() -> None:
    looks = series_styles(NAMES)
    points = [
        CostPoint(name, 1e5, 70 + 0.01 * i, 0.5, look) for i, (name, look) in enumerate(zip(NAMES, looks, strict=True))
    ]
    drawing = drawn(draw_pareto(points, "19 tasks", ""))
    led = [path for path in drawing.paths() if path.width == 0.5]
    assert led
    for (x0, y0), (x1, y1) in (path.points for path in led):
        assert abs(y1 - y0) < 2 * abs(x1 - x0)


def test_single_tasks_stand_clear_of_their_interval(demo_report: Report) -> None:
    (panel,) = figure_named(demo_report, "ablation-demo").draw().panels
    heights = {tuple(sorted(set(mark.ys))) for mark in panel.marks if isinstance(mark, Points)}
    assert len({y for ys in heights for y in ys}) == 2 * len(panel.y.ticks)


def test_the_affinity_of_adjacent_blocks_shows_its_spread_over_images() -> None:
    affinity, spread = [[1.0, 0.9], [0.9, 1.0]], [[0.0, 0.02], [0.02, 0.0]]
    columns = {"levels": "[0, 1]", "affinity": json.dumps(affinity)}
    records = [make_record(task=task, affinity_std=json.dumps(spread), **columns) for task in VTAB_TASKS[:2]]
    figure = figure_named(build_report(make_results(records)), "adjacent-affinity-vtab-1k")
    (band,) = (mark for mark in figure.draw().panels[0].marks if isinstance(mark, Band))
    assert (band.lows[0], band.highs[0]) == (pytest.approx(0.88), pytest.approx(0.92))
    without = build_report(make_results([make_record(**columns)]))
    marks = figure_named(without, "adjacent-affinity-vtab-1k").draw().panels[0].marks
    assert not any(isinstance(mark, Band) for mark in marks)


def test_names_of_figures_do_not_depend_on_other_methods() -> None:
    columns = {"levels": "[0, 1]", "affinity": json.dumps([[1.0, 0.9], [0.9, 1.0]])}
    ship = [make_record(**columns), make_record(**columns, backbone="vit_base_patch16_224.dino")]
    with_others = [*ship, make_record("linear"), make_record("vpt-deep"), make_record("full")]
    names = [[f.name for f in build_report(make_results(records)).figures()] for records in (ship, with_others)]
    for kind in ("affinity", "adjacent-affinity", "levels"):
        expected = [f"{kind}-vtab-1k", f"{kind}-vtab-1k--2"]
        assert [[name for name in of_report if name.startswith(kind)] for of_report in names] == [expected, expected]


def test_files_of_suites_with_numbered_names_stay_apart() -> None:
    columns = {"levels": "[0, 1]", "affinity": json.dumps([[1.0, 0.9], [0.9, 1.0]])}
    records = [
        make_record(task=name, suite=name, backbone=backbone, switches=switches, **columns)
        for name in ("bugs", "bugs-2")
        for backbone in ("vit_base_patch16_224.mae", "vit_base_patch16_224.dino")
        for switches in ("", "no-hierarchy")
    ]
    report = build_report(make_results(records))
    names = [item.name for item in (*report.tables(), *report.figures())]
    assert {"ablation-bugs--2", "ablation-bugs-2", "levels-bugs--2", "levels-bugs-2--2"} <= set(names)
    for of_kind in (report.tables(), report.figures()):
        names = [item.name for item in of_kind]
        assert len(set(names)) == len(names)


def test_long_names_that_differ_in_the_middle_stay_apart_in_figures() -> None:
    names = ("vit_base_patch16_224.orig_in21k", "vit_base_patch16_224.augreg_in21k")
    records = [
        *(make_record("vpt-deep", backbone=name) for name in names),
        make_record("vpt-deep", backbone=names[0], image_size=384),
    ]
    arms = build_study(make_results(records), None, get_selection("final")).arms
    short = [arm.short_label for arm in arms]
    assert len({arm.label for arm in arms}) == len(set(short)) == 3
    assert all(len(name) <= 44 for name in short)
    assert [name for name in short if name.endswith("]")] == [
        "VPT-deep (vit_base_patch16…n21k, 224 px) [1]",
        "VPT-deep (vit_base_patch16…n21k, 224 px) [2]",
    ]
    assert len(build_report(make_results(records)).methods) == 3


@pytest.mark.parametrize(("eval_every", "shown"), [(0, False), (10, True)])
def test_the_oracle_gap_of_runs_that_were_tested_once_is_not_claimed(eval_every: int, shown: bool) -> None:
    record = make_record(**{"cfg.eval_every": eval_every, "best_test_acc": 0.5})
    report = build_report(make_results([record]))
    assert any(figure.name.startswith("oracle-gap") for figure in report.figures()) is shown


def test_times_of_other_numbers_of_threads_are_not_compared() -> None:
    records = [
        make_record(method, "digits", seed, 0.5, threads=threads, train_seconds=60.0 * seconds)
        for method in METHODS
        for seed, threads, seconds in ((0, 2, 7), (1, 2, 9), (2, 1, 100))
    ]
    shown = figure_named(build_report(make_results(records)), "training-cost-demo")
    assert "The times of Linear probe leave out the features of the frozen backbone" in shown.caption.text
    assert shown.caption.text.endswith("Runs on cpu, fp32, 2 threads only.")
    points = [mark for mark in shown.draw().panels[0].marks if isinstance(mark, Points)]
    assert {x for mark in points for x in mark.xs} == {480.0}


def test_the_caption_of_training_times_names_no_method_that_the_figure_leaves_out() -> None:
    records = [
        make_record(method, task, 0, 0.5)
        for method in METHODS
        for task in ("digits", "textures")
        if (method, task) != ("linear", "textures")
    ]
    shown = figure_named(build_report(make_results(records)), "training-cost-demo")
    labels = {mark.key for mark in shown.draw().panels[0].marks if isinstance(mark, Points)}
    assert "Linear probe" not in labels
    assert "leave out the features" not in shown.caption.text
