"""What a report cites: the papers of its methods, suites, published rows and tests, as BibTeX entries."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources

from shipbench.published import PublishedRow
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.wording.text import slug

_CITES = re.compile(r",\n  cites = \{(.*)\}\n\}$")


def references(views: Sequence[SuiteView]) -> tuple[str, ...]:
    """Return the BibTeX entries of everything that the suites' tables rely on, in the order of the data file.

    A published row whose paper the data file lacks gets an entry from the row's own title, venue and year.
    """
    wanted = {mark for view in views for mark in _marks(view)}
    listed = [entry for entry, marks in _entries() if marks & wanted]
    described = frozenset(mark for _, marks in _entries() for mark in marks)
    rows = {match.row.paper: match.row for view in views for match in view.published_matches}
    others = [_from_row(row) for paper, row in rows.items() if f"paper:{paper}" not in described]
    return (*listed, *others)


def _marks(view: SuiteView) -> Iterator[str]:
    yield f"suite:{view.suite}"
    yield from (f"method:{arm.method}" for arm in view.arms)
    if any(arm.method.startswith("peft-") for arm in view.arms):
        yield "library:peft"
    yield from (f"paper:{match.row.paper}" for match in view.published_matches)
    if view.ranking:
        yield "test:ranks"
    if view.comparisons:
        yield "test:paired"
    if view.calibration:
        yield "test:calibration"


@cache
def _entries() -> tuple[tuple[str, frozenset[str]], ...]:
    """Return every entry of the data file without its ``cites`` field, and the marks in that field."""
    text = resources.files("shipbench.published").joinpath("references.bib").read_text(encoding="utf-8")
    entries = [f"@{part.strip()}" for part in text.split("\n@")[1:]]
    return tuple((_CITES.sub("\n}", entry), _cited(entry)) for entry in entries)


def _cited(entry: str) -> frozenset[str]:
    match = _CITES.search(entry)
    return frozenset(mark.strip() for mark in match[1].split(";")) if match else frozenset()


def _from_row(row: PublishedRow) -> str:
    title = row.paper.replace("&", "\\&")
    name = slug(row.paper).split("-")[0] or "paper"
    return (
        f"@misc{{{name}{row.year}{slug(row.paper)[-8:]},\n  title = {{{title}}},\n"
        f"  howpublished = {{{row.venue}}},\n  year = {{{row.year}}}\n}}"
    )
