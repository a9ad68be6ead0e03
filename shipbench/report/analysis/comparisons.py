"""Every main arm against the baseline: paired tests per task on the images, Wilcoxon across tasks, Holm-corrected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.differences import over_tasks, paired_difference
from shipbench.report.analysis.predictions import TaskPredictions
from shipbench.report.analysis.study import Study
from shipbench.statistics import Interval, PairedTest, holm, paired_test, wilcoxon_test

ALPHA = 0.05
BETTER, WORSE = "▲", "▼"


@dataclass(frozen=True)
class TaskTest:
    """One task: the test on its images, the seeds of both sides, and Holm's p-value over all cells of the suite."""

    images: PairedTest
    seeds: tuple[int, ...]
    adjusted: float = float("nan")

    @property
    def mark(self) -> str:
        """▲ or ▼ for a difference of the mean accuracies beyond chance at the 5 % level, else nothing."""
        if not self.adjusted < ALPHA:
            return ""
        return BETTER if self.images.difference > 0 else WORSE


@dataclass(frozen=True)
class PairedComparison:
    """One arm against the baseline.

    ``differences``: per shared task, in percentage points, paired over seeds; ``interval``: Student's over those
    tasks; ``wilcoxon`` and ``wilcoxon_adjusted``: p-values across tasks, the second corrected for the number of arms.
    """

    arm: Arm
    differences: Mapping[str, float]
    interval: Interval
    wilcoxon: float
    tasks: Mapping[str, TaskTest]
    wilcoxon_adjusted: float = float("nan")


def tests_named(found: Sequence[PairedComparison]) -> str:
    """Name the tests on images: with one seed on each side the test of mean accuracies is McNemar's."""
    seeds = {len(test.seeds) for comparison in found for test in comparison.tasks.values()}
    names = ["exact McNemar tests"] if 1 in seeds else []
    names += ["exact sign-flip tests of the mean accuracies over seeds"] if seeds - {1} else []
    return f"{' or (several seeds) '.join(names) or 'exact paired tests'} on the test images"


def paired_comparisons(
    study: Study, suite: str, baseline: Arm, predictions: Mapping[str, TaskPredictions]
) -> list[PairedComparison]:
    """Compare every other main arm of the suite to ``baseline``; there are tests per task where predictions are."""
    arms = [arm for arm in study.arms_of(suite, main=True) if arm != baseline]
    found = [_paired_comparison(study, arm, baseline, _task_tests(predictions, arm, baseline)) for arm in arms]
    return _corrected([comparison for comparison in found if comparison.differences])


def _paired_comparison(study: Study, arm: Arm, baseline: Arm, tests: Mapping[str, TaskTest]) -> PairedComparison:
    tasks = paired_difference(study.accuracies(arm), study.accuracies(baseline)).tasks
    values = list(tasks.values())
    return PairedComparison(arm, tasks, over_tasks(values), wilcoxon_test(values), tests)


def _task_tests(predictions: Mapping[str, TaskPredictions], arm: Arm, baseline: Arm) -> dict[str, TaskTest]:
    tests = ((task, _task_test(found, arm, baseline)) for task, found in predictions.items())
    return {task: test for task, test in tests if test is not None}


def _task_test(found: TaskPredictions, arm: Arm, baseline: Arm) -> TaskTest | None:
    seeds = found.shared_seeds(arm, baseline)
    if not seeds:
        return None
    ours, theirs = (found.times_right(own, seeds).to_numpy() for own in (arm, baseline))
    return TaskTest(paired_test(ours, theirs, len(seeds)), tuple(seeds))


def _corrected(found: Sequence[PairedComparison]) -> list[PairedComparison]:
    across = holm([comparison.wilcoxon for comparison in found])
    cells = [(i, task) for i, comparison in enumerate(found) for task in comparison.tasks]
    adjusted = dict(zip(cells, holm([found[i].tasks[task].images.p_value for i, task in cells]), strict=True))
    return [
        replace(
            comparison,
            wilcoxon_adjusted=across[i],
            tasks={task: replace(test, adjusted=adjusted[i, task]) for task, test in comparison.tasks.items()},
        )
        for i, comparison in enumerate(found)
    ]
