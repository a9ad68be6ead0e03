"""Ablations and sweeps: which arms are compared, over which tasks and seeds, with which interval."""

from __future__ import annotations

import statistics
from typing import Any

import pandas as pd
import pytest
from scipy import stats

from shipbench.methods import get_method
from shipbench.report import build_report
from shipbench.report.analysis.differences import paired_difference
from shipbench.report.analysis.study import Study, build_study
from shipbench.report.analysis.sweeps import sweeps
from shipbench.report.document import Table
from shipbench.report.drawing.chart import Line
from shipbench.selection import Final
from tests.report.builders import DEMO_TASKS, VTAB_TASKS, grid, make_record, make_results, table_named

Records = list[dict[str, Any]]


def switched(records: Records, switch: str, loss: float, **columns: Any) -> Records:
    return [
        {
            **record,
            **columns,
            "run_id": f"{record['run_id']}-{switch}",
            "switches": switch,
            "final_test_acc": record["final_test_acc"] - loss * (1 + i % 3),
        }
        for i, record in enumerate(records)
    ]


def study_of(records: Records) -> Study:
    return build_study(make_results(records), None, Final())


def table_of(records: Records, name: str) -> Table:
    section = {"main-demo": "results", "settings": "records"}.get(name, "ablations")
    return table_named(name, records, section)


def cells(table: Table, label: str) -> dict[str, Any]:
    row = next(row for row in table.rows if row.cells[0].text == label)
    return {column.key: cell for column, cell in zip(table.columns, row.cells, strict=True)}


def test_the_difference_and_its_interval_are_recomputed_over_tasks() -> None:
    full = grid(("ship",), DEMO_TASKS, (0, 1))
    ablated = switched(full, "no-hierarchy", 0.004)
    result = cells(table_of(full + ablated, "ablation-demo"), "SHIP (without hierarchy)")
    per_task = [
        statistics.fmean(
            100 * (a["final_test_acc"] - f["final_test_acc"])
            for a, f in zip(ablated, full, strict=True)
            if f["task"] == task
        )
        for task in DEMO_TASKS
    ]
    mean = statistics.fmean(per_task)
    half = float(stats.t.ppf(0.975, 5)) * statistics.stdev(per_task) / 6**0.5
    cell = result["difference"]
    assert cell.value == pytest.approx(mean)
    assert dict(cell.extras) == pytest.approx({"low": mean - half, "high": mean + half, "tasks": 6, "seeds": 2})
    assert cell.text == f"{mean:.1f}".replace("-", "\N{MINUS SIGN}")
    assert result["pairs"].text == "6 tasks"


def test_ablations_of_other_methods_have_their_titles_and_their_colours() -> None:
    deep, lora = grid(("vpt-deep",), DEMO_TASKS, (0, 1)), grid(("lora",), DEMO_TASKS, (0,))
    ablated = [*switched(deep, "image-pooling", 0.002), *switched(deep, "shared-prompts", 0.004)]
    ablated += [*switched(lora, "no-value", 0.001), *switched(lora, "no-query", 0.002)]
    report = build_report(make_results(deep + lora + ablated))
    expected = {
        "ablation-demo": ("lora", ["change of queries", "change of values"], -0.4),
        "ablation-demo--2": ("vpt-deep", ["prompts per block", "CLS read-out"], -0.8),
    }
    tables = {table.name: table for table in report.tables()}
    figures = {figure.name: figure for figure in report.figures()}
    for name, (method, parts, loss) in expected.items():
        table, look = tables[name], get_method(method)
        assert [column.title for column in table.columns if column.group == "Parts"] == parts
        label = f"{look.title} (without {parts[0]})"
        assert cells(table, label)["difference"].value == pytest.approx(loss)
        assert f"what each part of {look.title} adds" in figures[name].title
        marks = figures[name].draw().panels[0].marks
        assert {mark.colour for mark in marks if isinstance(mark, Line)} == {look.colour}


def test_only_shared_tasks_and_seeds_are_compared() -> None:
    full = grid(("ship",), DEMO_TASKS, (0, 1, 2))
    kept = [r for r in full if r["seed"] == 1 and r["task"] in DEMO_TASKS[:4]]
    table = table_of(full + switched(kept, "no-matching-loss", 0.01), "ablation-demo")
    result = cells(table, "SHIP (without matching loss)")
    assert (result["pairs"].text, result["pairs"].below) == ("4 tasks", "seed 1")
    assert result["mean of groups"].text == ""
    assert cells(table, "SHIP")["mean of groups"].text != ""


