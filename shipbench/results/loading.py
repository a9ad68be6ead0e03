"""Load the files of a results folder as pandas frames."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from shipbench.errors import InputError
from shipbench.recipe import Recipe
from shipbench.record import Kind, RunRecord, is_null, record_columns
from shipbench.results.lookup import Folders, folder_list, run_ids
from shipbench.results.sealed import (
    StoredRow,
    as_frame,
    is_sealed,
    not_together,
    read_row,
    read_table,
    unreadable,
)
from shipbench.results.store import Store, to_record, with_blanks
from shipbench.settings import field_names

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
_OF_THE_RECIPE = frozenset(f"cfg.{name}" for name in field_names(Recipe))
Row: TypeAlias = dict[str, Any]
_ORDER = ("suite", "method", "task", "seed", "run_id")


def load_results(results: Folders) -> pd.DataFrame:
    """Return every record of a results folder, one row per run, sorted by suite, method, task and seed.

    Of several folders, all records are rows of one frame. A run that more than one of them holds is one row: of the
    first folder in which it is done, else of the first.
    The frame has every column of a record, also without rows. Records made by another program may lack columns, hold
    nulls or use other types: an absent text is empty and an absent number NaN, except that an absent seed is 0.
    A setting that is a number for one method and a text or a switch for another keeps its values as they are.
    ``origin`` marks records without a seal. Raises ``InputError`` if the folder does not exist, and for a record that
    is unreadable or lacks run_id, status, method or task.
    """
    import pandas as pd

    where, files = _record_files(results)
    rows: list[Row] = []
    tables: list[pa.Table] = []
    for file in files:
        stored, record = _read_record(file)
        if stored.sealed:
            rows.append(stored.values)
        else:
            tables.append(_in_our_types(read_table(file).table, record))
    every = [*rows, *(table.to_pylist()[0] for table in tables)]
    mixed = sorted(filter(_is_of_a_method, _of_several_types(every)))
    frame = as_frame([_as_table(rows, where, mixed), *(_without(table, mixed) for table in tables)], where)
    settings = {name: pd.Series([row.get(name) for row in every], dtype=object) for name in mixed}
    filled = {name: frame[name].fillna(value).astype(type(value)) for name, value in _never_null().items()}
    return frame.assign(**settings, **filled).sort_values(list(_ORDER), ignore_index=True)


def load_rows(results: Path | str) -> list[Row]:
    """Return the rows of ``load_results`` as dictionaries with None for absent values and NaN.

    Importing pandas takes longer than reading a thousand records, so this does without if all of them are sealed.
    Raises ``InputError`` as ``load_results`` does.
    """
    _, files = _record_files(results)
    records = [_read_record(file)[0] for file in files]
    if all(r.sealed for r in records) and all(map(_is_of_a_method, _of_several_types(r.values for r in records))):
        names = dict.fromkeys([c.name for c in record_columns()] + [name for r in records for name in r.values])
        blanks: Row = dict.fromkeys(names)
        rows = [blanks | _never_null() | {k: v for k, v in r.values.items() if not is_null(v)} for r in records]
        return sorted(rows, key=lambda row: tuple(row[name] for name in _ORDER))
    frame = load_results(results).to_dict(orient="records")
    return [{str(name): None if is_null(value) else value for name, value in row.items()} for row in frame]


def _of_several_types(rows: Iterable[Row]) -> set[str]:
    """Return the columns that have values of several types; whole numbers count as floats."""
    types: dict[str, type] = {}
    several = set()
    for row in rows:
        for name, value in row.items():
            kind = float if type(value) is int else type(value)
            if not is_null(value) and types.setdefault(name, kind) is not kind:
                several.add(name)
    return several


def _is_of_a_method(name: str) -> bool:
    """Return whether a column is a setting that methods name as they like; those of the recipe have one type."""
    return name.startswith("cfg.") and name not in _OF_THE_RECIPE


def _record_files(results: Folders) -> tuple[str, list[Path]]:
    """Return where the records lie, for messages, and their files; raises ``InputError`` if a folder does not exist."""
    stores = _stores(results)
    for store in stores:
        if not (store.root / "runs").is_dir():
            raise InputError(
                f"there are no results in {store.root}: it has no 'runs' folder; name another folder, or start with "
                "'shipbench run'"
            )
    ids = dict.fromkeys(run_id for store in stores for run_id in run_ids(store.root))
    where = ", ".join(str(store.root / "runs") for store in stores)
    return where, [_holder(stores, run_id).path("runs", run_id) for run_id in ids]


def _stores(results: Folders) -> list[Store]:
    return [Store(folder) for folder in folder_list(results)]


def _holder(stores: Sequence[Store], run_id: str) -> Store:
    """Return the store that counts for a run: the first in which it is done, else the first that has its record."""
    if len(stores) == 1:
        return stores[0]
    holding = [store for store in stores if store.path("runs", run_id).exists()] or stores
    return holding[0] if len(holding) == 1 else next((s for s in holding if s.status(run_id) == "done"), holding[0])


def _read_record(path: Path) -> tuple[StoredRow, RunRecord]:
    """Return a record and its row; raises ``InputError`` if it is none even with its absent columns filled in."""
    row = read_row(path)
    return row, to_record(path, StoredRow(with_blanks(row.values), row.sealed))


def _as_table(rows: Sequence[Row], where: str, left_out: Collection[str]) -> pa.Table:
    """Return sealed rows as one table, with the columns of a record first and those of the settings after them."""
    import pyarrow as pa

    types = {column.name: _arrow_type(column.kind) for column in record_columns()}
    names = dict.fromkeys([*types, *(name for row in rows for name in row if name not in left_out)])
    try:
        return pa.table({name: pa.array([row.get(name) for row in rows], types.get(name)) for name in names})
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise not_together(where, error) from error


def _without(table: pa.Table, names: Collection[str]) -> pa.Table:
    return table.select([name for name in table.column_names if name not in names])


def _without_rows(kinds: Mapping[str, Kind]) -> pa.Table:
    """Return a table with typed columns and no rows, which gives every frame the same columns."""
    import pyarrow as pa

    return pa.schema({name: _arrow_type(kind) for name, kind in kinds.items()}).empty_table()


def _arrow_type(kind: Kind) -> pa.DataType:
    import pyarrow as pa

    return {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}[kind]


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


def load_history(results: Folders, run_ids: Iterable[str]) -> pd.DataFrame:
    """Return the histories of runs, once for each: run_id, epoch, split, loss, accuracy, learning_rate."""
    return _load_kind("history", results, run_ids, _HISTORY)


def load_predictions(results: Folders, run_ids: Iterable[str]) -> pd.DataFrame:
    """Return the predictions of runs, once for each: run_id, index, label, predicted, confidence.

    The run id is a category unless another program has written all of them.
    """
    return _load_kind("predictions", results, run_ids, _PREDICTIONS, repeated="run_id")


def load_features(results: Folders, run_id: str) -> pd.DataFrame | None:
    """Return the stored features of a run's test images (run_id, index, label, f0, f1, ...); None if it has none."""
    store = _holder(_stores(results), run_id)
    if not store.path("features", run_id).exists():
        return None
    return as_frame([_table_of_run(store, "features", run_id)], str(store.root / "features"))


def _load_kind(
    kind: str, results: Folders, run_ids: Iterable[str], kinds: Mapping[str, Kind], repeated: str = ""
) -> pd.DataFrame:
    stores = _stores(results)
    holders = {run_id: _holder(stores, run_id) for run_id in run_ids}
    stored = ((store, run_id) for run_id, store in holders.items() if store.path(kind, run_id).exists())
    tables = [_table_of_run(store, kind, run_id, repeated) for store, run_id in stored]
    return as_frame(tables or [_without_rows(kinds)], ", ".join(str(store.root / kind) for store in stores))


def _table_of_run(store: Store, kind: str, run_id: str, repeated: str = "") -> pa.Table:
    """Return a table beside a record; raises ``InputError`` if its seal is missing and that of the record is not."""
    path, record = store.path(kind, run_id), store.path("runs", run_id)
    stored = read_table(path, repeated=repeated)
    if not stored.sealed and record.exists() and is_sealed(record):
        raise unreadable(path, "its seal is missing, so another program has written it")
    return stored.table
