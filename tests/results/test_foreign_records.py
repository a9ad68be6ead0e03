"""Records without a seal: read in the types of the schema, marked, and never taken for records of shipbench."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from shipbench.errors import InputError
from shipbench.record import record_columns
from shipbench.report import build_report, main_table
from shipbench.results.loading import load_history, load_predictions, load_results
from shipbench.results.store import RunTables, Store
from tests.conftest import Outcome
from tests.report.builders import grid, make_results
from tests.results.test_store import make_record

OURS = make_record(shipbench_version="0.1.0", git_commit="0123456789abcdef", trainable_params=7, total_params=9)
ESSENTIAL: dict[str, Any] = {"run_id": "a1", "status": "done", "method": "ship", "task": "dtd", "final_test_acc": 0.5}


def write_foreign(folder: Path, **changes: Any) -> Path:
    """Write a record of another program: the essential columns, and ``changes``."""
    row = ESSENTIAL | changes
    path = folder / "runs" / f"{row['run_id']}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame([row]).to_parquet(path, index=False)
    return path


def rewrite(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    change(pd.read_parquet(path)).to_parquet(path, index=False)


def accuracy_99(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(final_test_acc=0.99)


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("error", None, ""),
        ("switches", float("nan"), ""),
        ("seed", 3.0, 3),
        ("seed", None, 0),
        ("seed", np.int8(3), 3),
        ("seed", Decimal(3), 3),
        ("trainable_params", 12.0, 12),
        ("final_test_acc", 1, 1.0),
        ("final_test_acc", np.float32(0.5), 0.5),
        ("final_test_acc", Decimal("0.5"), 0.5),
        ("created", pd.Timestamp("2025-03-01T12:00:00Z"), "2025-03-01T12:00:00+00:00"),
        ("created", pd.Timestamp("2025-03-01T12:00:00.000000001"), "2025-03-01T12:00:00.000000001"),
        ("created", datetime(2025, 3, 1, 12, tzinfo=timezone.utc), "2025-03-01T12:00:00+00:00"),
        ("created", pd.NaT, ""),
        ("train_seconds", pd.Timedelta("90s"), 90.0),
        ("method", pd.Categorical(["ship"])[0], "ship"),
    ],
)
def test_types_of_pandas_are_read_as_those_of_the_schema(
    tmp_path: Path, column: str, value: Any, expected: Any
) -> None:
    write_foreign(tmp_path, **{column: value})
    Store(tmp_path).write(make_record(run_id="b2", seed=9))
    frame = load_results(tmp_path).set_index("run_id")
    assert frame.loc["a1", column] == expected
    record = Store(tmp_path).read("a1")
    assert record is not None
    kind = next(column_.kind for column_ in record_columns() if column_.name == column)
    if column in ("seed", "created", "final_test_acc"):
        assert (getattr(record, column), type(getattr(record, column)).__name__) == (expected, kind)


@pytest.mark.parametrize("extra", [pd.Timestamp("2025-03-01"), pd.Timedelta("1s"), None, [1, 2], True])
def test_columns_of_another_program_may_have_any_type(tmp_path: Path, extra: Any) -> None:
    write_foreign(tmp_path, finished=extra, other=pd.Series(["x"], dtype="category")[0])
    Store(tmp_path).write(make_record(run_id="b2"))
    assert len(load_results(tmp_path)) == 2


def test_a_categorical_column_joins_texts(tmp_path: Path) -> None:
    path = write_foreign(tmp_path, group="Natural", **{"cfg.kind": "a"})
    rewrite(path, lambda frame: frame.astype({"group": "category", "cfg.kind": "category", "method": "category"}))
    Store(tmp_path).write(make_record(run_id="b2", settings={"kind": "b"}))
    assert list(load_results(tmp_path)["cfg.kind"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("seed", 0.5, "column seed is 0.5, expected int"),
        ("seed", 1e300, "column seed is 1e+300, expected int"),
        ("seed", "0", "column seed is '0', expected int"),
        ("seed", True, "column seed is True, expected int"),
        ("method", None, "column method is missing"),
        ("created", 5, "column created is 5, expected str"),
        ("train_seconds", pd.Timestamp("2025-03-01"), "column train_seconds is "),
    ],
)
def test_values_that_a_column_cannot_hold_are_refused(tmp_path: Path, column: str, value: Any, words: str) -> None:
    write_foreign(tmp_path, **{column: value})
    with pytest.raises(InputError, match=rf"a1\.parquet cannot be read .*{words.replace('+', '[+]')}"):
        load_results(tmp_path)


def test_the_columns_have_the_same_types_beside_foreign_records(tmp_path: Path) -> None:
    Store(tmp_path).write(OURS)
    write_foreign(tmp_path, run_id="b2", seed=1.0, created=pd.Timestamp("2025-03-01"), group=None)
    frame = load_results(tmp_path).set_index("run_id")
    assert frame.loc[["a1", "b2"], "seed"].tolist() == [0, 1]
    assert frame["seed"].dtype == np.int64
    assert frame.loc["b2", ["group", "switches", "device", "config"]].tolist() == ["", "", "", "{}"]
    assert np.isnan(frame.loc["b2", "trainable_params"])
    assert frame.loc["a1", "trainable_params"] == 7


def test_a_folder_without_runs_has_every_column_in_its_type(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    empty = load_results(tmp_path)
    Store(tmp_path).write(OURS)
    full = load_results(tmp_path)
    assert len(empty) == 0
    assert list(empty.columns) == [name for name in full.columns if not name.startswith("cfg.")]
    assert empty.dtypes.to_dict() == full[empty.columns].dtypes.to_dict()
    assert empty.groupby(["method", "task"])["final_test_acc"].mean().empty
    assert len(main_table(empty)) == 0


def test_runs_without_tables_have_the_columns_of_tables(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(OURS)
    history, predictions = load_history(tmp_path, ["a1"]), load_predictions(tmp_path, [])
    assert list(history) == ["run_id", "epoch", "split", "loss", "accuracy", "learning_rate"]
    assert list(predictions) == ["run_id", "index", "label", "predicted", "confidence"]
    assert (len(history), len(predictions)) == (0, 0)
    assert predictions["label"].dtype == np.int64
    assert history["loss"].dtype == np.float64


def test_origins_follow_from_the_seal(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for run_id in ("a1", "b2"):
        store.write(replace(OURS, run_id=run_id))
    rewrite(store.path("runs", "b2"), accuracy_99)
    write_foreign(tmp_path, run_id="c3")
    write_foreign(tmp_path, run_id="d4", origin="osu")
    write_foreign(tmp_path, run_id="e5", origin="shipbench")
    write_foreign(tmp_path, run_id="f6", git_commit="0123456789abcdef", origin="osu")
    origins = dict(load_results(tmp_path).set_index("run_id")["origin"])
    assert origins == {
        "a1": "shipbench",
        "b2": "unsealed",
        "c3": "elsewhere",
        "d4": "osu",
        "e5": "elsewhere",
        "f6": "unsealed",
    }


def test_a_record_that_lost_its_seal_skips_no_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(OURS)
    rewrite(store.path("runs", "a1"), lambda frame: frame)
    with pytest.raises(InputError, match=r"a1\.parquet cannot be read \(its seal is missing, .*; move it away"):
        store.status("a1")


@pytest.mark.parametrize("kind", ["history", "predictions"])
def test_a_table_without_a_seal_beside_a_sealed_record_is_refused(tmp_path: Path, kind: str) -> None:
    store = Store(tmp_path)
    store.write(OURS, RunTables({"epoch": [0]}, {"index": [0], "label": [1]}))
    rewrite(store.path(kind, "a1"), lambda frame: frame)
    load = load_history if kind == "history" else load_predictions
    with pytest.raises(InputError, match=rf"{kind}/a1\.parquet cannot be read \(its seal is missing"):
        load(tmp_path, ["a1"])
    rewrite(store.path("runs", "a1"), lambda frame: frame.assign(shipbench_version="", git_commit=""))
    assert len(load(tmp_path, ["a1"])) == 1


def mixed_records(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    """Return records of SHIP and a linear probe of two seeds, and further ones of SHIP that another program changed."""
    store = Store(folder)
    for seed in (0, 1):
        for method in ("ship", "linear"):
            store.write(replace(OURS, run_id=f"{method}{seed}", method=method, seed=seed))
        store.write(replace(OURS, run_id=f"foreign{seed}", seed=seed))
        rewrite(store.path("runs", f"foreign{seed}"), change)
    return load_results(folder)


@pytest.mark.parametrize(
    ("change", "label", "words"),
    [
        (accuracy_99, "SHIP (unsealed records)", "¶ Unsealed records: 2 runs (SHIP) have lost the seal"),
        (
            lambda frame: accuracy_99(frame).assign(shipbench_version="", git_commit=""),
            "SHIP (records from elsewhere)",
            "¶ Records from elsewhere: 2 runs (SHIP) were recorded by another program",
        ),
    ],
)
def test_records_without_a_seal_are_marked_in_every_table_and_never_averaged_with_ours(
    tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], label: str, words: str
) -> None:
    frame = mixed_records(tmp_path, change)
    numbers = main_table(frame)["dtd"]
    assert numbers["SHIP"] == pytest.approx(62.5)
    assert numbers[label] == pytest.approx(99)
    report = build_report(frame)
    assert any(warning.startswith(words) for warning in report.warnings)
    names = set()
    for table in report.tables():
        labels = [row.cells[0] for row in table.rows if row.kind == "ours" and row.cells[0].value == label]
        if labels:
            names.add(table.name)
            assert [cell.text for cell in labels] == [f"{label} ¶"] * len(labels), table.name
            assert any(warning.startswith(words) for warning in table.warnings), table.name
    assert {"main-vtab-1k", "cost-vtab-1k"} <= names
    (settings,) = (table for table in report.tables() if table.name == "settings")
    assert any(warning.startswith(words) for warning in settings.warnings)
    assert set(report.results["origin"]) == {"shipbench", frame.loc[frame["run_id"] == "foreign0", "origin"].item()}


@pytest.mark.parametrize(
    ("origin", "warning"), [("unsealed", "Unsealed records: 8 runs"), ("elsewhere", "Records from elsewhere: 8 runs")]
)
def test_a_main_table_says_that_its_records_have_no_seal(origin: str, warning: str) -> None:
    runs = grid(("linear", "ship"), ("dtd", "svhn"), (0, 1))
    assert main_table(make_results(runs)).attrs["warnings"] == []
    table = main_table(make_results([{**run, "origin": origin} for run in runs]))
    assert list(table.index) == ["Linear probe", "SHIP"]
    assert [warning in sentence for sentence in table.attrs["warnings"]] == [True]


def test_records_with_a_seal_are_not_marked(tmp_path: Path) -> None:
    report = build_report(mixed_records(tmp_path, accuracy_99).query("origin == 'shipbench'"))
    assert "¶" not in str(list(report.tables()))
    assert report.warnings == ()


def test_a_list_of_runs_shows_origins_where_a_seal_is_missing(
    shipbench: Callable[..., Outcome], tmp_path: Path
) -> None:
    Store(tmp_path).write(OURS)
    assert "origin" not in shipbench("list", "runs", "--results", tmp_path).out
    rewrite(Store(tmp_path).path("runs", "a1"), accuracy_99)
    out = shipbench("list", "runs", "--results", tmp_path).out
    assert "origin" in out
    assert "unsealed" in out
