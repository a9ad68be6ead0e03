"""Tables as GitHub-flavoured Markdown, and the report as a Markdown page."""

from __future__ import annotations

import re

from shipbench.report.document import Cell, Column, Figure, Report, Table, without_empty_columns

_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")
_LINE_START = re.compile(r"^(?=[#=]|[+-](?:[\s-]|$))|^(\d+)(?=[.)](?:\s|$))")
_ALIGN = {"left": ":---", "right": "---:", "center": ":---:"}


def escape(text: str) -> str:
    """Return ``text`` on one line, escaped so that Markdown prints it literally."""
    plain = " ".join(text.split())
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _LINE_START.sub(r"\1\\", _SPECIAL.sub(r"\\\1", plain))


def markdown_table(table: Table) -> str:
    """Return the heading, caption, table and notes."""
    return f"### {escape(table.title)}\n\n{escape(table.caption.alone)}\n\n{_body(table)}".rstrip() + "\n"


def _body(table: Table) -> str:
    """Return the rows and the notes."""
    table = without_empty_columns(table)
    parts = []
    if table.rows:
        header = " | ".join(escape(column.heading) for column in table.columns)
        lines = [f"| {header} |", f"| {' | '.join(_ALIGN[column.align] for column in table.columns)} |"]
        lines += [f"| {' | '.join(map(_cell, table.columns, row.cells))} |" for row in table.rows]
        parts.append("\n".join(lines))
    notes = [*table.notes, *table.warnings]
    if notes:
        parts.append("\n".join(f"- {escape(note)}" for note in notes))
    return "\n\n".join(parts)


def markdown_report(report: Report, image_suffix: str | None) -> str:
    """Return the report as a page; figures are linked as files with ``image_suffix``, or left out if it is None."""
    parts = [f"# {escape(report.title)}", escape(report.lead)]
    if report.warnings:
        warnings = "\n".join(f"> - {escape(text)}" for text in report.warnings)
        parts.append(f"> **Read this first**\n>\n{warnings}")
    for overview in report.overviews:
        result = overview.results[0]
        parts.append(f"## {escape(result.sentence)}")
        parts += [_item(item, image_suffix) for item in (result.table, result.figure) if item is not None]
    parts.append("## Protocol and provenance")
    parts.append("\n".join(f"- {escape(name)}: {escape(value)}" for name, value in report.facts))
    if report.protocol:
        protocol = "\n".join(f"> - {escape(name)}: {escape(text)}" for name, text in report.protocol)
        parts.append(f"> **Protocol**\n>\n{protocol}")
    for section in report.sections:
        parts.append(f"## {escape(section.title)}")
        parts += [_item(item, image_suffix) for item in section.items]
    if report.command:
        parts.append(f"Command: {escape(report.command)}")
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _item(item: Table | Figure, image_suffix: str | None) -> str:
    if isinstance(item, Table):
        caption = f"{item.caption.text} {item.caption.details}".strip()
        return f"### {escape(item.title)}\n\n{escape(caption)}\n\n{_body(item)}"
    if image_suffix is None:
        return ""
    image = f"![{escape(item.alt)}](figures/{item.name}.{image_suffix})"
    return f"### {escape(item.title)}\n\n{image}\n\n{escape(item.caption.text)}"


def _cell(column: Column, cell: Cell) -> str:
    text = escape(cell.text)
    marked = {"best": f"**{text}**", "second": f"<ins>{text}</ins>", "": text}[cell.mark] + escape(cell.sign)
    below = f"({escape(cell.below)})" if column.align == "left" else escape(cell.below)
    return f"{marked} {below}".strip() if cell.below else marked
