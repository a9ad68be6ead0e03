"""The HTML page: one self-contained file that is complete without scripts, for screens of any width and print."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from shipbench.report.document import Column, Figure, Report, Row, Table, decimal_padding, without_empty_columns
from shipbench.report.render.svg import inline_svg, themed, without_values_of

_NARROW_TABLE = 6
_SCRIPTS = ("early.js", "state.js", "tables.js", "figures.js", "page.js")


@dataclass(frozen=True)
class Span:
    """A cell of the upper header row: the title of a group over its columns."""

    title: str
    columns: int


@dataclass(frozen=True)
class Card:
    """A table or figure on the page; ``wide`` takes the whole row, ``alone`` because nothing stands beside it."""

    item: Table | Figure
    wide: bool
    alone: bool = False


def html_page(report: Report) -> str:
    """Return the page, with every text escaped."""
    environment = Environment(
        loader=PackageLoader("shipbench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    early, *late = (_source(environment, f"script/{name}") for name in _SCRIPTS)
    script = "(() => {\n'use strict';\n" + "\n".join(late) + "\n})();"
    keys = {key.name: key.key for key in report.methods}
    return environment.get_template("page.html.j2").render(
        report=report,
        styles=Markup(_source(environment, "page.css")),
        early=Markup(early),
        script=Markup(script),
        hashes=" ".join(_hash(text) for text in (early, script)),
        unbroken=_unbroken,
        drawing=lambda figure: Markup(_drawings(figure)),
        key=lambda row: _row_key(row, keys),
        spans=spans,
        printed=without_empty_columns,
        padding=decimal_padding,
        cards=cards,
        themed=themed,
        is_table=lambda item: isinstance(item, Table),
        heads=list(dict.fromkeys(warning.partition(":")[0] for warning in report.warnings)),
    )


def _unbroken(sentence: str) -> str:
    """Return ``sentence`` with spaces that no line breaks at, between a number and its unit and around a sign."""
    return re.sub(r" (?=%)|(?<=[=<]) | (?=[=<] )", "\N{NO-BREAK SPACE}", sentence)


def spans(columns: tuple[Column, ...]) -> list[Span]:
    """Return the upper header row; empty if no column has a group."""
    if not any(column.group for column in columns):
        return []
    grouped = [(group, len(list(members))) for group, members in groupby(columns, key=lambda c: c.group)]
    return [Span(group, count) for group, count in grouped]


def cards(items: tuple[Table | Figure, ...]) -> list[Card]:
    """Return the items as cards, two narrow ones to a row; a narrow one without a neighbour stands alone."""
    result: list[Card] = []
    open_row = False
    for item in items:
        wide = item.wide if isinstance(item, Figure) else item.long or len(item.columns) > _NARROW_TABLE
        if wide and open_row:
            result[-1] = Card(result[-1].item, wide=True, alone=True)
        open_row = not wide and not open_row
        result.append(Card(item, wide))
    if open_row:
        result[-1] = Card(result[-1].item, wide=True, alone=True)
    return result


def _drawings(figure: Figure) -> str:
    """Return the drawing of a figure, and if it has one, that for narrow screens, one of which the page shows."""
    if figure.narrow_drawing is None:
        return inline_svg(figure.drawing)
    broad = inline_svg(figure.drawing, "broad")
    return broad + without_values_of(inline_svg(figure.narrow_drawing, "narrow"), broad)


def _row_key(row: Row, keys: Mapping[str, str]) -> str:
    """Return the series that a table row belongs to; empty if it stands for no method of the main tables."""
    return row.key or (keys.get(str(row.cells[0].value), "") if row.kind == "ours" else "")


def _source(environment: Environment, name: str) -> str:
    return environment.loader.get_source(environment, name)[0] if environment.loader else ""


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
