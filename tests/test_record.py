"""The schema of the record: one declaration per column, from which every list of columns follows."""

from __future__ import annotations

import math
from typing import get_args

import pandas as pd
import pytest

from shipbench.record import Topic, is_collapsed, is_outdated, record_columns, typed
from tests.results.test_store import make_record


def test_the_columns_are_those_of_a_stored_row_in_order() -> None:
    row = make_record(settings={"lr": 0.1}).to_row()
    assert [*(column.name for column in record_columns()), "cfg.lr"] == list(row)


def test_every_column_says_what_it_holds() -> None:
    for column in record_columns():
        assert column.meaning, column.name
        assert column.topic in get_args(Topic), column.name
        assert column.kind in ("str", "int", "float"), column.name


def test_blanks_are_of_the_type_of_their_column() -> None:
    kinds = {"str": str, "int": int, "float": float}
    assert all(type(column.blank) is kinds[column.kind] for column in record_columns())


def test_every_accuracy_is_a_fraction() -> None:
    accuracies = {column.name for column in record_columns() if column.name.endswith("_acc")}
    assert accuracies == {column.name for column in record_columns() if column.unit == "fraction"}


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 2.0**62, -(2.0**63), 0, -0.0])
def test_integers_fit_into_64_bits(value: float) -> None:
    assert typed("seed", "int", value) == value


@pytest.mark.parametrize("value", [2**63, 2.0**63, -(2**63) - 1, math.inf, 0.5, True, "1"])
def test_other_values_are_no_integers(value: object) -> None:
    with pytest.raises(ValueError, match=r"column seed is .*, expected int"):
        typed("seed", "int", value)


@pytest.mark.parametrize(("accuracy", "collapsed"), [(0.19, True), (0.2, True), (0.21, False), (math.nan, False)])
def test_a_run_collapses_up_to_the_majority_class_accuracy(accuracy: float, collapsed: bool) -> None:
    record = make_record(final_test_acc=accuracy, chance_acc=0.2)
    assert record.done
    assert record.collapsed == is_collapsed(accuracy, 0.2) == collapsed
    failed = make_record(status="failed", final_test_acc=accuracy, chance_acc=0.2)
    assert (failed.done, failed.collapsed) == (False, False)


def test_an_evaluation_is_outdated_if_it_is_known_to_be_older_than_its_run() -> None:
    hour = "2025-03-02T{}:00:00+00:00".format
    pairs = [(hour(11), hour(12)), (hour(12), hour(12)), ("", hour(12)), (hour(11), "")]
    expected = [True, False, False, False]
    assert [is_outdated(*pair) for pair in pairs] == expected
    created, of_run = (pd.Series(times, dtype=object) for times in zip(*pairs, strict=True))
    assert is_outdated(created, of_run).tolist() == expected


@pytest.mark.parametrize(
    ("metric", "accuracy", "per_class", "collapsed"),
    [("accuracy", 0.90, 0.88, True), ("mean-per-class", 0.90, 0.88, False), ("mean-per-class", 0.96, 0.5, True)],
)
def test_a_run_collapses_by_the_metric_of_its_task(
    metric: str, accuracy: float, per_class: float, collapsed: bool
) -> None:
    scores = {"final_test_acc": accuracy, "final_test_mean_class_acc": per_class, "chance_acc": 0.95}
    assert make_record(headline_metric=metric, num_classes=2, **scores).collapsed is collapsed
