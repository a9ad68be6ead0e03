"""``shipbench list runs``: the records of a results folder, in few columns that fit a terminal or in all columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from shipbench.cli import next_steps
from shipbench.cli.layout import printable
from shipbench.cli.rows import Listing, Names, Row
from shipbench.record import ACCURACY, IMPORTED, MEAN_PER_CLASS, SHIPBENCH, TRAINED, record_columns

_ACCURACIES = ("val %", "test %", "stated %", "best epoch %")
# Runs that agree in these differ in settings.
_IDENTITY = ("method", "switches", "task", "seed", "protocol", "shots", "kind", "corruption", "severity", "source")


def list_records(results: Path, prefixes: Sequence[str]) -> Listing:
    """Return the list of the runs of a folder; only of those that ``prefixes`` name, if any."""
    rows = _records(results, prefixes)

    def after(names: Names) -> None:
        if names is None:
            _show_errors(rows)
        if any((row["kind"], row["status"], row["origin"]) == (TRAINED, "done", SHIPBENCH) for row in rows):
            next_steps.after_list_runs(results)

    header = [column.name for column in record_columns()]
    return Listing(rows, after, table=_overview(rows), cells=_cells, header=header)


def _overview(rows: Sequence[Row]) -> list[Row]:
    """Return few columns that fit a terminal.

    Overrides are shown only if two runs differ in nothing else that is shown, origins only if a record has no seal,
    kinds only if not every record is that of a training, metrics only if one is not the accuracy over images, and shots
    only if there are few-shot runs.
    """
    identities = {tuple(row[name] for name in _IDENTITY) for row in rows}
    varied = ["overrides"] if len(identities) < len(rows) else []
    kind = any(row["kind"] != TRAINED for row in rows)
    shots = ["shots"] if any(row["shots"] for row in rows) else []
    origin = ["origin"] if any(row["origin"] != SHIPBENCH for row in rows) else []
    metric = any(row["headline_metric"] != ACCURACY for row in rows)
    accuracies = [dict(zip(_ACCURACIES, _accuracies(row), strict=True)) for row in rows]
    known = [name for name in _ACCURACIES if any(of_row[name] is not None for of_row in accuracies)]
    return [
        {
            "run_id": row["run_id"],
            "status": row["status"],
            "method": f"{row['method']} [{row['switches']}]" if row["switches"] else row["method"],
            **({"kind": _kind(row)} if kind else {}),
            **{name: row[name] for name in ("task", "seed", *shots, *varied, *origin)},
            **({"metric": row["headline_metric"]} if metric else {}),
            **{name: _percent(of_row[name]) for name in known},
        }
        for row, of_row in zip(rows, accuracies, strict=True)
    ]


def _accuracies(row: Row) -> tuple[float | None, ...]:
    """Return the accuracies of a record by its metric, in the order of ``_ACCURACIES``; None if unknown.

    Results of another harness may state that of the best epoch alone.
    """
    suffix = "_mean_class_acc" if row["headline_metric"] == MEAN_PER_CLASS else "_acc"
    test = row[f"final_test{suffix}"]
    best = row["best_test_acc"] if row["kind"] == IMPORTED and test is None else None
    return row[f"val{suffix}"], test, row["stated_acc"], best


def _kind(row: Row) -> str:
    """Return the kind of a record, for an evaluation with its corruption."""
    return f"{row['kind']}, {row['corruption']} {row['severity']}" if row["corruption"] else str(row["kind"])


def _show_errors(rows: Sequence[Row]) -> None:
    for row in rows:
        if row["status"] == "failed":
            typer.echo(printable(f"{row['run_id']} failed: {row['error']}"))


def _records(results: Path, prefixes: Sequence[str]) -> list[Row]:
    """Return the records of a folder as rows, unknown values as None; only those that ``prefixes`` name, if any."""
    from shipbench.results.loading import load_rows
    from shipbench.results.lookup import find_run

    rows = load_rows(results)
    chosen = {find_run(results, prefix) for prefix in prefixes}
    return [row for row in rows if row["run_id"] in chosen] if chosen else rows


def _cells(row: Row) -> dict[str, str]:
    return {_heading(name): _text(name, value) for name, value in row.items()}


def _heading(name: str) -> str:
    return f"{name} %" if _is_accuracy(name) else name


def _is_accuracy(name: str) -> bool:
    return name.endswith("_acc")


def _text(name: str, value: Any) -> str:
    """Return a value of a record for people: an accuracy in percent, and nothing for an unknown value."""
    if value is None or (name in ("best_test_epoch", "seed") and value < 0):
        return ""
    if _is_accuracy(name):
        return _percent(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _percent(accuracy: float | None) -> str:
    return "" if accuracy is None else f"{100 * accuracy:.1f}"