def test_rows_follow_the_order_of_the_parts() -> None:
    full = grid(("ship",), DEMO_TASKS, (0,))
    names = ("coupled-attention", "no-hierarchy+no-matching-loss", "no-attribute-prompts", "no-hierarchy")
    table = table_of(full + [record for name in names for record in switched(full, name, 0.01)], "ablation-demo")
    off = [[cell.value == 0 for cell in row.cells[1:5]] for row in table.rows]
    assert [column.title for column in table.columns[1:5]] == [
        "hierarchy",
        "attribute prompts",
        "matching loss",
        "decoupled attention",
    ]
    assert off == [
        [False, False, False, False],
        [True, False, False, False],
        [False, True, False, False],
        [False, False, False, True],
        [True, False, True, False],
    ]


def test_with_few_tasks_the_interval_is_over_seeds() -> None:
    reference = pd.DataFrame({"a": [50.0, 52.0, 54.0], "b": [60.0, 61.0, 62.0]}, index=[0, 1, 2])
    ours = reference + pd.DataFrame({"a": [-1.0, -2.0, -3.0], "b": [-1.0, -2.0, -3.0]}, index=[0, 1, 2])
    result = paired_difference(ours, reference)
    assert result.over == "seeds"
    assert result.interval.mean == pytest.approx(-2)
    assert result.interval.high - result.interval.low == pytest.approx(2 * stats.t.ppf(0.975, 2) / 3**0.5)


@pytest.mark.parametrize(
    ("lost", "seeds", "difference"),
    [
        ({("digits", 2)}, "seeds 0, 1", "\N{MINUS SIGN}1.5"),
        ({("digits", 1), ("digits", 2), ("textures", 0)}, "seeds 0–2", "\N{MINUS SIGN}1.8"),  # noqa: RUF001
    ],
)
def test_over_seeds_only_those_with_all_tasks_count(lost: set[tuple[str, int]], seeds: str, difference: str) -> None:
    full = grid(("ship",), DEMO_TASKS[:2], (0, 1, 2))
    ablated = [
        {**record, "run_id": f"{record['run_id']}-off", "switches": "no-hierarchy"}
        | {"final_test_acc": record["final_test_acc"] - 0.01 * (1 + record["seed"])}
        for record in full
        if (record["task"], record["seed"]) not in lost
    ]
    shown = cells(table_of(full + ablated, "ablation-demo"), "SHIP (without hierarchy)")
    assert (shown["pairs"].text, shown["pairs"].below) == ("2 tasks", seeds)
    assert shown["difference"].text == difference
    assert bool(shown["difference"].below) is (seeds == "seeds 0, 1")


def test_marks_show_which_parts_are_on() -> None:
    full = grid(("ship",), DEMO_TASKS, (0,))
    both = switched(full, "no-matching-loss+no-hierarchy", 0.01)
    table = table_of(full + switched(full, "no-hierarchy", 0.01) + both, "ablation-demo")
    marks = {
        row.cells[0].text: tuple(
            bool(cell.value) for cell, column in zip(row.cells, table.columns, strict=True) if column.group == "Parts"
        )
        for row in table.rows
    }
    assert [column.title for column in table.columns if column.group == "Parts"] == ["hierarchy", "matching loss"]
    assert marks == {
        "SHIP": (True, True),
        "SHIP (without hierarchy)": (False, True),
        "SHIP (without hierarchy, without matching loss)": (False, False),
    }


def test_ablated_runs_stay_out_of_the_main_table() -> None:
    full = grid(("ship",), DEMO_TASKS, (0, 1))
    table = table_of(full + switched(full, "coupled-attention", 0.05), "main-demo")
    assert [row.cells[0].text for row in table.rows] == ["SHIP"]


def test_an_ablation_without_the_full_method_has_no_difference() -> None:
    table = table_of(switched(grid(("ship",), DEMO_TASKS, (0,)), "no-hierarchy", 0.0), "ablation-demo")
    assert cells(table, "SHIP (without hierarchy)")["difference"].text == ""
    assert any("no differences" in note for note in table.notes)


