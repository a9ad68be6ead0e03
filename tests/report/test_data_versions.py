"""Runs on people's own tasks whose images changed between runs: no mean, test or tuning mixes them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from shipbench.report import build_report
from shipbench.report.analysis.classes import class_names
from shipbench.report.analysis.study import build_study
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.analysis.tuned import with_tunings
from shipbench.selection import Final
from tests.report.builders import make_predictions, make_record

SUITE = {"suite": "insects", "source": "folder", "suite_tasks": json.dumps(["bugs"]), "group": "Field"}
FIRST = {"data_fingerprint": "first", "draw": "train 80, test 20", "resize": "squash", "augment": "none"}


def own(method: str, seed: int, accuracy: float, **columns: Any) -> dict[str, Any]:
    return make_record(method, "bugs", seed, accuracy, **{**SUITE, **FIRST, **columns})


OTHER = [
    {"data_fingerprint": "second"},
    {"draw": "train 40, test 20"},
    {"resize": "crop"},
    {"augment": "flip-crop"},
]


@pytest.mark.parametrize("other", OTHER, ids=lambda columns: next(iter(columns)))
def test_seeds_on_other_images_have_no_mean(other: dict[str, str]) -> None:
    records = [own("linear", 0, 0.5), own("linear", 1, 0.7, **other), own("ship", 0, 0.9)]
    report = build_report(pd.DataFrame(records))
    tables = {table.name: table for table in report.tables()}
    means = {row.cells[0].value: row.cells[1].value for row in tables["main-insects"].rows}
    assert means == {"Linear probe": None, "SHIP": 90}
    ((_, method, _, seeds, why),) = [[cell.text for cell in row.cells] for row in tables["missing"].rows]
    assert (method, seeds) == ("Linear probe", "0, 1")
    assert why.startswith("seeds differ in the images, in their draw, or in resize or augment")
    assert any(warning.startswith("Mixed ") for warning in tables["main-insects"].warnings)


@pytest.mark.parametrize("other", OTHER, ids=lambda columns: next(iter(columns)))
def test_equal_seeds_on_other_images_have_rows_of_their_own(other: dict[str, str]) -> None:
    ids = ("d", "a", "b", "c")
    facts = [(0, 0.5, {}), (0, 0.8, other), (1, 0.6, {}), (1, 0.9, other)]
    records = [own("ship", seed, acc, run_id=id_, **c) for id_, (seed, acc, c) in zip(ids, facts, strict=True)]
    study = build_study(pd.DataFrame(records), None, Final())
    assert sorted(study.summary(arm).tasks["bugs"].mean for arm in study.arms) == pytest.approx([55, 85])


def test_runs_on_other_images_with_equal_labels_are_not_tested_as_pairs() -> None:
    records = [own("vpt-deep", 0, 0.5), own("ship", 0, 0.9, augment="flip-crop"), own("linear", 0, 0.6)]
    predictions = make_predictions(records)

    def load(run_ids: Any) -> pd.DataFrame:
        return predictions[predictions["run_id"].isin(run_ids)]

    view = SuiteView(build_study(pd.DataFrame(records), None, Final()), "insects", load_predictions=load)
    labels = {arm.key: arm.method for arm in view.arms}
    assert {labels[key] for key in view.predictions["bugs"].predicted} == {"vpt-deep", "linear"}


def test_a_tuning_on_other_images_replaces_no_decision() -> None:
    records = pd.DataFrame(
        [own("ship", 0, 0.5, overrides="lr=1"), own("ship", 0, 0.6, overrides="lr=2", resize="crop")]
    )
    study = build_study(records, None, Final())
    runs = study.records["run_id"].tolist()
    tunings = [{"created": str(i), "final_runs": [run]} for i, run in enumerate(runs)]
    assert with_tunings(study.records.drop(columns="tuning"), tunings)["tuning"].tolist() == ["chosen", "chosen"]


def test_classes_have_the_names_of_the_runs_that_are_drawn() -> None:
    names = {"linear": ["ant", "bee", "wasp"], "ship": ["wasp", "bee", "ant"]}
    records = [own(method, 0, 0.5, class_names=json.dumps(order)) for method, order in names.items()]
    study = build_study(pd.DataFrame(records), None, Final())
    assert {arm.method: class_names(study, arm, "bugs", 3) for arm in study.arms} == names


def test_copies_of_a_catalogued_task_are_averaged_with_a_caution() -> None:
    records = [make_record("linear", "dtd", seed, 0.5, data_fingerprint=f"copy {seed}") for seed in (0, 1)]
    study = build_study(pd.DataFrame(records), None, Final())
    assert not np.isnan(study.summary(study.arms[0]).tasks["dtd"].mean)
