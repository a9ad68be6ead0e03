"""Runs whose settings a tuning chose: how to recognise them, and the separate rows that tables give them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pandas as pd

from shipbench.report.analysis.arms import IDENTITY, identities

CHOSEN, CONFIRMED, SUPERSEDED = "chosen", "confirmed", "superseded"
# A tuned row and the plain row of the same runs differ in the protocol alone.
_ARM = tuple(name for name in IDENTITY if name != "protocol")
# Losing its seal takes no run out of the decision that chose its settings.
_DECISION = ("task", "data_version", *(name for name in _ARM if name != "origin"))


def with_tunings(records: pd.DataFrame, tunings: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return ``records`` with a column ``tuning`` that relates each final run to the tunings, if any.

    "chosen": a tuning chose the run's settings; "confirmed": it chose the recipe's own settings; "superseded": an
    earlier decision chose them, but the latest one of the same method, task and images, shots, recipe, weights and
    image size chose others.
    """
    decisions = dict(zip(records["run_id"], identities(records, _DECISION), strict=True))
    settings = dict(zip(records["run_id"], records["overrides"], strict=True))
    latest: dict[tuple[Any, ...], set[str]] = {}
    tuned: set[str] = set()
    for tuning in sorted(tunings, key=lambda tuning: str(tuning.get("created", ""))):
        runs = [run for run in tuning["final_runs"] if run in decisions]
        tuned |= {*runs, *tuning.get("earlier_final_runs", ())}
        chosen = defaultdict(set)
        for run in runs:
            chosen[decisions[run]].add(settings[run])
        latest |= chosen
    states = [
        _state(settings[run], latest.get(decisions[run], ())) if run in tuned else ""
        for run in records["run_id"].tolist()
    ]
    return records.assign(tuning=pd.Series(states, index=records.index, dtype=object))


def chosen_at_ends(tunings: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, str]]:
    """Return, by final run, which chosen numbers are the "lowest" or "highest" of their grid."""
    return {
        run: tuning["ends_of_grid"] for tuning in tunings for run in tuning["final_runs"] if "ends_of_grid" in tuning
    }


def with_tuned_rows(records: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that tables count, each with the index of its ``record``; tuned rows have protocol "validation".

    A tuned run keeps its plain row too if it is the recipe's own run or a point among other runs with changed settings
    (a sweep). Otherwise the tuned row replaces the plain one, so that the chosen setting does not also appear as a
    varied one. A superseded run has no tuned row.
    """
    records = records.assign(record=records.index)
    changed, tuned = records["overrides"] != "", records["tuning"] != ""
    keys = identities(records, _DECISION)
    swept = keys.isin(set(keys[changed & ~tuned & (records["protocol"] == "final")]))
    tuned_rows = records[records["tuning"].isin((CHOSEN, CONFIRMED))].assign(protocol="validation")
    return pd.concat([records[~tuned | ~changed | swept], tuned_rows], ignore_index=True)


def without_repeats(runs: pd.DataFrame) -> pd.DataFrame:
    """Drop the tuned rows of a method for which tuning chose the recipe's own settings wherever it was tuned.

    The recipe's rows show the same runs; a method counted twice would distort ranks and corrections.
    """
    tuned = runs["protocol"] == "validation"
    plain = (runs["protocol"] == "final") & (runs["switches"] == "") & (runs["overrides"] == "")
    keys = identities(runs, _ARM)
    changed = set(keys[tuned & ~runs["record"].isin(set(runs.loc[plain, "record"]))])
    return runs[~tuned | keys.isin(changed)]


def _state(settings: str, chosen: Collection[str]) -> str:
    if settings not in chosen:
        return SUPERSEDED
    return CHOSEN if settings else CONFIRMED
