"""The parts of a report, independent of any format: cells, tables, figures and sections."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import pandas as pd

    from shipbench.report.drawing.chart import Chart, Key
    from shipbench.report.drawing.shapes import Drawing

_STYLES = {"best": "font-weight: bold", "second": "text-decoration: underline"}
Mark: TypeAlias = Literal["", "best", "second"]
RowKind: TypeAlias = Literal["ours", "imported", "published", "difference", "settings"]
_CLEAR_GROUPS = ("", "Natural", "Specialized", "Structured", "Parts", "Means")
"""Group headers without which the titles below are clear."""
MISSING = "–"  # noqa: RUF001
# No label has it, because no format prints it.
_BETWEEN_KEYS = "\u2028"
_NUMBER = re.compile(r"[<+\N{MINUS SIGN}]?[\d,]+(\.\d+)?")


@dataclass(frozen=True)
class Cell:
    """A table cell: ``text``, ``sign`` and a small ``below`` are printed; ``value`` and ``extras`` go to the CSV.

    ``imported`` says that the cell names results of another harness.
    """

    text: str = ""
    below: str = ""
    value: float | int | str | None = None
    extras: tuple[tuple[str, float | None], ...] = ()
    mark: Mark = ""
    sign: str = ""
    imported: bool = False


@dataclass(frozen=True)
class Column:
    """A table column: its key in the CSV, its printed title, and the group header above it.

    A column without values is not printed, unless ``keep`` says that its empty cells mean something. ``kind`` says what
    gives the column its name, such as a task; it is empty for a column that is always there.
    """

    key: str
    title: str
    group: str = ""
    align: Literal["left", "right", "center"] = "right"
    upright: bool = False
    extras: tuple[str, ...] = ()
    keep: bool = False
    kind: str = ""

    @property
    def csv_names(self) -> tuple[str, ...]:
        """Its columns in the CSV: the key, then one for each extra."""
        return (self.key, *(f"{self.key} {extra}" for extra in self.extras))

    @property
    def heading(self) -> str:
        """Its title where no group header stands above it."""
        return self.title if self.group in _CLEAR_GROUPS else f"{self.group}: {self.title}"


def distinct(columns: Sequence[Column]) -> tuple[Column, ...]:
    """Return ``columns`` with names of their own, in print and in the CSV.

    A column with a ``kind`` gives way to those without one and to earlier ones: a task called "method" is the column
    "method (task)".
    """
    taken = {"row"}.union(*(_names(column) for column in columns if not column.kind))
    result = []
    for column in columns:
        while column.kind and taken & _names(column):
            mark = f" ({column.kind})"
            column = replace(column, key=column.key + mark, title=column.title + mark)
        taken |= _names(column)
        result.append(column)
    return tuple(result)


def _names(column: Column) -> set[str]:
    return {column.title, *column.csv_names}


@dataclass(frozen=True)
class Row:
    """A table row; ``rule`` draws a line above it, which starts a new part of the table.

    ``key`` names the series of figures that it belongs to, if its label is not that of a row of the main tables.
    """

    cells: tuple[Cell, ...]
    kind: RowKind = "ours"
    rule: bool = False
    key: str = ""

    @property
    def owner(self) -> RowKind:
        """Whose results it holds: its kind, or "imported" for imported results that are laid out like ours."""
        is_imported = self.kind == "ours" and any(cell.imported for cell in self.cells)
        return "imported" if is_imported else self.kind


@dataclass(frozen=True)
class Caption:
    """A caption: at most two sentences of ``text``, ``details`` for readers who ask how the numbers were made.

    ``standing`` holds what applies to all of a report; a page says it once, a table on its own needs it.
    """

    text: str
    details: str = ""
    standing: str = ""

    @property
    def alone(self) -> str:
        """The caption of a table or figure that stands outside the report."""
        return " ".join(part for part in (self.text, self.details, self.standing) if part)


@dataclass(frozen=True)
class Table:
    """A table; ``warnings`` are cautions about its runs, ``records`` replaces its rows in the CSV."""

    name: str
    title: str
    caption: Caption
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    long: bool = False
    records: pd.DataFrame | None = field(default=None, compare=False)

    def _repr_html_(self) -> str:
        """Return the table for notebooks, with its title, caption and notes."""
        printed = without_empty_columns(self)
        header = "".join(f"<th>{escape(column.heading)}</th>" for column in printed.columns)
        rows = "".join(f"<tr>{''.join(map(_html_cell, row.cells))}</tr>" for row in printed.rows)
        notes = "".join(f"<p>{escape(note)}</p>" for note in (*self.warnings, *self.notes))
        caption = f"<caption><b>{escape(self.title)}.</b> {escape(self.caption.text)}</caption>"
        return f"<table>{caption}<thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>{notes}"


@dataclass(frozen=True)
class Figure:
    """A figure whose chart ``draw`` returns on demand; ``alt`` describes it in words.

    ``narrow`` returns a chart with the same contents for a page on a narrow screen, if ``draw`` does not fit one or its
    text is too small there.
    """

    name: str
    title: str
    caption: Caption
    draw: Callable[[], Chart]
    alt: str
    wide: bool = False
    narrow: Callable[[], Chart] | None = None

    @cached_property
    def drawing(self) -> Drawing:
        """The chart lowered to the plain style, which the page and the image files share."""
        from shipbench.report.drawing.lower import lower

        return lower(self.draw())

    @cached_property
    def narrow_drawing(self) -> Drawing | None:
        """The chart for narrow screens lowered to the width of a phone; None if there is only one."""
        from shipbench.report.drawing.lower import lower
        from shipbench.report.drawing.paper import PHONE

        return lower(self.narrow(), PHONE) if self.narrow else None


@dataclass(frozen=True)
class Result:
    """The result of a suite under one selection rule and one mean: a sentence, a short table and a figure.

    ``settings`` are the choices that show it, of "all", "default" and "tuned". ``detail`` is the main table under that
    rule with these settings; None if the results section shows it, or another result has it.
    """

    select: str
    mean: str
    sentence: str
    table: Table
    figure: Figure | None
    settings: tuple[str, ...]
    detail: Table | None = None


@dataclass(frozen=True)
class Overview:
    """The results of a suite, the one to read first in front."""

    anchor: str
    title: str
    results: tuple[Result, ...]


@dataclass(frozen=True)
class Section:
    """A section of a report."""

    anchor: str
    title: str
    items: tuple[Table | Figure, ...]


@dataclass(frozen=True)
class Report:
    """A report: the results of each suite, what holds for all of it, then the sections.

    ``results`` holds all results in long form, ``methods`` the legend of all methods, ``references`` BibTeX entries,
    ``standing`` the sentences that hold for every table.
    """

    title: str
    lead: str
    facts: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    sections: tuple[Section, ...]
    results: pd.DataFrame
    command: str = ""
    protocol: tuple[tuple[str, str], ...] = ()
    overviews: tuple[Overview, ...] = ()
    methods: tuple[Key, ...] = ()
    references: tuple[str, ...] = ()
    standing: str = ""

    def items(self) -> Iterable[Table | Figure]:
        """Return tables and figures in reading order: the first result of each suite, then the sections."""
        first = [overview.results[0] for overview in self.overviews]
        yield from (item for result in first for item in (result.table, result.figure) if item is not None)
        yield from (item for section in self.sections for item in section.items)

    def tables(self) -> Iterable[Table]:
        """Return the tables in reading order."""
        return (item for item in self.items() if isinstance(item, Table))

    def figures(self) -> Iterable[Figure]:
        """Return the figures in reading order."""
        return (item for item in self.items() if isinstance(item, Figure))


def without_empty_columns(table: Table) -> Table:
    """Return the table as it is printed: without columns in which none of our rows has a value.

    A column that is marked ``keep`` stays, because its empty cells mean something.
    """
    ours = [row for row in table.rows if row.kind == "ours"] or table.rows
    shown = [
        i
        for i, column in enumerate(table.columns)
        if i == 0 or column.keep or any(row.cells[i].text not in ("", MISSING) for row in ours)
    ]
    rows = tuple(replace(row, cells=tuple(row.cells[i] for i in shown)) for row in table.rows)
    return replace(table, columns=tuple(table.columns[i] for i in shown), rows=rows)


def decimal_padding(table: Table) -> list[list[str]]:
    """Return, per row and column, the invisible text after a number that aligns decimal points."""
    columns = [
        _padding([row.cells[i].text for row in table.rows], column.align) for i, column in enumerate(table.columns)
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def _padding(texts: Sequence[str], align: str) -> list[str]:
    matches = [_NUMBER.fullmatch(text) if align == "right" else None for text in texts]
    fractions = [match[1] or "" if match else None for match in matches]
    widest = max((len(fraction) for fraction in fractions if fraction is not None), default=0)
    return ["" if fraction is None else f".{'0' * widest}"[len(fraction) : widest] for fraction in fractions]


def joint_key(keys: Sequence[str]) -> str:
    """Return the key of what belongs to several series, which the page parts again."""
    return _BETWEEN_KEYS.join(keys)


def text_cell(text: str) -> Cell:
    """Return a cell with the same text in print and in the CSV."""
    return Cell(text=text, value=text)


def _html_cell(cell: Cell) -> str:
    below = f"<br><small>{escape(cell.below)}</small>" if cell.below else ""
    style = f' style="{_STYLES[cell.mark]}"' if cell.mark else ""
    return f"<td{style}>{escape(cell.text + cell.sign)}{below}</td>"
