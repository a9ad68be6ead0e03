"""Paired comparisons with the baseline: image-level tests per task, Wilcoxon's test across tasks, Holm's correction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from shipbench.record import MEAN_PER_CLASS
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.differences import over_tasks, paired_accuracies, task_differences
from shipbench.report.analysis.predictions import TaskPredictions
from shipbench.report.analysis.study import Study
from shipbench.statistics import Interval, PairedTest, holm, rank_biserial, wilcoxon_test

ALPHA = 0.05
BETTER, WORSE = "▲", "▼"
FEWEST_WILCOXON = 6
"""The fewest tasks with which Wilcoxon's signed-rank test can reach the 5 % level."""


@dataclass(frozen=True)
class TaskTest:
    """The paired test on the images of one task; ``adjusted`` is Holm's p-value over all arms and tasks.

    ``by_class`` tells that the accuracies are means over classes.
    """

    images: PairedTest
    seeds: tuple[int, ...]
    by_class: bool = False
    adjusted: float = float("nan")

    @property
    def mark(self) -> str:
        """▲ or ▼ if the mean accuracies differ significantly at the 5 % level, else nothing."""
        if not self.adjusted < ALPHA:
            return ""
        return BETTER if self.images.difference > 0 else WORSE


@dataclass(frozen=True)
class PairedComparison:
    """One arm against its baseline.

    ``differences``: percentage points per shared task, paired over seeds; ``interval``: Student's t over those tasks;
    ``wilcoxon``: p-value across tasks, NaN over too few; ``wilcoxon_adjusted`` corrected by Holm over the arms.
    """

    arm: Arm
    baseline: Arm
    differences: Mapping[str, float]
    interval: Interval
    wilcoxon: float
    tasks: Mapping[str, TaskTest]
    wilcoxon_adjusted: float = float("nan")

    def contradicts(self, difference: float) -> bool:
        """Return whether Wilcoxon's test is beyond chance in the other direction than ``difference``, a mean."""
        return self.wilcoxon_adjusted < ALPHA and rank_biserial(list(self.differences.values())) * difference < 0


def image_tests(comparisons: Sequence[PairedComparison]) -> str:
    """Name the image-level tests of ``comparisons``."""
    tests = (test for comparison in comparisons for test in comparison.tasks.values())
    return names_of_image_tests((len(test.seeds), test.by_class) for test in tests)


def names_of_image_tests(tests: Iterable[tuple[int, bool]]) -> str:
    """Name image-level tests, given the number of seeds of each and whether its accuracies are means over classes.

    With one seed per side the sign-flip test is McNemar's. Where images weigh the inverse of the size of their class,
    it is neither that nor, with classes of several sizes, exact.
    """
    tests = list(tests)
    seeds = {seeds for seeds, by_class in tests if not by_class}
    names = ["exact McNemar tests"] if 1 in seeds else []
    names += ["exact sign-flip tests of the mean accuracies over seeds"] if seeds - {1} else []
    names = [" or (several seeds) ".join(names)] if names else []
    names += ["sign-flip tests of the means of classes"] if any(by_class for _, by_class in tests) else []
    return f"{' or (tasks scored by class) '.join(names) or 'paired tests'} on the test images"


def across_tasks_test(differences: Sequence[float]) -> float:
    """Return the p-value of Wilcoxon's test over one difference per task; NaN below ``FEWEST_WILCOXON`` tasks.

    A test that cannot reach the 5 % level would only weaken Holm's correction of the others.
    """
    return wilcoxon_test(differences) if len(differences) >= FEWEST_WILCOXON else float("nan")


def paired_comparisons(
    study: Study, pairs: Iterable[tuple[Arm, Arm]], predictions: Mapping[str, TaskPredictions]
) -> list[PairedComparison]:
    """Compare the first arm of each pair with the second; tasks without predictions have no test.

    Pairs without a common task and seed are left out, and so are the ``changed_tasks`` of a pair.
    """
    comparisons = [_paired_comparison(study, *pair, _task_tests(predictions, *pair)) for pair in pairs]
    return _corrected([comparison for comparison in comparisons if comparison.differences])


def _paired_comparison(study: Study, arm: Arm, baseline: Arm, tests: Mapping[str, TaskTest]) -> PairedComparison:
    tasks = task_differences(*paired_accuracies(study, arm, baseline))
    values, of_tasks = list(tasks.values()), {task: test for task, test in tests.items() if task in tasks}
    return PairedComparison(arm, baseline, tasks, over_tasks(values), across_tasks_test(values), of_tasks)


def _task_tests(predictions: Mapping[str, TaskPredictions], arm: Arm, baseline: Arm) -> dict[str, TaskTest]:
    tests = (
        (task, _task_test(part, arm, baseline)) for task, in_task in predictions.items() for part in in_task.groups
    )
    return {task: test for task, test in tests if test is not None}


def _task_test(predictions: TaskPredictions, arm: Arm, baseline: Arm) -> TaskTest | None:
    seeds = predictions.shared_seeds(arm, baseline)
    if not seeds:
        return None
    ours, theirs = (predictions.times_correct(side, seeds) for side in (arm, baseline))
    test = ours.test(theirs)
    return None if test is None else TaskTest(test, tuple(seeds), predictions.metric == MEAN_PER_CLASS)


def _corrected(comparisons: Sequence[PairedComparison]) -> list[PairedComparison]:
    across = holm([comparison.wilcoxon for comparison in comparisons])
    cells = [(i, task) for i, comparison in enumerate(comparisons) for task in comparison.tasks]
    p_values = holm([comparisons[i].tasks[task].images.p_value for i, task in cells])
    adjusted = dict(zip(cells, p_values, strict=True))
    return [
        replace(
            comparison,
            wilcoxon_adjusted=across[i],
            tasks={task: replace(test, adjusted=adjusted[i, task]) for task, test in comparison.tasks.items()},
        )
        for i, comparison in enumerate(comparisons)
    ]
