"""Means, deviations, intervals, ranks and tests: plain functions of numbers, with scipy underneath.

Accuracies may be fractions or percent; results come in the unit that went in. Higher is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

RESAMPLES = 1000
# Means over seeds that are equal on paper may differ in their last bit; they tie all the same.
_DIGITS = 9


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided interval, and the number of values it rests on."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class FriedmanTest:
    """Friedman's chi-squared statistic (corrected for ties) and its p-value."""

    statistic: float
    p_value: float


@dataclass(frozen=True)
class PairedTest:
    """Mean difference of two sides, pairs that one and the other win, and the two-sided p-value of the difference."""

    difference: float
    ours: int
    theirs: int
    p_value: float


def sample_deviation(values: Sequence[float]) -> float:
    """Return the sample standard deviation (n - 1); NaN for fewer than two values."""
    return float(np.std(np.asarray(values, dtype=float), ddof=1)) if len(values) > 1 else float("nan")


def mean_of_tasks(scores: Mapping[str, float], tasks: Sequence[str]) -> float:
    """Return the mean over ``tasks``; NaN if one of them has no score."""
    return float(np.mean([scores.get(task, np.nan) for task in tasks])) if tasks else float("nan")


def mean_of_groups(scores: Mapping[str, float], groups: Mapping[str, Sequence[str]]) -> float:
    """Return the mean over the groups' means (group name -> its tasks); NaN if one task has no score."""
    means = [mean_of_tasks(scores, tasks) for tasks in groups.values()]
    return float(np.mean(means)) if means else float("nan")


def student_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Return the mean of ``values`` and its Student t interval; its ends are NaN for fewer than two values."""
    array = np.asarray(values, dtype=float)
    mean = float(array.mean()) if len(array) else float("nan")
    if len(array) < 2:
        return Interval(mean, float("nan"), float("nan"), len(array))
    half = float(stats.t.ppf((1 + level) / 2, len(array) - 1) * stats.sem(array))
    return Interval(mean, mean - half, mean + half, len(array))


def bootstrap_interval(values: Sequence[float] | NDArray[np.float64], level: float = 0.95) -> Interval:
    """Return the mean of ``values`` and its percentile bootstrap interval, the same for the same values.

    ``values`` say for every image how often it was classified right. The ends are NaN for fewer than two values. How
    often each distinct value is drawn is one multinomial draw: the same resampling as image by image, without a
    thousand copies of a test set.
    """
    array = np.asarray(values, dtype=float)
    mean = float(array.mean()) if len(array) else float("nan")
    if len(array) < 2:
        return Interval(mean, float("nan"), float("nan"), len(array))
    distinct, counts = np.unique(array, return_counts=True)
    drawn = np.random.default_rng(0).multinomial(len(array), counts / len(array), size=RESAMPLES)
    low, high = np.quantile(drawn @ distinct / len(array), [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), len(array))


def paired_test(ours: NDArray[np.int_], theirs: NDArray[np.int_], seeds: int) -> PairedTest:
    """Compare two classifiers on the same images by the exact sign-flip test of their mean accuracies.

    Both arrays (n,) say in how many of ``seeds`` trainings each image was classified right. If both classify an image
    alike, its difference could as well have had the other sign: the p-value is the share of all signs under which the
    sum of differences is at least as far from zero. With one seed this is McNemar's exact test; with several every
    image still counts once, with the size of its difference, so that seeds are not taken for new images.
    """
    difference = np.asarray(ours) - np.asarray(theirs)
    won, lost = int((difference > 0).sum()), int((difference < 0).sum())
    mean = float(difference.mean()) / seeds if len(difference) else float("nan")
    return PairedTest(mean, won, lost, _sign_flip(difference))


def _sign_flip(difference: NDArray[np.int_]) -> float:
    """Return the two-sided p-value of a sum of whole numbers whose signs are fair coins.

    The chances of every sum come from its characteristic function, a product of cosines, by one Fourier transform.
    """
    observed = abs(int(difference.sum()))
    if observed == 0:
        return 1.0
    sizes, counts = np.unique(np.abs(difference[difference != 0]), return_counts=True)
    most = int(sizes @ counts)
    length = 2 * most + 1
    angles = 2 * np.pi * np.arange(most + 1) / length
    spectrum = np.prod([np.cos(size * angles) ** count for size, count in zip(sizes, counts, strict=True)], axis=0)
    tail = float(np.fft.irfft(spectrum, length)[observed : most + 1].sum())
    return min(1.0, max(0.0, 2 * tail))


def wilcoxon_test(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test of paired differences; NaN without a difference.

    Zero differences are left out, as Wilcoxon does; the p-value is exact for small samples without ties.
    """
    array = np.round(np.asarray(differences, dtype=float), _DIGITS)
    if not (array != 0).any():
        return float("nan")
    return float(stats.wilcoxon(array[array != 0]).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm's step-down method; unknown ones (NaN) stay so and do not count."""
    array = np.asarray(p_values, dtype=float)
    known = np.isfinite(array)
    if known.any():
        array[known] = multipletests(array[known], method="holm")[1]
    return [float(value) for value in array]


def task_ranks(scores: pd.DataFrame) -> pd.DataFrame:
    """Rank the methods (columns) on every task (rows), 1 for the best; ties share their mean rank."""
    return scores.round(_DIGITS).rank(axis=1, ascending=False, method="average")


def average_ranks(scores: pd.DataFrame) -> pd.Series[float]:
    """Return each method's mean rank over the tasks; raises ``ValueError`` if a score is missing."""
    if scores.isna().to_numpy().any():
        raise ValueError("ranks need a score for every method on every task")
    return task_ranks(scores).mean(axis=0)


def friedman_test(scores: pd.DataFrame) -> FriedmanTest:
    """Test whether the methods (columns) differ over the tasks (rows); needs three methods and two tasks."""
    result = stats.friedmanchisquare(*scores.round(_DIGITS).to_numpy().T)
    return FriedmanTest(float(result.statistic), float(result.pvalue))


def nemenyi_distance(methods: int, tasks: int, alpha: float = 0.05) -> float:
    """Return Nemenyi's critical difference of average ranks (Demsar 2006, equation 5 and table 5a)."""
    quantile = float(stats.studentized_range.ppf(1 - alpha, methods, np.inf)) / np.sqrt(2)
    return float(quantile * np.sqrt(methods * (methods + 1) / (6 * tasks)))


def cliques(ranks: Sequence[float], distance: float) -> list[tuple[int, int]]:
    """Return the maximal runs ``(first, last)`` of ascending ``ranks`` that lie within ``distance``."""
    found: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(i for i, other in enumerate(ranks) if other - rank <= distance)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def pareto_front(cost: Sequence[float], score: Sequence[float]) -> list[bool]:
    """Say for every point whether no other is at least as cheap and as good and better in one of the two."""
    points = list(zip(cost, score, strict=True))
    return [
        not any(c <= cost_i and s >= score_i and (c < cost_i or s > score_i) for c, s in points)
        for cost_i, score_i in points
    ]
