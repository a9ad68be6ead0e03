"""Averages, deviations, intervals, ranks and tests of accuracies.

Accuracies may be fractions or percent; results have the same unit. Higher is better.
scipy is imported where a test needs it, and only its special functions if they are enough: scipy.stats takes half a
second.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import ceil, exp, sqrt
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pandas as pd

MEAN_OF_GROUPS = "mean of groups"
MEAN_OF_TASKS = "mean of tasks"
RESAMPLES = 1000
# Rounding makes means tie that are equal on paper but differ in their last bit.
_DIGITS = 9
# Steps on either side of zero to which sums of several weights are rounded; both sides fit in a transform of 2^17.
_GRID = 60_000
# The exponential function of any smaller number is zero in double precision.
_UNDERFLOW = -746


@dataclass(frozen=True)
class Interval:
    """A mean, its two-sided interval, and the number of values behind it."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class FriedmanTest:
    """Friedman's chi-squared statistic, corrected for ties, and its p-value."""

    statistic: float
    p_value: float


@dataclass(frozen=True)
class PairedTest:
    """A mean difference, the numbers of images won and lost, and the two-sided p-value of the difference."""

    difference: float
    wins: int
    losses: int
    p_value: float


def without_noise(value: float) -> float:
    """Return ``value`` without the rounding errors of a mean, so that what is zero on paper is zero."""
    return round(value, _DIGITS)


def sample_deviation(values: Sequence[float]) -> float:
    """Return the sample standard deviation (n - 1); NaN for fewer than two values."""
    return float(np.std(np.asarray(values, dtype=float), ddof=1)) if len(values) > 1 else float("nan")


def mean_of_tasks(accuracies: Mapping[str, float], tasks: Iterable[str] | None = None) -> float:
    """Return the mean accuracy over ``tasks`` (by default all keys); NaN without tasks or if one has no accuracy."""
    values = [accuracies.get(task, np.nan) for task in (accuracies if tasks is None else tasks)]
    return float(np.mean(values)) if values else float("nan")


def mean_of_groups(accuracies: Mapping[str, float], groups: Mapping[str, str]) -> float:
    """Return the mean of the groups' mean accuracies; NaN without tasks or if one has no accuracy.

    ``groups`` maps every task of the complete suite to its group, so that a mean over a part is never returned.
    """
    members: dict[str, list[str]] = {}
    for task, group in groups.items():
        members.setdefault(group, []).append(task)
    means = [mean_of_tasks(accuracies, tasks) for tasks in members.values()]
    return float(np.mean(means)) if means else float("nan")


def mean_of_tasks_name(tasks: Collection[str], suite_tasks: Collection[str]) -> str:
    """Return the printed name of a mean over ``tasks``: "mean of these N tasks" unless they are the whole suite."""
    return MEAN_OF_TASKS if set(tasks) == set(suite_tasks) else f"mean of these {len(set(tasks))} tasks"


def student_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Return the mean of ``values`` with its Student t interval, which is NaN for fewer than two values."""
    array = np.asarray(values, dtype=float)
    mean = float(array.mean()) if len(array) else float("nan")
    if len(array) < 2:
        return Interval(mean, float("nan"), float("nan"), len(array))
    from scipy.special import stdtrit

    half = float(stdtrit(len(array) - 1, (1 + level) / 2)) * _standard_error(array)
    return Interval(mean, mean - half, mean + half, len(array))


def student_test(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of Student's t-test that the mean of ``differences`` is zero.

    NaN for fewer than two values, and if all are equal, because their spread is then unknown.
    """
    array = np.round(np.asarray(differences, dtype=float), _DIGITS)
    if len(array) < 2 or (array == array[0]).all():
        return float("nan")
    from scipy.special import stdtr

    return 2 * float(stdtr(len(array) - 1, -abs(array.mean()) / _standard_error(array)))


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(np.std(values, ddof=1)) / sqrt(len(values))


def bootstrap_interval(
    values: Sequence[float] | NDArray[np.float64], level: float = 0.95, *, classes: NDArray[np.int64] | None = None
) -> Interval:
    """Return the mean of ``values`` with its percentile bootstrap interval, which is NaN for fewer than two values.

    ``values`` has one entry per image, such as the share of seeds that classify it correctly. With the ``classes`` (n,)
    of the images, the mean is that of the classes, and every class is resampled on its own: their sizes are part of the
    test set, not of chance. The interval is then NaN if no class has two images. The generator has a fixed seed, so
    equal values give equal intervals.
    """
    array = np.asarray(values, dtype=float)
    strata = [array] if classes is None else [array[classes == number] for number in np.unique(classes)]
    mean = float(np.mean([stratum.mean() for stratum in strata])) if len(array) else float("nan")
    if max(map(len, strata), default=0) < 2:
        return Interval(mean, float("nan"), float("nan"), len(array))
    generator = np.random.default_rng(0)
    drawn = np.mean([_resampled_means(stratum, generator) for stratum in strata], axis=0)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), len(array))


