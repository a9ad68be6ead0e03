"""Suites of one's own, few shots and mean per-class accuracy in a report."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from shipbench.record import MEAN_PER_CLASS
from shipbench.report import build_report, main_table
from shipbench.report.analysis.predictions import LoadPredictions
from shipbench.report.analysis.study import Study, build_study
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Cell, Report
from shipbench.report.render.csv_text import table_csv, table_rows
from shipbench.selection import Final, get_selection
from tests.report.builders import VTAB_TASKS, Records, make_predictions, make_record, table

SUITE = {"suite": "insects", "source": "folder", "suite_tasks": json.dumps(["wasps", "bugs", "dtd"])}


def own(task: str, accuracy: float, **columns: Any) -> dict[str, Any]:
    return make_record("linear", task, accuracy=accuracy, **{**SUITE, "group": "Field", **columns})


def study_of(*records: dict[str, Any]) -> Study:
    return build_study(pd.DataFrame(list(records)), None, Final())


def test_an_own_suite_has_all_its_tasks_in_their_order_and_groups() -> None:
    study = study_of(own("bugs", 0.5), own("wasps", 0.7, group="Garden"), make_record("linear", "dtd"))
    assert study.suites == ("vtab-1k", "insects")
    assert study.groups_of("insects") == {"Field": ("bugs",), "Garden": ("wasps",), "Not run": ("dtd",)}
    assert study.tasks_of("vtab-1k").count("dtd") == 1
    (arm,) = study.arms_of("insects", main=True)
    assert study.summary(arm).groups["Field"].mean == 50
    assert np.isnan(study.summary(arm).mean_of_tasks.mean)


def test_an_own_task_with_a_catalogued_name_stays_in_its_suite() -> None:
    study = study_of(own("dtd", 0.5), make_record("linear", "dtd", accuracy=0.9))
    by_suite = {arm.suite: study.summary(arm).tasks["dtd"].mean for arm in study.arms}
    assert by_suite == {"insects": 50, "vtab-1k": 90}


def test_the_headline_of_a_task_may_be_its_mean_per_class_accuracy() -> None:
    per_class = {"headline_metric": "mean-per-class", "final_test_mean_class_acc": 0.25, "num_classes": 3}
    study = study_of(own("bugs", 0.8, chance_acc=0.8, **per_class), own("wasps", 0.6, final_test_mean_class_acc=0.1))
    (arm,) = study.arms
    assert study.summary(arm).tasks["bugs"].mean == 25
    assert study.summary(arm).tasks["wasps"].mean == 60
    assert study.collapsed(arm) == {"bugs": (0,)}
    caption = SuiteView(study, "insects").caption("Accuracy.").details
    assert "The accuracy on bugs is the mean of the accuracies of the classes." in caption
    assert study.records["final_test_acc"].tolist() == [0.8, 0.6]


def test_seeds_that_are_scored_by_two_metrics_have_no_mean() -> None:
    suite = {"suite_tasks": json.dumps(["bugs", "wasps"])}
    per_class = {"headline_metric": MEAN_PER_CLASS, "final_test_mean_class_acc": 0.1, "num_classes": 3}
    records = [own(task, 0.6 + seed / 10, seed=seed, **suite) for task in ("bugs", "wasps") for seed in (0, 1)]
    records[1] |= per_class
    other = make_record("ship", "bugs", accuracy=0.5, **{**SUITE, **suite, "group": "Field"})
    study = study_of(*records, other)
    arms = {arm.method: study.summary(arm) for arm in study.arms}
    assert np.isnan(arms["linear"].tasks["bugs"].mean)
    assert np.isnan(arms["linear"].mean_of_tasks.mean)
    assert (arms["linear"].tasks["wasps"].mean, arms["ship"].tasks["bugs"].mean) == (pytest.approx(65), 50)
    assert all(not study.collapsed(arm) for arm in study.arms)
    # Each run has its own accuracy, as diff pairs it.
    assert study.records["accuracy"].tolist() == pytest.approx([0.6, 0.1, 0.6, 0.7, 0.5])
    report = build_report(pd.DataFrame([*records, other]))
    assert dict(report.facts)["Runs"] == "5 finished, 0 failed, 3 counted by the rule"
    tables = {table.name: table for table in report.tables()}
    listed = [[cell.text for cell in row.cells] for row in tables["missing"].rows]
    ((_, method, tasks, seeds, why),) = [row for row in listed if row[0] == "not counted"]
    assert (method, tasks, seeds) == ("Linear probe", "bugs", "0, 1")
    assert "some seeds are scored by the accuracy, others by its mean over classes" in why
    assert not [row for row in listed if row[:3] == ["missing", "Linear probe", "bugs"]]
    main = tables["main-insects"]
    assert any("Mixed metrics" in warning for warning in main.warnings)
    assert "is the mean of the accuracies of the classes" not in main.caption.details
    assert any("no finished run that counts" in note for note in main.notes)


def unbalanced(method: str, common: int, rare: int) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return a run that classifies ``common`` of 900 images of one class and ``rare`` of 100 of another correctly."""
    labels = np.repeat([0, 1], [900, 100])
    right = np.concatenate([np.arange(900) < common, np.arange(100) < rare])
    metric: dict[str, Any] = {
        "headline_metric": MEAN_PER_CLASS,
        "final_test_mean_class_acc": (common / 900 + rare / 100) / 2,
    }
    row = make_record(method, "bugs", accuracy=right.mean(), num_classes=2, **{**SUITE, "group": "Field", **metric})
    frame = pd.DataFrame({"index": np.arange(1000), "label": labels, "predicted": np.where(right, labels, 1 - labels)})
    return row, frame.assign(run_id=row["run_id"])


