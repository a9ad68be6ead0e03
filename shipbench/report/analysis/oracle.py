"""What choosing the epoch on test would have gained."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.study import Study


@dataclass(frozen=True)
class OracleGap:
    """One arm's mean accuracies in percent after the last and at the best test epoch, and its largest gap."""

    arm: Arm
    final: float
    best: float
    largest: float
    tasks: int


def oracle_gaps(study: Study, suite: str) -> list[OracleGap]:
    """Return the gap of every main arm with a run that was tested at more than its last epoch."""
    runs = _tested_along_the_way(study.runs)
    return [_gap(arm, own) for arm in study.arms_of(suite, main=True) if len(own := runs[runs["arm"] == arm.key])]


def _gap(arm: Arm, runs: pd.DataFrame) -> OracleGap:
    means = 100 * runs.groupby("task")[["final_test_acc", "best_test_acc"]].mean()
    gaps = means["best_test_acc"] - means["final_test_acc"]
    final, best = float(means["final_test_acc"].mean()), float(means["best_test_acc"].mean())
    return OracleGap(arm, final, best, float(gaps.max()), len(means))


def _tested_along_the_way(runs: pd.DataFrame) -> pd.DataFrame:
    """Leave out runs that were tested once, at the end: their gap is not zero but unknown."""
    finished = runs[runs["status"] == "done"].dropna(subset=["final_test_acc", "best_test_acc"])
    if "cfg.eval_every" not in finished:
        return finished
    return finished[finished["cfg.eval_every"].fillna(1) > 0]
