"""Runs whose settings a tuning chose: which they are, and the row of their own that tables give them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

CHOSEN, CONFIRMED, SUPERSEDED = "chosen", "confirmed", "superseded"
_DECISION = ("method", "task", "recipe", "backbone", "switches")
_ARM = ("suite", "method", "recipe", "backbone", "backbone_sha256", "image_size", "switches")
_UNKNOWN = -1.0


def with_tunings(records: pd.DataFrame, tunings: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return ``records`` with the column ``tuning``: what a tuning has to do with a run on the 1000, if anything.

    "chosen": the run has the settings that a tuning chose; "confirmed": those are the recipe's own; "superseded": an
    earlier tuning chose them, and the latest one of the same method, task, recipe and backbone chose others.
    """
    decisions = dict(zip(records["run_id"], _keys(records, _DECISION), strict=True))
    settings = dict(zip(records["run_id"], records["overrides"], strict=True))
    latest: dict[tuple[Any, ...], set[str]] = {}
    named: set[str] = set()
    for tuning in sorted(tunings, key=lambda tuning: str(tuning.get("created", ""))):
        runs = [run for run in tuning["final_runs"] if run in decisions]
        named |= set(runs)
        found = defaultdict(set)
        for run in runs:
            found[decisions[run]].add(settings[run])
        latest |= found
    states = [
        _state(settings[run], latest[decisions[run]]) if run in named else "" for run in records["run_id"].tolist()
    ]
    return records.assign(tuning=pd.Series(states, index=records.index, dtype=object))


def _state(settings: str, chosen: set[str]) -> str:
    if settings not in chosen:
        return SUPERSEDED
    return CHOSEN if settings else CONFIRMED


def with_tuned_rows(records: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that tables count, each with the index of its ``record``: tuned runs as protocol "validation".

    A tuned run keeps its plain row too where it has one to fill: if it is the recipe's own run, or a point among other
    runs with changed settings (a sweep). Otherwise the tuned row takes its place, so that a chosen setting is not shown
    a second time as if it had been varied. What a later tuning superseded has no tuned row.
    """
    records = records.assign(record=records.index)
    changed, named = records["overrides"] != "", records["tuning"] != ""
    keys = _keys(records, _DECISION)
    swept = keys.isin(set(keys[changed & ~named & (records["protocol"] == "final")]))
    tuned = records[records["tuning"].isin((CHOSEN, CONFIRMED))].assign(protocol="validation")
    return pd.concat([records[~named | ~changed | swept], tuned], ignore_index=True)


def without_repeats(runs: pd.DataFrame) -> pd.DataFrame:
    """Leave out tuned rows of a method for which tuning chose the recipe's own settings wherever it was tuned.

    The same runs stand there as the recipe's; a method that is counted twice would distort ranks and corrections.
    """
    tuned = runs["protocol"] == "validation"
    own = (runs["protocol"] == "final") & (runs["switches"] == "") & (runs["overrides"] == "")
    keys = _keys(runs, _ARM)
    changed = set(keys[tuned & ~runs["record"].isin(set(runs.loc[own, "record"]))])
    return runs[~tuned | keys.isin(changed)]


def _keys(records: pd.DataFrame, names: Iterable[str]) -> pd.Series[Any]:
    """Return the values of several columns as tuples."""
    columns = (records[name].fillna(_UNKNOWN) if name == "image_size" else records[name] for name in names)
    return pd.Series(list(zip(*columns, strict=True)), index=records.index, dtype=object)
