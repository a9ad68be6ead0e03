"""Paired comparisons with the baseline: image-level tests per task, Wilcoxon's test across tasks, Holm's correction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

from shipbench.record import MEAN_PER_CLASS
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.differences import over_tasks, paired_accuracies, task_differences
from shipbench.report.analysis.predictions import TaskPredictions
from shipbench.report.analysis.study import Study
from shipbench.statistics import Interval, PairedTest, holm, rank_biserial, wilcoxon_test

ALPHA = 0.05
BETTER, WORSE = "▲", "▼"
FEWEST_WILCOXON = 6
"""The fewest tasks with which Wilcoxon's signed-rank test can reach the 5 % level, uncorrected."""


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
    ``wilcoxon``: p-value across tasks, NaN below ``fewest_tasks``; ``wilcoxon_adjusted`` corrected by Holm over the
    arms.
    """

    arm: Arm
    baseline: Arm
    differences: Mapping[str, float]
    interval: Interval
    tasks: Mapping[str, TaskTest]
    wilcoxon: float = float("nan")
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


def fewest_tasks(counts: Sequence[int]) -> int:
    """Return from how many tasks on all Wilcoxon's tests can reach the 5 % level after Holm's correction.

    ``counts`` holds the number of tasks of every comparison. Tests over fewer tasks are not made: they would only
    make the correction of the others larger. The choice depends on no result.
    """
    return next(fewest for fewest in count(FEWEST_WILCOXON) if _can_reach_level([n for n in counts if n >= fewest]))


def _can_reach_level(counts: Iterable[int]) -> bool:
    """Return whether the corrected tests can all reach it: over n tasks, the smallest p-value is 2^(1 - n)."""
    return all(adjusted < ALPHA for adjusted in holm([2.0 ** (1 - n) for n in counts]))


def across_tasks_tests(differences: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Return the p-values of Wilcoxon's tests, each with that corrected by Holm; NaN below ``fewest_tasks``.

    ``differences`` holds one value per task for every comparison.
    """
    fewest = fewest_tasks([len(values) for values in differences])
    p_values = [wilcoxon_test(values) if len(values) >= fewest else float("nan") for values in differences]
    return list(zip(p_values, holm(p_values), strict=True))


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
    return PairedComparison(arm, baseline, tasks, over_tasks(values), of_tasks)


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
    across = across_tasks_tests([list(comparison.differences.values()) for comparison in comparisons])
    cells = [(i, task) for i, comparison in enumerate(comparisons) for task in comparison.tasks]
    over_images = holm([comparisons[i].tasks[task].images.p_value for i, task in cells])
    adjusted = dict(zip(cells, over_images, strict=True))
    return [
        replace(
            comparison,
            wilcoxon=p_value,
            wilcoxon_adjusted=corrected,
            tasks={task: replace(test, adjusted=adjusted[i, task]) for task, test in comparison.tasks.items()},
        )
        for i, (comparison, (p_value, corrected)) in enumerate(zip(comparisons, across, strict=True))
    ]
