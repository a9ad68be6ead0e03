"""Stored predictions in a report: paired tests, agreement and intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import pytest

from shipbench.report import ReportOptions, build_report
from shipbench.report.analysis.agreement import agreement
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.comparisons import paired_comparisons
from shipbench.report.analysis.predictions import LoadPredictions, TaskPredictions, suite_predictions, with_chance
from shipbench.report.analysis.study import Study
from shipbench.report.render.latex import latex_table
from shipbench.statistics import holm, paired_test, student_interval
from tests.report.builders import (
    DEMO_TASKS,
    Records,
    cell,
    grid,
    make_record,
    make_results,
    study_of,
    table,
    table_named,
)


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


def arm_of(study: Study, method: str) -> Arm:
    return next(arm for arm in study.arms if arm.method == method)


def against(
    study: Study, method: str, frame: pd.DataFrame
) -> tuple[list[tuple[Arm, Arm]], Mapping[str, TaskPredictions]]:
    """Return every other arm with that of ``method`` as its baseline, and the predictions that can be paired."""
    baseline = arm_of(study, method)
    pairs = [(arm, baseline) for arm in study.arms if arm != baseline]
    return pairs, suite_predictions(study, "demo", [baseline], loader(frame))


def test_every_cell_is_tested_on_its_images_and_corrected_over_all() -> None:
    records, frame = predicted(grid(("linear", "vpt-deep", "ship"), DEMO_TASKS, (0, 1)))
    study = study_of(records)
    result = paired_comparisons(study, *against(study, "vpt-deep", frame))
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


def test_missing_cells_are_left_out_of_tests() -> None:
    records = grid(("vpt-deep", "ship"), DEMO_TASKS, (0,))
    records, frame = predicted([r for r in records if (r["method"], r["task"]) != ("ship", "digits")])
    study = study_of(records)
    (comparison,) = paired_comparisons(study, *against(study, "vpt-deep", frame))
    assert set(comparison.tasks) == set(comparison.differences) == set(DEMO_TASKS) - {"digits"}


def test_runs_on_other_images_are_never_paired() -> None:
    records, frame = predicted([make_record("vpt-deep", "digits"), make_record("ship", "digits")])
    frame.loc[frame["run_id"] == records[1]["run_id"], "label"] += 1
    study = study_of(records)
    (comparison,) = paired_comparisons(study, *against(study, "vpt-deep", frame))
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


def test_the_predictions_of_every_run_are_read_once() -> None:
    records, frame = predicted(grid(("linear", "vpt-deep", "ship"), DEMO_TASKS, (0, 1), chance_acc=0.1))
    asked: list[str] = []

    def load(run_ids: Iterable[str]) -> pd.DataFrame:
        wanted = list(run_ids)
        asked.extend(wanted)
        return loader(frame)(wanted)

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
        # All classify all images of textures correctly.
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


def test_chance_is_read_from_labels_where_records_lack_it() -> None:
    records, frame = predicted([make_record("ship", "digits", s, 0.5) for s in (0, 1)], images=4, classes=3)
    filled = with_chance(make_results([*records, make_record("ship", "textures", chance_acc=0.3)]), loader(frame))
    assert list(filled["chance_acc"]) == [0.5, 0.5, 0.3]
    other = make_record("ship", "digits", 2, 0.5, data_fingerprint="other")
    labels = pd.DataFrame({"run_id": other["run_id"], "index": range(4), "label": [0, 0, 0, 1], "predicted": 0})
    filled = with_chance(make_results([*records, other]), loader(pd.concat([frame, labels])))
    assert list(filled["chance_acc"]) == [0.5, 0.5, 0.75]
    # The first run of these images may lack predictions.
    only = frame[frame["run_id"] == records[1]["run_id"]]
    assert list(with_chance(make_results(records), loader(only))["chance_acc"]) == [0.5, 0.5]


def test_chance_of_imported_results_is_not_sought_in_files_that_none_of_them_has() -> None:
    sought: list[str] = []

    def load(run_ids: Iterable[str]) -> pd.DataFrame:
        sought.extend(run_ids)
        return pd.DataFrame()

    records = [make_record("ship", "digits"), make_record("osu", "digits", kind="imported", data_fingerprint="")]
    with_chance(make_results(records), load)
    assert sought == [records[0]["run_id"]]
