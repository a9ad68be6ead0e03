"""The schema of the record: one declaration per column, from which every list of columns follows."""

from __future__ import annotations

from typing import get_args

from shipbench.record import Topic, record_columns
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
