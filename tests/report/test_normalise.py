"""Normalised records: every column has one type, and values that cannot be right are refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from shipbench.errors import InputError
from shipbench.record import record_columns
from shipbench.report.analysis.long_form import long_form
from shipbench.report.analysis.normalise import json_list, uniform_records, with_facts_of_failed
from shipbench.report.analysis.study import build_study
from shipbench.selection import get_selection
from tests.report.builders import make_record, make_results


def test_absent_columns_are_filled_in() -> None:
    few = make_results([make_record()])[["run_id", "method", "task", "seed", "final_test_acc"]]
    frame = uniform_records(few)
    assert {column.name for column in record_columns()} <= set(frame.columns)
    assert (frame.loc[0, "status"], frame.loc[0, "protocol"], frame.loc[0, "device"]) == ("done", "final", "")
    assert math.isnan(frame.loc[0, "train_seconds"])


@pytest.mark.parametrize("name", ["run_id", "method", "task", "seed"])
def test_a_report_requires_what_identifies_a_run(name: str) -> None:
    with pytest.raises(InputError, match=f"no column '{name}'; a report needs run_id, method, task, seed"):
        uniform_records(make_results([make_record()]).drop(columns=name))


@pytest.mark.parametrize("name", ["final_test_acc", "best_test_acc", "val_acc", "chance_acc"])
@pytest.mark.parametrize("value", [-0.1, 62.5])
def test_accuracies_outside_of_0_and_1_are_refused(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"has {name} {value:g}; accuracies in records are fractions"):
        uniform_records(make_results([make_record(**{name: value})]))


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a": 1}'])
def test_a_text_without_a_list_lists_nothing(text: str) -> None:
    assert json_list(text) == []


def test_a_run_that_failed_early_takes_the_facts_that_it_lacks_from_a_run_like_it() -> None:
    mean: dict[str, Any] = {"cfg.mean": "0.5,0.5,0.5"}
    other: dict[str, Any] = {"cfg.mean": "0.1,0.1,0.1", "overrides": "mean=(0.1, 0.1, 0.1)"}
    large: dict[str, Any] = {"image_size": 384, "cfg.image_size": 384, "overrides": "image_size=384"}
    early: dict[str, Any] = {"seed": 1, "status": "failed", "image_size": 0}
    records = [
        make_record(**large, **mean),
        make_record(**other, **{"cfg.image_size": 224}),
        make_record(task="dtd", **mean, **{"cfg.image_size": 224}),
        make_record(**early),
        make_record(**early | large),
        make_record(**early, overrides="lr=0.1", switches="no-hierarchy"),
        make_record(**early, backbone_sha256="f" * 64),
        make_record("linear", **early),
    ]
    frame = uniform_records(make_results(records))
    completed = with_facts_of_failed(frame)
    assert completed["image_size"].fillna(0).tolist() == [384, 224, 224, 224, 384, 224, 0, 0]
    assert completed["cfg.mean"].fillna("").tolist()[3:] == [*["0.5,0.5,0.5"] * 3, "", ""]
    assert completed.drop(columns=["image_size", "cfg.image_size", "cfg.mean"]).equals(
        frame.drop(columns=["image_size", "cfg.image_size", "cfg.mean"])
    )


def test_a_run_that_failed_early_takes_its_settings_from_the_records_of_another_folder_too() -> None:
    known = {"image_size": 224, "lr": 0.1, "mean": [0.5, 0.5, 0.5]}
    like_it = make_record(**{"cfg.image_size": 224, "cfg.mean": "0.5,0.5,0.5"}, config=json.dumps(known))
    unknown = json.dumps({**known, "image_size": None, "mean": None})
    early = make_record(
        seed=1, status="failed", image_size=0, **{"cfg.image_size": None, "cfg.mean": None}, config=unknown
    )
    there, here = (uniform_records(make_results([record])) for record in (like_it, early))
    together = with_facts_of_failed(uniform_records(make_results([like_it, early])))
    for completed in (with_facts_of_failed(here, there), together):
        assert json.loads(completed["config"].iloc[-1]) == known
        assert completed[["image_size", "cfg.image_size", "cfg.mean"]].iloc[-1].tolist() == [224, 224, "0.5,0.5,0.5"]
    assert with_facts_of_failed(here)["config"].item() == unknown


def test_the_long_form_shows_the_marked_columns() -> None:
    study = build_study(make_results([make_record()]), None, get_selection("final"))
    shown = set(long_form(study).columns)
    added = {"arm", "changes", "tuning", "selection", "accuracy"}
    assert shown == {column.name for column in record_columns() if column.long_form} | added
