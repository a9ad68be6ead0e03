"""Every main arm against the baseline: McNemar per task on the images, Wilcoxon across tasks, both Holm-corrected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from shipbench.report.arms import Arm
from shipbench.report.differences import paired_difference
from shipbench.report.predictions import TaskPredictions
from shipbench.report.study import Study
from shipbench.statistics import Interval, SignTest, bootstrap_interval, holm, mcnemar_test, wilcoxon_test

ALPHA = 0.05
BETTER, WORSE = "▲", "▼"


@dataclass(frozen=True)
class TaskTest:
    """One task: images that ours wins and loses, the exact p-value, and Holm's over all cells of the suite."""

    signs: SignTest
    adjusted: float = float("nan")

    @property
    def mark(self) -> str:
        """▲ or ▼ for a difference beyond chance at the 5 % level, else nothing."""
        if not self.adjusted < ALPHA:
            return ""
        return BETTER if self.signs.ours > self.signs.theirs else WORSE


@dataclass(frozen=True)
class Contest:
    """One arm against the baseline.

    ``differences``: per shared task, in percentage points, paired over seeds; ``interval``: bootstrap over those
    tasks; ``wilcoxon`` and ``wilcoxon_adjusted``: p-values across tasks, the second corrected for the number of arms.
    """

    arm: Arm
    differences: Mapping[str, float]
    interval: Interval
    wilcoxon: float
    tasks: Mapping[str, TaskTest]
    wilcoxon_adjusted: float = float("nan")


def contests(study: Study, suite: str, baseline: Arm, predictions: Mapping[str, TaskPredictions]) -> list[Contest]:
    """Compare every other main arm of the suite to ``baseline``; there are tests per task where predictions are."""
    arms = [arm for arm in study.arms_of(suite, main=True) if arm != baseline]
    found = [_contest(study, arm, baseline, _task_tests(predictions, arm, baseline)) for arm in arms]
    return _corrected([contest for contest in found if contest.differences])


def _contest(study: Study, arm: Arm, baseline: Arm, tests: Mapping[str, SignTest]) -> Contest:
    tasks = paired_difference(study.accuracies(arm), study.accuracies(baseline)).tasks
    values = list(tasks.values())
    results = {task: TaskTest(signs) for task, signs in tests.items()}
    return Contest(arm, tasks, bootstrap_interval(values), wilcoxon_test(values), results)


def _task_tests(predictions: Mapping[str, TaskPredictions], arm: Arm, baseline: Arm) -> dict[str, SignTest]:
    tests = ((task, _signs(found, arm, baseline)) for task, found in predictions.items())
    return {task: signs for task, signs in tests if signs is not None}


def _signs(found: TaskPredictions, arm: Arm, baseline: Arm) -> SignTest | None:
    seeds = found.shared_seeds(arm, baseline)
    if not seeds:
        return None
    return mcnemar_test(found.right(arm, seeds).to_numpy(), found.right(baseline, seeds).to_numpy())


def _corrected(found: Sequence[Contest]) -> list[Contest]:
    across = holm([contest.wilcoxon for contest in found])
    cells = [(i, task) for i, contest in enumerate(found) for task in contest.tasks]
    adjusted = dict(zip(cells, holm([found[i].tasks[task].signs.p_value for i, task in cells]), strict=True))
    return [
        replace(
            contest,
            wilcoxon_adjusted=across[i],
            tasks={task: replace(test, adjusted=adjusted[i, task]) for task, test in contest.tasks.items()},
        )
        for i, contest in enumerate(found)
    ]
