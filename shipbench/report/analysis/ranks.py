"""Average ranks over tasks, with Friedman's test and Nemenyi's critical difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from shipbench.counts import counted
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.differences import CompleteScores, shared_tasks
from shipbench.report.analysis.study import Study
from shipbench.report.wording.names import task_name
from shipbench.report.wording.numbers import p_equation
from shipbench.report.wording.text import joined
from shipbench.statistics import FriedmanTest, average_ranks, friedman_test, nemenyi_distance

FEWEST_ARMS, FEWEST_TASKS = 3, 2
_CHANGED = " No ranks on {}: the images, their draw, resize, augment or metric differ."
_MIXED = " Rows with different backbones, weights or image sizes are ranked together."


@dataclass(frozen=True, eq=False)
class Ranking:
    """Average ranks of ``arms`` (best first) over the tasks of ``scores``, and their tests.

    ``scores``: mean accuracies in percent, tasks x arm keys; ``ranks``: average rank by arm key, ascending;
    ``left_out``: a sentence about arms and tasks that are left out, with a space before it, or nothing.
    """

    scores: pd.DataFrame
    ranks: pd.Series[float]
    test: FriedmanTest
    distance: float
    arms: tuple[Arm, ...]
    left_out: str

    @property
    def sentence(self) -> str:
        """The ranking and its tests as a caption sentence."""
        return (
            f"Average ranks over {counted(len(self.scores), 'task')}, by accuracy averaged over seeds (1 is best; ties "
            f"share their mean rank; a win is an untied first place). Friedman chi-squared {self.test.statistic:.2f}, "
            f"{p_equation(self.test.p_value)}; Nemenyi critical difference {self.distance:.2f} at the 5 % level."
            f"{_MIXED if self._mixed else ''}{self.left_out}"
        )

    @property
    def _mixed(self) -> bool:
        return not all(one.shares_base(other) for one, other in combinations(self.arms, 2))


def ranking(study: Study, arms: Sequence[Arm], complete: CompleteScores) -> Ranking | None:
    """Rank the arms that have complete scores; None with fewer than three arms or two tasks with the same images."""
    scores = complete.means
    same = shared_tasks(study, [arm for arm in arms if arm.key in scores.columns])
    changed = [task_name(task) for task in scores.index if task not in same]
    scores = scores[scores.index.isin(same)]
    if scores.shape[1] < FEWEST_ARMS or scores.shape[0] < FEWEST_TASKS:
        return None
    ranks = average_ranks(scores).sort_values(kind="stable")
    return Ranking(
        scores=scores,
        ranks=ranks,
        test=friedman_test(scores),
        distance=nemenyi_distance(scores.shape[1], scores.shape[0]),
        arms=tuple(arm for key in ranks.index for arm in arms if arm.key == key),
        left_out=complete.left_out + (_CHANGED.format(joined(changed)) if changed else ""),
    )
