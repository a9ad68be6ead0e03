"""Suites of one's own, few shots and mean per-class accuracy in a report."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from shipbench.report import build_report
from shipbench.report.analysis.study import Study, build_study
from shipbench.report.analysis.suite import SuiteView
from shipbench.selection import Final
from tests.report.builders import make_record

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


def test_numbers_of_shots_are_arms_of_their_own() -> None:
    study = study_of(*(own("bugs", 0.1 * shots, shots=shots) for shots in (0, 1, 4)))
    assert [arm.label for arm in study.arms] == ["Linear probe", "Linear probe (1 shot)", "Linear probe (4 shots)"]
    assert [round(study.summary(arm).tasks["bugs"].mean) for arm in study.arms] == [0, 10, 40]