def loader(*frames: pd.DataFrame) -> LoadPredictions:
    def load(run_ids: Iterable[str]) -> pd.DataFrame:
        frame = pd.concat(frames, ignore_index=True)
        return frame[frame["run_id"].isin(list(run_ids))]

    return load


def cell_of_ship(report: Report, table: str) -> Cell:
    printed = next(each for each in report.tables() if each.name == f"{table}-insects")
    row = next(row for row in printed.rows if row.cells[0].text == "SHIP")
    return row.cells[[column.key for column in printed.columns].index("bugs")]


def test_tests_and_intervals_are_of_the_headline_metric() -> None:
    """SHIP is better by the mean over classes and worse over images, each beyond chance."""
    (vpt, theirs), (ship, ours) = unbalanced("vpt-deep", 890, 20), unbalanced("ship", 790, 90)
    assert ship["final_test_acc"] < vpt["final_test_acc"]
    report = build_report(pd.DataFrame([vpt, ship]), predictions=loader(ours, theirs))
    assert (cell_of_ship(report, "main").text, cell_of_ship(report, "main").below) == ("88.9", "▲")
    test = dict(cell_of_ship(report, "paired-tests").extras)
    assert test["difference"] == pytest.approx((790 - 890) / 18 + (90 - 20) / 2)
    assert (test["images won"], test["images lost"]) == (70, 100)
    interval, mean = cell_of_ship(report, "intervals"), 790 / 18 + 90 / 2
    assert interval.value == pytest.approx(mean)
    ends = dict(interval.extras)
    half = 196 * np.sqrt(79 * 11 / 90**2 / 900 + 0.9 * 0.1 / 100) / 2
    assert (ends["low"], ends["high"]) == pytest.approx((mean - half, mean + half), abs=0.8)
    captions = {table.name: table.caption.alone for table in report.tables()}
    assert "by sign-flip tests of the means of classes on the test images" in captions["significance-insects"]
    assert "McNemar" not in captions["paired-tests-insects"]
    assert "p is an upper bound instead of exact" in captions["paired-tests-insects"]
    assert "the images of each class are resampled on their own" in captions["intervals-insects"]


def test_runs_scored_by_another_metric_are_not_paired() -> None:
    (vpt, theirs), (ship, ours) = unbalanced("vpt-deep", 890, 20), unbalanced("ship", 790, 90)
    view = SuiteView(
        study_of({**vpt, "headline_metric": "accuracy"}, ship), "insects", None, "default", loader(ours, theirs)
    )
    assert view.comparisons == []
    assert view.comparison_notes[0].startswith("No comparison of SHIP with VPT-deep on bugs: ")
    assert view.prediction_notes[0].endswith("SHIP (bugs).")


def test_curves_of_a_task_scored_by_class_are_named_as_accuracies_over_images() -> None:
    row, _ = unbalanced("ship", 790, 90)
    points = {"run_id": row["run_id"], "epoch": [0, 1], "split": "test", "accuracy": [0.5, 0.88], "loss": 1.0}
    figures = {f.name: f for f in build_report(pd.DataFrame([row]), pd.DataFrame(points)).figures()}
    curves = figures["curves-accuracy-insects"]
    assert "test accuracy over all images (%)" in curves.title
    assert curves.draw().y_label == "test accuracy over all images (%)"
    assert "The accuracy on bugs is here the share of all images" in curves.caption.details
    assert "is the mean of the accuracies of the classes" not in curves.caption.details


