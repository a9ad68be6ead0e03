"""Runs on people's own tasks whose images changed between runs: no mean, test or tuning mixes them."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

from shipbench.record import MEAN_PER_CLASS
from shipbench.report import build_report
from shipbench.report.analysis.cautions import cautions
from shipbench.report.analysis.classes import class_names
from shipbench.report.analysis.differences import ablations
from shipbench.report.analysis.headline import headline, standings
from shipbench.report.analysis.study import build_study
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.analysis.tuned import with_tunings
from shipbench.selection import Final
from tests.report.builders import (
    Records,
    cell,
    make_predictions,
    make_record,
    study_of,
    table,
)

SUITE = {"suite": "insects", "source": "folder", "suite_tasks": json.dumps(["bugs"]), "group": "Field"}
FIRST = {"data_fingerprint": "first", "draw": "train 80, test 20", "resize": "squash", "augment": "none"}


BOTH = {"suite_tasks": json.dumps(["bugs", "bees"])}


def own(method: str, seed: int, accuracy: float, task: str = "bugs", **columns: Any) -> dict[str, Any]:
    return make_record(method, task, seed, accuracy, **{**SUITE, **FIRST, **columns})


def view_of(records: Records) -> SuiteView:
    """Return the suite of ``records`` with their predictions."""
    predictions = make_predictions(records)
    load = lambda run_ids: predictions[predictions["run_id"].isin(list(run_ids))]  # noqa: E731
    return SuiteView(study_of(records), "insects", load_predictions=load)


OTHER = [
    {"data_fingerprint": "second"},
    {"draw": "train 40, test 20"},
    {"resize": "crop"},
    {"augment": "flip-crop"},
]


@pytest.mark.parametrize("other", OTHER, ids=lambda columns: next(iter(columns)))
def test_seeds_on_other_images_have_no_mean(other: dict[str, str]) -> None:
    records = [own("linear", 0, 0.5), own("linear", 1, 0.7, **other), own("ship", 0, 0.9)]
    report = build_report(pd.DataFrame(records))
    tables = {table.name: table for table in report.tables()}
    means = {row.cells[0].value: row.cells[1].value for row in tables["main-insects"].rows}
    assert means == {"Linear probe": None, "SHIP": 90}
    ((_, method, _, seeds, why),) = [[cell.text for cell in row.cells] for row in tables["missing"].rows]
    assert (method, seeds) == ("Linear probe", "0, 1")
    assert why.startswith("seeds differ in the images, in their draw, or in resize or augment")
    assert any(warning.startswith("Mixed ") for warning in tables["main-insects"].warnings)


@pytest.mark.parametrize("other", OTHER, ids=lambda columns: next(iter(columns)))
def test_equal_seeds_on_other_images_have_rows_of_their_own(other: dict[str, str]) -> None:
    ids = ("d", "a", "b", "c")
    facts = [(0, 0.5, {}), (0, 0.8, other), (1, 0.6, {}), (1, 0.9, other)]
    records = [own("ship", seed, acc, run_id=id_, **c) for id_, (seed, acc, c) in zip(ids, facts, strict=True)]
    study = build_study(pd.DataFrame(records), None, Final())
    assert sorted(study.summary(arm).tasks["bugs"].mean for arm in study.arms) == pytest.approx([55, 85])


def test_runs_on_other_images_with_equal_labels_are_not_tested_as_pairs() -> None:
    records = [own("vpt-deep", 0, 0.5), own("ship", 0, 0.9, augment="flip-crop"), own("linear", 0, 0.6)]
    view = view_of(records)
    labels = {arm.key: arm.method for arm in view.arms}
    assert {labels[key] for key in view.predictions["bugs"].predicted} == {"vpt-deep", "linear"}


def test_a_tuning_on_other_images_replaces_no_decision() -> None:
    records = pd.DataFrame(
        [own("ship", 0, 0.5, overrides="lr=1"), own("ship", 0, 0.6, overrides="lr=2", resize="crop")]
    )
    study = build_study(records, None, Final())
    runs = study.records["run_id"].tolist()
    tunings = [{"created": str(i), "final_runs": [run]} for i, run in enumerate(runs)]
    assert with_tunings(study.records.drop(columns="tuning"), tunings)["tuning"].tolist() == ["chosen", "chosen"]


def test_classes_have_the_names_of_the_runs_that_are_drawn() -> None:
    names = {"linear": ["ant", "bee", "wasp"], "ship": ["wasp", "bee", "ant"]}
    records = [own(method, 0, 0.5, class_names=json.dumps(order)) for method, order in names.items()]
    study = build_study(pd.DataFrame(records), None, Final())
    assert {arm.method: class_names(study, arm, "bugs", 3) for arm in study.arms} == names


def test_copies_of_a_catalogued_task_are_averaged_with_a_caution() -> None:
    records = [make_record("linear", "dtd", seed, 0.5, data_fingerprint=f"copy {seed}") for seed in (0, 1)]
    study = study_of(records)
    assert study.summary(study.arms[0]).tasks["dtd"].mean == pytest.approx(50)
    assert "Mixed data fingerprints: more than one copy of the data for DTD." in cautions(study.records)


def test_numbers_of_shots_have_the_same_test_images() -> None:
    draws = {shots: f"train {3 * shots}, val {3 * min(shots, 4)} of train, test 6" for shots in (1, 4, 16)}
    records = [
        own(method, seed, 0.5 + shots / 100, shots=shots, draw=draw)
        for method in ("linear", "ship")
        for shots, draw in draws.items()
        for seed in (0, 1)
    ]
    view = view_of(records)
    assert set(view.predictions["bugs"].predicted) == {arm.key for arm in view.arms}
    assert (len(view.arms), view.prediction_notes, view.cautions) == (6, (), ())


def test_other_draws_of_one_number_of_shots_are_named() -> None:
    draws = ("train 12, val 12, test 6", "train 12, val 9, test 6")
    records = [own(method, 0, 0.5, shots=4, draw=draw) for method, draw in zip(("linear", "ship"), draws, strict=True)]
    assert view_of(records).cautions[0].startswith("Mixed treatments: runs on bugs differ in the images drawn")


@pytest.mark.parametrize("missing", [("resize", "augment"), ("draw",), ("data_fingerprint",), tuple(FIRST)])
def test_what_a_record_does_not_state_agrees_with_what_others_do(missing: tuple[str, ...]) -> None:
    unknown = dict.fromkeys(missing, "")
    records = [own("linear", 0, 0.5, **unknown), own("linear", 1, 0.7), own("vpt-deep", 0, 0.5, **unknown)]
    records += [own("vpt-deep", 1, 0.6), own("ship", 0, 0.9, overrides="lr=1", **unknown), own("ship", 1, 0.9)]
    # Evaluations may be of runs on other images, and trials of a tuning open no test images.
    records += [own("linear", 0, 0.4, kind="evaluated", augment="none", draw="test 20")]
    records += [own("linear", 0, 0.4, protocol="tuning", data_fingerprint="without test")]
    for record in records[:6]:
        record["augment"] = record["augment"] and "flip-crop"
    view = view_of(records)
    assert {arm.method: view.study.summary(arm).tasks["bugs"].mean for arm in view.arms} == pytest.approx(
        {"linear": 60, "vpt-deep": 55, "ship": 90}
    )
    assert set(view.predictions["bugs"].predicted) == {arm.key for arm in view.arms}
    assert view.cautions == ()


def test_what_a_record_does_not_state_makes_no_two_others_equal() -> None:
    resizes = {"vpt-deep": "", "linear": "squash", "ship": "crop"}
    view = view_of([own(method, 0, 0.5, resize=resize) for method, resize in resizes.items()])
    labels = {arm.key: arm.method for arm in view.arms}
    assert {labels[key] for key in view.predictions["bugs"].predicted} == {"vpt-deep", "linear"}
    assert sorted(comparison.arm.method for comparison in view.comparisons) == ["linear", "ship"]


def test_what_a_record_does_not_state_is_not_guessed_from_two_values() -> None:
    records = [own("linear", 0, 0.5, resize=""), own("linear", 1, 0.7, resize="crop"), own("ship", 0, 0.9)]
    view = view_of(records)
    assert {arm.method: view.study.summary(arm).tasks["bugs"].mean for arm in view.arms} == pytest.approx(
        {"linear": float("nan"), "ship": 90}, nan_ok=True
    )


def test_a_decision_holds_for_records_that_do_not_state_their_images() -> None:
    records = [own("ship", 0, 0.5, overrides="lr=1", resize=""), own("ship", 0, 0.6, overrides="lr=2")]
    study = study_of(records)
    tunings = [{"created": str(i), "final_runs": [run]} for i, run in enumerate(study.records["run_id"])]
    assert with_tunings(study.records.drop(columns="tuning"), tunings)["tuning"].tolist() == ["superseded", "chosen"]


def test_a_repetition_on_corrected_images_has_a_row_of_its_own_images() -> None:
    old = [own("ship", seed, 0.5, **BOTH, git_commit="a", task=task) for task in ("bugs", "bees") for seed in (0, 1)]
    new = [own("ship", seed, 0.8, **BOTH, git_commit="b", data_fingerprint="second") for seed in (0, 1, 2)]
    study = study_of([*old, *new])
    first, second = (study.summary(arm).tasks for arm in study.arms)
    assert (first["bugs"].mean, first["bugs"].seeds, first["bees"].mean) == (pytest.approx(80), (0, 1, 2), 50)
    assert (second["bugs"].mean, second["bugs"].seeds) == (50, (0, 1))


def test_of_two_versions_with_as_many_seeds_the_later_one_stands_first() -> None:
    old = [own("ship", seed, 0.5, created="2025-03-01", data_fingerprint="z") for seed in (0, 1)]
    new = [own("ship", seed, 0.8, created="2025-03-02", data_fingerprint="a") for seed in (1, 2)]
    study = study_of([*old, *new])
    scores = [study.summary(arm).tasks["bugs"] for arm in study.arms]
    assert [(score.mean, score.seeds) for score in scores] == [(80, (1, 2)), (50, (0, 1))]


DIFFERS = "the images, their draw, resize, augment or metric differ."
BY_CLASS = {"headline_metric": MEAN_PER_CLASS, "final_test_mean_class_acc": 0.9}


@pytest.mark.parametrize("other", [*OTHER, BY_CLASS], ids=lambda columns: next(iter(columns)))
def test_methods_are_not_compared_on_a_task_that_they_do_not_share(other: dict[str, Any]) -> None:
    records = [own("vpt-deep", seed, 0.5, task=task, **BOTH) for task in ("bugs", "bees") for seed in (0, 1)]
    records += [own("ship", seed, 0.6, **BOTH, task="bees") for seed in (0, 1)]
    records += [own("ship", seed, 0.9, **BOTH, **other) for seed in (0, 1)]
    records += [own("lora", seed, 0.9, **BOTH, **other) for seed in (0, 1)]
    view = view_of(records)
    (comparison,) = view.comparisons
    assert (comparison.arm.method, comparison.differences, set(comparison.tasks)) == (
        "ship",
        {"bees": pytest.approx(10)},
        {"bees"},
    )
    assert view.comparison_notes == (f"No comparison of LoRA and SHIP with VPT-deep on bugs: {DIFFERS}",)


def test_parts_are_not_compared_on_a_task_whose_images_changed() -> None:
    records = [own("ship", 0, 0.5, **BOTH, task=task) for task in ("bugs", "bees")]
    records += [own("ship", 0, 0.4, **BOTH, task="bees", switches="no-hierarchy")]
    records += [own("ship", 0, 0.1, **BOTH, switches="no-hierarchy", data_fingerprint="second")]
    report = build_report(pd.DataFrame(records))
    result = table(report, "ablation-insects")
    shown = cell(result, "SHIP (without hierarchy)", "difference")
    assert (shown.value, dict(shown.extras)["tasks"]) == (pytest.approx(-10), 1)
    note = f"No comparison of SHIP (without hierarchy) with SHIP on bugs: {DIFFERS}"
    assert note in result.notes
    (figure,) = (figure for figure in report.figures() if figure.name == "ablation-insects")
    assert note in figure.caption.details


def test_a_mean_of_groups_with_changed_images_has_no_difference() -> None:
    records = [
        own(method, 0, accuracy, **BOTH, task=task, group=group, data_fingerprint="second" if changed else "first")
        for method, accuracy in (("vpt-deep", 0.5), ("ship", 0.6), ("linear", 0.4))
        for task, group in (("bugs", "Field"), ("bees", "Farm"))
        for changed in ((method, task) == ("ship", "bugs"),)
    ]
    (overview,) = build_report(pd.DataFrame(records)).overviews
    assert overview.results[0].sentence == (
        f"SHIP is best on insects (mean of groups, 2 tasks): 60.0 %; not compared with VPT-deep: on bugs {DIFFERS}"
    )
    by_groups = overview.results[0].table
    assert [cell(by_groups, name, "difference").text for name in ("VPT-deep", "SHIP", "Linear probe")] == [
        "baseline",
        "–",  # noqa: RUF001
        "−10.0",  # noqa: RUF001
    ]


def repeated(method: str, older: float, newer: float, **columns: Any) -> Records:
    """Return runs on bugs, and later runs of the same seeds on other images."""
    later = {**columns, "created": "2025-03-02", "data_fingerprint": "second"}
    return [own(method, s, acc, **more) for acc, more in ((older, columns), (newer, later)) for s in (0, 1)]


def test_a_method_is_compared_with_the_record_of_the_baseline_on_its_images() -> None:
    records = [*repeated("vpt-deep", 0.5, 0.3), *[own("ship", seed, 0.9) for seed in (0, 1)]]
    view = view_of(records)
    (comparison,) = view.comparisons
    assert (comparison.baseline.copy, comparison.differences) == (1, {"bugs": pytest.approx(40)})
    assert (comparison.tasks["bugs"].mark, comparison.tasks["bugs"].seeds) == ("▲", (0, 1))
    assert view.comparison_notes == ("Methods are compared with VPT-deep on their own images.",)
    assert view.prediction_notes == ()
    labels = {arm.key: arm.label for arm in view.arms}
    assert {tuple(labels[key] for key in pair) for pair in view.agreement if len(set(pair)) > 1} == {
        ("SHIP", "VPT-deep (record 2 of the same seeds)")
    }
    sentence = headline(view, standings(view)[0])
    assert "40.0 points above VPT-deep (record 2 of the same seeds), beyond chance" in sentence


def test_parts_are_compared_with_the_record_of_the_full_method_on_their_images() -> None:
    ablated = {"switches": "no-hierarchy"}
    records = [*repeated("ship", 0.5, 0.3), *[own("ship", s, 0.4, **ablated) for s in (0, 1)]]
    report = build_report(pd.DataFrame(records))
    shown = cell(table(report, "ablation-insects"), "SHIP (without hierarchy)", "difference")
    assert shown.value == pytest.approx(-10)
    again = [*records, *repeated("ship", 0.4, 0.1, **ablated)[2:]]
    found = ablations(study_of(again), "insects")
    assert {(arm.copy, ablation.full and ablation.full.copy) for ablation in found for arm in ablation.ablated} == {
        (0, 0),
        (1, 1),
    }


@pytest.mark.parametrize("lost", [False, True])
def test_records_on_treated_images_are_the_same_on_every_task(lost: bool) -> None:
    new = {"created": "2025-03-02", "resize": "crop", "precision": "bf16"}
    repeats = [(task, seed) for task in ("bugs", "bees") for seed in (0, 1)]
    records = [own("ship", seed, 0.5, task=task, **BOTH) for task, seed in repeats]
    records += [own("ship", seed, 0.8, task=task, **BOTH, **new) for task, seed in repeats[:3]]
    if lost:
        records.append(own("ship", 1, float("nan"), task="bees", **BOTH, **new, status="failed"))
    study = study_of(records)
    means = [{task: score.mean for task, score in study.summary(arm).tasks.items()} for arm in study.arms]
    assert means == [{"bugs": 50, "bees": 50}, {"bugs": 80, "bees": 80}]


def test_of_two_precisions_with_as_many_runs_the_later_one_stands_first() -> None:
    old, new = {"precision": "bf16"}, {"precision": "fp32", "created": "2025-03-02"}
    records = [own("ship", 0, acc, task="bees", **BOTH, **how) for acc, how in ((0.5, old), (0.8, new))]
    records += [own("ship", 0, 0.5, **BOTH, **old), own("ship", 0, 0.8, **BOTH, **new, resize="crop")]
    study = study_of(records)
    means = [{task: score.mean for task, score in study.summary(arm).tasks.items()} for arm in study.arms]
    assert means == [{"bugs": 80, "bees": 80}, {"bugs": 50, "bees": 50}]


WHY = "on bugs the images, their draw, resize, augment or metric differ"


@pytest.mark.parametrize(
    ("best", "sentence"),
    [
        (0.9, "SHIP is best on bugs (insects): 90.0 %; not compared with VPT-deep: "),
        (0.5, "VPT-deep, SHIP share the highest accuracy on bugs (insects): 50.0 %; not compared: "),
    ],
)
def test_no_lead_and_no_tie_is_over_other_images(best: float, sentence: str) -> None:
    records = [own("vpt-deep", seed, 0.5) for seed in (0, 1)]
    records += [own("ship", seed, best, data_fingerprint="second") for seed in (2, 3)]
    view = view_of(records)
    assert headline(view, standings(view)[0]) == f"{sentence}{WHY}."


@pytest.mark.parametrize("known", ["linear", "ship"])
def test_names_of_classes_are_those_of_any_run_on_the_same_images(known: str) -> None:
    names = ["ant", "bee", "wasp"]
    records = [own("linear", 0, 0.5), own("ship", 0, 0.5), own("lora", 0, 0.5, data_fingerprint="second")]
    for record in records:
        record["class_names"] = json.dumps(names) if record["method"] == known else ""
    study = study_of(records)
    numbers = ["class 0", "class 1", "class 2"]
    assert {arm.method: class_names(study, arm, "bugs", 3) for arm in study.arms} == {
        "linear": names,
        "ship": names,
        "lora": numbers,
    }


CHANGED = [*OTHER, BY_CLASS]


@pytest.mark.parametrize("other", CHANGED, ids=lambda columns: next(iter(columns)))
def test_a_sweep_joins_no_values_on_other_images(other: dict[str, Any]) -> None:
    records = [
        own("ship", seed, 0.5, task=task, **BOTH, **{"cfg.prompt_length": length, **changed})
        for task in ("bugs", "bees")
        for length in (5, 10)
        for seed in (0, 1)
        for changed in (other if (task, length) == ("bugs", 5) else {},)
    ]
    view = view_of(records)
    (sweep,) = view.sweeps
    assert (sweep.tasks, [point.value for point in sweep.points]) == (1, [5, 10])
    varied = table(build_report(pd.DataFrame(records)), "settings-varied-insects")
    assert {cell(varied, row.cells[0].text, "shared_tasks").value for row in varied.rows} == {1}
    assert view_of([record for record in records if record["task"] == "bugs"]).sweeps == []


@pytest.mark.parametrize(
    "other", [columns for columns in CHANGED if "draw" not in columns], ids=lambda c: next(iter(c))
)
def test_no_line_over_shots_joins_other_images(other: dict[str, Any]) -> None:
    records = [
        own("ship", 0, 0.5, task=task, shots=shots, **{**BOTH, "draw": f"train {3 * shots}, test 6", **changed})
        for task in ("bugs", "bees")
        for shots in (1, 4)
        for changed in (other if (task, shots) == ("bugs", 4) else {},)
    ]
    few = view_of(records).few_shots
    assert few is not None
    assert (few.tasks, few.shots) == (("bees",), (1, 4))
    assert view_of([record for record in records if record["task"] == "bugs"]).few_shots is None


@pytest.mark.parametrize("other", CHANGED, ids=lambda columns: next(iter(columns)))
def test_no_ranks_are_over_other_images(other: dict[str, Any]) -> None:
    tasks = ("ants", "bees", "bugs")
    records = [
        own(method, 0, accuracy, task=task, suite_tasks=json.dumps(tasks), **changed)
        for method, accuracy in (("linear", 0.4), ("vpt-deep", 0.5), ("ship", 0.6))
        for task in tasks
        for changed in (other if (method, task) == ("ship", "bugs") else {},)
    ]
    ranking = view_of(records).ranking
    assert ranking is not None
    assert list(ranking.scores.index) == ["ants", "bees"]
    assert ranking.sentence.endswith(" No ranks on bugs: the images, their draw, resize, augment or metric differ.")


def test_a_missing_ranking_is_explained_by_other_images() -> None:
    records = [
        own(method, 0, accuracy, task=task, **BOTH, **changed)
        for method, accuracy in (("linear", 0.4), ("vpt-deep", 0.5), ("ship", 0.6))
        for task in ("bugs", "bees")
        for changed in ({"data_fingerprint": "second"} if method == "ship" else {},)
    ]
    notes = table(build_report(pd.DataFrame(records)), "main-insects").notes
    (note,) = (note for note in notes if note.startswith("No ranking of Linear probe, VPT-deep and SHIP"))
    assert note.endswith("on the same images with the same draw, resize, augment and metric.")