def test_an_ablation_is_compared_with_the_full_method_of_its_recipe() -> None:
    full = varied(grid(("ship",), DEMO_TASKS, (0,)), "epochs", 100)
    worse = [{**record, "final_test_acc": record["final_test_acc"] - 0.1} for record in full]
    short = varied(worse, "epochs", 2, overrides="epochs=2")
    ablated = varied(switched(short, "no-hierarchy", 0.0), "threshold", 1.0)
    table = table_of(full + short + ablated, "ablation-demo")
    assert cells(table, "SHIP (without hierarchy)")["difference"].text == "0.0"
    assert "SHIP" not in [row.cells[0].text for row in table.rows]
    assert "All rows have epochs 2." in table.notes
    table = table_of(full + ablated, "ablation-demo")
    assert cells(table, "SHIP (without hierarchy)")["difference"].text == ""
    assert any("no differences" in note for note in table.notes)


def test_an_ablation_is_not_compared_with_a_sweep_of_what_it_switches_off() -> None:
    full = varied(grid(("ship",), DEMO_TASKS, (0,)), "threshold", 0.8)
    without = [{**record, "final_test_acc": record["final_test_acc"] - 0.1} for record in full]
    ablated = varied(switched(without, "no-hierarchy", 0.0), "threshold", 1.0)
    swept = varied(without, "threshold", 1.0, overrides="threshold=1.0")
    table = table_of(full + ablated + swept, "ablation-demo")
    assert cells(table, "SHIP (without hierarchy)")["difference"].text == "−10.0"  # noqa: RUF001


def varied(records: Records, key: str, value: Any, **columns: Any) -> Records:
    return [{**r, f"cfg.{key}": value, "run_id": f"{r['run_id']}-{key}-{value}", **columns} for r in records]


BASE = [
    {**record, "cfg.prompt_length": 10, "cfg.matching_weight": 0.5} for record in grid(("ship",), DEMO_TASKS, (0, 1))
]


def test_a_sweep_is_runs_that_differ_in_one_setting() -> None:
    first_seed = [r for r in BASE if r["seed"] == 0]
    records = BASE + varied(first_seed, "prompt_length", 5) + varied(first_seed, "prompt_length", 50)
    (sweep,) = sweeps(study_of(records), "demo")
    assert (sweep.key, sweep.tasks) == ("cfg.prompt_length", 6)
    assert [(point.value, point.default) for point in sweep.points] == [(5, False), (10, True), (50, False)]
    mean = statistics.fmean(100 * r["final_test_acc"] for r in first_seed)
    assert sweep.points[0].mean == pytest.approx(mean)
    assert [row.cells[0].text for row in table_of(records, "main-demo").rows] == ["SHIP"]
    labels = [row.cells[0].text for row in table_of(records, "settings-varied-demo").rows]
    assert labels == ["SHIP", "SHIP (prompt length 5)", "SHIP (prompt length 50)"]


def test_a_swept_value_without_a_finished_run_hides_no_other() -> None:
    first_seed = [r for r in BASE if r["seed"] == 0]
    lost: dict[str, Any] = {"status": "failed", "final_test_acc": float("nan"), "best_test_acc": float("nan")}
    records = BASE + varied(first_seed, "prompt_length", 5) + varied(first_seed, "prompt_length", 500, **lost)
    (sweep,) = sweeps(study_of(records), "demo")
    assert (sweep.tasks, [point.value for point in sweep.points]) == (6, [5, 10])
    table = table_of(records, "settings-varied-demo")
    shared = {label: cells(table, label)["shared_tasks"].value for label in ("SHIP", "SHIP (prompt length 500)")}
    assert shared == {"SHIP": 6, "SHIP (prompt length 500)": 0}
    assert cells(table, "SHIP (prompt length 5)")["shared_mean"].value == pytest.approx(sweep.points[0].mean)
    assert cells(table, "SHIP (prompt length 500)")["shared_mean"].value is None


