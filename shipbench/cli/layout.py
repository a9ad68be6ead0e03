"""Tables that stay readable on a narrow terminal: text is folded, never cut."""

from __future__ import annotations

from rich.table import Table

# Records may come from anywhere, and a control character in one must not reach the terminal.
_CONTROL_CHARACTERS = dict.fromkeys((*range(32), *range(127, 160)), " ")


def make_table(*columns: str, title: str | None = None) -> Table:
    """Return a table that keeps its first column on one line and folds the others where space is short."""
    table = Table(title=title)
    for index, name in enumerate(columns):
        table.add_column(name, no_wrap=index == 0, overflow="fold")
    return table


def printable(text: str) -> str:
    """Return ``text`` with a space in place of every control character."""
    return text.translate(_CONTROL_CHARACTERS)