def test_an_epoch_of_a_task_scored_by_class_is_not_chosen_by_accuracy_over_images() -> None:
    row, _ = unbalanced("ship", 790, 90)
    points = [
        {"run_id": row["run_id"], "epoch": epoch, "split": split, "accuracy": 0.5}
        for epoch in (0, 1)
        for split in ("val", "test")
    ]
    validation = get_selection("validation")
    assert build_study(pd.DataFrame([row]), pd.DataFrame(points), validation).arms == ()
    plain = pd.DataFrame([{**row, "headline_metric": "accuracy"}])
    assert len(build_study(plain, pd.DataFrame(points), validation).arms) == 1


def test_the_best_epoch_by_accuracy_over_images_is_not_that_of_a_task_scored_by_class() -> None:
    row, _ = unbalanced("ship", 790, 90)
    frame = pd.DataFrame([{**row, "best_test_acc": 0.95}])
    assert build_study(frame, None, get_selection("oracle")).arms == ()
    assert not [table.name for table in build_report(frame).tables() if table.name.startswith("oracle")]


def test_a_task_that_is_a_suite_to_itself_is_named_once() -> None:
    alone = {"suite": "bugs", "suite_tasks": json.dumps(["bugs"])}
    records = [own("bugs", 0.5, **alone), make_record("ship", "bugs", accuracy=0.7, **{**SUITE, **alone})]
    report = build_report(pd.DataFrame([*records, own("bugs", 0.2, seed=1, status="failed", **alone)]))
    (overview,) = report.overviews
    assert overview.results[0].sentence.startswith("SHIP is best on bugs: 70.0 %")
    tables = {table.name: table for table in report.tables()}
    assert "the mean of tasks the only task; a mean" in tables["main-bugs"].caption.details
    for name in ("settings", "missing"):
        assert [row.cells[2 - (name == "settings")].below for row in tables[name].rows] == [""] * len(tables[name].rows)


def test_a_task_and_its_suite_may_differ_in_case() -> None:
    records = [
        make_record(method, "demo-tiny", accuracy=accuracy) for method, accuracy in (("linear", 0.5), ("ship", 0.7))
    ]
    (overview,) = build_report(pd.DataFrame(records)).overviews
    assert overview.results[0].sentence.startswith("SHIP is best on demo-tiny: 70.0 %")


def test_a_group_that_is_called_as_a_task_has_a_column_of_its_own() -> None:
    suite = {"suite_tasks": json.dumps(["wasps", "bugs"]), "group": "bugs"}
    frame = pd.DataFrame([own("bugs", 0.5, **suite), own("wasps", 0.7, **suite)])
    scores = main_table(frame).loc["Linear probe"]
    assert (scores["bugs"], scores["wasps"], scores["bugs (group)"]) == (50, 70, 60)
    table = next(each for each in build_report(frame).tables() if each.name == "main-insects")
    (row,) = table_rows(table)
    assert (row["bugs"], row["bugs (group)"]) == (50, 60)


def predictions_of(records: Records) -> LoadPredictions:
    predictions = make_predictions(records)
    return lambda run_ids: predictions[predictions["run_id"].isin(set(run_ids))]


FIXED = ("method", "mean of tasks", "row", "trainable_params", "bugs seeds")
NAMES = (*FIXED[:4], "bugs", "bugs seeds", "bugs (group)", "mean", "mean_of_these_tasks")


def test_tasks_that_are_called_as_fixed_columns_have_columns_of_their_own() -> None:
    suite = {"suite_tasks": json.dumps(NAMES), "group": "bugs"}
    records = [
        make_record(method, task, seed, accuracy=0.1 + 0.1 * i + lead, **{**SUITE, **suite})
        for method, lead in (("linear", 0.0), ("vpt-deep", 0.05))
        for i, task in enumerate(NAMES)
        for seed in (0, 1)
    ]
    frame = pd.DataFrame(records)
    scores = main_table(frame).reset_index().set_index("method").loc["Linear probe"]
    expected = {
        **{
            f"{task} (task)": 10 + 10 * i
            for i, task in enumerate(NAMES)
            if task not in ("bugs", "mean", "bugs (group)", "mean_of_these_tasks")
        },
        **{"bugs": 50, "bugs (group)": 70, "mean": 80, "mean_of_these_tasks": 90, "bugs (group) (group)": 50},
        **{"mean of groups": 50, "mean of tasks": 50},
    }
    assert {name: round(scores[name], 6) for name in expected} == expected
    report = build_report(frame, predictions=predictions_of(records))
    for each in report.tables():
        header = next(csv.reader(io.StringIO(table_csv(each))))
        assert len(set(header)) == len(header)
        titles = [column.title for column in each.columns if not column.group]
        assert len(set(titles)) == len(titles)
    main = table(report, "main-insects")
    row = next(row for row in table_rows(main) if row["method"] == "Linear probe")
    assert {name: round(row[name], 6) for name in expected} == expected
    assert {cell.mark for cell in main.rows[1].cells[1 : 1 + len(NAMES)]} == {"best"}


