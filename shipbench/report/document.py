"""What a report consists of: cells, tables, figures and sections, before any format is chosen."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as MplFigure

Mark: TypeAlias = Literal["", "best", "second"]
RowKind: TypeAlias = Literal["ours", "published", "difference"]
MISSING = "–"  # noqa: RUF001
_NUMBER = re.compile(r"[<+\N{MINUS SIGN}]?[\d,]+(\.\d+)?")


@dataclass(frozen=True)
class Cell:
    """One cell: ``text``, its ``sign`` and a small ``below`` for people, ``value`` and ``extras`` for the CSV."""

    text: str = ""
    below: str = ""
    value: float | int | str | None = None
    extras: tuple[tuple[str, float | None], ...] = ()
    mark: Mark = ""
    sign: str = ""


@dataclass(frozen=True)
class Column:
    """One column: its key in the CSV, its printed title, and the group header it stands under."""

    key: str
    title: str
    group: str = ""
    align: Literal["left", "right", "center"] = "right"
    upright: bool = False
    extras: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """The cells of one row; a rule above it starts a new part of the table."""

    cells: tuple[Cell, ...]
    kind: RowKind = "ours"
    rule: bool = False


@dataclass(frozen=True)
class Table:
    """A table in no particular format; ``warnings`` say what it mixes, ``records`` replaces its rows in the CSV."""

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    long: bool = False
    records: pd.DataFrame | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Figure:
    """A figure that is drawn when it is needed; ``alt`` says in words what it shows."""

    name: str
    title: str
    caption: str
    draw: Callable[[], MplFigure]
    alt: str
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """A headed part of the report."""

    anchor: str
    title: str
    items: tuple[Table | Figure, ...]


@dataclass(frozen=True)
class Report:
    """Everything a report says: facts, warnings and the protocol first, then sections, and all results in long form."""

    title: str
    lead: str
    facts: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    sections: tuple[Section, ...]
    results: pd.DataFrame
    command: str = ""
    protocol: tuple[tuple[str, str], ...] = ()

    def tables(self) -> Iterable[Table]:
        """Yield the tables in reading order."""
        return (item for section in self.sections for item in section.items if isinstance(item, Table))

    def figures(self) -> Iterable[Figure]:
        """Yield the figures in reading order."""
        return (item for section in self.sections for item in section.items if isinstance(item, Figure))


def decimal_padding(table: Table) -> list[list[str]]:
    """Return per row and column the invisible text after a number that puts decimal points one under another."""
    columns = [
        _padding([row.cells[i].text for row in table.rows], column.align) for i, column in enumerate(table.columns)
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def _padding(texts: Sequence[str], align: str) -> list[str]:
    found = [_NUMBER.fullmatch(text) if align == "right" else None for text in texts]
    widest = max((len(match[1] or "") for match in found if match), default=0)
    shown = [match[1] or "" if match else None for match in found]
    return ["" if part is None else f".{'0' * widest}"[len(part) : widest] for part in shown]


def text_cell(text: str) -> Cell:
    """Return a cell that prints and exports the same text."""
    return Cell(text=text, value=text)
