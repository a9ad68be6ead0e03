"""Confusions, accuracy per class and calibration, from predictions on images."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from shipbench.report import build_report
from shipbench.report.analysis.classes import calibration_bins, calibration_error, class_accuracies, confusion
from shipbench.report.analysis.predictions import TaskPredictions, times_correct
from shipbench.report.analysis.study import build_study
from shipbench.report.document import Figure, Report
from shipbench.report.drawing.chart import Chart, Heat, Line, Points
from shipbench.report.drawing.shapes import Grid
from shipbench.selection import Final
from tests.report.builders import DEMO_TASKS, grid, make_predictions, make_record, make_results


def report_of(records: list[dict[str, Any]], predictions: pd.DataFrame) -> Report:
    matching = [
        {**r, "final_test_acc": float((of_run["label"] == of_run["predicted"]).mean())}
        for r in records
        for of_run in [predictions[predictions["run_id"] == r["run_id"]]]
    ]
    load = lambda run_ids: predictions[predictions["run_id"].isin(list(run_ids))]  # noqa: E731
    return build_report(make_results(matching), predictions=load)


def figure(report: Report, name: str) -> Figure:
    return next(figure for figure in report.figures() if figure.name == name)


def values(chart: Chart) -> list[tuple[object, ...]]:
    """Return the exact values that a page shows, mark by mark."""
    marks = (mark for panel in chart.panels for mark in panel.marks)
    return [mark.tips for mark in marks if isinstance(mark, (Heat, Line, Points)) and mark.tips]


def of_one_arm(labels: list[int], predicted: list[int], confidence: list[float]) -> tuple[TaskPredictions, Any]:
    (arm,) = build_study(make_results([make_record()]), None, Final()).arms
    frames = [pd.DataFrame({0: values}) for values in (predicted, confidence)]
    return TaskPredictions("t", pd.Series(labels), {arm.key: frames[0]}, {arm.key: frames[1]}), arm


def test_confusions_and_class_accuracies_are_shares_of_a_class() -> None:
    predictions, arm = of_one_arm([0, 0, 0, 0, 2, 2], [0, 0, 0, 2, 2, 1], [0.9] * 6)
    assert confusion(predictions, arm).tolist() == [[0.75, 0, 0.25], [0, 0, 0], [0, 0.5, 0.5]]
    accuracies = class_accuracies(predictions, arm)
    assert accuracies[[0, 2]].tolist() == [0.75, 0.5]
    assert np.isnan(accuracies[1])


def test_correct_answers_are_counted_over_the_seeds_that_are_asked_for() -> None:
    predictions, arm = of_one_arm([0, 1, 2], [0, 1, 0], [0.9] * 3)
    predictions.predicted[arm.key][1] = [0, 0, 2]
    counts = [predictions.times_correct(arm, seeds) for seeds in ((0,), (1,), (0, 1))]
    assert [list(count.times) for count in counts] == [[1, 1, 0], [1, 0, 1], [2, 1, 1]]
    assert [count.runs for count in counts] == [1, 1, 2]


@pytest.mark.parametrize("kind", ["object", "category"])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5, 6], [1, 0, 2, 3, 4, 6, 5], [3, 0, 6, 1, 4, 2, 5]])
def test_correct_answers_do_not_depend_on_the_order_of_rows(kind: str, order: list[int]) -> None:
    frame = pd.DataFrame(
        {
            "run_id": ["a", "a", "a", "b", "b", "b", None],
            "index": [0, 1, 2, 0, 1, 2, 0],
            "label": [5, 6, 7, 5, 6, 7, 5],
            "predicted": [5, 6, 6, 5, 7, 6, 5],
        }
    )
    rows = frame.iloc[order].astype({"run_id": kind})
    if kind == "category":
        rows["run_id"] = rows["run_id"].cat.add_categories("c")
    counted = times_correct(rows, ("a", "b"), "accuracy")
    assert counted is not None
    assert (list(counted.times), list(counted.labels)) == ([2, 1, 0], [5, 6, 7])
    assert times_correct(rows, ("a", "c"), "accuracy") is None
    assert times_correct(rows, ("c",), "accuracy") is None
    assert times_correct(rows[:0], ("a",), "accuracy") is None


def test_the_calibration_error_is_weighted_by_images() -> None:
    predictions, arm = of_one_arm([0, 0, 0, 0], [0, 0, 1, 0], [0.95, 0.95, 0.95, 0.5])
    bins = calibration_bins(predictions, arm)
    assert [(part.share, part.accuracy) for part in bins] == [(0.25, 1.0), (0.75, pytest.approx(2 / 3))]
    assert calibration_error(bins) == pytest.approx(0.25 * 0.5 + 0.75 * (0.95 - 2 / 3))


def test_a_report_shows_the_best_methods_confusions_with_class_names() -> None:
    names = json.dumps(["ant", "bee", "cat", "dog"])
    records = grid(("linear", "vpt-deep", "ship"), DEMO_TASKS[:2], (0, 1), class_names=names)
    report = report_of(records, make_predictions(records))
    shown = figure(report, "confusion-demo")
    assert shown.title == "Demo suite: confusions of SHIP"
    (heat,) = (mark for mark in shown.draw().panels[0].marks if isinstance(mark, Heat))
    assert heat.tips[0][0].startswith("ant as ant: ")
    assert heat.tips[3][0].startswith("dog as ant: ")
    marks = figure(report, "class-accuracy-demo").draw().panels[0].marks
    assert sum(isinstance(mark, Points) for mark in marks) == 3
    assert [len(mark.tips) for mark in marks if isinstance(mark, Line)] == [4] * 3


def test_many_classes_have_the_values_of_cells_from_one_percent_on() -> None:
    records = grid(("vpt-deep", "ship"), DEMO_TASKS[:1], (0,))
    predictions = make_predictions(records, images=4200, classes=21)
    of_ship = predictions["run_id"] == records[1]["run_id"]
    # Of 200 images per class, two of class 0 are class 1 and one is class 2.
    first = predictions.index[of_ship & (predictions["label"] == 0)]
    predictions.loc[of_ship, "predicted"] = predictions.loc[of_ship, "label"]
    predictions.loc[first[:3], "predicted"] = [1, 1, 2]
    shown = figure(report_of(records, predictions), "confusion-demo")
    (heat,) = (mark for mark in shown.draw().panels[0].marks if isinstance(mark, Heat))
    assert heat.tips[0] == ("class 0 as class 0: 98.5 %", "class 0 as class 1: 1.0 %", *[""] * 19)
    assert "For more than 20 classes, the page has the values of cells from 1 % on." in shown.caption.details


def test_the_best_method_is_that_of_the_headline() -> None:
    gains = {
        "linear": {"earth-climate": 0.3},
        "ship": dict.fromkeys(("dsprites-loc", "clevr-count", "clevr-dist"), 0.2),
    }
    records = [
        make_record(method, task, 0, 0.5 + by_task.get(task, 0))
        for method, by_task in gains.items()
        for task in DEMO_TASKS
    ]
    report = report_of(records, make_predictions(records))
    assert report.overviews[0].results[0].sentence.startswith("Linear probe is best")
    shown = figure(report, "confusion-demo")
    assert shown.title == "Demo suite: confusions of Linear probe"
    assert "the best method by mean of groups" in shown.caption.text


def test_narrow_drawings_by_class_show_every_task_and_the_same_values() -> None:
    records = grid(("linear", "ship"), DEMO_TASKS[:3], (0,))
    report = report_of(records, make_predictions(records))
    for name in ("confusion-demo", "class-accuracy-demo", "reliability-demo"):
        shown = figure(report, name)
        assert shown.narrow is not None
        chart = shown.narrow()
        assert (chart.columns, chart.wide, len(chart.panels)) == (2, False, 3)
        assert values(shown.narrow()) == values(shown.draw())
        assert shown.narrow_drawing is not None
        assert shown.narrow_drawing.markers() == []
    few = report_of(records[:2], make_predictions(records[:2]))
    assert all(shown.narrow is None for shown in few.figures() if shown.name.startswith(("confusion", "class")))


def test_names_of_classes_leave_room_for_one_narrow_matrix_to_a_row() -> None:
    names = json.dumps([f"a long name {i}" for i in range(4)])
    records = grid(("linear", "ship"), DEMO_TASKS[:3], (0,), class_names=names)
    shown = figure(report_of(records, make_predictions(records)), "confusion-demo")
    assert shown.narrow_drawing is not None
    grids = [shape for shape in shown.narrow_drawing.shapes if isinstance(shape, Grid) and shape.tips]
    assert len({shape.x for shape in grids}) == 1
    assert all(shape.width == pytest.approx(shape.height) and shape.width > 120 for shape in grids)


@pytest.mark.parametrize(("tasks", "columns"), [(1, 1), (2, 2), (5, 2)])
def test_names_of_classes_leave_room_for_two_matrices_to_a_row(tasks: int, columns: int) -> None:
    names = json.dumps([f"a long name {i}" for i in range(4)])
    records = grid(("linear", "ship"), DEMO_TASKS[:tasks], (0,), class_names=names)
    shown = figure(report_of(records, make_predictions(records)), "confusion-demo")
    chart = shown.draw()
    assert (chart.columns, chart.wide, shown.wide, shown.narrow is not None) == (columns, *[tasks > 1] * 3)
    grids = [shape for shape in shown.drawing.shapes if isinstance(shape, Grid) and shape.tips]
    assert all(shape.width > 90 for shape in grids)


def test_calibration_needs_confidences() -> None:
    records = grid(("vpt-deep", "ship"), DEMO_TASKS[:1], (0,))
    predictions = make_predictions(records)
    report = report_of(records, predictions)
    table = next(table for table in report.tables() if table.name == "calibration-demo")
    ship = next(row for row in table.rows if row.cells[0].text == "SHIP")
    share = (predictions[predictions["run_id"] == records[1]["run_id"]]["confidence"] == 0.9).mean()
    assert ship.cells[1].value == pytest.approx(100 * (0.1 * share + 0.6 * (1 - share)))
    (panel,) = figure(report, "reliability-demo").draw().panels
    assert panel.x.label == "confidence"
    (points,) = (mark for mark in panel.marks if isinstance(mark, Points) and mark.key == "SHIP")
    assert (points.xs, points.ys) == (pytest.approx([0.6, 0.9]), [0, 1])
    without = report_of(records, predictions.drop(columns="confidence"))
    assert not any(table.name.startswith("calibration") for table in without.tables())
    assert not any(shown.name.startswith("reliability") for shown in without.figures())


def test_an_average_of_calibration_errors_needs_all_tasks() -> None:
    records = grid(("vpt-deep", "ship"), DEMO_TASKS[:2], (0,))[:3]
    report = report_of(records, make_predictions(records))
    table = next(table for table in report.tables() if table.name == "calibration-demo")
    assert table.columns[-1].title == "mean of these 2 tasks"
    vpt, ship = (row.cells[1:] for row in table.rows)
    assert vpt[2].value == pytest.approx((vpt[0].value + vpt[1].value) / 2)
    assert [cell.value is None for cell in ship] == [False, True, True]


def test_classes_stand_from_the_hardest_to_the_easiest() -> None:
    record = make_record("ship", "digits", 0, 0.5)
    run = {"index": range(6), "label": [0, 0, 1, 1, 2, 2], "predicted": [1, 1, 1, 1, 2, 0]}
    report = report_of([record], pd.DataFrame(run).assign(run_id=record["run_id"]))
    (panel,) = figure(report, "class-accuracy-demo").draw().panels
    (line,) = (mark for mark in panel.marks if isinstance(mark, Line))
    assert line.tips == ("class 0, SHIP: 0.0 %", "class 2, SHIP: 50.0 %", "class 1, SHIP: 100.0 %")
    assert line.ys == [0, 50, 100]


def test_an_arm_whose_seeds_saw_different_images_hides_no_other() -> None:
    records = grid(("vpt-deep", "ship"), DEMO_TASKS[:1], (0, 1))
    predictions = make_predictions(records)
    predictions.loc[predictions["run_id"] == records[0]["run_id"], "label"] = 0
    report = report_of(records, predictions)
    assert figure(report, "confusion-demo").title == "Demo suite: confusions of SHIP"
    intervals = next(table for table in report.tables() if table.name == "intervals-demo")
    assert [row.cells[1].value is None for row in intervals.rows] == [True, False]
    alone = report_of(records[:2], predictions)
    assert not any(shown.name.startswith(("confusion", "class")) for shown in alone.figures())
