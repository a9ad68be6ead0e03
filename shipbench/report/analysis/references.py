"""What a report cites, as BibTeX entries: its methods, suites, published rows, imported results and analyses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources

import pandas as pd

from shipbench.published import PublishedRow, published_rows
from shipbench.report.analysis.comparisons import image_tests
from shipbench.report.analysis.imported import stated_results
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.wording.text import slug

_CITES = re.compile(r",\n  cites = \{(.*)\}\n\}$")
_SHOWN = ["method", "origin", "reference"]


def references(views: Sequence[SuiteView]) -> tuple[str, ...]:
    """Return the BibTeX entries of everything that the suites' tables rely on, in the order of the data file.

    A published row whose paper the data file lacks gets an entry from the row's own title, venue and year. Methods and
    harnesses that it lacks have none.
    """
    rows = {row.paper: row for view in views for row in _published(view)}
    wanted = {mark for view in views for mark in _marks(view)} | {f"paper:{paper}" for paper in rows}
    listed = [entry for entry, marks in _entries() if marks & wanted]
    described = frozenset(mark for _, marks in _entries() for mark in marks)
    others = [_from_row(row) for paper, row in rows.items() if f"paper:{paper}" not in described]
    return (*listed, *others)


def analyses(view: SuiteView) -> Mapping[str, bool]:
    """Return the marks of the analyses that papers describe, and whether the report of the suite has them."""
    tested = [shift for shift in view.shifts if shift.test is not None]
    by_image = any(not shift.by_class for shift in tested)
    return {
        "test:ranks": view.ranking is not None,
        "test:paired": bool(view.comparisons),
        "test:mcnemar": by_image or "McNemar" in image_tests(view.comparisons),
        "test:calibration": bool(view.calibration),
        "test:shifts": bool(tested),
        "test:corruptions": any(shift.corruption for shift in view.shifts),
        "figure:tsne": bool(view.features),
    }


def _marks(view: SuiteView) -> Iterator[str]:
    shown = _shown(view)
    yield f"suite:{view.suite}"
    yield from (f"method:{method}" for method in shown["method"])
    yield from (f"origin:{origin}" for origin in shown["origin"])
    if shown["method"].str.startswith("peft-").any():
        yield "library:peft"
    yield from (mark for mark, has_results in analyses(view).items() if has_results)


def _published(view: SuiteView) -> Iterator[PublishedRow]:
    """Yield the published rows beside the results, and those that imported results are copies of."""
    yield from (match.row for match in view.published_matches)
    sources = set(_shown(view)["reference"])
    yield from (row for row in published_rows() if row.source in sources)


def _shown(view: SuiteView) -> pd.DataFrame:
    """Return the method, origin and publication of the suite's runs and imported results, each combination once."""
    runs, stated = view.study.runs, stated_results(view.study, view.suite)
    return pd.concat([runs.loc[runs["suite"] == view.suite, _SHOWN], stated[_SHOWN]]).drop_duplicates()


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
