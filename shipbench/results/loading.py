"""Load the files of a results folder as pandas frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from shipbench.errors import InputError
from shipbench.record import Kind, RunRecord, is_null, record_columns
from shipbench.results.sealed import as_frame, is_sealed, only_row, read_parquet, unreadable
from shipbench.results.store import Store, to_record, with_blanks

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


_HISTORY: Mapping[str, Kind] = {
    "run_id": "str",
    "epoch": "int",
    "split": "str",
    "loss": "float",
    "accuracy": "float",
    "learning_rate": "float",
}
_PREDICTIONS: Mapping[str, Kind] = {
    "run_id": "str",
    "index": "int",
    "label": "int",
    "predicted": "int",
    "confidence": "float",
}


def load_results(results: Path | str) -> pd.DataFrame:
    """Return every record of a results folder, one row per run, sorted by suite, method, task and seed.

    The frame has every column of a record, also without rows. Records made by another program may lack columns, hold
    nulls or use other types: an absent text is empty and an absent number NaN, except that an absent seed is 0.
    ``origin`` marks records without a seal. Raises ``InputError`` if the folder does not exist, and for a record that
    is unreadable or lacks run_id, status, method or task.
    """
    folder = Path(results) / "runs"
    if not folder.is_dir():
        raise InputError(f"there are no results in {results}: it has no 'runs' folder")
    # Some systems keep hidden files of their own beside ours.
    files = [file for file in sorted(folder.glob("*.parquet")) if not file.name.startswith(".")]
    kinds = {column.name: column.kind for column in record_columns()}
    frame = as_frame([_without_rows(kinds), *(_record_table(file) for file in files)], folder)
    filled = {name: frame[name].fillna(value).astype(type(value)) for name, value in _never_null().items()}
    return frame.assign(**filled).sort_values(["suite", "method", "task", "seed", "run_id"], ignore_index=True)


def _without_rows(kinds: Mapping[str, Kind]) -> pa.Table:
    """Return a table with typed columns and no rows, which gives every frame the same columns."""
    import pyarrow as pa

    return pa.schema({name: _arrow_type(kind) for name, kind in kinds.items()}).empty_table()


def _arrow_type(kind: Kind) -> pa.DataType:
    import pyarrow as pa

    return {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}[kind]


def _record_table(path: Path) -> pa.Table:
    """Return the table of a record; raises ``InputError`` if it is no record even with its absent columns filled in."""
    table = read_parquet(path)
    record = to_record(path, with_blanks(only_row(path, table)))
    return table if is_sealed(path) else _in_our_types(table, record)


def _in_our_types(table: pa.Table, record: RunRecord) -> pa.Table:
    """Return the table of another program's record with the values and types of ``record`` where it has any."""
    import pyarrow as pa

    values = record.to_row()
    row = table.to_pylist()[0] | {"origin": record.origin}
    columns = {name: table.column(name) for name in table.column_names}
    for column in record_columns():
        if column.name in row:
            value = None if is_null(row[column.name]) else values[column.name]
            columns[column.name] = pa.array([value], _arrow_type(column.kind))
    plain = {name: c.cast(c.type.value_type) if pa.types.is_dictionary(c.type) else c for name, c in columns.items()}
    return pa.table(plain)


def _never_null() -> dict[str, str | int | float]:
    """Return the columns that a record may lack and a frame fills in, with their blanks; measurements stay NaN."""
    optional = (column for column in record_columns() if "store" not in column.required_by)
    return {c.name: c.blank for c in optional if c.kind == "str" or "report" in c.required_by}


def load_history(results: Path | str, run_ids: Iterable[str]) -> pd.DataFrame:
    """Return the histories of runs: run_id, epoch, split, loss, accuracy, learning_rate."""
    return _load_kind("history", results, run_ids, _HISTORY)


def load_predictions(results: Path | str, run_ids: Iterable[str]) -> pd.DataFrame:
    """Return the predictions of runs: run_id, index, label, predicted, confidence."""
    return _load_kind("predictions", results, run_ids, _PREDICTIONS)


def _load_kind(kind: str, results: Path | str, run_ids: Iterable[str], kinds: Mapping[str, Kind]) -> pd.DataFrame:
    store = Store(results)
    tables = [_table_of_run(store, kind, run_id) for run_id in run_ids if store.path(kind, run_id).exists()]
    return as_frame(tables or [_without_rows(kinds)], store.root / kind)


def _table_of_run(store: Store, kind: str, run_id: str) -> pa.Table:
    """Return a table beside a record; raises ``InputError`` if its seal is missing and that of the record is not."""
    path, record = store.path(kind, run_id), store.path("runs", run_id)
    table = read_parquet(path)
    if not is_sealed(path) and record.exists() and is_sealed(record):
        raise unreadable(path, "its seal is missing, so another program has written it")
    return table
