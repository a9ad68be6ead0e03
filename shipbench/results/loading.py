"""Load the files of a results folder as pandas frames."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from shipbench.errors import InputError
from shipbench.record import NAN, Column, record_columns
from shipbench.results.sealed import as_frame, only_row, read_parquet
from shipbench.results.store import Store, to_record

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def load_results(results: Path | str) -> pd.DataFrame:
    """Return every record of a results folder, one row per run, sorted by suite, method, task and seed.

    Records made by another program may lack columns: an absent text is empty and an absent number NaN, except that an
    absent seed is 0. Raises ``InputError`` if the folder does not exist, and for a record that is unreadable or lacks
    run_id, status, method or task.
    """
    folder = Path(results) / "runs"
    if not folder.is_dir():
        raise InputError(f"there are no results in {results}: it has no 'runs' folder")
    # Some systems keep hidden files of their own beside ours.
    files = [file for file in sorted(folder.glob("*.parquet")) if not file.name.startswith(".")]
    frame = as_frame([_record_table(file) for file in files], folder)
    if frame.empty:
        return frame
    absent = {column.name: _unknown(column) for column in _optional_columns() if column.name not in frame.columns}
    return frame.assign(**absent).sort_values(["suite", "method", "task", "seed", "run_id"], ignore_index=True)


def _record_table(path: Path) -> pa.Table:
    """Return the table of a record; raises ``InputError`` if it is no record even with its absent columns filled in."""
    table = read_parquet(path)
    blanks = {column.name: column.blank for column in _optional_columns()}
    to_record(path, blanks | only_row(path, table))
    return table


def _optional_columns() -> list[Column]:
    return [column for column in record_columns() if "store" not in column.required_by]


def _unknown(column: Column) -> str | int | float:
    """Return what a frame holds in a column that no record has."""
    measured = column.kind != "str" and "report" not in column.required_by
    return NAN if measured else column.blank


def load_history(results: Path | str, run_ids: Iterable[str]) -> pd.DataFrame:
    """Return the histories of runs: run_id, epoch, split, loss, accuracy, learning_rate."""
    return _load_kind("history", results, run_ids)


def load_predictions(results: Path | str, run_ids: Iterable[str]) -> pd.DataFrame:
    """Return the predictions of runs: run_id, index, label, predicted, confidence."""
    return _load_kind("predictions", results, run_ids)


def _load_kind(kind: str, results: Path | str, run_ids: Iterable[str]) -> pd.DataFrame:
    store = Store(results)
    files = [path for run_id in run_ids if (path := store.path(kind, run_id)).exists()]
    return as_frame([read_parquet(file) for file in files], store.root / kind)
