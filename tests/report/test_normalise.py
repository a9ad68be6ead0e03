"""Normalised records: every column has one type, and values that cannot be right are refused."""

from __future__ import annotations

import math

import pytest

from shipbench.errors import InputError
from shipbench.record import record_columns
from shipbench.report.analysis.long_form import long_form
from shipbench.report.analysis.normalise import uniform_records
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


def test_the_long_form_shows_the_marked_columns() -> None:
    study = build_study(make_results([make_record()]), None, get_selection("final"))
    shown = set(long_form(study).columns)
    added = {"arm", "changes", "tuning", "selection", "accuracy"}
    assert shown == {column.name for column in record_columns() if column.long_form} | added
