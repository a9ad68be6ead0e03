"""Results of other harnesses in a report: how they are shown, and those whose epoch rule is unknown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import pandas as pd

from shipbench.errors import InputError, did_you_mean
from shipbench.record import IMPORTED
from shipbench.report.analysis.study import ImportedChoice, Study
from shipbench.report.wording.names import method_name, method_order


@dataclass(frozen=True)
class StatedRow:
    """The imported accuracies of a method whose epoch rule is not stated: means in percent by task."""

    method: str
    origin: str
    means: Mapping[str, float]


def imported_choice(text: str) -> ImportedChoice:
    """Parse ``--imported``; raises ``InputError`` unless it is none, beside or all."""
    for choice in get_args(ImportedChoice):
        if text == choice:
            return choice
    choices = list(get_args(ImportedChoice))
    raise InputError(f"--imported: unknown choice {text!r}{did_you_mean(text, choices)}; use {', '.join(choices)}")


def stated_rows(study: Study, suite: str) -> list[StatedRow]:
    """Return the imported results of a suite whose epoch rule is not stated, by method and origin."""
    records = study.records
    is_stated = (records["kind"] == IMPORTED) & (records["epoch_rule"] == "") & records["stated_acc"].notna()
    rows = records[is_stated & (records["suite"] == suite)]
    groups = {(str(method), str(origin)): group for (method, origin), group in rows.groupby(["method", "origin"])}
    order = sorted(groups, key=lambda pair: (method_order(pair[0]), pair))
    return [StatedRow(method_name(method), origin, _means(groups[method, origin])) for method, origin in order]


def _means(rows: pd.DataFrame) -> dict[str, float]:
    return {str(task): 100 * float(value) for task, value in rows.groupby("task")["stated_acc"].mean().items()}
