"""What the commands of ``shipbench list`` share: rows as a table, JSON or CSV, with all columns or chosen ones."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any, TypeAlias

import typer

from shipbench.cli import completion
from shipbench.cli.documents import machine_readable, print_rows, print_text
from shipbench.cli.layout import make_table, printable
from shipbench.cli.options import options_command
from shipbench.errors import InputError, did_you_mean
from shipbench.runtime.console import out_console
from shipbench.settings import comma_list

Row: TypeAlias = dict[str, Any]
Rows: TypeAlias = Sequence[Row]
Names: TypeAlias = Sequence[str] | None
Cells: TypeAlias = Callable[[Row], dict[str, str]]


def in_words(row: Row) -> dict[str, str]:
    """Return the values of a row as text, empty if unknown."""
    return {name: _in_words(value) for name, value in row.items()}


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return "; ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


@dataclass(frozen=True)
class Listing:
    """The content of a list: ``rows``, which JSON shows, and ``table`` and ``csv`` where those show other rows.

    With ``--columns``, the table may have columns of ``rows`` too. ``cells`` returns the text that it shows of a row.
    ``after`` prints what follows the table, given the chosen columns or None. ``header`` is that of a CSV without rows.
    """

    rows: Rows
    after: Callable[[Names], None]
    table: Rows | None = None
    csv: Rows | None = None
    cells: Cells = in_words
    header: Sequence[str] = ()


@dataclass(frozen=True)
class ListOptions:
    """The options of every list."""

    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Columns to show, comma-separated, in this order; --json shows their names.",
            autocompletion=completion.columns,
        ),
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False

    def __post_init__(self) -> None:
        """Raise ``InputError`` for two formats."""
        if self.as_json and self.as_csv:
            raise InputError("--json and --csv cannot be combined; give one of them")

    def show(self, listing: Listing, name: str) -> None:
        """Print the list ``name``."""
        names = None if self.columns is None else comma_list(self.columns)
        if self.as_json:
            print_rows(chosen(listing.rows, names, f"{name} --json"))
        elif self.as_csv:
            rows = listing.rows if listing.csv is None else listing.csv
            print_text(_csv(chosen(rows, names, f"{name} --csv"), names or listing.header))
        else:
            rows = listing.rows if listing.table is None else listing.table
            if names is not None:
                rows = [shown | row for shown, row in zip(rows, listing.rows, strict=True)]
            show_table(chosen(rows, names, f"{name} --json"), listing.cells)
            listing.after(names)


def chosen(rows: Rows, names: Names, everything: str) -> Rows:
    """Return rows with the columns ``names`` alone, or as they are for None.

    Raises ``InputError`` for a name that no row has; the list ``everything`` shows every column.
    """
    if names is None:
        return rows
    every = f"'shipbench list {everything}' shows every column"
    if not names:
        raise InputError(f"--columns is empty; {every}")
    for name in names if rows else []:
        if name not in rows[0]:
            raise InputError(f"--columns: there is no column {name!r}{did_you_mean(name, rows[0])}; {every}")
    return [{name: row[name] for name in names} for row in rows]


def show_table(rows: Rows, cells: Cells = in_words) -> None:
    """Print rows as a table of their ``cells``."""
    shown = [cells(row) for row in rows]
    table = make_table(*(shown[0] if shown else ["nothing to list"]))
    for row in shown:
        table.add_row(*map(printable, row.values()))
    out_console().print(table)


def _csv(rows: Rows, header: Sequence[str]) -> str:
    """Return rows as CSV: one line each, without control characters, and ``header`` if there are none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0] if rows else header)
    writer.writerows(map(printable, in_words(row).values()) for row in rows)
    return text.getvalue()


def list_command(command: Callable[..., Listing]) -> Callable[..., None]:
    """Turn a function that returns a listing into the command that prints it, with ``ListOptions``."""

    @wraps(command)
    def show_listing(options: ListOptions, **values: Any) -> None:
        with machine_readable(document=options.as_json or options.as_csv, lines=False):
            options.show(command(**values), command.__name__)

    return options_command(ListOptions)(show_listing)
