"""The one-page report: self-contained, without scripts, readable on a phone, on paper and in the dark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from shipbench.report.document import Column, Figure, Report, Table, decimal_padding
from shipbench.report.render.images import inline_svg

_NARROW_TABLE = 5


@dataclass(frozen=True)
class Span:
    """One cell of the upper header line: a group's title over as many columns."""

    title: str
    columns: int


def html_page(report: Report, drawings: Mapping[str, bytes]) -> str:
    """Return the page; ``drawings`` holds each figure's SVG by name. Every text is escaped."""
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
        svg={name: Markup(inline_svg(svg, name)) for name, svg in drawings.items()},
        spans=spans,
        padding=decimal_padding,
        is_table=lambda item: isinstance(item, Table),
        is_wide=lambda item: item.wide if isinstance(item, Figure) else len(item.columns) > _NARROW_TABLE,
    )


def spans(columns: tuple[Column, ...]) -> list[Span]:
    """Return the upper header line; empty if no column stands under a group."""
    if not any(column.group for column in columns):
        return []
    grouped = [(group, len(list(members))) for group, members in groupby(columns, key=lambda c: c.group)]
    return [Span(group, count) for group, count in grouped]
