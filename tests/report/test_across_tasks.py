"""Wilcoxon's test across tasks: which comparisons have one, its correction, and the note on those without one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipbench.report import build_report
from shipbench.report.analysis.comparisons import ALPHA, across_tasks_tests, fewest_tasks
from shipbench.statistics import holm
from tests.report.builders import (
    DEMO_TASKS,
    VTAB_TASKS,
    Records,
    cell,
    grid,
    make_predictions,
    make_results,
    table,
    table_named,
)

METHODS = ("linear", "vpt-deep", "ship")
P_VALUES = ("wilcoxon_p", "wilcoxon_holm_p")


def without(records: Records, method: str, task: str) -> Records:
    return [r for r in records if (r["method"], r["task"]) != (method, task)]


@pytest.mark.parametrize(
    ("counts", "fewest"),
    [
        ([], 6),
        ([5], 6),
        ([6], 6),
        # 2 / 2^6 would be doubled.
        ([6, 6], 7),
        ([7, 7, 7], 6),
        ([7, 7, 7, 7], 8),
        ([10] * 47, 11),
        ([11] * 47, 6),
        # A test over more tasks may be the more significant one, which leaves the other uncorrected.
        ([6, 19], 6),
        ([6, 7, 7], 6),
        ([6, 7, 7, 7], 7),
        ([5, 5, 5, 6], 6),
    ],
)
def test_the_fewest_tasks_of_a_test_that_can_reach_the_level(counts: list[int], fewest: int) -> None:
    assert fewest_tasks(counts) == fewest


@given(st.lists(st.integers(1, 14), max_size=60))
def test_no_test_that_can_reach_the_level_is_left_out(counts: list[int]) -> None:
    fewest = fewest_tasks(counts)
    smallest = [2.0 ** (1 - count) for count in counts]
    made = [p for p, count in zip(smallest, counts, strict=True) if count >= fewest]
    assert all(adjusted < ALPHA for adjusted in holm(made))
    left_out = [p for p, count in zip(holm(smallest), counts, strict=True) if count < fewest]
    assert all(adjusted >= ALPHA for adjusted in left_out)


def test_tests_that_are_left_out_are_not_corrected_for() -> None:
    ascending = [[float(value) for value in range(1, tasks + 1)] for tasks in (6, 7, 7, 7)]
    (left_out, *made) = across_tasks_tests(ascending)
    assert all(map(math.isnan, left_out))
    assert made == [pytest.approx((1 / 64, 3 / 64))] * 3


def test_without_predictions_there_are_tests_across_tasks_only() -> None:
    report = build_report(make_results(grid(("vpt-deep", "ship"), DEMO_TASKS, (0,))))
    across = table(report, "significance-demo")
    # Six differences of one sign: 2 / 2^6.
    assert cell(across, "SHIP", "wilcoxon_p").value == pytest.approx(0.03125)
    assert cell(across, "SHIP", "beyond_chance_better").value is None
    assert not any(t.name.startswith(("paired-tests", "agreement")) for t in report.tables())


def test_a_method_with_too_few_tasks_for_a_test_weakens_no_other() -> None:
    records = without(grid(METHODS, DEMO_TASKS, (0,)), "linear", "digits")
    across = table_named("significance-demo", records, "results")
    for column in P_VALUES:
        assert cell(across, "SHIP", column).value == pytest.approx(0.03125)
        assert cell(across, "Linear probe", column).value is None
    assert not any("Wilcoxon" in note for note in across.notes)


def test_p_values_across_tasks_are_corrected_for_the_number_of_methods() -> None:
    across = table_named("significance-vtab-1k", grid(METHODS, VTAB_TASKS[:7], (0,)), "results")
    for method in ("Linear probe", "SHIP"):
        shown = [cell(across, method, column).value for column in P_VALUES]
        assert shown == pytest.approx([1 / 64, 2 / 64])


def test_a_method_that_cannot_reach_the_level_among_the_others_is_named_by_its_tasks() -> None:
    methods = ("linear", "vpt-deep", "ship", "lora", "bitfit")
    records = without(grid(methods, VTAB_TASKS[:7], (0,)), "linear", VTAB_TASKS[0])
    across = table_named("significance-vtab-1k", records, "results")
    assert cell(across, "SHIP", "wilcoxon_holm_p").value == pytest.approx(3 / 64)
    assert cell(across, "Linear probe", "wilcoxon_p").value is None
    assert (
        "No Wilcoxon test over 6 tasks: with Holm's correction for 4 methods, it could not reach the 5 % level."
        in across.notes
    )


def test_the_images_decide_where_no_test_across_tasks_can_reach_the_level() -> None:
    """Six tasks allow p = 2 / 2^6, which is above 5 % for two methods: the test would never find anything."""
    records = grid(METHODS, DEMO_TASKS, (0,))
    frame = make_predictions(records, images=1000)
    load = lambda run_ids: frame[frame["run_id"].isin(list(run_ids))]  # noqa: E731
    (without_images,) = build_report(make_results(records)).overviews
    assert without_images.results[0].sentence.endswith("over too few tasks for a test across tasks (6).")
    report = build_report(make_results(records), predictions=load)
    result = next(r for r in report.overviews[0].results if (r.select, r.mean) == ("final", "tasks"))
    assert result.sentence.endswith("7.0 points above VPT-deep, beyond chance on 6 of 6 tasks.")
    note = "No Wilcoxon test over 6 tasks: with Holm's correction for 2 methods, it could not reach the 5 % level."
    across = table(report, "significance-demo")
    assert result.table.caption.details.endswith(note)
    assert note in across.notes
    for shown in (result.table, across):
        assert not any(column.key.startswith("wilcoxon") for column in shown.columns)
        assert "Wilcoxon" not in shown.caption.text