@pytest.mark.parametrize(("name", "label"), [("ablation", "without hierarchy"), ("settings-varied", "prompt length 5")])
def test_a_mean_over_fewer_seeds_is_marked_and_the_mark_explained(name: str, label: str) -> None:
    others = [*switched(BASE, "no-hierarchy", 0.01), *varied(BASE, "prompt_length", 5)]
    whole = table_of(BASE + others, f"{name}-demo")
    lost = [record for record in others if (record["task"], record["seed"]) != (DEMO_TASKS[0], 1)]
    table = table_of(BASE + lost, f"{name}-demo")
    assert [cells(each, f"SHIP ({label})")["mean of tasks"].sign for each in (whole, table)] == ["", "†"]
    assert [any(note.startswith("† fewer") for note in each.notes) for each in (whole, table)] == [False, True]


def test_a_swept_value_that_is_also_a_switch_joins_its_sweep() -> None:
    records = (
        BASE + varied(BASE, "matching_weight", 1.0) + varied(BASE, "matching_weight", 0.0, switches="no-matching-loss")
    )
    (sweep,) = sweeps(study_of(records), "demo")
    assert [point.value for point in sweep.points] == [0, 0.5, 1]


def test_an_ablation_alone_is_no_sweep() -> None:
    records = BASE + varied(BASE, "matching_weight", 0.0, switches="no-matching-loss")
    assert sweeps(study_of(records), "demo") == []


def test_two_settings_changed_together_are_no_sweep_of_either() -> None:
    first_seed = [r for r in BASE if r["seed"] == 0]
    both = varied(varied(first_seed, "prompt_length", 20), "matching_weight", 0.1)
    study = study_of(BASE + both)
    assert sweeps(study, "demo") == []
    assert [arm.label for arm in study.arms] == ["SHIP", "SHIP (matching weight 0.1, prompt length 20)"]


def test_overridden_settings_are_never_the_reference() -> None:
    early = varied(BASE, "prompt_length", 5, overrides="prompt_length=5", created="2020-01-01")
    study = study_of([*early, *BASE])
    assert [arm.label for arm in study.arms] == ["SHIP", "SHIP (prompt length 5)"]


def test_the_unchanged_settings_are_those_of_most_runs_then_the_central_then_the_oldest() -> None:
    first_seed = [r for r in BASE if r["seed"] == 0]
    old = {"created": "2020-01-01"}
    of_most = study_of(BASE + varied(first_seed, "prompt_length", 5, **old))
    assert [arm.label for arm in of_most.arms] == ["SHIP", "SHIP (prompt length 5)"]
    central = study_of(BASE + varied(BASE, "prompt_length", 5, **old) + varied(BASE, "matching_weight", 1.0, **old))
    assert [arm.label for arm in central.arms] == ["SHIP", "SHIP (matching weight 1)", "SHIP (prompt length 5)"]
    oldest = study_of(BASE + varied(BASE, "prompt_length", 50, **old))
    assert [arm.label for arm in oldest.arms] == ["SHIP", "SHIP (prompt length 10)"]


def test_the_deviation_of_a_swept_value_is_over_seeds() -> None:
    (sweep,) = sweeps(study_of(BASE + varied(BASE, "prompt_length", 5)), "demo")
    means = [statistics.fmean(100 * r["final_test_acc"] for r in BASE if r["seed"] == seed) for seed in (0, 1)]
    assert [point.deviation for point in sweep.points] == pytest.approx([statistics.stdev(means)] * 2)


def test_settings_that_a_recipe_gives_per_task_do_not_split_a_row() -> None:
    records = [{**r, "cfg.lr": 0.001 * (1 + DEMO_TASKS.index(r["task"]))} for r in BASE]
    study = study_of(records)
    assert [arm.label for arm in study.arms] == ["SHIP"]
    assert study.accuracies(study.arms[0]).shape == (2, 6)


def test_the_same_seed_on_two_copies_of_the_data_is_two_rows() -> None:
    other = [{**r, "data_fingerprint": "other", "run_id": f"{r['run_id']}-o", "final_test_acc": 0.9} for r in BASE[:1]]
    labels = [arm.label for arm in study_of(BASE + other).arms]
    assert labels == ["SHIP", "SHIP (record 2 of the same seeds)"]


def test_the_copy_of_the_data_that_most_runs_read_has_the_plain_row() -> None:
    odd = {**BASE[0], "data_fingerprint": "a copy", "run_id": "0", "final_test_acc": 0.9}
    study = study_of([odd, *BASE])
    shown = {arm.label: study.accuracies(arm).at[0, BASE[0]["task"]] for arm in study.arms}
    expected = {"SHIP": 100 * BASE[0]["final_test_acc"], "SHIP (record 2 of the same seeds)": 90}
    assert shown == pytest.approx(expected)