def _resampled_means(values: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    """Return the means of ``RESAMPLES`` resamples.

    A multinomial draw of the counts of distinct values is equivalent to resampling images, and needs no copies of the
    test set.
    """
    distinct, counts = np.unique(values, return_counts=True)
    drawn = generator.multinomial(len(values), counts / len(values), size=RESAMPLES)
    means: NDArray[np.float64] = drawn @ distinct / len(values)
    return means


def class_weights(classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return a weight for each image, 1 on average, with which the mean over images is the mean of the classes."""
    _, members, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    weights: NDArray[np.float64] = len(classes) / (len(sizes) * sizes[members])
    return weights


def paired_test(
    ours: NDArray[np.int_], theirs: NDArray[np.int_], seeds: int, *, classes: NDArray[np.int64] | None = None
) -> PairedTest:
    """Compare two classifiers on the same images by an exact sign-flip test of their mean accuracies.

    ``ours`` and ``theirs`` (n,) count, for every image, the trainings out of ``seeds`` that classify it correctly.
    Under the null hypothesis the sign of each difference is arbitrary; the p-value is the share of all sign assignments
    whose sum is at least as far from zero as the observed one. With one seed this is McNemar's exact test. With
    several, each image counts once, weighted by its difference, so that seeds are not mistaken for additional images.
    With the ``classes`` (n,) of the images, the accuracies are means over classes, and a difference weighs the inverse
    of the size of its class. Signs are as arbitrary as before, because the weights depend on the labels alone; with
    classes of several sizes, the p-value is an upper bound.
    """
    difference = np.asarray(ours) - np.asarray(theirs)
    won, lost = int((difference > 0).sum()), int((difference < 0).sum())
    weights = np.ones(len(difference)) if classes is None else class_weights(classes)
    mean = float((weights * difference).mean()) / seeds if len(difference) else float("nan")
    return PairedTest(mean, won, lost, _sign_flip(difference, weights))


def _sign_flip(difference: NDArray[np.int_], weights: NDArray[np.float64]) -> float:
    """Return the two-sided p-value of the weighted sum of whole numbers with random signs."""
    kinds = np.unique(weights[difference != 0])
    parts = [difference[weights == kind] for kind in kinds]
    tail = _tail(difference) if len(kinds) < 2 else _tail_on_grid(kinds, parts)
    return min(1.0, max(0.0, 2 * tail))


def _tail(numbers: NDArray[np.int_]) -> float:
    """Return the probability that the sum of ``numbers`` with random signs is at least its observed absolute value.

    The probability of one sum is a Fourier coefficient of the characteristic function. The closed form of the sum of
    cosines over the whole tail saves the transform.
    """
    most, observed = int(np.abs(numbers).sum()), abs(int(numbers.sum()))
    places, values = _characteristic(numbers)
    halves = np.pi * places[1:] / (2 * most + 1)
    # The end of the tail adds nothing: its sine is zero at all these angles.
    sums = np.sin((2 * observed - 1) * halves) / np.sin(halves)
    return float(most - observed + 1 - (values[1:] * sums).sum()) / (2 * most + 1)


def _tail_on_grid(kinds: NDArray[np.float64], parts: Sequence[NDArray[np.int_]]) -> float:
    """Return the same probability for the sum of ``parts``, each times its weight in ``kinds``.

    The sum of each part is rounded to a grid. Whatever rounding may have moved across the observed sum counts as at
    least as large, so that the probability is never too small; it is too large by at most the probability of as many
    steps as there are parts.
    """
    total = float(kinds @ np.array([np.abs(part).sum() for part in parts], dtype=float))
    observed = abs(float(kinds @ np.array([part.sum() for part in parts], dtype=float)))
    unit, slack = total / _GRID, len(kinds) / 2
    # The margin keeps an error in the last digits from adding a step.
    first, most = ceil(observed / unit - slack - 1e-6), round(total / unit + slack)
    if first <= 0:
        return 1.0
    length = 1 << (2 * most).bit_length()
    spectra = (np.fft.rfft(_on_grid(part, kind / unit, length)) for kind, part in zip(kinds, parts, strict=True))
    return float(np.fft.irfft(reduce(np.multiply, spectra), length)[first : most + 1].sum())


def _on_grid(numbers: NDArray[np.int_], scale: float, length: int) -> NDArray[np.float64]:
    """Return the probability of each sum of randomly signed ``numbers`` times ``scale``, rounded, modulo ``length``."""
    most = int(np.abs(numbers).sum())
    places, values = _characteristic(numbers)
    spectrum = np.zeros(most + 1)
    spectrum[places] = values
    chances = np.fft.fftshift(np.fft.irfft(spectrum, 2 * most + 1))
    steps = np.rint(scale * np.arange(-most, most + 1)).astype(np.int64) % length
    return np.bincount(steps, weights=chances, minlength=length).astype(np.float64)


def _characteristic(numbers: NDArray[np.int_]) -> tuple[NDArray[np.int_], NDArray[np.float64]]:
    """Return the characteristic function of the sum of ``numbers`` with random signs: a product of cosines.

    Place k of (largest sum + 1) is the angle 2 pi k / (2 * largest sum + 1). Returns the places of the values that are
    not zero in double precision, and these values.
    """
    sizes, counts = np.unique(np.abs(numbers[numbers != 0]), return_counts=True)
    most = int(sizes @ counts)
    angles = 2 * np.pi * np.arange(most + 1) / (2 * most + 1)
    places, values = np.arange(most + 1), np.ones(most + 1)
    for size, count in zip(sizes, counts, strict=True):
        cosines = np.cos(size * angles[places])
        # High powers are zero at most angles. Computing these zeros would take most of the time.
        kept = np.abs(cosines) > exp(_UNDERFLOW / count)
        places, values = places[kept], values[kept] * cosines[kept] ** count
    return places, values


def wilcoxon_test(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test of paired differences; NaN if all are zero.

    Zero differences are discarded, as Wilcoxon proposed; the p-value is exact for small samples without ties.
    """
    array = np.round(np.asarray(differences, dtype=float), _DIGITS)
    if not (array != 0).any():
        return float("nan")
    from scipy import stats

    return float(stats.wilcoxon(array[array != 0]).pvalue)


def rank_biserial(differences: Sequence[float]) -> float:
    """Return the direction of Wilcoxon's test: the rank-biserial correlation (Kerby 2014), NaN if all are zero.

    It is the share of the ranks of positive differences less that of negative ones, in [-1, 1]. Its sign may be another
    than that of the mean, as when one large gain outweighs many small losses.
    """
    array = np.round(np.asarray(differences, dtype=float), _DIGITS)
    array = array[array != 0]
    if not len(array):
        return float("nan")
    from scipy import stats

    ranks = stats.rankdata(np.abs(array))
    return float((np.sign(array) * ranks).sum() / ranks.sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm's step-down method; NaN stays NaN and does not count as a test.

    The i-th smallest of m p-values, from 0, is multiplied by m - i, and none falls below a smaller one (Holm 1979).
    """
    array = np.array(p_values, dtype=float)
    tests = np.flatnonzero(np.isfinite(array))
    order = tests[np.argsort(array[tests], kind="stable")]
    scaled = array[order] * np.arange(len(order), 0, -1)
    array[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return [float(value) for value in array]


def _frame(scores: pd.DataFrame | ArrayLike) -> pd.DataFrame:
    import pandas as pd

    return scores if isinstance(scores, pd.DataFrame) else pd.DataFrame(np.asarray(scores, dtype=float))


def task_ranks(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the ranks of the methods (columns) on every task (rows); 1 is best, and ties share their mean rank."""
    return scores.round(_DIGITS).rank(axis=1, ascending=False, method="average")


def average_ranks(scores: pd.DataFrame | ArrayLike) -> pd.Series[float]:
    """Return the mean rank of every method (columns) over the tasks (rows).

    ``scores`` is a frame or an array. Raises ``ValueError`` if a score is missing.
    """
    scores = _frame(scores)
    if scores.isna().to_numpy().any():
        raise ValueError("ranks need a score for every method on every task")
    return task_ranks(scores).mean(axis=0)


def friedman_test(scores: pd.DataFrame | ArrayLike) -> FriedmanTest:
    """Test whether methods (columns) differ over tasks (rows); needs at least three methods and two tasks.

    ``scores`` is a frame or an array. Where all methods tie on every task, the statistic is 0.
    """
    from scipy import stats

    rounded = _frame(scores).round(_DIGITS).to_numpy()
    if (rounded == rounded[:, :1]).all():
        return FriedmanTest(0.0, 1.0)
    result = stats.friedmanchisquare(*rounded.T)
    return FriedmanTest(float(result.statistic), float(result.pvalue))


def nemenyi_distance(methods: int, tasks: int, alpha: float = 0.05) -> float:
    """Return Nemenyi's critical difference of average ranks (Demsar 2006, section 3.2.2 and table 5a)."""
    from scipy import stats

    quantile = float(stats.studentized_range.ppf(1 - alpha, methods, np.inf)) / np.sqrt(2)
    return float(quantile * np.sqrt(methods * (methods + 1) / (6 * tasks)))


def cliques(ranks: Sequence[float], distance: float) -> list[tuple[int, int]]:
    """Return the maximal runs ``(first, last)`` of ascending ``ranks`` whose ends differ by at most ``distance``."""
    runs: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(i for i, other in enumerate(ranks) if other - rank <= distance)
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return runs


def pareto_front(cost: Sequence[float], score: Sequence[float]) -> list[bool]:
    """Return, for every point, whether none is as cheap and as good and better in one of the two."""
    points = list(zip(cost, score, strict=True))
    return [
        not any(c <= cost_i and s >= score_i and (c < cost_i or s > score_i) for c, s in points)
        for cost_i, score_i in points
    ]
