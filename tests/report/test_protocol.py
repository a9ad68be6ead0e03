"""Questions of a reviewer: paired tests, agreement, collapsed seeds, tuned runs and the protocol box."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from shipbench.report import ReportOptions, build_report, main_table
from shipbench.report.analysis.agreement import agreement
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.comparisons import paired_comparisons
from shipbench.report.analysis.predictions import LoadPredictions, TaskPredictions, suite_predictions, with_chance
from shipbench.report.analysis.study import Study, build_study, with_selection
from shipbench.report.document import Cell, Report, Table
from shipbench.report.render.latex import latex_table
from shipbench.report.render.markdown import markdown_report
from shipbench.report.tables.protocol import protocol_box
from shipbench.selection import get_selection
from shipbench.statistics import holm, paired_test, student_interval
from tests.report.builders import DEMO_TASKS, grid, make_record, make_results, table_named

Records = list[dict[str, Any]]


def predicted(records: Records, images: int = 400, classes: int = 4) -> tuple[Records, pd.DataFrame]:
    """Return records with matching predictions, in which the first images of every run are correct."""
    frames, kept = [], []
    for number, record in enumerate(records):
        right = round(record["final_test_acc"] * images)
        labels = np.arange(images) % classes
        wrong = (labels + 1) % classes
        order = np.random.default_rng(number).permutation(images) if record["method"] == "linear" else np.arange(images)
        guesses = wrong.copy()
        guesses[order[:right]] = labels[order[:right]]
        frames.append(
            pd.DataFrame({"run_id": record["run_id"], "index": range(images), "label": labels, "predicted": guesses})
        )
        kept.append({**record, "final_test_acc": right / images})
    return kept, pd.concat(frames, ignore_index=True)


def loader(frame: pd.DataFrame) -> LoadPredictions:
    def load(run_ids: Iterable[str]) -> pd.DataFrame:
        return frame[frame["run_id"].isin(list(run_ids))]

    return load


def study_of(records: Records) -> Study:
    return build_study(make_results(records), None, get_selection("final"))


def arm_of(study: Study, method: str) -> Arm:
    return next(arm for arm in study.arms if arm.method == method)


def against(study: Study, method: str, frame: pd.DataFrame) -> tuple[Arm, Mapping[str, TaskPredictions]]:
    """Return the arm of ``method`` as the baseline, and the predictions that can be paired with it."""
    baseline = arm_of(study, method)
    return baseline, suite_predictions(study, "demo", baseline, loader(frame))


def table(report: Report, name: str) -> Table:
    return next(table for table in report.tables() if table.name == name)


def cell(result: Table, row: str, column: str) -> Cell:
    cells = next(r.cells for r in result.rows if r.cells[0].text == row)
    return cells[[c.key for c in result.columns].index(column)]


def test_every_cell_is_tested_on_its_images_and_corrected_over_all() -> None:
    records, frame = predicted(grid(("linear", "vpt-deep", "ship"), DEMO_TASKS, (0, 1)))
    study = study_of(records)
    result = paired_comparisons(study, "demo", *against(study, "vpt-deep", frame))
    assert [comparison.arm.method for comparison in result] == ["linear", "ship"]
    by_run = {run: part.set_index("index") for run, part in frame.groupby("run_id")}
    ids = {(r["method"], r["task"], r["seed"]): r["run_id"] for r in records}

    def right(method: str, task: str) -> np.ndarray:
        runs = [by_run[ids[method, task, seed]] for seed in (0, 1)]
        return np.sum([run["label"] == run["predicted"] for run in runs], axis=0)

    p_values = [
        paired_test(right(comparison.arm.method, task), right("vpt-deep", task), 2).p_value
        for comparison in result
        for task in DEMO_TASKS
    ]
    shown = [comparison.tasks[task].adjusted for comparison in result for task in DEMO_TASKS]
    assert shown == pytest.approx(holm(p_values))


def test_accuracies_that_differ_beyond_chance_are_marked() -> None:
    records = [make_record("vpt-deep", "digits", 0, 0.5), make_record("ship", "digits", 0, 0.9)]
    records += [make_record("vpt-deep", "textures", 0, 0.8), make_record("ship", "textures", 0, 0.8)]
    records += [make_record("vpt-deep", "clevr-count", 0, 0.8), make_record("ship", "clevr-count", 0, 0.6)]
    records += [make_record("vpt-deep", "earth-climate", 0, 0.5), make_record("ship", "earth-climate", 0, 0.8)]
    records, frame = predicted(records)
    report = build_report(make_results(records), predictions=loader(frame))
    main = table(report, "main-demo")
    assert [cell(main, "SHIP", task).below for task in ("digits", "textures", "clevr-count")] == ["▲", "", "▼"]
    assert any("exact McNemar tests on the test images, with Holm's correction" in note for note in main.notes)
    assert any(
        "conditional on the trained models and do not include the spread over seeds" in note for note in main.notes
    )
    assert "blacktriangle" in latex_table(main)
    across = table(report, "significance-demo")
    counts = ("tasks", "won", "lost", "beyond_chance_better", "beyond_chance_worse")
    assert [cell(across, "SHIP", column).value for column in counts] == [4, 2, 1, 2, 1]
    digits = cell(table(report, "paired-tests-demo"), "SHIP", "digits")
    assert digits.below == "+40.0"
    assert (dict(digits.extras)["images won"], dict(digits.extras)["images lost"]) == (160, 0)


def test_a_task_that_is_level_on_paper_is_neither_won_nor_lost() -> None:
    """The differences -0.5, 0.5 and 0 have a mean of 2e-15 in floating point."""
    right = {"vpt-deep": (185, 116, 108), "ship": (184, 117, 108)}
    records = [make_record(m, "digits", s, n / 200) for m, ns in right.items() for s, n in enumerate(ns)]
    across = table_named("significance-demo", records, "results")
    assert [cell(across, "SHIP", column).value for column in ("difference", "won", "lost")] == [0, 0, 0]


def test_a_mark_points_where_the_mean_accuracy_does() -> None:
    """SHIP wins more images than it loses, but wins each on one seed of three and loses each on all three."""
    records = [make_record(m, "digits", s, 0.9) for m in ("vpt-deep", "ship") for s in (0, 1, 2)]
    frames = []
    for record in records:
        wrong = np.zeros(400, dtype=bool)
        if record["method"] == "vpt-deep" and record["seed"] == 0:
            wrong[:60] = True
        if record["method"] == "ship":
            wrong[60:100] = True
        record["final_test_acc"] = 1 - wrong.mean()
        run = {"run_id": record["run_id"], "index": range(400), "label": 1, "predicted": np.where(wrong, 0, 1)}
        frames.append(pd.DataFrame(run))
    report = build_report(make_results(records), predictions=loader(pd.concat(frames)))
    main, tests = table(report, "main-demo"), table(report, "paired-tests-demo")
    assert cell(main, "VPT-deep", "digits").text == "95.0"
    assert cell(main, "SHIP", "digits").text == "90.0"
    assert cell(main, "SHIP", "digits").below == "±0.0 ▼"
    result = dict(cell(tests, "SHIP", "digits").extras)
    assert (result["images won"], result["images lost"]) == (60, 40)
    assert cell(tests, "SHIP", "digits").sign == "▼"
    assert "exact sign-flip tests of the mean accuracies over seeds" in tests.caption.alone
    assert "McNemar" not in tests.caption.alone


def test_without_predictions_there_are_tests_across_tasks_only() -> None:
    report = build_report(make_results(grid(("vpt-deep", "ship"), DEMO_TASKS, (0,))))
    across = table(report, "significance-demo")
    # Six differences of one sign: 2 / 2^6.
    assert cell(across, "SHIP", "wilcoxon_p").value == pytest.approx(0.03125)
    assert cell(across, "SHIP", "beyond_chance_better").value is None
    assert not any(t.name.startswith(("paired-tests", "agreement")) for t in report.tables())


def test_a_method_with_too_few_tasks_for_a_test_weakens_no_other() -> None:
    records = grid(("linear", "vpt-deep", "ship"), DEMO_TASKS, (0,))
    records = [r for r in records if (r["method"], r["task"]) != ("linear", "digits")]
    across = table_named("significance-demo", records, "results")
    for column in ("wilcoxon_p", "wilcoxon_holm_p"):
        assert cell(across, "SHIP", column).value == pytest.approx(0.03125)
        assert cell(across, "Linear probe", column).value is None


def test_p_values_across_tasks_are_corrected_for_the_number_of_methods() -> None:
    across = table_named("significance-demo", grid(("linear", "vpt-deep", "ship"), DEMO_TASKS, (0,)), "results")
    for method in ("Linear probe", "SHIP"):
        shown = [cell(across, method, column).value for column in ("wilcoxon_p", "wilcoxon_holm_p")]
        assert shown == pytest.approx([0.03125, 0.0625])


def test_missing_cells_are_left_out_of_tests() -> None:
    records = grid(("vpt-deep", "ship"), DEMO_TASKS, (0,))
    records, frame = predicted([r for r in records if (r["method"], r["task"]) != ("ship", "digits")])
    study = study_of(records)
    (comparison,) = paired_comparisons(study, "demo", *against(study, "vpt-deep", frame))
    assert set(comparison.tasks) == set(comparison.differences) == set(DEMO_TASKS) - {"digits"}


def test_runs_on_other_images_are_never_paired() -> None:
    records, frame = predicted([make_record("vpt-deep", "digits"), make_record("ship", "digits")])
    frame.loc[frame["run_id"] == records[1]["run_id"], "label"] += 1
    study = study_of(records)
    (comparison,) = paired_comparisons(study, "demo", *against(study, "vpt-deep", frame))
    assert comparison.tasks == {}


def test_predictions_are_not_used_for_another_epoch() -> None:
    records, frame = predicted(grid(("vpt-deep", "ship"), DEMO_TASKS, (0,)))
    report = build_report(make_results(records), None, ReportOptions(select="oracle"), predictions=loader(frame))
    assert not any(t.name.startswith(("paired-tests", "intervals", "agreement")) for t in report.tables())
    (note,) = (note for note in table(report, "main-demo").notes if note.startswith("Left out of"))
    assert note.endswith("on the same images: VPT-deep (all 6 tasks); SHIP (all 6 tasks).")


@pytest.mark.parametrize("how", ["another epoch", "no predictions", "other images"])
def test_an_arm_needs_matching_predictions_of_all_its_seeds(how: str) -> None:
    records = grid(("linear", "vpt-deep", "ship"), DEMO_TASKS, (0, 1))
    for record in records:
        record["best_test_acc"] = record["final_test_acc"]
    records, frame = predicted([{**r, "best_test_acc": round(r["final_test_acc"] * 400) / 400} for r in records])
    one = next(r for r in records if (r["method"], r["task"], r["seed"]) == ("ship", "digits", 1))
    if how == "another epoch":
        one["best_test_acc"] += 0.05
    elif how == "no predictions":
        frame = frame[frame["run_id"] != one["run_id"]]
    else:
        frame.loc[frame["run_id"] == one["run_id"], "label"] += 1
    options = ReportOptions(select="oracle")
    report = build_report(make_results(records), None, options, predictions=loader(frame))
    assert cell(table(report, "intervals-demo"), "SHIP", "digits").value is None
    assert cell(table(report, "intervals-demo"), "SHIP", "textures").value is not None
    assert cell(table(report, "intervals-demo"), "VPT-deep", "digits").value is not None
    assert cell(table(report, "paired-tests-demo"), "SHIP", "digits").value is None
    for name in ("main", "significance", "paired-tests", "intervals", "agreement"):
        (note,) = (note for note in table(report, f"{name}-demo").notes if note.startswith("Left out of"))
        assert note.endswith("on the same images: SHIP (digits).")
    assert "after the last epoch" not in table(report, "intervals-demo").caption.alone


def test_predictions_are_read_once_per_task() -> None:
    records, frame = predicted(grid(("linear", "vpt-deep", "ship"), DEMO_TASKS, (0, 1), chance_acc=0.1))
    asked: list[str] = []

    def load(run_ids: Iterable[str]) -> pd.DataFrame:
        asked.extend(run_ids)
        return loader(frame)(asked[-6:])

    build_report(make_results(records), predictions=load)
    assert sorted(asked) == sorted(record["run_id"] for record in records)


def test_an_arm_with_names_of_classes_for_predictions_is_left_out() -> None:
    records, frame = predicted(grid(("linear", "vpt-deep", "ship"), DEMO_TASKS[:1], (0, 1)))
    numbers = loader(frame)

    def load(run_ids: Iterable[str]) -> pd.DataFrame:
        part = numbers(run_ids)
        return part.astype({"label": str, "predicted": str}) if part["run_id"].str.startswith("vpt").all() else part

    report = build_report(make_results(records), predictions=load)
    (note,) = (note for note in table(report, "intervals-demo").notes if note.startswith("Left out of"))
    assert note.endswith("on the same images: VPT-deep (digits).")


def test_the_order_of_stored_predictions_changes_nothing() -> None:
    records, frame = predicted(grid(("linear", "vpt-deep", "ship"), DEMO_TASKS[:1], (0, 1)))
    shuffled = frame.sample(frac=1, random_state=0)
    by_run = shuffled.sort_values("run_id", kind="stable")
    reports = [build_report(make_results(records), predictions=loader(f)) for f in (frame, shuffled, by_run)]
    names = ("paired-tests-demo", "intervals-demo", "agreement-demo")
    assert all(table(other, name) == table(reports[0], name) for other in reports[1:] for name in names)


def test_agreement_by_hand() -> None:
    records, frame = predicted([make_record("vpt-deep", "digits", s, 0.5) for s in (0, 1)])
    more, other = predicted([make_record("ship", "digits", s, 0.75) for s in (0, 1)])
    study = study_of([*records, *more])
    result = agreement(study, "demo", against(study, "vpt-deep", pd.concat([frame, other]))[1])
    vpt, ship = arm_of(study, "vpt-deep").key, arm_of(study, "ship").key
    # Wrong answers are alike by construction: only the quarter that SHIP alone gets right differs.
    assert result == {(vpt, vpt): {"digits": 1.0}, (ship, vpt): {"digits": 0.75}, (ship, ship): {"digits": 1.0}}


def test_agreement_pairs_equal_seeds_and_the_seeds_of_one_method_with_each_other() -> None:
    guesses = {
        ("vpt-deep", 0): [0, 1, 2, 3],
        ("vpt-deep", 1): [0, 1, 2, 0],
        ("ship", 0): [0, 1, 2, 3],
        ("ship", 1): [1, 1, 2, 0],
    }
    labels, records, frames = [0, 1, 2, 3], [], []
    for (method, seed), classes in guesses.items():
        # All classify all images of textures rightly.
        for task, answers in (("digits", classes), ("textures", labels)):
            records.append(make_record(method, task, seed, float(np.mean(np.equal(answers, labels)))))
            run = {"run_id": records[-1]["run_id"], "index": range(4), "label": labels, "predicted": answers}
            frames.append(pd.DataFrame(run))
    shown = table(build_report(make_results(records), predictions=loader(pd.concat(frames))), "agreement-demo")
    assert [[c.text for c in row.cells] for row in shown.rows] == [["VPT-deep", "87.5", ""], ["SHIP", "93.8", "75.0"]]
    assert {c.below for row in shown.rows for c in row.cells if c.text.endswith((".5", ".8", ".0"))} == {"2 tasks"}


def test_intervals_are_over_images_and_over_tasks() -> None:
    records = grid(("vpt-deep", "ship"), DEMO_TASKS, (0, 1))
    records, frame = predicted([r for r in records if (r["method"], r["task"]) != ("vpt-deep", "digits")])
    result = table(build_report(make_results(records), predictions=loader(frame)), "intervals-demo")
    assert cell(result, "VPT-deep", "mean of tasks").value is None
    for task in DEMO_TASKS:
        shares = [r["final_test_acc"] for r in records if (r["method"], r["task"]) == ("ship", task)]
        shown = cell(result, "SHIP", task)
        low, high = dict(shown.extras)["low"], dict(shown.extras)["high"]
        mean = 50 * sum(shares)
        half = 196 * np.sqrt(mean / 100 * (1 - mean / 100) / 400)
        assert shown.value == pytest.approx(mean)
        assert (low, high) == pytest.approx((mean - half, mean + half), abs=1.0)
    means = [
        100 * np.mean([r["final_test_acc"] for r in records if (r["method"], r["task"]) == ("ship", t)])
        for t in DEMO_TASKS
    ]
    over = student_interval(means)
    assert dict(cell(result, "SHIP", "mean of tasks").extras) == pytest.approx({"low": over.low, "high": over.high})


def test_the_difference_across_tasks_has_students_interval_from_three_tasks_on() -> None:
    records = grid(("vpt-deep", "ship"), DEMO_TASKS, (0, 1))
    for record in records[1::3]:
        record["final_test_acc"] += 0.01
    means = {
        (m, t): 50 * sum(r["final_test_acc"] for r in records if (r["method"], r["task"]) == (m, t))
        for m in ("vpt-deep", "ship")
        for t in DEMO_TASKS
    }
    for count in (6, 3, 2):
        tasks = DEMO_TASKS[:count]
        across = table_named("significance-demo", [r for r in records if r["task"] in tasks], "results")
        over = student_interval([means["ship", t] - means["vpt-deep", t] for t in tasks])
        shown = cell(across, "SHIP", "difference")
        assert shown.value == pytest.approx(over.mean)
        ends = {"low": over.low, "high": over.high} if count > 2 else {"low": np.nan, "high": np.nan}
        assert dict(shown.extras) == pytest.approx(ends, nan_ok=True)
        assert bool(shown.below) is (count > 2)


def test_one_of_two_seeds_collapses_and_is_shown_not_dropped() -> None:
    records = grid(("vpt-deep", "ship"), DEMO_TASKS, (0, 1), chance_acc=0.2)
    fallen = next(r for r in records if (r["method"], r["task"], r["seed"]) == ("ship", "textures", 1))
    fallen |= {"final_test_acc": 0.15, "best_test_acc": 0.9}
    kept = next(r for r in records if (r["method"], r["task"], r["seed"]) == ("ship", "textures", 0))
    report = build_report(make_results(records))
    main = table(report, "main-demo")
    shown = cell(main, "SHIP", "textures")
    assert shown.value == pytest.approx(50 * (kept["final_test_acc"] + 0.15))
    assert shown.sign == "‡"
    assert dict(shown.extras)["seeds"] == 2
    assert any(note.startswith("‡ collapsed") for note in main.notes)
    assert cell(main, "VPT-deep", "textures").sign == ""
    rows = [[c.text for c in row.cells] for row in table(report, "missing").rows]
    why = "lowest accuracy 15.0 %, majority-class accuracy 20.0 %; kept in the means"
    assert [row for row in rows if row[0] == "collapsed"] == [["collapsed", "SHIP", "textures", "1", why]]


def test_chance_is_read_from_labels_where_records_lack_it() -> None:
    records, frame = predicted([make_record("ship", "digits", s, 0.5) for s in (0, 1)], images=4, classes=3)
    filled = with_chance(make_results([*records, make_record("ship", "textures", chance_acc=0.3)]), loader(frame))
    assert list(filled["chance_acc"]) == [0.5, 0.5, 0.3]
    other = make_record("ship", "digits", 2, 0.5, data_fingerprint="other")
    labels = pd.DataFrame({"run_id": other["run_id"], "index": range(4), "label": [0, 0, 0, 1], "predicted": 0})
    filled = with_chance(make_results([*records, other]), loader(pd.concat([frame, labels])))
    assert list(filled["chance_acc"]) == [0.5, 0.5, 0.75]


def tuned_records() -> tuple[Records, list[dict[str, Any]]]:
    plain = [make_record("ship", t, 0, 0.5, **{"cfg.prompt_length": 10, "overrides": ""}) for t in DEMO_TASKS]
    won = [
        make_record("ship", t, 0, 0.6, **{"cfg.prompt_length": 5 + i, "overrides": f"prompt_length={5 + i}"})
        for i, t in enumerate(DEMO_TASKS)
    ]
    tries = [make_record("ship", t, 0, float("nan"), protocol="tuning", val_acc=0.4) for t in DEMO_TASKS]
    return [*plain, *won, *tries], [{"final_runs": [r["run_id"] for r in won]}]


def labels(report: Report, name: str = "main-demo") -> list[str]:
    return [row.cells[0].text for row in table(report, name).rows]


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


def test_the_protocol_box_names_data_and_weights() -> None:
    records = grid(("ship",), ("dtd", "svhn"), (0, 1, 2), n_train=1000, n_test=1880)
    report = build_report(make_results(records))
    protocol = dict(report.protocol)
    assert "6 runs, each on 1,000 training images" in protocol["Trained"]
    assert "seeds 0–2" in protocol["Trained"]  # noqa: RUF001
    assert "On 1,880 test images" in protocol["Tested"]
    assert "The rule final counts" in protocol["Tested"]
    assert "DTD (png, fingerprint data-of-dtd)" in protocol["Data, VTAB-1k"]
    assert f"sha256 {'a1b2c3d4' * 8}" in protocol["Weights"]
    page = markdown_report(report, None)
    assert page.index("SHIP reaches") < page.index("**Protocol**") < page.index("## VTAB-1k: results")


def test_the_protocol_box_counts_the_runs_that_were_tested_before_their_end() -> None:
    records = grid(("ship",), ("dtd", "svhn"), (0,))
    rows = [(records[0], 0, "test"), (records[0], 1, "test"), (records[1], 1, "test"), (records[1], 0, "train")]
    history = [{"run_id": r["run_id"], "epoch": epoch, "split": split, "accuracy": 0.5} for r, epoch, split in rows]
    study = build_study(make_results(records), pd.DataFrame(history), get_selection("final"))
    assert "Also tested during training: 1 run;" in dict(protocol_box(study))["Tested"]
    assert "Also" not in dict(protocol_box(study_of(records)))["Tested"]


def test_the_protocol_box_distinguishes_ablations_from_settings_changed_by_hand() -> None:
    full = grid(("ship",), ("dtd", "svhn"), (0,))
    ablated = [
        {**r, "run_id": r["run_id"] + "-a", "switches": "no-hierarchy", "overrides": "threshold=1"} for r in full
    ]
    longer = {**full[0], "run_id": "longer", "cfg.prompt_length": 50, "overrides": "prompt_length=50"}
    settings = dict(protocol_box(study_of([*full, *ablated, longer])))["Settings"]
    assert settings == (
        "5 runs with settings fixed beforehand (default recipe, 2 runs with parts of the method switched off, "
        "1 run with settings changed by hand)."
    )


def test_the_page_shows_the_result_first_and_what_holds_for_all_of_it_once(written: Path) -> None:
    (page,) = (file.read_text(encoding="utf-8") for file in written.glob("*.html"))
    places = ['class="standing"', 'class="sentence"', "<table", "<svg", 'aria-label="Protocol"', 'class="facts"']
    assert [page.index(place) for place in places] == sorted(page.index(place) for place in places)
    assert page.count("Selection rule: final (after the last epoch)") == 1


def test_nothing_counted_has_no_protocol() -> None:
    report = build_report(make_results([make_record()]), None, ReportOptions(select="validation"))
    assert report.protocol == ()


def test_the_oracle_gap_in_numbers() -> None:
    runs = (("dtd", 0, 0.5, 0.6), ("dtd", 1, 0.7, 0.8), ("svhn", 0, 0.8, 0.8))
    records = [make_record("ship", task, seed, last, best_test_acc=best) for task, seed, last, best in runs]
    gaps = table_named("oracle-gaps-vtab-1k", records, "results")
    assert [cell(gaps, "SHIP", key).text for key in ("final", "oracle", "gap", "largest_gap", "tasks")] == [
        "70.0",
        "75.0",
        "+5.0",
        "+10.0",
        "2",
    ]


def test_ranks_are_listed_from_the_best_and_tied_first_places_are_no_wins() -> None:
    scores = {"linear": (0.1, 0.4, 0.2, 0.7), "vpt-deep": (0.8, 0.5, 0.8, 0.5), "ship": (0.9, 0.5, 0.7, 0.8)}
    records = [make_record(m, t, 0, s) for m, row in scores.items() for t, s in zip(DEMO_TASKS, row, strict=False)]
    rows = table_named("ranks-demo", records, "results").rows
    assert [[c.text for c in row.cells] for row in rows] == [
        ["SHIP", "1.38", "2"],
        ["VPT-deep", "1.88", "1"],
        ["Linear probe", "2.75", "0"],
    ]
