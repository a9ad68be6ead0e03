"""Results of other harnesses in a report: how they are shown, and those whose epoch rule is unknown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, get_args

import pandas as pd

from shipbench.record import IMPORTED
from shipbench.report.analysis.configurations import Configuration, configurations, difference
from shipbench.report.analysis.study import ImportedChoice, Study
from shipbench.report.wording.names import method_name, method_order, setting_name
from shipbench.report.wording.numbers import setting
from shipbench.settings import one_of


@dataclass(frozen=True)
class StatedRow:
    """The imported accuracies of a method whose epoch rule is not stated: means in percent by task.

    ``source`` says where they come from: the harness, and what tells the row from others of the method.
    """

    method: str
    source: str
    means: Mapping[str, float]


class _Place(NamedTuple):
    """Where results come from; those of different places never share a row."""

    method: str
    origin: str
    reference: str
    file: str
    settings: Configuration


def imported_choice(text: str) -> ImportedChoice:
    """Parse ``--imported``; raises ``InputError`` unless it is none, beside or all."""
    choices: tuple[ImportedChoice, ...] = get_args(ImportedChoice)
    return one_of(text, choices, "--imported", "choice")


def stated_results(study: Study, suite: str) -> pd.DataFrame:
    """Return the records of the imported results of a suite whose epoch rule is not stated."""
    records = study.records
    is_stated = (records["kind"] == IMPORTED) & (records["epoch_rule"] == "") & records["stated_acc"].notna()
    return records[is_stated & (records["suite"] == suite)]


def stated_rows(study: Study, suite: str) -> list[StatedRow]:
    """Return the imported results of a suite whose epoch rule is not stated, by method and where they come from."""
    rows = stated_results(study, suite)
    members: dict[_Place, list[int]] = defaultdict(list)
    for position, place in enumerate(_places(rows)):
        members[place].append(position)
    order = sorted(members, key=lambda place: (method_order(place.method), place[:-1], repr(place.settings)))
    return [
        StatedRow(method_name(place.method), _source(place, members), _means(rows.iloc[members[place]]))
        for place in order
    ]


def _places(rows: pd.DataFrame) -> list[_Place]:
    texts = (rows[name] for name in ("method", "origin", "reference", "origin_file"))
    return [_Place(*values) for values in zip(*texts, configurations(rows), strict=True)]


def _source(place: _Place, places: Iterable[_Place]) -> str:
    """Name the harness, then the publication, file and settings as far as other results of the method differ in them.

    What follows the first of them that tells all others apart is left out.
    """
    others = [other for other in places if other[:2] == place[:2] and other != place]
    names = [place.origin]
    for field, text in (("reference", place.reference), ("file", place.file)):
        alike = [other for other in others if getattr(other, field) == getattr(place, field)]
        names += [text] if len(alike) < len(others) else []
        others = alike
    changes = {pair for other in others for pair in difference(place.settings, other.settings)}
    names += [f"{setting_name(key)} {setting(value)}" for key, value in sorted(changes, key=lambda pair: pair[0])]
    return ", ".join(filter(None, names))


def _means(rows: pd.DataFrame) -> dict[str, float]:
    return {str(task): 100 * float(value) for task, value in rows.groupby("task")["stated_acc"].mean().items()}
