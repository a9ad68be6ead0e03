"""Means, deviations, intervals, ranks and tests: plain functions of numbers, with scipy underneath.

Accuracies may be fractions or percent; results come in the unit that went in. Higher is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats


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


def task_ranks(scores: pd.DataFrame) -> pd.DataFrame:
    """Rank the methods (columns) on every task (rows), 1 for the best; ties share their mean rank."""
    return scores.rank(axis=1, ascending=False, method="average")


def average_ranks(scores: pd.DataFrame) -> pd.Series[float]:
    """Return each method's mean rank over the tasks; raises ``ValueError`` if a score is missing."""
    if scores.isna().to_numpy().any():
        raise ValueError("ranks need a score for every method on every task")
    return task_ranks(scores).mean(axis=0)


def friedman_test(scores: pd.DataFrame) -> FriedmanTest:
    """Test whether the methods (columns) differ over the tasks (rows); needs three methods and two tasks."""
    result = stats.friedmanchisquare(*(scores[column].to_numpy() for column in scores.columns))
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
