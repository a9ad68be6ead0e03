"""Tables as CSV: plain numbers, with a column per statistic."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

import pandas as pd

from shipbench.report.document import Table

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def table_csv(table: Table) -> str:
    """Return the table as CSV, with unrounded values and a column for every extra, such as a deviation."""
    return _write(*_header_and_rows(table))


def table_rows(table: Table) -> list[dict[str, Any]]:
    """Return what ``table_csv`` writes as one mapping per row; None stands for a missing value."""
    header, rows = _header_and_rows(table)
    return [
        {name: None if _is_missing(value) else value for name, value in zip(header, row, strict=True)} for row in rows
    ]


def _header_and_rows(table: Table) -> tuple[list[str], Iterable[Iterable[Any]]]:
    if table.records is not None:
        return _of_frame(table.records)
    names = [name for column in table.columns for name in column.csv_names]
    rows = []
    for row in table.rows:
        values: list[Any] = []
        for column, cell in zip(table.columns, row.cells, strict=True):
            extras = dict(cell.extras)
            values += [cell.value, *(extras.get(name) for name in column.extras)]
        rows.append([row.owner, *values])
    return ["row", *names], rows


def frame_csv(frame: pd.DataFrame) -> str:
    """Return a frame as CSV, without its index."""
    return _write(*_of_frame(frame))


def _of_frame(frame: pd.DataFrame) -> tuple[list[str], Iterable[Iterable[Any]]]:
    return [str(name) for name in frame.columns], frame.itertuples(index=False, name=None)


def _write(header: list[str], rows: Iterable[Iterable[Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([_safe(name) for name in header])
    writer.writerows([_safe(value) for value in row] for row in rows)
    return stream.getvalue()


def _safe(value: Any) -> Any:
    """Blank missing values, and quote texts that a spreadsheet would read as formulas."""
    if _is_missing(value):
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA_STARTS) else value
    return value


def _is_missing(value: Any) -> bool:
    return value is None or bool(pd.api.types.is_scalar(value) and pd.isna(value))
