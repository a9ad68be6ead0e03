"""Tables that stay readable on a narrow terminal: text is folded, never cut."""

from __future__ import annotations

from collections.abc import Iterator

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table

# Records may come from anywhere, and a control character in one must not reach the terminal.
_CONTROL_CHARACTERS = dict.fromkeys((*range(32), *range(127, 160)), " ")
# Words in narrower columns are folded so often that they are hard to read.
_LEAST_WIDTH = 8
# An id is copied, so it stays on one line in any column.
_ID_COLUMNS = ("run_id", "parent_run")


class ReadableTable(Table):
    """A table that prints each row as a block of lines where its columns would be too narrow to read."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table, or the blocks."""
        if self._least_width() <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        for line in self._blocks():
            yield console.render_str(line, overflow="fold")

    def _least_width(self) -> int:
        borders = 3 * len(self.columns) + 1
        return sum(map(_least_column_width, self.columns)) + borders

    def _blocks(self) -> Iterator[str]:
        """Yield the title, then for each row a line with its first cell and indented lines with the others."""
        if self.title:
            yield f"{self.title}\n"
        headings = [str(column.header) for column in self.columns]
        for row in zip(*(column.cells for column in self.columns), strict=True):
            cells = zip(headings, map(str, row), strict=True)
            first, *others = [_line(heading, cell) for heading, cell in cells if cell]
            yield first
            yield from (f"  {line}" for line in others)


def make_table(*columns: str, title: str | None = None) -> Table:
    """Return a table that keeps its first column and run ids on one line, and folds others where space is short."""
    table = ReadableTable(title=title)
    for index, name in enumerate(columns):
        table.add_column(name, no_wrap=index == 0 or name in _ID_COLUMNS, overflow="fold")
    return table


def printable(text: str) -> str:
    """Return ``text`` with a space in place of every control character."""
    return text.translate(_CONTROL_CHARACTERS)


def duration(seconds: float) -> str:
    """Return a time with its two largest units, as in ``2 h 5 min``."""
    if round(seconds) < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def _least_column_width(column: Column) -> int:
    texts = [str(column.header), *map(str, column.cells)]
    width = max(cell_len(line) for text in texts for line in text.split("\n"))
    return width if column.no_wrap else min(width, _LEAST_WIDTH)


def _line(heading: str, cell: str) -> str:
    text = ", ".join(cell.split("\n"))
    return f"{heading}: {text}" if heading else text