@pytest.mark.parametrize("updated", [False, True])
def test_runs_of_two_precisions_have_a_row_each(updated: bool) -> None:
    """One machine has a seed more, and may have changed its commit from task to task."""
    extra = {**BASE[0], "seed": 2, "run_id": "extra"}
    records = [
        {**r, "precision": precision, "run_id": f"{r['run_id']}-{precision}"}
        | ({"git_commit": r["task"]} if updated and precision == "fp32" else {})
        for precision, own in (("fp32", [*BASE, extra]), ("bf16", BASE))
        for r in own
    ]
    study = study_of(records)
    shown = {arm.label: (len(runs), *set(runs["precision"])) for arm in study.arms if len(runs := study.runs_of([arm]))}
    assert shown == {"SHIP (fp32)": (13, "fp32"), "SHIP (bf16, record 2 of the same seeds)": (12, "bf16")}


def test_a_row_of_two_precisions_names_both_beside_a_copy() -> None:
    other = [{**r, "precision": "bf16", "run_id": f"{r['run_id']}-b"} for r in BASE if r["task"] == DEMO_TASKS[0]]
    other.append({**other[0], "seed": 2, "run_id": "another seed"})
    labels = [arm.label for arm in study_of(BASE + other).arms]
    assert labels == ["SHIP (bf16 and fp32)", "SHIP (bf16, record 2 of the same seeds)"]
    assert [arm.label for arm in study_of(BASE + other[-1:]).arms] == ["SHIP"]


def test_numbers_of_one_value_are_one_setting_whatever_their_type() -> None:
    mixed = [{**r, "cfg.prompt_length": 10.0 if r["seed"] else 10} for r in BASE]
    other = [make_record("linear", task) for task in DEMO_TASKS]
    assert [arm.label for arm in study_of(mixed + other).arms] == ["Linear probe", "SHIP"]


def test_settings_are_listed_for_every_run() -> None:
    table = table_of(BASE + varied(BASE, "prompt_length", 5), "settings")
    assert table.records is not None
    assert len(table.records) == 2 * len(BASE)
    assert sorted(table.records["cfg.prompt_length"].unique()) == [5, 10]
    assert sum(int(row.cells[3].text) for row in table.rows) == 2 * len(BASE)
    assert any("matching weight 0.5" in note for note in table.notes)


def test_runs_with_other_shots_weights_or_references_have_rows_of_their_own_in_the_settings() -> None:
    foreign = {"kind": "imported", "origin": "csv", "epoch_rule": "final"}
    variants: list[dict[str, Any]] = [
        {},
        {"shots": 16},
        {"shots": 4},
        {"backbone_sha256": "c" * 64},
        {**foreign, "reference": "one paper"},
        {**foreign, "reference": "another"},
    ]
    records = [
        make_record("ship", task, accuracy=0.5 + i / 100, **columns)
        for i, columns in enumerate(variants)
        for task in DEMO_TASKS[:2]
    ]
    table = table_of(records, "settings")
    common = "final, {}default recipe, vit_base_patch16_224.orig_in21k, 224 px, {}"
    made = {row.cells[4].text: row.cells[3].value for row in table.rows}
    assert made == {
        common.format("", "weights a1b2c3d4"): 2,
        common.format("", "weights cccccccc"): 2,
        common.format("", "records from csv, weights a1b2c3d4, one paper"): 2,
        common.format("", "records from csv, weights a1b2c3d4, another"): 2,
        common.format("4 shots, ", "weights a1b2c3d4"): 2,
        common.format("16 shots, ", "weights a1b2c3d4"): 2,
    }
    assert [row.cells[4].text.partition(" shots")[0] for row in table.rows[-2:]] == ["final, 4", "final, 16"]
    assert table.records is not None
    assert sorted(set(table.records["shots"])) == [0, 4, 16]


def test_unknown_switches_and_methods_have_an_ablation_too() -> None:
    full = grid(("mine",), VTAB_TASKS[:3], (0, 1))
    table = table_of(full + switched(full, "no-magic", 0.02), "ablation-vtab-1k")
    assert [row.cells[0].text for row in table.rows] == ["mine", "mine (without magic)"]
