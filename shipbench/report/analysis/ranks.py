"""Ranks over tasks, and the Friedman test."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.differences import comparable
from shipbench.report.analysis.study import Study
from shipbench.statistics import FriedmanTest, average_ranks, friedman_test, nemenyi_distance

FEWEST_ARMS, FEWEST_TASKS = 3, 2


@dataclass(frozen=True, eq=False)
class Ranking:
    """Average ranks by label (best first) over ``tasks`` tasks, the tests, and who is left out."""

    scores: pd.DataFrame
    ranks: pd.Series[float]
    test: FriedmanTest
    distance: float
    tasks: int
    arms: tuple[Arm, ...]
    left_out: str


def ranking(study: Study, suite: str) -> Ranking | None:
    """Rank the suite's main arms; None with fewer than three arms or two shared tasks."""
    arms = study.arms_of(suite, main=True)
    shared = comparable(study, arms)
    table = shared.means
    if table.shape[1] < FEWEST_ARMS or table.shape[0] < FEWEST_TASKS:
        return None
    ranks = average_ranks(table).sort_values(kind="stable")
    return Ranking(
        scores=table,
        ranks=ranks,
        test=friedman_test(table),
        distance=nemenyi_distance(table.shape[1], table.shape[0]),
        tasks=table.shape[0],
        arms=tuple(arm for key in ranks.index for arm in arms if arm.key == key),
        left_out=shared.sentence,
    )
