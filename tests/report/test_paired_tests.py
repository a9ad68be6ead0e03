"""Paired tests and intervals against tables in the literature, brute force and worked examples."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from shipbench.published import published_rows
from shipbench.statistics import (
    average_ranks,
    bootstrap_interval,
    friedman_test,
    holm,
    mean_of_groups,
    mean_of_tasks,
    nemenyi_distance,
    paired_test,
    rank_biserial,
    student_test,
    task_ranks,
    wilcoxon_test,
)
from shipbench.tasks.catalogue import GROUPS, VTAB

# Demsar 2006 (JMLR 7), table 6: AUC of C4.5 and three variants on 14 data sets. Two are printed as 0.975 on one of
# them but ranked 2 and 3, so they differ in a digit that is not printed: 0.9751 stands for the better one.
DEMSAR = pd.DataFrame(
    {
        "C4.5": [0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.000, 0.940, 0.619, 0.972, 0.957],
        "C4.5+m": [0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.000, 0.962, 0.666, 0.981, 0.978],
        "C4.5+cf": [0.771, 0.590, 0.968, 0.654, 0.886, 0.916, 0.609, 0.563, 0.866, 1.000, 0.965, 0.614, 0.9751, 0.946],
        "C4.5+m+cf": [0.798, 0.569, 0.967, 0.657, 0.898, 0.931, 0.685, 0.625, 0.875, 1.000, 0.962, 0.669, 0.975, 0.970],
    }
)


def test_average_ranks_of_demsar_table_6() -> None:
    assert average_ranks(DEMSAR).round(3).to_dict() == {
        "C4.5": 3.143,
        "C4.5+m": 2.000,
        "C4.5+cf": 2.893,
        "C4.5+m+cf": 1.964,
    }


def test_friedman_of_demsar_section_3_2_2() -> None:
    # The paper's 9.28 leaves out the correction for ties that scipy makes.
    k, n = 4, len(DEMSAR)
    plain = 12 * n / (k * (k + 1)) * (float((average_ranks(DEMSAR) ** 2).sum()) - k * (k + 1) ** 2 / 4)
    assert plain == pytest.approx(9.28, abs=0.01)
    tied = task_ranks(DEMSAR).apply(lambda row: sum(c**3 - c for c in row.value_counts()), axis=1).sum()
    assert friedman_test(DEMSAR).statistic == pytest.approx(plain / (1 - tied / (n * k * (k**2 - 1))))


def test_nemenyi_distance_of_demsar_section_3_2_2() -> None:
    assert nemenyi_distance(4, 14) == pytest.approx(1.25, abs=0.005)


def test_wilcoxon_of_demsar_table_2() -> None:
    # Demsar shares the zeros between both sums, finds T = 12 and rejects at 0.05; left out, the smaller sum is 6.5.
    p_value = wilcoxon_test(list(DEMSAR["C4.5+m"] - DEMSAR["C4.5"]))
    assert p_value < 0.05


def test_sixteen_published_methods_on_nineteen_tasks() -> None:
    names = ("Full fine-tuning", "Linear probe", "Partial-1", "MLP-3", "Sidetune", "Bias / BitFit", "VPT-Shallow")
    names += ("VPT-Deep", "SHIP", "NOAH", "SSF", "FacT-TT", "FacT-TK", "RepAdapter", "Convpass", "E2VPT")
    rows = [next(row for row in published_rows() if row.method == name) for name in names]
    tasks = [task.name for task in VTAB.tasks]
    scores = pd.DataFrame({row.method: [row.accuracy_percent[task] for task in tasks] for row in rows}, index=tasks)
    assert scores.shape == (19, 16)
    n, k = scores.shape
    ranks = np.array(
        [[1 + sum(o > v for o in row) + (sum(o == v for o in row) - 1) / 2 for v in row] for row in scores.to_numpy()]
    )
    assert list(average_ranks(scores)) == pytest.approx(list(ranks.mean(axis=0)))
    between = n * float(((ranks.mean(axis=0) - (k + 1) / 2) ** 2).sum())
    within = float(((ranks - (k + 1) / 2) ** 2).sum()) / (n * (k - 1))
    assert friedman_test(scores).statistic == pytest.approx(between / within)
    # q(0.05, 16, inf) / sqrt(2) is 3.426 in tables of the studentised range.
    assert nemenyi_distance(k, n) == pytest.approx(3.426 * math.sqrt(k * (k + 1) / (6 * n)), abs=0.005)
    groups = {task.name: task.group for task in VTAB.tasks}
    members = [[task for task in tasks if groups[task] == group] for group in GROUPS]
    for row in rows:
        values = [row.accuracy_percent[task] for task in tasks]
        assert mean_of_tasks(row.accuracy_percent, tasks) == pytest.approx(sum(values) / 19)
        means = [sum(row.accuracy_percent[t] for t in names) / len(names) for names in members]
        assert mean_of_groups(row.accuracy_percent, groups) == pytest.approx(sum(means) / 3)


@pytest.mark.parametrize(
    ("ours", "theirs", "p_value"), [(6, 0, 0.03125), (1, 0, 1.0), (8, 1, 0.0390625), (5, 5, 1.0), (0, 0, 1.0)]
)
def test_with_one_seed_it_is_mcnemars_exact_test(ours: int, theirs: int, p_value: float) -> None:
    a = np.array([1] * ours + [0] * theirs + [1, 0])
    b = np.array([0] * ours + [1] * theirs + [1, 0])
    result = paired_test(a, b, 1)
    assert (result.wins, result.losses) == (ours, theirs)
    assert result.difference == pytest.approx((ours - theirs) / (ours + theirs + 2))
    assert result.p_value == pytest.approx(p_value)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_binomial_test(ours: int, theirs: int) -> None:
    expected = stats.binomtest(ours, ours + theirs).pvalue if ours + theirs else 1.0
    result = paired_test(np.array([1] * ours + [0] * theirs), np.array([0] * ours + [1] * theirs), 1)
    assert result.p_value == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.integers(-3, 3), max_size=8))
def test_signs_are_flipped_by_brute_force(differences: list[int]) -> None:
    sizes = [abs(difference) for difference in differences]
    sums = [
        sum(s * size for s, size in zip(signs, sizes, strict=True)) for signs in product((-1, 1), repeat=len(sizes))
    ]
    share = sum(abs(total) >= abs(sum(differences)) for total in sums) / len(sums)
    result = paired_test(np.array([3] * len(sizes)) + np.array(differences, dtype=int), np.array([3] * len(sizes)), 3)
    assert result.p_value == pytest.approx(share)


def test_with_many_images_it_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(3)
    ours, theirs = rng.binomial(3, 0.62, 2000), rng.binomial(3, 0.6, 2000)
    result = paired_test(ours, theirs, 3)
    assert result.difference == pytest.approx(float((ours - theirs).mean() / 3))
    assert result.p_value == pytest.approx(float(stats.ttest_rel(ours, theirs).pvalue), abs=0.005)
    assert paired_test(theirs, ours, 3).p_value == pytest.approx(result.p_value)


def test_the_size_of_a_difference_counts_and_an_image_counts_once() -> None:
    ours, theirs = np.array([1] * 8 + [0] * 4), np.array([0] * 8 + [3] * 4)
    result = paired_test(ours, theirs, 3)
    assert (result.wins, result.losses) == (8, 4)
    assert result.difference == pytest.approx(-4 / 36)
    assert paired_test(np.array([2, 3, 1]), np.array([1, 3, 2]), 3).p_value == 1.0


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-2, 2)), min_size=1, max_size=8))
def test_signs_of_weighted_images_are_flipped_by_brute_force(images: list[tuple[int, int]]) -> None:
    classes, differences = np.array(images, dtype=np.int64).T
    result = paired_test(2 + differences, np.full(len(images), 2), 2, classes=classes)
    means = [differences[classes == number].mean() for number in set(classes.tolist())]
    assert result.difference == pytest.approx(float(np.mean(means)) / 2)
    numbers = [Fraction(d, int((classes == number).sum())) for number, d in images]
    sums = [
        abs(sum(sign * abs(number) for sign, number in zip(signs, numbers, strict=True)))
        for signs in product((-1, 1), repeat=len(images))
    ]
    # With so few images no sum lies between the observed one and what rounding to the grid may add to it.
    assert result.p_value == pytest.approx(sum(other >= abs(sum(numbers)) for other in sums) / len(sums))


def test_classes_of_one_size_change_no_test() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.binomial(3, 0.65, 300), rng.binomial(3, 0.6, 300)
    by_class, plain = paired_test(ours, theirs, 3, classes=np.arange(300) % 5), paired_test(ours, theirs, 3)
    assert (by_class.difference, by_class.p_value) == pytest.approx((plain.difference, plain.p_value))


def test_with_many_images_the_weighted_test_is_that_of_the_normal_distribution() -> None:
    rng = np.random.default_rng(5)
    sizes = np.array([1200, 500, 171, 90, 37, 12])
    classes = rng.permutation(np.repeat(np.arange(6), sizes))
    ours, theirs = rng.binomial(2, 0.66, len(classes)), rng.binomial(2, 0.6, len(classes))
    result = paired_test(ours, theirs, 2, classes=classes)
    weighted = (ours - theirs) / sizes[classes]
    z = weighted.sum() / np.sqrt((weighted**2).sum())
    assert result.difference == pytest.approx(float(weighted.sum()) / 6 / 2)
    assert result.p_value == pytest.approx(2 * float(stats.norm.sf(abs(z))), abs=0.01)
    assert paired_test(theirs, ours, 2, classes=classes).p_value == pytest.approx(result.p_value)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=9, unique=True), st.data())
def test_wilcoxon_by_brute_force(sizes: list[int], data: st.DataObject) -> None:
    signs = data.draw(st.lists(st.sampled_from([-1, 1]), min_size=len(sizes), max_size=len(sizes)))
    ranks = [1 + sum(other < size for other in sizes) for size in sizes]
    plus = sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign > 0)
    sums = [sum(r for r, keep in zip(ranks, kept, strict=True) if keep) for kept in product((0, 1), repeat=len(sizes))]
    extreme = min(sum(s <= plus for s in sums), sum(s >= plus for s in sums)) / len(sums)
    differences = [size * sign / 10 for size, sign in zip(sizes, signs, strict=True)]
    assert wilcoxon_test(differences) == pytest.approx(min(1.0, 2 * extreme))


@settings(max_examples=25)
@given(st.lists(st.integers(-3, 3), max_size=8))
def test_wilcoxon_with_ties_and_its_direction_by_brute_force(tenths: list[int]) -> None:
    moved = [number for number in tenths if number]
    ranks = [sum(abs(o) < abs(n) for o in moved) + (sum(abs(o) == abs(n) for o in moved) + 1) / 2 for n in moved]
    observed = sum(math.copysign(rank, number) for rank, number in zip(ranks, moved, strict=True))
    signs = product((-1, 1), repeat=len(moved))
    sums = [abs(sum(s * r for s, r in zip(kept, ranks, strict=True))) for kept in signs]
    share = sum(other >= abs(observed) for other in sums) / len(sums)
    expected = (share, observed / sum(ranks)) if moved else (math.nan, math.nan)
    differences = [number / 10 for number in tenths]
    assert (wilcoxon_test(differences), rank_biserial(differences)) == pytest.approx(expected, nan_ok=True)


def test_wilcoxon_without_any_difference_is_unknown() -> None:
    assert math.isnan(wilcoxon_test([0.0, 0.0]))
    assert math.isnan(wilcoxon_test([]))
    assert wilcoxon_test([0.0, 1.0, 2.0, 3.0]) == wilcoxon_test([1.0, 2.0, 3.0])


@settings(max_examples=25)
@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_by_its_definition(values: list[float]) -> None:
    order = sorted(range(len(values)), key=values.__getitem__)
    expected, highest = [0.0] * len(values), 0.0
    for step, i in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - step) * values[i]))
        expected[i] = highest
    assert holm(values) == pytest.approx(expected)


def test_holm_ignores_missing_p_values() -> None:
    result = holm([0.01, math.nan, 0.04])
    assert result[0] == pytest.approx(0.02)
    assert math.isnan(result[1])
    assert result[2] == pytest.approx(0.04)


def test_students_test_is_two_sided_and_needs_a_spread() -> None:
    # With two degrees of freedom, the chance of a larger |t| is 1 - t / sqrt(t^2 + 2).
    t = 2 * math.sqrt(3)
    for sign in (-1, 1):
        assert student_test([sign * value for value in (1.0, 2.0, 3.0)]) == pytest.approx(1 - t / math.sqrt(t**2 + 2))
    assert all(math.isnan(student_test(values)) for values in ([], [1.0], [0.1 + 0.2, 0.3, 0.3]))


def test_bootstrap_of_a_share_is_near_the_binomial_interval() -> None:
    right = np.array([1.0] * 800 + [0.0] * 200)
    result = bootstrap_interval(right)
    half = 1.96 * math.sqrt(0.8 * 0.2 / 1000)
    assert (result.mean, result.n) == (0.8, 1000)
    assert (result.low, result.high) == pytest.approx((0.8 - half, 0.8 + half), abs=0.004)
    assert result == bootstrap_interval(right)


@pytest.mark.parametrize("values", [np.repeat([0.0, 0.2, 0.6, 1.0], [90, 20, 40, 250]), np.arange(19) ** 1.5])
def test_bootstrap_is_that_of_scipy_up_to_chance(values: np.ndarray) -> None:
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, batch=500, method="percentile", rng=1)
    ours, spread = bootstrap_interval(values), theirs.bootstrap_distribution.std()
    # With 1000 resamples a 2.5 % quantile is off by about 0.08 deviations.
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.3 * spread)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.3 * spread)


def test_bootstrap_of_one_value_has_no_interval() -> None:
    result = bootstrap_interval([0.5])
    assert result.mean == 0.5
    assert math.isnan(result.low)
    assert math.isnan(bootstrap_interval([]).mean)


def test_bootstrap_by_class_resamples_each_class_on_its_own() -> None:
    right, classes = np.repeat([1.0, 0.0, 1.0, 0.0], [810, 90, 20, 80]), np.repeat([0, 1], [900, 100])
    result = bootstrap_interval(right, classes=classes)
    half = 1.96 * math.sqrt(0.9 * 0.1 / 900 + 0.2 * 0.8 / 100) / 2
    assert (result.mean, result.n) == (pytest.approx(0.55), 1000)
    assert (result.low, result.high) == pytest.approx((0.55 - half, 0.55 + half), abs=0.006)
    assert bootstrap_interval(right, classes=np.zeros(1000, dtype=np.int64)) == bootstrap_interval(right)
    assert math.isnan(bootstrap_interval([0.0, 1.0, 1.0], classes=np.arange(3)).low)


def test_bootstrap_of_equal_values_is_a_point() -> None:
    result = bootstrap_interval([0.5, 0.5, 0.5])
    assert (result.low, result.high) == (0.5, 0.5)