def test_numbers_of_shots_are_arms_of_their_own() -> None:
    study = study_of(*(own("bugs", 0.1 * shots, shots=shots) for shots in (0, 1, 4)))
    assert [arm.label for arm in study.arms] == ["Linear probe", "Linear probe (1 shot)", "Linear probe (4 shots)"]
    assert [round(study.summary(arm).tasks["bugs"].mean) for arm in study.arms] == [0, 10, 40]


def test_few_shot_runs_weaken_no_test_and_take_no_rank() -> None:
    rows = [
        make_record(method, task, accuracy=0.4 + 0.1 * i + 0.01 * shots + 0.001 * j, shots=shots)
        for i, method in enumerate(("linear", "vpt-deep", "ship"))
        for j, task in enumerate(VTAB_TASKS[:7])
        for shots in (0, 1, 8)
    ]
    alone, together = (build_report(pd.DataFrame(kept)) for kept in ([r for r in rows if not r["shots"]], rows))
    for name in ("significance-vtab-1k", "ranks-vtab-1k", "overview-vtab-1k"):
        assert table_csv(table(together, name)) == table_csv(table(alone, name))
    (overview,) = together.overviews
    assert overview.results[0].sentence == alone.overviews[0].results[0].sentence
    left_out = "Marks, ranks and tests are for all images, not for 1 shot and 8 shots."
    assert left_out in overview.results[0].table.caption.details
    assert left_out in table(together, "main-vtab-1k").notes
    main = {row.cells[0].value: row.cells[1].mark for row in table(together, "main-vtab-1k").rows if row.kind == "ours"}
    assert {name for name, mark in main.items() if mark} == {"SHIP", "VPT-deep"}


def test_few_shot_runs_alone_are_compared_at_the_number_that_most_methods_have() -> None:
    rows = [
        make_record(method, "dtd", accuracy=0.4 + 0.01 * shots, shots=shots)
        for method, shots in (("ship", 1), ("ship", 4), ("vpt-deep", 4), ("ship", 8), ("linear", 0))
    ]
    view = SuiteView(study_of(*rows), "vtab-1k")
    assert [arm.label for arm in view.compared] == ["VPT-deep (4 shots)", "SHIP (4 shots)"]
    assert [arm.label for arm in SuiteView(view.study, "vtab-1k", "linear").compared] == ["Linear probe"]


def test_runs_with_all_images_go_before_as_many_few_shot_runs() -> None:
    rows = [make_record("ship", "dtd", accuracy=0.9 - 0.1 * shots, shots=shots) for shots in (0, 1, 4)]
    assert [arm.label for arm in SuiteView(study_of(*rows), "vtab-1k").compared] == ["SHIP"]
    assert [arm.label for arm in SuiteView(study_of(*rows[1:]), "vtab-1k").compared] == ["SHIP (4 shots)"]
    of_baseline = SuiteView(study_of(*rows, make_record("linear", "dtd", shots=4)), "vtab-1k", "linear")
    assert of_baseline.shots_note == "Marks, ranks and tests are for 4 shots, not for 1 shot and all images."


def test_failed_runs_do_not_choose_the_number_of_shots() -> None:
    lost = {"status": "failed", "error": "full disk", "final_test_acc": float("nan")}
    methods = ("linear", "vpt-deep", "ship")
    failed = [make_record(method, "dtd", **lost) for method in methods]
    done = [make_record(method, "dtd", accuracy=0.5, shots=4) for method in methods[1:]]
    report = build_report(pd.DataFrame([*failed, *done]))
    assert report.overviews[0].results[0].sentence.startswith("VPT-deep (4 shots), SHIP (4 shots) share the highest")
    view = SuiteView(study_of(*failed), "vtab-1k")
    assert len(view.compared) == 3
