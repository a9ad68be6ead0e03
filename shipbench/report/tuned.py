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


def without_repeats(runs: pd.DataFrame) -> pd.DataFrame:
    """Leave out the tuned runs of a method for which tuning chose the recipe's own settings on every task of a suite.

    The same runs stand there as the recipe's; a method that is counted twice would distort ranks and corrections.
    """
    plain = runs[(runs["protocol"] == "final") & (runs["switches"] == "") & (_overrides(runs) == "")]
    own = plain.groupby(["method", "suite"])["run_id"].agg(set)
    tuned = runs[runs["protocol"] == "validation"]
    chosen = tuned.groupby(["method", "suite"])["run_id"].agg(set)
    repeated = {pair for pair, ids in chosen.items() if pair in own.index and own[pair] == ids}
    pairs = pd.Series(list(zip(tuned["method"], tuned["suite"], strict=True)), index=tuned.index, dtype=object)
    return runs.drop(index=pairs.index[pairs.isin(repeated)])


def _overrides(results: pd.DataFrame) -> pd.Series[str]:
    empty = pd.Series("", index=results.index)
    return results.get("overrides", empty).fillna("")
