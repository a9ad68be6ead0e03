"""Tables as LaTeX with booktabs, and a preview document with all of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from shipbench.report.document import Cell, Column, Figure, Report, Row, Table, decimal_padding

PACKAGES = "% needs \\usepackage{amssymb,array,booktabs,graphicx,longtable}\n"
_WIDE_COLUMNS = 9
_PAGE_LINES = 32
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "*": "{*}",
    "[": "{[}",
    "]": "{]}",
    "\N{MINUS SIGN}": "$-$",
    "±": r"$\pm$",
    "§": r"\textsection{}",
    "¶": r"\textparagraph{}",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "·": r"$\cdot$",
    "✓": r"$\checkmark$",
    "→": r"$\rightarrow$",
    "\N{DAGGER}": r"\textdagger{}",
    "\N{DOUBLE DAGGER}": r"\textdaggerdbl{}",
    "▲": r"$\blacktriangle$",
    "▼": r"$\blacktriangledown$",
    "\N{EN DASH}": "--",
    "\N{EM DASH}": "---",
    "\N{LEFT DOUBLE QUOTATION MARK}": "``",
    "\N{RIGHT DOUBLE QUOTATION MARK}": "''",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "…": r"\dots{}",
}
_LATIN_1 = range(0xA1, 0x100)


def escape(text: str) -> str:
    """Return ``text`` escaped for pdfLaTeX; a letter beyond Latin-1 is replaced by its code point."""
    # Two hyphens, as before the name of an option, would become a dash.
    parts = re.split("(?<=-)(?=-)", " ".join(text.split()))
    return "{}".join("".join(map(_letter, part)) for part in parts)


def _letter(letter: str) -> str:
    if letter in _SPECIAL:
        return _SPECIAL[letter]
    if " " <= letter <= "~" or (ord(letter) in _LATIN_1 and letter.isalpha()):
        return letter
    return f"{{[}}U+{ord(letter):04X}{{]}}"


def latex_table(table: Table) -> str:
    """Return the table as a float or, if it is marked long, as a longtable."""
    body = _long(table) if table.long else _float(table)
    return PACKAGES + body


def _float(table: Table) -> str:
    """Return the table as a float, or as several floats with one number if it is higher than a page."""
    first, *others = _parts(table)
    return _one_float(first, continued=False) + "".join(_one_float(part, continued=True) for part in others)


def _parts(table: Table) -> list[Table]:
    """Split the rows into pages, keeping a row with its differences; notes and warnings follow the last page."""
    notes = len(table.notes) + len(table.warnings)
    blocks = _blocks(table.rows)
    if not blocks or sum(map(_lines, blocks)) + notes <= _PAGE_LINES:
        return [table]
    pages: list[list[Row]] = []
    for i, block in enumerate(blocks):
        room = _PAGE_LINES - (notes if i + 1 == len(blocks) else 0)
        if not pages or _lines([*pages[-1], *block]) > room:
            pages.append([])
        pages[-1] += block
    parts = [replace(table, rows=tuple(page), notes=(), warnings=()) for page in pages[:-1]]
    return [*parts, replace(table, rows=tuple(pages[-1]))]


def _blocks(rows: Sequence[Row]) -> list[list[Row]]:
    blocks: list[list[Row]] = []
    for row in rows:
        if row.kind == "difference" and blocks:
            blocks[-1].append(row)
        else:
            blocks.append([row])
    return blocks


def _lines(rows: Sequence[Row]) -> int:
    return sum(2 if any(cell.below for cell in row.cells) else 1 for row in rows)


def _one_float(table: Table, *, continued: bool) -> str:
    columns, wide = table.columns, len(table.columns) > _WIDE_COLUMNS
    spec = "".join({"left": "l", "right": "r", "center": "c"}[column.align] for column in columns)
    top = (f"\\begin{{tabular}}{{{spec}}}", r"\toprule", *_header(columns), r"\midrule")
    tabular = "\n".join((*top, *_body(table), r"\bottomrule", r"\end{tabular}"))
    star = "*" if wide else ""
    fitted = (
        f"\\sbox0{{%\n{tabular}%\n}}%\n"
        r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi"
    )
    again = [r"\addtocounter{table}{-1}", r"\caption{(continued)}"]
    lines = [f"\\begin{{table{star}}}[tbp]", r"\centering", *(again if continued else [_caption(table)])]
    lines += [r"\setlength{\tabcolsep}{3pt}", r"\footnotesize", fitted, *_notes(table), f"\\end{{table{star}}}"]
    return "\n".join(lines) + "\n"


def _long(table: Table) -> str:
    """Return a longtable whose text columns share the line width."""
    columns = table.columns
    text = [column for column in columns if column.align == "left"]
    share = 0.86 / len(text)
    left = f">{{\\raggedright\\arraybackslash}}p{{{share:.3f}\\linewidth}}"
    spec = "".join(left if column.align == "left" else "r" for column in columns)
    header = " & ".join(escape(column.title) for column in columns) + r" \\"
    lines = [r"\begingroup\scriptsize", r"\setlength{\tabcolsep}{3pt}\setlength{\LTcapwidth}{\linewidth}"]
    lines += [f"\\begin{{longtable}}{{{spec}}}", _caption(table) + r"\\", r"\toprule", header, r"\midrule", r"\endhead"]
    rows = [" & ".join(escape(_one_line(cell)) for cell in row.cells) + r" \\" for row in table.rows]
    lines += [*rows, r"\bottomrule", r"\end{longtable}", *_notes(table), r"\endgroup"]
    return "\n".join(lines) + "\n"


def _one_line(cell: Cell) -> str:
    text = cell.text + cell.sign
    return f"{text} ({cell.below})" if cell.below else text


def _caption(table: Table) -> str:
    return f"\\caption{{{escape(table.caption.alone)}}}\\label{{tab:{table.name}}}"


def _notes(table: Table) -> list[str]:
    notes = [escape(note) for note in (*table.notes, *table.warnings)]
    return [r"\par\smallskip\raggedright\scriptsize", r"\\".join(notes) + r"\par"] if notes else []


def _header(columns: Sequence[Column]) -> list[str]:
    titles = " & ".join(_title(column) for column in columns) + r" \\"
    if not any(column.group for column in columns):
        return [titles]
    spans, rules, first = [], [], 1
    for group, members in groupby(columns, key=lambda column: column.group):
        last = first + len(list(members)) - 1
        spans.append(f"\\multicolumn{{{last - first + 1}}}{{c}}{{{escape(group)}}}")
        rules += [f"\\cmidrule(lr){{{first}-{last}}}"] if group else []
        first = last + 1
    return [" & ".join(spans) + r" \\", "".join(rules), titles]


def _title(column: Column) -> str:
    title = escape(column.title)
    return f"\\rotatebox{{90}}{{{title}}}" if column.upright else title


def _body(table: Table) -> list[str]:
    lines = []
    for row, padding in zip(table.rows, decimal_padding(table), strict=True):
        lines += [r"\midrule"] if row.rule and row is not table.rows[0] else []
        lines += _row(row, padding)
    return lines


def _row(row: Row, padding: Sequence[str]) -> list[str]:
    """Return the line of a row and, if a cell has a text below, a line in smaller type."""
    marks = {"best": "\\textbf{%s}", "second": "\\underline{%s}", "": "%s"}
    italic = "\\textit{%s}" if row.kind == "difference" else "%s"
    cells = [
        italic % (marks[cell.mark] % escape(cell.text)) + _after(cell, pad) if cell.text else ""
        for cell, pad in zip(row.cells, padding, strict=True)
    ]
    line = " & ".join(cells) + r" \\"
    if not any(cell.below for cell in row.cells):
        return [line]
    below = [f"{{\\tiny {escape(cell.below)}}}" if cell.below else "" for cell in row.cells]
    return [line + "[-1.5pt]", " & ".join(below) + r" \\"]


def _after(cell: Cell, pad: str) -> str:
    """Align decimal points: reserve room for missing digits, and none for the sign."""
    room = f"\\phantom{{{pad}}}" if pad else ""
    return room + (f"\\rlap{{{escape(cell.sign)}}}" if cell.sign else "")


def preview_document(report: Report, image_suffix: str | None) -> str:
    """Return a document with every table and, if ``image_suffix`` is pgf, pdf or png, every figure.

    The title is in the header, because a table as high as a page would leave a title in the text on a page of its own.
    """
    inputs = [f"\\input{{tables/{table.name}.tex}}" for table in report.tables()]
    if image_suffix is not None:
        inputs += [_figure(figure, image_suffix) for figure in report.figures()]
    body = "\n\\clearpage\n".join(inputs)
    return f"{_PREAMBLE}\\markright{{{escape(report.title)}}}\n{body}\n\\end{{document}}\n"


def _figure(figure: Figure, suffix: str) -> str:
    width = r"\linewidth" if figure.wide else r"0.6\linewidth"
    included = f"\\includegraphics[width={width},height=0.8\\textheight,keepaspectratio]{{figures/{figure.name}}}"
    lower = r"\resizebox{!}{0.8\textheight}{\usebox0}"
    drawn = f"\\sbox0{{\\input{{figures/{figure.name}.pgf}}}}\\ifdim\\ht0>0.8\\textheight{lower}\\else\\usebox0\\fi"
    shown = drawn if suffix == "pgf" else included
    return (
        f"\\begin{{figure}}[tbp]\n\\centering\n{shown}\n"
        f"\\caption{{{escape(figure.caption.alone)}}}\\label{{fig:{figure.name}}}\n\\end{{figure}}"
    )


_PREAMBLE = r"""\documentclass[10pt]{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\usepackage[a4paper,landscape,margin=15mm,headsep=4mm]{geometry}
\usepackage{amssymb,array,booktabs,graphicx,longtable,tikz}
\pagestyle{myheadings}
\begin{document}
"""
