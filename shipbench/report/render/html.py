"""The HTML page: one self-contained file without scripts, for screens of any width, print and dark mode."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from shipbench.report.document import Column, Figure, Report, Table, decimal_padding
from shipbench.report.drawing.lower import lower
from shipbench.report.render.svg import inline_svg

_NARROW_TABLE = 5


@dataclass(frozen=True)
class Span:
    """A cell of the upper header row: the title of a group over its columns."""

    title: str
    columns: int


def html_page(report: Report) -> str:
    """Return the page, with every text escaped."""
    environment = Environment(
        loader=PackageLoader("shipbench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    styles = environment.loader.get_source(environment, "page.css")[0] if environment.loader else ""
    return environment.get_template("page.html.j2").render(
        report=report,
        styles=Markup(styles),
        svg={figure.name: Markup(inline_svg(lower(figure.draw()))) for figure in report.figures()},
        spans=spans,
        padding=decimal_padding,
        is_table=lambda item: isinstance(item, Table),
        is_wide=lambda item: item.wide if isinstance(item, Figure) else len(item.columns) > _NARROW_TABLE,
    )


def spans(columns: tuple[Column, ...]) -> list[Span]:
    """Return the upper header row; empty if no column has a group."""
    if not any(column.group for column in columns):
        return []
    grouped = [(group, len(list(members))) for group, members in groupby(columns, key=lambda c: c.group)]
    return [Span(group, count) for group, count in grouped]
