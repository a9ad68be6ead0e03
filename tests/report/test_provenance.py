"""Mixtures of runs are stated at the top of a report and at its tables, and only where they occur."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shipbench.report import build_report, write_report
from shipbench.report.document import Report
from tests.report.builders import DEMO_TASKS, VTAB_TASKS, grid, make_results


def report_of(records: list[dict[str, Any]]) -> Report:
    return build_report(make_results(records))


def test_clean_records_have_no_warning() -> None:
    report = report_of(grid(("ship", "linear"), VTAB_TASKS, (0, 1)))
    assert report.warnings == ()
    assert all(table.warnings == () for table in report.tables())


@pytest.mark.parametrize(
    ("column", "value", "phrase"),
    [
        ("data_fingerprint", "another copy", "Mixed data fingerprints: more than one copy of the data for CIFAR-100."),
        ("headline_metric", "mean-per-class", "Mixed metrics: some runs on CIFAR-100 are scored by the accuracy"),
        ("image_format", "jpeg", "Mixed image formats"),
        ("backbone_sha256", "e" * 64, "Mixed backbone weights"),
        ("shipbench_version", "0.2.0", "Mixed versions of the code"),
        ("git_commit", "fedcba9876543210", "Mixed versions of the code"),
        ("precision", "bf16", "Mixed numerical precisions"),
        ("image_size", 384, "Mixed image sizes"),
        ("image_format", "", "not recorded"),
    ],
)
def test_every_mixture_is_stated_at_the_top_and_at_its_tables(column: str, value: Any, phrase: str) -> None:
    records = grid(("linear", "ship"), VTAB_TASKS, (0, 1))
    changes = {"final_test_mean_class_acc": 0.5, column: value}
    records = [{**r, **changes} if (r["task"], r["method"]) == ("cifar100", "ship") else r for r in records]
    records += grid(("linear", "ship"), DEMO_TASKS, (0, 1))
    report = report_of(records)
    assert any(phrase in warning and "VTAB-1k: methods and tasks" in warning for warning in report.warnings)
    tables = {table.name: table for table in report.tables()}
    assert any(phrase in warning for warning in tables["main-vtab-1k"].warnings)
    assert any(phrase in warning for warning in tables["cost-vtab-1k"].warnings)
    assert tables["main-demo"].warnings == ()


def test_the_page_names_each_kind_of_warning_once(tmp_path: Path) -> None:
    warnings = ("Mixed versions: a, b", "Mixed versions: b, c", "Mixed backbones: d, e")
    report = replace(report_of(grid(("ship", "linear"), DEMO_TASKS, (0,))), warnings=warnings)
    write_report(report, tmp_path, ("html",))
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<strong>Read this first</strong>: Mixed versions; Mixed backbones</summary>" in page


def test_releases_of_a_plug_in_are_told_apart_within_its_method() -> None:
    records = grid(("linear", "ship", "vpt-deep"), VTAB_TASKS, (0, 1))
    packages = {"linear": ("", ""), "ship": ("a 1.0", "a 1.1"), "vpt-deep": ("b 2.0", "b 2.0")}
    records = [{**record, "method_package": packages[record["method"]][record["seed"]]} for record in records]
    runs = f"({len(VTAB_TASKS)} runs: SHIP)"
    sentence = f"Mixed releases of a method's package: a 1.0 {runs}; a 1.1 {runs}."
    assert [warning for warning in report_of(records).warnings if sentence in warning]
    assert not any("b 2.0" in warning for warning in report_of(records).warnings)


def test_releases_of_peft_are_told_apart_within_its_methods() -> None:
    records = [
        {**record, "method": f"peft-{record['method']}", "peft_version": f"0.2{min(record['seed'], first)}"}
        for first, method in enumerate(("lora", "dora"))
        for record in grid((method,), VTAB_TASKS, (0, 1))
    ]
    (warning,) = report_of(records).warnings
    runs = f"({len(VTAB_TASKS)} runs: DoRA (peft))"
    assert f"Mixed releases of a method's package: peft 0.20 {runs}; peft 0.21 {runs}." in warning


def test_different_tasks_may_have_different_fingerprints() -> None:
    records = [{**r, "data_fingerprint": r["task"]} for r in grid(("ship",), VTAB_TASKS, (0, 1))]
    assert report_of(records).warnings == ()


def test_a_fingerprint_that_is_not_recorded_is_no_other_copy_of_the_data() -> None:
    records = [{**r, "data_fingerprint": ""} if r["seed"] else r for r in grid(("ship",), VTAB_TASKS, (0, 1))]
    assert report_of(records).warnings == ()


def test_failed_runs_do_not_count_as_mixed() -> None:
    records = grid(("ship",), VTAB_TASKS, (0, 1))
    records[0] = {**records[0], "status": "failed", "shipbench_version": "0.0.1"}
    assert report_of(records).warnings == ()


def test_random_weights_are_stated_at_the_top_and_wherever_weights_are_named() -> None:
    records = grid(("ship",), VTAB_TASKS, (0, 1), checkpoint="random")
    records += grid(("linear",), VTAB_TASKS, (0, 1), checkpoint="ViT-B_16.npz", backbone_sha256="c" * 64)
    report = report_of(records)
    (warning,) = (warning for warning in report.warnings if warning.startswith("Random weights: 38 runs (SHIP) on a"))
    assert "VTAB-1k: methods and tasks" in warning
    weights = dict(report.protocol)["Weights"]
    assert f"(random weights, never pretrained; sha256 {'a1b2c3d4' * 8})" in weights
    assert f"(from ViT-B_16.npz; sha256 {'c' * 64})" in weights
    backbones = dict(report.facts)["Backbones"]
    assert "(a1b2c3d4a1b2; random weights, never pretrained)" in backbones
    assert set(report.results["checkpoint"]) == {"random", "ViT-B_16.npz"}


def test_settings_that_authors_chose_on_test_images_are_marked() -> None:
    records = grid(("vpt-deep", "ship"), VTAB_TASKS, (0, 1))
    published = [{**r, "recipe": "published", "run_id": f"{r['run_id']}-p"} for r in records if r["method"] == "ship"]
    report = report_of([*records, *published])
    assert any(warning.startswith("§ Settings chosen on test images: 38 runs of SHIP") for warning in report.warnings)
    main = next(table for table in report.tables() if table.name.startswith("main"))
    assert [row.cells[0].text for row in main.rows if row.kind == "ours"] == [
        "VPT-deep (default recipe)",
        "SHIP (default recipe)",
        "SHIP (published recipe) §",
    ]
    settings = dict(report.protocol)["Settings"]
    assert settings == (
        "76 runs with settings fixed beforehand (default recipe). 38 runs with per-task settings that the authors of "
        "SHIP published and chose on test images (published recipe)."
    )
    assert not any("§" in warning for warning in report_of(records).warnings)


def test_facts_name_devices_seeds_and_days() -> None:
    records = grid(("ship", "linear"), ("dtd",), (0, 1))
    records[3] |= {"device": "cuda: NVIDIA H200", "precision": "bf16", "created": "2025-03-04T01:00:00+00:00"}
    facts = dict(report_of(records).facts)
    assert (facts["Devices"], facts["Seeds"]) == ("cpu (fp32), cuda: NVIDIA H200 (bf16)", "0, 1")
    assert (facts["Methods"], facts["Dates"]) == ("Linear probe, SHIP", "2025-03-01 to 2025-03-04")
