"""The oracle gap: the accuracy gained by choosing the epoch on test images."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from shipbench.record import IMPORTED
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.study import Study


@dataclass(frozen=True)
class OracleGap:
    """Mean accuracies of an arm in percent after the last and at the best test epoch, and its largest gap on a task."""

    arm: Arm
    final: float
    best: float
    largest: float
    tasks: int


def oracle_gaps(study: Study, suite: str) -> list[OracleGap]:
    """Return the gap of every main arm that has a run with test evaluations before the last epoch."""
    tested = _tested_during_training(study)
    by_arm = {arm: tested[tested["arm"] == arm.key] for arm in study.arms_of(suite, main=True)}
    return [_gap(arm, runs) for arm, runs in by_arm.items() if len(runs)]


def _gap(arm: Arm, runs: pd.DataFrame) -> OracleGap:
    means = 100 * runs.groupby("task")[["final_test_acc", "best_test_acc"]].mean()
    gaps = means["best_test_acc"] - means["final_test_acc"]
    final, best = float(means["final_test_acc"].mean()), float(means["best_test_acc"].mean())
    return OracleGap(arm, final, best, float(gaps.max()), len(means))


def _tested_during_training(study: Study) -> pd.DataFrame:
    """Return the finished runs without those that were tested once, at the end: their gap is unknown, not zero.

    Imported results of two accuracies without a curve count as tested during training.
    """
    finished = study.runs[study.runs["status"] == "done"].dropna(subset=["final_test_acc", "best_test_acc"])
    tests = study.history.loc[study.history["split"] == "test", "run_id"].value_counts()
    once = (finished["kind"] == IMPORTED) & (finished["run_id"].map(tests) == 1)
    if "cfg.eval_every" in finished:
        once |= finished["cfg.eval_every"].fillna(1) <= 0
    return finished[~once]
