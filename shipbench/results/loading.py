"""Read the records of a results folder back as pandas frames."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shipbench.errors import InputError
from shipbench.record import NAN, RunRecord
from shipbench.results.sealed import as_frame, only_row, read_parquet
from shipbench.results.store import Store, to_record

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


_ESSENTIAL = ("run_id", "status", "method", "task")


def _record_table(path: Path) -> pa.Table:
    """Return the table of a record that may lack columns, as one from elsewhere does that was made into records."""
    table = read_parquet(path)
    to_record(path, _blank_row() | only_row(path, table))
    return table


def _blank_row() -> dict[str, Any]:
    """Return what stands in for columns that a record from elsewhere may lack."""
    kinds: dict[str, Any] = {"str": "", "int": 0}
    names = {c.name: str(c.type) for c in fields(RunRecord) if c.default is MISSING and c.name != "settings"}
    return {"config": "{}"} | {name: kinds[kind] for name, kind in names.items() if name not in _ESSENTIAL}


def load_results(results: Path | str) -> pd.DataFrame:
    """Return every record of a results folder, one row per run, sorted by suite, method, task and seed.

    Records from elsewhere may lack columns, but not run_id, status, method and task. Raises ``InputError`` if the
    folder does not exist, and for a record that cannot be read.
    """
    folder = Path(results) / "runs"
    if not folder.is_dir():
        raise InputError(f"there are no results in {results}: it has no 'runs' folder")
    # Other systems leave hidden files of their own beside ours.
    files = [file for file in sorted(folder.glob("*.parquet")) if not file.name.startswith(".")]
    frame = as_frame([_record_table(file) for file in files], folder)
    if frame.empty:
        return frame
    defaults: dict[str, Any] = _blank_row() | {c.name: c.default for c in fields(RunRecord) if c.default is not MISSING}
    unknown = {
        name: default if isinstance(default, str) or name == "seed" else NAN for name, default in defaults.items()
    }
    absent = {name: value for name, value in unknown.items() if name not in frame.columns}
    return frame.assign(**absent).sort_values(["suite", "method", "task", "seed", "run_id"], ignore_index=True)


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
