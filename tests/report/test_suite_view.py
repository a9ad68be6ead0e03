"""The view that every table and figure of a suite reads, and the sections that list them."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from shipbench.report import build_report, contents
from shipbench.report.analysis import arms
from shipbench.report.analysis.study import build_study
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import Column, Row, Table, text_cell
from shipbench.selection import Final
from tests.report.builders import DEMO_TASKS, VTAB_TASKS, grid, make_results

Records = list[dict[str, Any]]


def view_of(records: Records, suite: str = "demo", **options: Any) -> SuiteView:
    return SuiteView(build_study(make_results(records), None, Final()), suite, **options)


@pytest.mark.parametrize(
    ("methods", "requested", "baseline"),
    [
        (("linear", "vpt-deep", "ship"), None, "vpt-deep"),
        (("linear", "ship"), None, "linear"),
        (("linear", "vpt-deep", "ship"), "ship", "ship"),
        (("linear", "vpt-deep"), "ship", None),
    ],
)
def test_the_baseline_is_the_requested_method_or_vpt_deep_or_the_first(
    methods: tuple[str, ...], requested: str | None, baseline: str | None
) -> None:
    view = view_of(grid(methods, DEMO_TASKS, (0,)), baseline_method=requested)
    assert (view.baseline.method if view.baseline else None) == baseline
    compared = [method for method in methods if method != baseline] if baseline else []
    assert [comparison.arm.method for comparison in view.comparisons] == compared


def test_what_a_view_computes_is_kept() -> None:
    view = view_of(grid(("linear", "vpt-deep", "ship"), DEMO_TASKS, (0, 1)))
    assert view.comparisons is view.comparisons
    assert view.ranking is view.ranking is not None
    assert view.oracle_gaps is view.oracle_gaps


def test_only_vtab_1k_has_published_rows() -> None:
    records = [*grid(("ship",), DEMO_TASKS, (0,)), *grid(("ship",), VTAB_TASKS, (0,))]
    assert view_of(records).published_matches == []
    assert view_of(records, "vtab-1k").published_matches != []
    assert view_of(records, "vtab-1k", published="none").published_matches == []


def test_a_suite_without_runs_has_no_tables_and_no_figures() -> None:
    view = view_of(grid(("ship",), DEMO_TASKS, (0,)), "vtab-1k")
    assert view.baseline is None
    builders = [build for _, _, section in contents.SUITE_SECTIONS for build in section]
    assert [build for build in builders if build(view)] == []


def test_a_new_table_is_a_function_and_an_entry_in_a_section(monkeypatch: pytest.MonkeyPatch) -> None:
    def tasks_table(view: SuiteView) -> Table:
        rows = tuple(Row((text_cell(task),)) for task in view.tasks)
        return Table(f"tasks-{view.slug}", "Tasks", view.caption("All tasks."), (Column("task", "Task"),), rows)

    monkeypatch.setattr(contents, "SUITE_SECTIONS", (("tasks", "tasks", (tasks_table,)),))
    report = build_report(make_results(grid(("ship",), DEMO_TASKS, (0,))))
    assert [section.anchor for section in report.sections] == ["demo-tasks", "records"]
    table = next(table for table in report.tables() if table.name == "tasks-demo")
    assert [row.cells[0].text for row in table.rows] == list(DEMO_TASKS)
    assert "Selection rule: final" in table.caption.alone


def test_settings_are_counted_as_far_apart_as_they_are_pair_by_pair() -> None:
    values = list(product(("none", 1), (0.1, 0.2, 1), (True, False)))[::-2]
    choices: list[arms.Configuration] = [(("cfg.a", a), ("cfg.b", b), ("cfg.c", c)) for a, b, c in values]
    choices += [(("cfg.a", "none"),), (("cfg.b", 0.1), ("cfg.d", "x")), ()]
    expected = {choice: sum(len(arms.difference(other, choice)) for other in choices) for choice in choices}
    assert arms._distances(choices) == expected
    assert len(set(expected.values())) > 2
