"""Runs whose settings a tuning chose, shown as a method of their own: "tuned on validation"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd


def with_tuned_runs(results: pd.DataFrame, tunings: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return ``results`` with a row of protocol "validation" for every run on the 1000 that a tuning names.

    A run keeps its plain row too where it has one to fill: if it is the recipe's own run, or a point among other runs
    with changed settings (a sweep). Otherwise the tuned row takes its place, so that a chosen setting is not shown a
    second time as if it had been varied.
    """
    named = {run for tuning in tunings for run in tuning["final_runs"]}
    if not len(results) or not named:
        return results
    tuned = results["run_id"].isin(named)
    changed = _overrides(results) != ""
    keys = pd.Series(list(zip(results["method"], results["task"], strict=True)), index=results.index)
    final = results.get("protocol", pd.Series("final", index=results.index)) == "final"
    swept = keys.isin(set(keys[changed & final & ~tuned]))
    plain = results[~tuned | ~changed | swept]
    return pd.concat([plain, results[tuned].assign(protocol="validation")], ignore_index=True)


def _overrides(results: pd.DataFrame) -> pd.Series[str]:
    empty = pd.Series("", index=results.index)
    return results.get("overrides", empty).fillna("")
