"""Tuned runs in a report: rows of their own, confirmed recipes and superseded tunings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from shipbench.report import ReportOptions, build_report, main_table
from shipbench.report.analysis.study import build_study, with_selection
from shipbench.report.document import Report, Table
from shipbench.report.tables.protocol import protocol_box
from shipbench.selection import get_selection
from tests.report.builders import DEMO_TASKS, VTAB_TASKS, Records, cell, grid, make_record, make_results, table


def tuned_records() -> tuple[Records, list[dict[str, Any]]]:
    plain = [make_record("ship", t, 0, 0.5, **{"cfg.prompt_length": 10, "overrides": ""}) for t in DEMO_TASKS]
    won = [
        make_record("ship", t, 0, 0.6, **{"cfg.prompt_length": 5 + i, "overrides": f"prompt_length={5 + i}"})
        for i, t in enumerate(DEMO_TASKS)
    ]
    tries = [make_record("ship", t, 0, float("nan"), protocol="tuning", val_acc=0.4) for t in DEMO_TASKS]
    return [*plain, *won, *tries], [{"final_runs": [r["run_id"] for r in won]}]


def labels(report: Report, name: str = "main-demo") -> list[str]:
    return labels_of(table(report, name))


def labels_of(result: Table) -> list[str]:
    return [row.cells[0].text for row in result.rows]


def names(report: Report) -> set[str]:
    return {result.name for result in report.tables()}


def test_tuned_runs_are_a_method_of_their_own() -> None:
    records, tunings = tuned_records()
    report = build_report(make_results(records), tunings=tunings)
    main = table(report, "main-demo")
    assert labels(report) == ["SHIP", "SHIP (tuned)"]
    assert "Tuned: settings chosen on validation images." in main.notes
    untuned = table(build_report(make_results(records[:1])), "main-demo")
    assert not any("Tuned" in note for note in untuned.notes)
    assert cell(main, "SHIP", "mean of tasks").text == "50.0"
    assert cell(main, "SHIP (tuned)", "mean of tasks").text == "60.0"
    assert "settings-varied-demo" not in names(report)
    assert dict(report.protocol)["Settings"] == (
        "6 runs with settings fixed beforehand (default recipe). 6 runs with settings chosen on validation images "
        "after training on the other training images, then retrained on all of them. Also in the "
        "folder: 6 tuning runs, which never opened the test split."
    )
    assert list(main_table(make_results(records), tunings=tunings)["mean of tasks"]) == pytest.approx([50, 60])
    chosen = build_report(make_results(records), None, ReportOptions(select="validation"), tunings=tunings)
    assert labels(chosen) == ["SHIP (tuned)"]


def tuned_and_default(tasks: Sequence[str] = DEMO_TASKS) -> Report:
    """Three methods on ``tasks``, two of them also tuned, which adds 0.01 to their accuracies."""
    records = grid(("linear", "vpt-deep", "ship"), tasks, (0,), best_test_acc=float("nan"))
    better = [
        {**record, "run_id": f"{record['run_id']}-t", "protocol": "validation", "final_test_acc": accuracy + 0.01}
        for record in records
        if record["method"] != "ship"
        for accuracy in [record["final_test_acc"]]
    ]
    return build_report(make_results([*records, *better]))


def test_each_choice_of_settings_has_a_result_of_its_own() -> None:
    (overview,) = tuned_and_default().overviews
    shown = {(r.settings, r.mean): [row.cells[0].text for row in r.table.rows] for r in overview.results}
    default, tuned = ["SHIP", "VPT-deep", "Linear probe"], ["VPT-deep (tuned)", "Linear probe (tuned)"]
    for mean in ("groups", "tasks"):
        assert set(shown[("all",), mean]) == {*default, *tuned}
        assert shown[("default",), mean] == default
        assert shown[("tuned",), mean] == tuned
    assert len(shown) == 6
    for result in overview.results:
        marks = [row.cells[1].mark for row in result.table.rows]
        assert marks[:2] == ["best", "second"]
        assert result.sentence.startswith(f"{result.table.rows[0].cells[0].text} is best on Demo suite (mean of ")
    details = [(result.settings, labels_of(result.detail)) for result in overview.results if result.detail]
    assert [settings for settings, _ in details] == [("default",), ("tuned",)]
    assert [set(rows) for _, rows in details] == [set(default), set(tuned)]
    (plain,) = build_report(make_results(grid(("linear", "ship"), DEMO_TASKS, (0,)))).overviews
    assert {result.settings for result in plain.results} == {("all", "default")}


def test_a_method_whose_recipe_was_confirmed_has_both_settings() -> None:
    records, tunings = tuned_records()
    best = [make_record("vpt-deep", task, 0, 0.9, overrides="") for task in DEMO_TASKS]
    tunings = [*tunings, {"final_runs": [record["run_id"] for record in best]}]
    report = build_report(make_results([*records, *best]), tunings=tunings)
    (overview,) = report.overviews
    shown = {
        result.settings: {row.cells[0].text for row in result.table.rows}
        for result in overview.results
        if result.mean == "tasks" and result.select == "final"
    }
    assert shown == {
        ("all",): {"SHIP", "SHIP (tuned)", "VPT-deep"},
        ("default",): {"SHIP", "VPT-deep"},
        ("tuned",): {"SHIP (tuned)", "VPT-deep"},
    }
    settings = {key.key: key.settings for key in report.methods}
    assert (settings["VPT-deep"], settings["SHIP (tuned)"]) == (("default", "tuned"), ("tuned",))


def test_results_of_some_settings_keep_the_comparisons_of_all() -> None:
    (overview,) = tuned_and_default(VTAB_TASKS).overviews
    by_choice = {(result.settings[0], result.mean): result for result in overview.results}
    for mean in ("groups", "tasks"):
        columns = by_choice["all", mean].table.columns
        assert [column.key for column in columns] == [
            "method",
            "accuracy",
            "difference",
            "wilcoxon_holm_p",
            "trainable_params",
        ]
        whole = {row.cells[0].text: row.cells[2:4] for row in by_choice["all", mean].table.rows}
        for settings in ("default", "tuned"):
            table = by_choice[settings, mean].table
            assert {row.cells[0].text: row.cells[2:4] for row in table.rows}.items() <= whole.items()
            assert table.caption.details.endswith("Holm's correction is over the methods with other settings too.")
        assert "other settings" not in by_choice["all", mean].table.caption.details
    # Of four comparisons with VPT-deep, two are of default settings.
    (alone,) = build_report(make_results(grid(("linear", "vpt-deep", "ship"), VTAB_TASKS, (0,)))).overviews
    of_two, of_four = (
        cell(table, "SHIP", "wilcoxon_holm_p").value
        for table in (alone.results[1].table, by_choice["default", "tasks"].table)
    )
    assert of_four == pytest.approx(2 * of_two)
    assert "above Linear probe (tuned), without a test" in by_choice["tuned", "tasks"].sentence


def test_a_failed_trial_of_a_tuning_is_listed_and_has_no_row() -> None:
    records, tunings = tuned_records()
    trial = {"cfg.prompt_length": 3, "overrides": "prompt_length=3", "protocol": "tuning"}
    lost = make_record("ship", "digits", 0, float("nan"), **trial, status="failed", error="boom")
    report = build_report(make_results([*records, lost]), tunings=tunings)
    assert labels(report) == ["SHIP", "SHIP (tuned)"]
    rows = [[c.text for c in row.cells] for row in table(report, "missing").rows]
    assert ["failed", "SHIP", "digits", "0", "boom"] in rows


def test_a_confirmed_run_of_the_recipe_appears_in_both_rows_but_counts_once() -> None:
    records, tunings = tuned_records()
    records = [r for r in records if r["run_id"] != tunings[0]["final_runs"][0]]
    own = records[0]["run_id"]
    tunings[0]["final_runs"][0] = own
    report = build_report(make_results(records), tunings=tunings)
    assert report.lead.startswith("17 finished runs")
    assert sorted(report.results["run_id"]) == sorted(r["run_id"] for r in records)
    row = report.results.set_index("run_id").loc[own]
    assert (row["arm"], row["tuning"], row["accuracy"]) == ("SHIP; SHIP (tuned)", "confirmed", 0.5)
    settings = dict(report.protocol)["Settings"]
    assert settings.startswith(
        "6 runs with settings fixed beforehand (default recipe). For 1 of these, tuning on validation images chose "
    )
    assert (
        "(SHIP on digits of Demo suite); they appear in two rows of the tables and count once here. 5 runs" in settings
    )


def test_a_run_with_two_rows_counts_once_in_warnings_and_notes() -> None:
    records, tunings = tuned_records()
    tunings[0]["final_runs"][0] = records[0]["run_id"]
    records = [{**record, "checkpoint": "random", "stacked_runs": 2} for record in records]
    report = build_report(make_results(records), tunings=tunings)
    assert labels(report, "cost-demo") == ["SHIP", "SHIP (tuned)"]
    (warning,) = table(report, "main-demo").warnings
    assert warning.startswith("Random weights: 11 runs (SHIP)")
    assert table(report, "cost-demo").notes[0].startswith("11 of 11 runs shared passes")


@pytest.mark.parametrize("select", ["final", "validation"])
def test_every_run_is_counted_once_under_every_rule(select: str) -> None:
    records, tunings = tuned_records()
    tunings[0]["final_runs"][0] = records[0]["run_id"]
    report = build_report(make_results(records), None, ReportOptions(select=select), tunings=tunings)
    counted = {"final": 12, "validation": 6}[select]
    assert dict(report.facts)["Runs"] == f"18 finished, 0 failed, {counted} counted by the rule"
    assert report.results["accuracy"].notna().sum() == counted
    in_settings = table(report, "settings").records
    assert in_settings is not None
    assert sorted(in_settings["run_id"]) == sorted(report.results["run_id"]) == sorted(r["run_id"] for r in records)
    numbers = re.findall(r"(\d+) runs? with settings (?:fixed|chosen)", dict(report.protocol)["Settings"])
    assert sum(map(int, numbers)) == counted


def test_a_method_whose_recipe_wins_everywhere_has_one_row() -> None:
    records, _ = tuned_records()
    others = [make_record("vpt-deep", task, 0, 0.4) for task in DEMO_TASKS]
    own = [record["run_id"] for record in records[: len(DEMO_TASKS)]]
    results, tunings = make_results([*records, *others]), [{"final_runs": own}]
    results = results[(results["overrides"].fillna("") == "")]
    report = build_report(results, tunings=tunings)
    assert labels(report) == ["VPT-deep", "SHIP"]
    settings = dict(report.protocol)["Settings"]
    assert settings.startswith(
        "12 runs with settings fixed beforehand (default recipe). For 6 of these, tuning on validation images chose "
    )
    assert "(SHIP on all 6 tasks of Demo suite); one row shows both." in settings
    assert "retrained" not in settings
    chosen = build_report(results, None, ReportOptions(select="validation"), tunings=tunings)
    assert labels(chosen) == ["SHIP (tuned)"]
    assert "one row shows both" not in dict(chosen.protocol)["Settings"]


def test_settings_at_an_end_of_their_grid_are_named() -> None:
    records, tunings = tuned_records()
    tunings[0]["ends_of_grid"] = {"lr": "lowest", "prompt_length": "highest"}
    other = {"final_runs": ["of another folder"], "ends_of_grid": {"weight_decay": "highest"}}
    study = build_study(make_results(records), None, get_selection("final"), [*tunings, other])
    for rule in ("final", "oracle"):
        settings = dict(protocol_box(with_selection(study, get_selection(rule))))["Settings"]
        assert settings.count("end of its grid") == 1
        assert "better value may lie: lr of SHIP (lowest) and prompt length of SHIP (highest). Also" in settings


def test_a_method_confirmed_with_fewer_seeds_or_in_one_recipe_alone_has_one_row() -> None:
    plain = grid(("vpt-deep", "ship"), DEMO_TASKS, (0, 1, 2), overrides="")
    confirmed = [r["run_id"] for r in plain if r["method"] == "ship" and r["seed"] < 2]
    other = [{**r, "recipe": "mine", "run_id": f"{r['run_id']}-mine"} for r in plain if r["method"] == "ship"]
    report = build_report(make_results([*plain, *other]), tunings=[{"final_runs": confirmed}])
    assert labels(report) == ["VPT-deep (default recipe)", "SHIP (default recipe)", "SHIP (mine recipe)"]


def test_a_method_confirmed_in_one_suite_and_changed_in_another_is_described_for_both() -> None:
    records, tunings = tuned_records()
    vtab = [make_record("ship", task, 0, 0.7, overrides="") for task in ("dtd", "svhn")]
    tunings.append({"final_runs": [r["run_id"] for r in vtab]})
    study = build_study(make_results([*records, *vtab]), None, get_selection("final"), tunings)
    settings = dict(protocol_box(study))["Settings"]
    assert settings.startswith(
        "8 runs with settings fixed beforehand (default recipe). For 2 of these, tuning on validation images chose "
    )
    assert (
        "(SHIP on DTD, SVHN of VTAB-1k); one row shows both. 6 runs with settings chosen on validation images"
        in settings
    )


def test_a_sweep_keeps_the_run_that_a_tuning_chose() -> None:
    records, tunings = tuned_records()
    swept = make_record("ship", DEMO_TASKS[0], 0, 0.55, **{"cfg.prompt_length": 50, "overrides": "prompt_length=50"})
    report = build_report(make_results([*records, swept]), tunings=tunings)
    arms = report.results.set_index("run_id")["arm"]
    chosen = tunings[0]["final_runs"]
    assert arms[chosen[0]] == "SHIP (prompt length 5); SHIP (tuned)"
    assert arms[chosen[1]] == "SHIP (tuned)"


def test_an_ablation_is_no_sweep_beside_a_tuned_run() -> None:
    records, tunings = tuned_records()
    ablated = [
        {**r, "run_id": f"{r['run_id']}-a", "switches": "no-hierarchy", "overrides": "threshold=1", "cfg.threshold": 1}
        for r in records[: len(DEMO_TASKS)]
    ]
    report = build_report(make_results([*records, *ablated]), tunings=tunings)
    assert labels(report) == ["SHIP", "SHIP (tuned)"]
    assert "settings-varied-demo" not in names(report)


@pytest.mark.parametrize(
    ("column", "values", "details"),
    [
        ("shots", (1, 4), ("1 shot", "4 shots")),
        ("backbone_sha256", ("a" * 64, "b" * 64), ("weights aaaaaaaa", "weights bbbbbbbb")),
        ("image_size", (224, 384), ("224 px", "384 px")),
    ],
)
def test_tunings_for_other_shots_weights_or_sizes_do_not_replace_each_other(
    column: str, values: tuple[Any, ...], details: tuple[str, ...]
) -> None:
    won = [
        [
            make_record("ship", t, 0, 0.6, **{column: value, "cfg.prompt_length": i, "overrides": f"prompt_length={i}"})
            for t in DEMO_TASKS
        ]
        for i, value in enumerate(values)
    ]
    tunings = [
        {"created": f"2025-03-0{i + 1}", "final_runs": [r["run_id"] for r in runs]} for i, runs in enumerate(won)
    ]
    report = build_report(make_results([run for runs in won for run in runs]), tunings=tunings)
    assert labels(report) == [f"SHIP (tuned, {detail})" for detail in details]
    assert set(report.results["tuning"]) == {"chosen"}


def test_a_number_of_shots_with_the_recipe_confirmed_has_one_row_beside_a_changed_one() -> None:
    plain = [make_record("ship", t, 0, 0.5, shots=s, overrides="") for s in (1, 4) for t in DEMO_TASKS]
    won = [
        make_record("ship", t, 0, 0.6, shots=4, **{"cfg.prompt_length": 5, "overrides": "prompt_length=5"})
        for t in DEMO_TASKS
    ]
    tunings = [{"final_runs": [r["run_id"] for r in runs]} for runs in (won, plain[: len(DEMO_TASKS)])]
    report = build_report(make_results([*plain, *won]), tunings=tunings)
    assert labels(report) == ["SHIP (1 shot)", "SHIP (4 shots)", "SHIP (tuned, 4 shots)"]


def test_the_latest_tuning_counts_and_earlier_ones_are_named() -> None:
    records, tunings = tuned_records()
    late = [
        make_record("ship", t, 0, 0.4, **{"cfg.prompt_length": 100, "overrides": "prompt_length=100"})
        for t in DEMO_TASKS[1:]
    ]
    tunings[0]["created"] = "2025-03-01T12:00:00+00:00"
    tunings.insert(0, {"created": "2025-03-02T12:00:00+00:00", "final_runs": [r["run_id"] for r in late]})
    report = build_report(make_results([*records, *late]), tunings=tunings)
    main = table(report, "main-demo")
    assert labels(report) == ["SHIP", "SHIP (tuned)"]
    shown = [cell(main, "SHIP (tuned)", task).text for task in DEMO_TASKS]
    assert shown == ["60.0", *["40.0"] * 5]
    assert "settings-varied-demo" not in names(report)
    assert list(report.results["tuning"]).count("superseded") == 5
    rows = [[c.text for c in row.cells] for row in table(report, "missing").rows]
    assert ["not counted", "SHIP"] in [row[:2] for row in rows if row[4].startswith("chosen by an earlier tuning")]
    assert (
        "Not counted: 5 runs with settings that an earlier tuning chose and a later one replaced"
        in dict(report.protocol)["Settings"]
    )


@pytest.mark.parametrize("tested", [True, False])
def test_runs_of_a_winner_that_the_same_tuning_replaced_are_no_sweep(tested: bool) -> None:
    records, tunings = tuned_records()
    lost = [
        make_record("ship", t, 0, 0.4, **{"cfg.prompt_length": 100, "overrides": "prompt_length=100"})
        for t in DEMO_TASKS
    ]
    if not tested:
        records = [r for r in records if r["run_id"] not in tunings[0]["final_runs"]]
        tunings[0]["final_runs"] = []
    tunings[0]["earlier_final_runs"] = [r["run_id"] for r in lost]
    report = build_report(make_results([*records, *lost]), tunings=tunings)
    assert labels(report) == ["SHIP", "SHIP (tuned)"][: 1 + tested]
    assert "settings-varied-demo" not in names(report)
    assert set(report.results.set_index("run_id").loc[[r["run_id"] for r in lost], "tuning"]) == {"superseded"}


def test_runs_of_an_earlier_decision_for_the_winner_count_as_its_own() -> None:
    records, tunings = tuned_records()
    runs = tunings[0]["final_runs"]
    tunings[0]["earlier_final_runs"] = [runs.pop()]
    again = make_record("ship", DEMO_TASKS[-1], 1, 0.6, **{"cfg.prompt_length": 10, "overrides": "prompt_length=10"})
    runs.append(again["run_id"])
    report = build_report(make_results([*records, again]), tunings=tunings)
    assert list(report.results["tuning"]).count("chosen") == len(DEMO_TASKS) + 1


def tuned_copies(records: Records) -> Records:
    return [{**record, "run_id": f"{record['run_id']}-t", "protocol": "validation"} for record in records]


def test_a_main_table_of_some_settings_has_their_differences_to_published_rows_alone() -> None:
    records = grid(("vpt-deep", "linear"), VTAB_TASKS, (0,), best_test_acc=float("nan"))
    tuned = tuned_copies([record for record in records if record["method"] == "linear"])
    (overview,) = build_report(make_results([*records, *tuned])).overviews
    (detail,) = (result.detail for result in overview.results if result.settings == ("tuned",) and result.detail)
    differences = [row.cells[0].value for row in detail.rows if row.kind == "difference"]
    assert differences
    assert set(differences) == {"Linear probe (tuned): ours minus published"}


@pytest.mark.parametrize("methods", [("linear", "ship"), ("linear", "vpt-deep", "ship")])
def test_the_caption_of_a_figure_speaks_of_the_seeds_of_its_own_rows(methods: tuple[str, ...]) -> None:
    records = grid(methods, DEMO_TASKS, (0, 1), best_test_acc=float("nan"))
    tuned = tuned_copies([record for record in records if record["seed"] == 0])
    (overview,) = build_report(make_results([*records, *tuned])).overviews
    captions = {result.settings[0]: result.figure.caption.text for result in overview.results if result.figure}
    assert {name: "standard deviation" in text for name, text in captions.items()} == {
        "all": True,
        "default": True,
        "tuned": False,
    }
