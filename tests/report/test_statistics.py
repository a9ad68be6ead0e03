"""Statistics against hand calculations, tables in the literature, and brute force."""

from __future__ import annotations

import math
import statistics as plain

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipbench.statistics import (
    FriedmanTest,
    average_ranks,
    cliques,
    friedman_test,
    mean_of_groups,
    mean_of_tasks,
    mean_of_tasks_name,
    nemenyi_distance,
    pareto_front,
    sample_deviation,
    student_interval,
)

accuracies = st.floats(0, 100, allow_nan=False)


def test_the_two_averages_differ_when_groups_have_unequal_sizes() -> None:
    scores = {"a": 80.0, "b": 60.0, "c": 10.0}
    groups = {"a": "Natural", "b": "Natural", "c": "Structured"}
    assert mean_of_groups(scores, groups) == (70 + 10) / 2
    assert mean_of_tasks(scores, ["a", "b", "c"]) == mean_of_tasks(scores) == 50


def test_an_average_over_part_of_a_suite_is_named_so() -> None:
    assert mean_of_tasks_name(["b", "a"], ["a", "b"]) == "mean of tasks"
    assert mean_of_tasks_name({"a": 80.0, "c": 10.0}, ["a", "b", "c"]) == "mean of these 2 tasks"


def test_nothing_has_no_average() -> None:
    assert math.isnan(mean_of_tasks({}))
    assert math.isnan(mean_of_groups({}, {}))
    assert math.isnan(mean_of_tasks({"a": 80.0, "b": math.nan}))


@given(st.dictionaries(st.sampled_from("abcdef"), accuracies, min_size=1), st.sampled_from("abcdef"))
def test_a_missing_task_empties_both_averages(scores: dict[str, float], lost: str) -> None:
    tasks = sorted({*scores, lost})
    groups = {task: "first" if i < 2 else "second" for i, task in enumerate(tasks)}
    kept = {task: score for task, score in scores.items() if task != lost}
    assert math.isnan(mean_of_tasks(kept, tasks))
    assert math.isnan(mean_of_groups(kept, groups))


@given(st.lists(accuracies, min_size=2, max_size=9))
def test_deviation_is_the_sample_deviation(values: list[float]) -> None:
    assert sample_deviation(values) == pytest.approx(plain.stdev(values), abs=1e-9)


def test_one_seed_has_no_deviation_and_no_interval() -> None:
    assert math.isnan(sample_deviation([3.0]))
    interval = student_interval([3.0])
    assert interval.mean == 3.0
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_interval_by_hand() -> None:
    # Mean 2, standard deviation 1, three values; Student's t for two degrees of freedom at 97.5 % is 4.302653.
    interval = student_interval([1.0, 2.0, 3.0])
    half = 4.302653 / math.sqrt(3)
    assert (interval.low, interval.high) == pytest.approx((2 - half, 2 + half), abs=1e-5)


def test_average_ranks_share_ties() -> None:
    scores = pd.DataFrame({"x": [0.9, 0.8, 0.7], "y": [0.9, 0.6, 0.9], "z": [0.1, 0.7, 0.8]})
    assert average_ranks(scores).to_dict() == pytest.approx(
        {"x": (1.5 + 1 + 3) / 3, "y": (1.5 + 3 + 1) / 3, "z": 7 / 3}
    )


def test_means_that_are_equal_on_paper_tie_whatever_their_last_bit() -> None:
    ours, theirs = (0.1 + 0.2 + 0.3) / 3, (0.3 + 0.2 + 0.1) / 3
    assert ours != theirs
    scores = pd.DataFrame({"x": [ours, 0.9], "y": [theirs, 0.8], "z": [0.1, 0.7]})
    assert average_ranks(scores).to_dict() == {"x": 1.25, "y": 1.75, "z": 3.0}
    assert friedman_test(scores) == friedman_test(scores.replace(theirs, ours))


def test_ranks_and_friedmans_test_take_arrays_as_well() -> None:
    scores = pd.DataFrame({"x": [0.9, 0.8, 0.7], "y": [0.5, 0.6, 0.65], "z": [0.1, 0.3, 0.2]})
    for array in (scores.to_numpy(), scores.to_numpy().tolist()):
        assert average_ranks(array).tolist() == [1, 2, 3]
        assert friedman_test(array) == friedman_test(scores)


def test_average_ranks_refuse_gaps() -> None:
    with pytest.raises(ValueError, match="every task"):
        average_ranks(pd.DataFrame({"x": [0.1, np.nan], "y": [0.2, 0.3]}))


def test_friedman_by_hand() -> None:
    # Ranks without ties: x always first, y and z alternate; sums 4, 10, 10 over four tasks.
    scores = pd.DataFrame({"x": [9, 9, 9, 9], "y": [5, 1, 5, 1], "z": [1, 5, 1, 5]}, dtype=float)
    expected = 12 / (4 * 3 * 4) * (4**2 + 10**2 + 10**2) - 3 * 4 * 4
    result = friedman_test(scores)
    assert result.statistic == pytest.approx(expected)
    assert result.p_value == pytest.approx(math.exp(-expected / 2))


def test_friedman_of_nothing_but_ties_is_no_evidence() -> None:
    assert friedman_test(pd.DataFrame(np.full((2, 3), 0.2))) == FriedmanTest(0.0, 1.0)


@pytest.mark.parametrize(
    ("methods", "quantile"),
    [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (7, 2.949), (8, 3.031), (9, 3.102), (10, 3.164)],
)
def test_nemenyi_quantiles_of_demsar_table_5a(methods: int, quantile: float) -> None:
    distance = nemenyi_distance(methods, tasks=19)
    assert distance == pytest.approx(quantile * math.sqrt(methods * (methods + 1) / (6 * 19)), abs=0.002)


@given(st.lists(st.floats(1, 8, allow_nan=False), min_size=1, max_size=9).map(sorted), st.floats(0, 4))
def test_cliques_are_the_maximal_runs(ranks: list[float], distance: float) -> None:
    runs = {(i, j) for i in range(len(ranks)) for j in range(i + 1, len(ranks)) if ranks[j] - ranks[i] <= distance}
    maximal = {run for run in runs if not any(o != run and o[0] <= run[0] and run[1] <= o[1] for o in runs)}
    assert set(cliques(ranks, distance)) == maximal


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=8))
def test_pareto_front_is_what_nothing_dominates(points: list[tuple[int, int]]) -> None:
    front = pareto_front([c for c, _ in points], [s for _, s in points])
    for (cost, score), on in zip(points, front, strict=True):
        dominated = any((c <= cost and s >= score and (c, s) != (cost, score)) for c, s in points)
        assert on is not dominated
