"""Tables as Typst figures that need no package, and a document with all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from shipbench.report.document import Cell, Column, Figure, Report, Row, RowKind, Table, decimal_padding

_SIZE = "8pt"
_HEAVY, _LIGHT = "0.8pt", "0.4pt"
_MARKS = {"best": "strong(%s)", "second": "underline(%s)", "": "%s"}


def quoted(text: str) -> str:
    """Return ``text`` on one line as a string of Typst, in which nothing is markup."""
    letters = (letter if letter.isprintable() else f"[U+{ord(letter):04X}]" for letter in " ".join(text.split()))
    return '"' + "".join(letters).replace("\\", "\\\\").replace('"', '\\"') + '"'


def typst_table(table: Table) -> str:
    """Return the table as a figure that breaks across pages and shrinks to the width of the text.

    The text columns of a long table share the width instead.
    """
    shown = (
        f"body({_SIZE})" if table.long else f"body({_SIZE} * calc.min(1, area.width / measure(body({_SIZE})).width))"
    )
    lines = [
        "#show figure: set block(breakable: true)",
        "#show figure.caption: set align(left)",
        "#figure(",
        "  kind: table,",
        f"  caption: figure.caption(position: top, {quoted(table.caption.alone)}),",
        "  layout(area => {",
        "    let body(size) = {",
        "      set text(size: size)",
        *_body(table),
        "    }",
        f"    {shown}",
        "  }),",
        f") <tab:{table.name}>",
        *_notes(table),
    ]
    return "\n".join(lines) + "\n"


def _body(table: Table) -> list[str]:
    columns = table.columns
    widths = ", ".join("1fr" if table.long and column.align == "left" else "auto" for column in columns)
    rows = zip(table.rows, decimal_padding(table), strict=True)
    lines = [
        "table(",
        f"  columns: ({widths},),",
        f"  align: ({', '.join(column.align for column in columns)},),",
        "  stroke: none,",
        "  inset: (x: 0.35em, y: 0.3em),",
        f"  table.hline(stroke: {_HEAVY}),",
        f"  table.header({', '.join(_header(columns))}),",
        f"  table.hline(stroke: {_LIGHT}),",
        *(f"  {line}," for row, padding in rows for line in _row(row, padding, first=row is table.rows[0])),
        f"  table.hline(stroke: {_HEAVY}),",
        ")",
    ]
    return [f"      {line}" for line in lines]


def _header(columns: Sequence[Column]) -> Iterator[str]:
    if any(column.group for column in columns):
        yield from _groups(columns)
    yield from (_title(column) for column in columns)


def _groups(columns: Sequence[Column]) -> Iterator[str]:
    """Yield the titles of groups over their columns, then a line under each."""
    lines, first = [], 0
    for group, members in groupby(columns, key=lambda column: column.group):
        last = first + len(list(members))
        yield f"table.cell(colspan: {last - first}, align: center, {quoted(group)})"
        lines += [f"table.hline(start: {first}, end: {last}, stroke: {_LIGHT})"] if group else []
        first = last
    yield from lines


def _title(column: Column) -> str:
    title = quoted(column.title)
    turned = f"rotate(-90deg, reflow: true, {title})" if column.upright else title
    return f"table.cell(align: {column.align} + bottom, {turned})"


def _row(row: Row, padding: Sequence[str], *, first: bool) -> Iterator[str]:
    if row.rule and not first:
        yield f"table.hline(stroke: {_LIGHT})"
    yield ", ".join(_cell(cell, pad, row.kind) for cell, pad in zip(row.cells, padding, strict=True))


def _cell(cell: Cell, pad: str, kind: RowKind) -> str:
    """Return the content of a cell: its text, room for missing digits, a sign that takes no room, and what is below."""
    text = _MARKS[cell.mark] % quoted(cell.text)
    parts = [f"emph({text})" if kind == "difference" else text]
    parts += [f"hide({quoted(pad)})"] if pad else []
    parts += [f"box(place(bottom, {quoted(cell.sign)}))"] if cell.sign else []
    parts += [f"linebreak(); text(0.8em, {quoted(cell.below)})"] if cell.below else []
    return parts[0] if len(parts) == 1 else f"{{ {'; '.join(parts)} }}"


def _notes(table: Table) -> list[str]:
    notes = [*table.notes, *table.warnings]
    return [f"#text(size: {_SIZE}, list({', '.join(map(quoted, notes))}))"] if notes else []


def typst_document(report: Report, image_suffix: str | None) -> str:
    """Return a document with every table and, if ``image_suffix`` is svg or png, every figure."""
    parts = [_PREAMBLE, f"#heading({quoted(report.title)})"]
    parts += [f'#include "tables/{table.name}.typ"' for table in report.tables()]
    if image_suffix is not None:
        parts += [_figure(figure, image_suffix) for figure in report.figures()]
    parts += ['#bibliography("references.bib", full: true)'] if report.references else []
    return "\n\n".join(parts) + "\n"


def _figure(figure: Figure, suffix: str) -> str:
    image = f'fitted("figures/{figure.name}.{suffix}", {100 if figure.wide else 60}%)'
    return f"#figure({image}, caption: {quoted(figure.caption.alone)}) <fig:{figure.name}>"


_PREAMBLE = """#set page(paper: "a4", flipped: true, margin: 15mm)
#set text(size: 10pt)
#let fitted(path, width) = layout(area => {
  let height = measure(image(path, width: width * area.width)).height
  if height > 0.8 * area.height { image(path, height: 0.8 * area.height) } else { image(path, width: width) }
})"""
