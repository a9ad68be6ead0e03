"""Which arm each arm is compared with where the runs of a folder have several backbones, or seeds that differ."""

from __future__ import annotations

import math
from typing import Any

import pytest

from shipbench.report import ReportOptions, build_report
from shipbench.report.analysis.headline import headline, standings
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.document import MISSING, Report
from tests.report.builders import (
    DEMO_TASKS,
    VTAB_TASKS,
    Records,
    cell,
    grid,
    make_predictions,
    make_record,
    make_results,
    study_of,
    table,
)

OTHER: dict[str, dict[str, Any]] = {
    "another backbone": {"backbone": "B"},
    "other weights": {"backbone_sha256": "b" * 64},
    "another image size": {"image_size": 384},
}


def on_both(other: dict[str, Any], methods: tuple[str, ...] = ("vpt-deep", "ship"), **columns: Any) -> Records:
    """Return runs of two methods on one backbone, and better ones of ``methods`` on another, with SHIP worst there."""
    here = grid(("vpt-deep", "ship"), DEMO_TASKS, (0,), **columns)
    there = [
        make_record(method, task, 0, (0.7 if method == "ship" else 0.8) + i / 100, **{**columns, **other})
        for method in methods
        for i, task in enumerate(DEMO_TASKS)
    ]
    return here + there


def view_of(records: Records) -> SuiteView:
    return SuiteView(study_of(records), "demo")


def report_of(records: Records, **options: Any) -> Report:
    frame = make_predictions(records, images=1000)
    load = lambda run_ids: frame[frame["run_id"].isin(list(run_ids))]  # noqa: E731
    return build_report(make_results(records), options=ReportOptions(**options), predictions=load)


@pytest.mark.parametrize("other", OTHER.values(), ids=OTHER)
def test_each_arm_is_compared_with_the_baseline_of_its_backbone_weights_and_size(other: dict[str, Any]) -> None:
    view = view_of(on_both(other))
    pairs = [(c.arm, c.baseline) for c in view.comparisons]
    assert [(arm.method, baseline.method) for arm, baseline in pairs] == [("ship", "vpt-deep")] * 2
    assert all(arm.base == baseline.base for arm, baseline in pairs)
    assert len({arm.base for arm, _ in pairs}) == 2
    worse, better = sorted(view.comparisons, key=lambda c: c.interval.mean)
    assert min(better.differences.values()) > 0 > max(worse.differences.values())
    # The tests of all backbones are corrected together: with six tasks, a single one could reach the 5 % level.
    assert all(math.isnan(c.wilcoxon) for c in view.comparisons)


def test_marks_tests_and_the_sentence_are_those_of_one_backbone() -> None:
    report = report_of(on_both(OTHER["another backbone"]))
    here, there = "vit_base_patch16_224.orig_in21k", "B"
    main, across = table(report, "main-demo"), table(report, "significance-demo")
    for label, mark in ((f"SHIP ({here})", "▲"), (f"SHIP ({there})", "▼")):
        assert cell(main, label, "digits").below == mark
    assert [row.cells[0].text for row in across.rows] == [f"SHIP ({there})", f"SHIP ({here})"]
    assert across.title == "Demo suite: difference to VPT-deep"
    several = "Methods are compared with VPT-deep on their own backbone, weights and image size."
    for name in ("main-demo", "significance-demo", "paired-tests-demo", "overview-demo"):
        assert several in table(report, name).notes, name
    result = next(result for result in report.overviews[0].results if result.mean == "tasks")
    shown = {row.cells[0].value: [c.text for c in row.cells[1:3]] for row in result.table.rows}
    assert shown[f"VPT-deep ({there})"] == ["82.5", "baseline"]
    assert shown[f"VPT-deep ({here})"][1] == "baseline"
    assert shown[f"SHIP ({there})"][1] == "−10.0"  # noqa: RUF001
    assert "Rows with different backbones, weights or image sizes are ranked together." in (
        table(report, "ranks-demo").caption.details
    )


@pytest.mark.parametrize(("methods", "best"), [(("vpt-deep",), "VPT-deep (B)"), (("ship",), "SHIP (B)")])
def test_a_lead_over_another_backbone_has_no_test(methods: tuple[str, ...], best: str) -> None:
    view = view_of(on_both(OTHER["another backbone"], methods))
    sentence = headline(view, standings(view)[-1])
    assert sentence.startswith(f"{best} is best on")
    assert sentence.endswith("points above SHIP (vit_base_patch16_224.orig_in21k), without a test of that difference.")
    assert len(view.comparisons) == 1


def test_a_method_without_the_baseline_on_its_backbone_is_named() -> None:
    report = report_of(on_both(OTHER["another backbone"], ("linear", "ship")))
    note = "No comparison of Linear probe (B) and SHIP (B): no VPT-deep with the same backbone, weights and image size."
    for name in ("significance-demo", "paired-tests-demo", "overview-demo"):
        assert note in table(report, name).notes, name
    (figure,) = (figure for figure in report.figures() if figure.name == "differences-demo")
    assert note in figure.caption.details


def test_what_imported_results_do_not_state_may_be_that_of_the_baseline() -> None:
    unstated = {"backbone": "", "backbone_sha256": "", "image_size": 0, "origin": "csv", "kind": "imported"}
    there = [make_record("lora", task, 0, 0.9, **unstated, epoch_rule="final") for task in DEMO_TASKS]
    view = view_of([*on_both(OTHER["another backbone"]), *there])
    baselines = {c.arm.method: c.baseline.backbone for c in view.comparisons if c.arm.method == "lora"}
    assert baselines == {"lora": view.baseline.backbone if view.baseline else ""}


def test_methods_without_a_run_in_common_with_the_baseline_are_named() -> None:
    records = [*grid(("linear", "vpt-deep"), VTAB_TASKS, (0,)), *grid(("ship", "lora"), VTAB_TASKS, (1,))]
    lost = {"status": "failed", "final_test_acc": float("nan")}
    report = report_of([*records, *grid(("full",), VTAB_TASKS, (0,), **lost)])
    note = "No comparison of LoRA and SHIP: no task and seed shared with VPT-deep."
    for name in ("significance-vtab-1k", "paired-tests-vtab-1k", "overview-vtab-1k"):
        assert [n for n in table(report, name).notes if n.startswith("No comparison")] == [note], name
    by_mean = [result.table for result in report.overviews[0].results[:2]]
    for label, text in (("VPT-deep", "baseline"), ("SHIP", MISSING), ("LoRA", MISSING)):
        assert [cell(shown, label, "difference").text for shown in by_mean] == [text, text], label
    report = report_of(grid(("vpt-deep",), VTAB_TASKS, (0,)) + grid(("ship",), VTAB_TASKS, (1,)))
    assert "No comparison of SHIP: no task and seed shared with VPT-deep." in table(report, "overview-vtab-1k").notes
