"""``shipbench diff``: pairing, tests, selections, files and the exit code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from shipbench.record import MEAN_PER_CLASS, RunRecord
from shipbench.results.store import RunTables, Store
from shipbench.results.tunings import FORMAT, write_tuning
from shipbench.tasks.catalogue import VTAB
from tests.cli.builders import make_record
from tests.conftest import Shipbench

IMAGES = 400
SIZED = {"lr": 0.001, "image_size": 224, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def write_run(root: Path, run_id: str, correct: int | None, **changes: Any) -> None:
    """Store a run that classifies the first ``correct`` of 400 images correctly; None stores no predictions."""
    accuracy = {} if correct is None else {"final_test_acc": correct / IMAGES}
    record: RunRecord = make_record(run_id, **{**accuracy, **changes})
    labels = np.arange(IMAGES) % 4
    predicted = np.where(np.arange(IMAGES) < (correct or 0), labels, (labels + 1) % 4)
    columns = {"index": np.arange(IMAGES), "label": labels, "predicted": predicted, "confidence": np.full(IMAGES, 0.5)}
    Store(root).write(record, RunTables(predictions={} if correct is None else columns))


def two_folders(tmp_path: Path, before: int, after: int, seeds: Sequence[int] = (0, 1)) -> tuple[Path, Path]:
    for seed in seeds:
        write_run(tmp_path / "a", f"a{seed}", before, seed=seed)
        write_run(tmp_path / "b", f"b{seed}", after, seed=seed)
    return tmp_path / "a", tmp_path / "b"


def compared(shipbench: Shipbench, *arguments: object) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(shipbench("diff", *arguments, "--json").out)
    return content


def test_a_regression_beyond_chance(shipbench: Shipbench, tmp_path: Path) -> None:
    a, b = two_folders(tmp_path, 300, 260)
    outcome = shipbench("diff", a, b, "--fail-on", "regression")
    assert outcome.code == 1
    assert "worse: SHIP on dtd" in outcome.err
    (task,) = compared(shipbench, a, b)["tasks"]
    assert (task["a"], task["b"], task["difference"]) == (75.0, 65.0, -10.0)
    assert (task["test"], task["verdict"], task["seeds"]) == ("images", "worse", [0, 1])
    assert task["adjusted"] < 0.001
    assert shipbench("diff", b, a, "--fail-on", "regression").code == 0
    assert shipbench("diff", a, b).code == 0


def test_chance_is_no_regression(shipbench: Shipbench, tmp_path: Path) -> None:
    a, b = two_folders(tmp_path, 300, 298)
    assert shipbench("diff", a, b, "--fail-on", "regression").code == 0
    assert compared(shipbench, a, b)["tasks"][0]["verdict"] == "not beyond chance"
    assert compared(shipbench, a, a)["tasks"][0]["verdict"] == "unchanged"


def test_a_task_scored_by_class_is_tested_by_class(shipbench: Shipbench, tmp_path: Path) -> None:
    """B gains 45 images of a large class and loses 6 of a small one: more images, a lower mean over classes."""
    labels = np.repeat([0, 1], [360, 40])
    for name, common, rare in (("a", 300, 30), ("b", 345, 24)):
        right = np.concatenate([np.arange(360) < common, np.arange(40) < rare])
        accuracies = {
            "final_test_acc": float(right.mean()),
            "final_test_mean_class_acc": (common / 360 + rare / 40) / 2,
        }
        record = make_record(name, headline_metric=MEAN_PER_CLASS, num_classes=2, **accuracies)
        predicted = np.where(right, labels, 1 - labels)
        columns = {"index": np.arange(400), "label": labels, "predicted": predicted, "confidence": np.full(400, 0.5)}
        Store(tmp_path / name).write(record, RunTables(predictions=columns))
    (task,) = compared(shipbench, tmp_path / "a", tmp_path / "b")["tasks"]
    assert task["difference"] == pytest.approx(-1.25)
    assert (task["test"], task["verdict"], task["by_class"]) == ("images", "not beyond chance", True)
    assert shipbench("diff", tmp_path / "a", tmp_path / "b", "--fail-on", "regression").code == 0
    shipbench("diff", tmp_path / "a", tmp_path / "b", "--output", tmp_path / "out")
    text = (tmp_path / "out" / "tasks.md").read_text(encoding="utf-8")
    assert "Tests are sign-flip tests of the means of classes on the test images where both sides" in text
    assert "p is an upper bound instead of exact. The accuracy on DTD is the mean of the accuracies" in text


def test_without_predictions_seeds_decide(shipbench: Shipbench, tmp_path: Path) -> None:
    for seed, drop in enumerate((0.050, 0.051, 0.049)):
        write_run(tmp_path / "a", f"a{seed}", None, seed=seed, final_test_acc=0.7)
        write_run(tmp_path / "b", f"b{seed}", None, seed=seed, final_test_acc=0.7 - drop)
    (task,) = compared(shipbench, tmp_path / "a", tmp_path / "b")["tasks"]
    assert (task["test"], task["verdict"]) == ("seeds", "worse")
    shipbench("diff", tmp_path / "a", tmp_path / "b", "--output", tmp_path / "out")
    assert "Tests are Student's t over seeds." in (tmp_path / "out" / "tasks.md").read_text(encoding="utf-8")


def test_across_tasks(shipbench: Shipbench, tmp_path: Path) -> None:
    for i, task in enumerate(VTAB.tasks[:8]):
        for folder, accuracy in (("a", 0.6), ("b", 0.59 - 0.001 * i)):
            changes = {
                "task": task.name,
                "group": task.group,
                "final_test_acc": accuracy,
                "data_fingerprint": task.name,
            }
            write_run(tmp_path / folder, f"{folder}{i}", None, **changes)
    content = compared(shipbench, tmp_path / "a", tmp_path / "b")
    (method,) = content["methods"]
    assert (method["interval"]["n"], method["verdict"]) == (8, "worse")
    assert {task["verdict"] for task in content["tasks"]} == {"no test"}
    assert content["regressions"] == ["SHIP across tasks"]


def test_p_values_are_corrected_for_all_tasks_and_for_all_methods(shipbench: Shipbench, tmp_path: Path) -> None:
    for folder, correct in (("a", 300), ("b", 294)):
        for task in ("dtd", "svhn"):
            write_run(tmp_path / folder, folder + task, correct, task=task)
    content = compared(shipbench, tmp_path / "a", tmp_path / "b")
    # Six images lost and none won: 2 / 2^6, which is below 0.05 for a single task alone.
    assert [(task["p_value"], task["adjusted"]) for task in content["tasks"]] == [pytest.approx((0.03125, 0.0625))] * 2
    assert ({task["verdict"] for task in content["tasks"]}, content["regression"]) == ({"not beyond chance"}, False)
    (alone,) = compared(shipbench, f"{tmp_path / 'a'}@task=dtd", f"{tmp_path / 'b'}@task=dtd")["tasks"]
    assert (alone["adjusted"], alone["verdict"]) == (pytest.approx(0.03125), "worse")
    for i, task in enumerate(VTAB.tasks[:6]):
        for folder, accuracy in (("c", 0.6), ("d", 0.59 - 0.001 * i)):
            for method in ("ship", "linear"):
                changes = {"task": task.name, "method": method, "final_test_acc": accuracy}
                write_run(tmp_path / folder, f"{folder}{method}{i}", None, **changes)
    methods = compared(shipbench, tmp_path / "c", tmp_path / "d")["methods"]
    assert [(m["p_value"], m["adjusted"]) for m in methods] == [pytest.approx((0.03125, 0.0625))] * 2
    assert {m["verdict"] for m in methods} == {"not beyond chance"}


def test_predictions_after_the_last_epoch_test_no_other_epoch(shipbench: Shipbench, tmp_path: Path) -> None:
    for folder, correct, best in (("a", 300, 0.8), ("b", 200, 0.79)):
        write_run(tmp_path / folder, folder, correct, best_test_acc=best)
    (task,) = compared(shipbench, tmp_path / "a", tmp_path / "b", "--select", "oracle")["tasks"]
    assert (task["difference"], task["test"], task["verdict"]) == (pytest.approx(-1), "", "no test")


def test_most_tasks_decide_across_tasks_and_not_the_mean(shipbench: Shipbench, tmp_path: Path) -> None:
    for i, task in enumerate(VTAB.tasks[:12]):
        for folder, accuracy in (("a", 0.5), ("b", 0.49 - 0.001 * i if i else 0.9)):
            changes = {"task": task.name, "final_test_acc": accuracy, "data_fingerprint": task.name}
            write_run(tmp_path / folder, f"{folder}{i}", None, **changes)
    content = compared(shipbench, tmp_path / "a", tmp_path / "b")
    (method,) = content["methods"]
    assert method["interval"]["mean"] > 0
    assert (method["rank_biserial"], method["verdict"]) == (pytest.approx((12 - 66) / 78), "worse")
    assert content["regressions"] == ["SHIP across tasks by their ranks, against the mean"]
    shipbench("diff", tmp_path / "a", tmp_path / "b", "--output", tmp_path / "out")
    assert "A verdict against the mean is that of the signed ranks" in (tmp_path / "out" / "methods.md").read_text(
        encoding="utf-8"
    )
    assert shipbench("diff", tmp_path / "b", tmp_path / "a", "--fail-on", "regression").code == 0


def test_what_only_one_side_has(shipbench: Shipbench, tmp_path: Path) -> None:
    a, b = two_folders(tmp_path, 300, 300)
    write_run(a, "x1", 100, task="svhn", suite="vtab-1k")
    write_run(b, "x2", 100, method="linear")
    write_run(a, "x3", 100, seed=7)
    write_run(b, "x4", None, seed=7, status="failed", error="lost", final_test_acc=float("nan"))
    write_run(b, "x5", 100, seed=0, data_fingerprint="other data")
    content = compared(shipbench, a, b)
    assert [run["run_id"] for run in content["only_a"]] == ["x1"]
    assert sorted(run["run_id"] for run in content["only_b"]) == ["x2", "x5"]
    assert [run["run_id"] for run in content["failed_in_b"]] == ["x4"]
    assert content["regression"]


def test_selections_of_one_folder(shipbench: Shipbench, tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path, f"s{seed}", 300, seed=seed)
        write_run(tmp_path, f"v{seed}", 200, seed=seed, method="vpt-deep", settings={"lr": 0.5})
        write_run(tmp_path, f"t{seed}", 250, seed=seed, settings={"lr": 0.01})
        write_run(tmp_path, f"c{seed}", 310, seed=seed, git_commit="abc123")
    methods = compared(shipbench, f"{tmp_path}@method=ship,lr=0.01", f"{tmp_path}@method=vpt-deep")
    assert [(task["label"], task["verdict"]) for task in methods["tasks"]] == [("SHIP → VPT-deep", "worse")]
    settings = compared(shipbench, "@lr=0.001,commit=", "@lr=1e-2", "--results", tmp_path)
    assert [(pair["run_a"], pair["run_b"]) for pair in settings["pairs"]] == [("s0", "t0"), ("s1", "t1")]
    commits = compared(shipbench, f"{tmp_path}@commit=abc", f"{tmp_path}@run_id=s")
    assert [pair["run_a"] for pair in commits["pairs"]] == ["c0", "c1"]


@pytest.mark.parametrize(
    ("column", "values", "settings"),
    [
        ("switches", ("", "no-hierarchy"), {"lr": 0.001, "threshold": 1.0}),
        ("recipe", ("default", "published"), {"lr": 0.1}),
        ("backbone", ("vit", "vit.mae"), {"lr": 0.001, "image_size": 384}),
        ("shots", (0, 4), {"lr": 0.001}),
    ],
)
def test_what_a_selection_names_need_not_agree(
    column: str, values: tuple[Any, Any], settings: dict[str, Any], shipbench: Shipbench, tmp_path: Path
) -> None:
    for seed in (0, 1, 2):
        write_run(tmp_path, f"one{seed}", 300, seed=seed, **{column: values[0]})
        changes = {column: values[1], "settings": settings, "image_size": settings.get("image_size", 224)}
        write_run(tmp_path, f"other{seed}", 200, seed=seed, **changes)
    sides = [
        f"{tmp_path}@{column}={value},run_id={run}0|{run}2" for value, run in zip(values, ("one", "other"), strict=True)
    ]
    pairs = compared(shipbench, *sides)["pairs"]
    assert [(pair["run_a"], pair["run_b"]) for pair in pairs] == [("one0", "other0"), ("one2", "other2")]


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("@methd=ship", "did you mean 'method'"),
        ("@method", "is not NAME=VALUE"),
        ("@", "nothing follows the @"),
        ("@method=linear", "no run matches"),
        ("@seed=0,seed=1", "given twice"),
        ("@method=ship", "name one of these, as in DIR@lr=VALUE"),
    ],
)
def test_wrong_selections(selector: str, message: str, shipbench: Shipbench, tmp_path: Path) -> None:
    write_run(tmp_path, "s0", 300)
    write_run(tmp_path, "s1", 300, settings={"lr": 0.01})
    outcome = shipbench("diff", f"{tmp_path}{selector}", tmp_path)
    assert outcome.code == 2
    assert message in outcome.err


def test_files(shipbench: Shipbench, tmp_path: Path) -> None:
    a, b = two_folders(tmp_path, 300, 260)
    shipbench("diff", a, b, "--output", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "diff.json").read_text())["tasks"][0]["difference"] == -10
    text = (tmp_path / "out" / "tasks.md").read_text(encoding="utf-8")
    assert "−10.0" in text  # noqa: RUF001
    assert "Tests are exact sign-flip tests of the mean accuracies over seeds on the test images" in text
    assert "classes" not in text
    drawn = tmp_path / "out" / "differences.svg"
    assert "<svg" in drawn.read_text(encoding="utf-8")
    # These records lack the accuracy of the best epoch.
    outcome = shipbench("diff", a, b, "--select", "oracle", "--output", tmp_path / "out")
    assert (outcome.code, "next:" in outcome.err, drawn.exists()) == (0, False, False)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"backbone": "vit.augreg"}, "vit.augreg"),
        ({"backbone_sha256": "c" * 64, "seed": 1}, "weights cccccccc"),
        ({"recipe": "published", "seed": 1}, "published recipe"),
        ({"image_size": 384}, "384 px"),
        ({"data_fingerprint": "e" * 64}, "data eeeeeeee"),
        ({"settings": {}}, "lr none"),
        ({"kind": "imported", "origin": "NOAH", "backbone": ""}, "records from NOAH"),
    ],
)
def test_runs_of_another_identity_are_never_averaged(
    other: dict[str, Any], words: str, shipbench: Shipbench, tmp_path: Path
) -> None:
    for folder, correct in (("a", 300), ("b", 260)):
        write_run(tmp_path / folder, f"{folder}0", correct)
        write_run(tmp_path / folder, f"{folder}1", correct - 100, **other)
    tasks = compared(shipbench, tmp_path / "a", tmp_path / "b")["tasks"]
    assert sorted((task["a"], len(task["seeds"]), words in task["label"]) for task in tasks) == [
        (50.0, 1, True),
        (75.0, 1, False),
    ]


def test_suites_are_never_averaged(shipbench: Shipbench, tmp_path: Path) -> None:
    a, b = two_folders(tmp_path, 300, 260)
    for folder, correct in ((a, 200), (b, 240)):
        write_run(folder, "digits", correct, task="digits", suite="demo", backbone="demo", image_size=70)
    methods = compared(shipbench, a, b)["methods"]
    assert sorted(method["interval"]["mean"] for method in methods) == [-10, 10]
    assert not any("px" in method["label"] for method in methods)


def evaluate(root: Path, run_id: str, parent: str, correct: int, **changes: Any) -> None:
    write_run(root, run_id, correct, kind="evaluated", parent_run=parent, **changes)


def test_evaluations_are_paired_in_corruption_and_severity(shipbench: Shipbench, tmp_path: Path) -> None:
    a, b = two_folders(tmp_path, 300, 300)
    for seed in (0, 1):
        for folder, strong in ((a, 240), (b, 160)):
            blur: dict[str, Any] = {"seed": seed, "corruption": "blur"}
            evaluate(folder, f"{folder.name}{seed}weak", f"{folder.name}{seed}", 280, severity=1, **blur)
            evaluate(folder, f"{folder.name}{seed}strong", f"{folder.name}{seed}", strong, severity=3, **blur)
    sides = [f"{folder}@kind=evaluated,corruption=blur" for folder in (a, b)]
    expected = [("SHIP, blur, severity 1", "unchanged"), ("SHIP, blur, severity 3", "worse")]
    tasks = compared(shipbench, *sides)["tasks"]
    assert [(task["label"], task["verdict"]) for task in tasks] == expected
    assert {(task["test"], *task["seeds"]) for task in tasks} == {("images", 0, 1)}
    assert shipbench("diff", *sides, "--fail-on", "regression").code == 1
    tasks = compared(shipbench, a, b)["tasks"]
    assert [(task["label"], task["verdict"]) for task in tasks] == [("SHIP", "unchanged"), *expected]


def test_evaluations_on_the_same_images_are_paired_by_what_their_runs_were_trained_on(
    shipbench: Shipbench, tmp_path: Path
) -> None:
    photos: dict[str, Any] = {"task": "photos", "source": "folder", "data_fingerprint": "p" * 64}
    for folder in ("a", "b"):
        for task, correct in (("dtd", 300), ("svhn", 200)):
            write_run(tmp_path / folder, folder + task, 390, task=task, data_fingerprint=task)
            evaluate(tmp_path / folder, f"{folder}{task}photos", folder + task, correct, **photos)
    tasks = compared(shipbench, f"{tmp_path / 'a'}@kind=evaluated", f"{tmp_path / 'b'}@kind=evaluated")["tasks"]
    assert [(task["label"], task["task"], task["a"]) for task in tasks] == [
        ("SHIP, evaluated, trained on DTD", "photos", 75),
        ("SHIP, evaluated, trained on SVHN", "photos", 50),
    ]


def test_one_kind_on_both_sides_compares_settings_too(shipbench: Shipbench, tmp_path: Path) -> None:
    write_run(tmp_path, "slow", 300)
    write_run(tmp_path, "fast", 200, settings={"lr": 0.01})
    side = f"{tmp_path}@kind=trained"
    assert sorted(pair["run_b"] for pair in compared(shipbench, side, side)["pairs"]) == ["fast", "slow"]


def test_evaluations_of_weights_before_a_repetition_are_left_out(shipbench: Shipbench, tmp_path: Path) -> None:
    for folder, hour in (("a", "11"), ("b", "13")):
        write_run(tmp_path / folder, folder, 300, created=f"2025-03-02T{hour}:00:00+00:00")
        evaluate(
            tmp_path / folder, f"{folder}-blur", folder, 200, corruption="blur", created="2025-03-02T12:00:00+00:00"
        )
    content = compared(shipbench, tmp_path / "a", tmp_path / "b")
    assert [pair["run_b"] for pair in content["pairs"]] == ["b"]
    assert ([run["run_id"] for run in content["only_a"]], content["only_b"]) == (["a-blur"], [])


def test_two_metrics_are_neither_compared_nor_averaged(shipbench: Shipbench, tmp_path: Path) -> None:
    by_class = {"headline_metric": MEAN_PER_CLASS, "final_test_mean_class_acc": 0.5, "num_classes": 4}
    a, b = two_folders(tmp_path, 300, 260)
    write_run(a, "a2", 300, seed=2)
    write_run(b, "b2", 260, seed=2, **by_class)
    content = compared(shipbench, a, b)
    assert [pair["seed"] for pair in content["pairs"]] == [0, 1]
    for folder in (a, b):
        write_run(folder, f"{folder.name}3", 100, seed=3, **by_class)
    tasks = compared(shipbench, a, b)["tasks"]
    assert [(task["label"], task["a"], task["seeds"]) for task in tasks] == [
        ("SHIP, mean per class", 50, [3]),
        ("SHIP, over images", 75, [0, 1]),
    ]


@pytest.mark.parametrize(
    ("of_b", "message"),
    [
        ({"data_fingerprint": "e" * 64}, "no finished run of A has a partner in B; whatever a selection does not name"),
        ({"final_test_acc": float("nan")}, "1 pair of finished runs, but none has accuracies under the rule final"),
    ],
)
def test_a_gate_that_compares_nothing_does_not_pass(
    of_b: dict[str, Any], message: str, shipbench: Shipbench, tmp_path: Path
) -> None:
    write_run(tmp_path / "a", "a0", 300)
    write_run(tmp_path / "b", "b0", None, **{"final_test_acc": 0.75, **of_b})
    line = ("diff", tmp_path / "a", tmp_path / "b", "--output", tmp_path / "out")
    for options in ((), ("--json",)):
        outcome = shipbench(*line, "--fail-on", "regression", *options)
        assert (outcome.code, outcome.out) == (2, "")
        assert f"--fail-on regression compares nothing: {message}" in outcome.err
    assert not (tmp_path / "out").exists()
    outcome = shipbench(*line)
    assert outcome.code == 0
    assert message in outcome.err


def test_publications_are_paired_each_with_itself(shipbench: Shipbench, tmp_path: Path) -> None:
    foreign: dict[str, Any] = {"kind": "imported", "origin": "csv", "backbone": "", "image_size": 0, "settings": {}}
    for name, year in (("a", 2022), ("b", 2024)):
        write_run(tmp_path, name, None, **foreign, reference=f"arXiv {year}")
    write_run(tmp_path, "own", 300)
    pairs = compared(shipbench, tmp_path, tmp_path)["pairs"]
    assert {pair["label"] for pair in pairs if pair["run_a"] == pair["run_b"] != "own"} == {
        "SHIP, records from csv, arXiv 2022",
        "SHIP, records from csv, arXiv 2024",
    }
    outcome = shipbench("diff", f"{tmp_path}@kind=trained", f"{tmp_path}@kind=imported")
    assert (outcome.code, "they differ in reference: name one of these" in outcome.err) == (2, True)
    (pair,) = compared(shipbench, f"{tmp_path}@kind=trained", f"{tmp_path}@kind=imported,reference=arXiv 2024")["pairs"]
    assert (pair["run_a"], pair["run_b"]) == ("own", "b")


def test_numbers_that_a_record_lacks_tell_no_runs_apart(shipbench: Shipbench, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for name in ("x", "y"):
        row = {"run_id": name, "status": "done", "method": "ship", "task": "dtd", "final_test_acc": 0.5}
        pd.DataFrame([row]).to_parquet(tmp_path / "runs" / f"{name}.parquet")
    outcome = shipbench("diff", tmp_path, tmp_path)
    assert "they differ in run_id: name one of these, as in DIR@run_id=VALUE" in outcome.err


def tuned(root: Path, run_id: str, created: str, **changes: Any) -> None:
    write_run(root, run_id, 300, overrides=f"lr={changes['settings']['lr']}", **changes)
    tuning = {"format": FORMAT, "tuning_id": run_id, "created": created, "final_runs": [run_id]}
    write_tuning(root, {**tuning, "winner_settings": changes["settings"]})


def test_validation_counts_tuned_runs_alone(shipbench: Shipbench, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        tuned(tmp_path / folder, f"{folder}-last", "2025-02-01", settings={"lr": 0.1})
        tuned(tmp_path / folder, f"{folder}-first", "2025-01-01", settings={"lr": 0.01})
        write_run(tmp_path / folder, f"{folder}-plain", 200)
    sides = (tmp_path / "a", tmp_path / "b")
    content = compared(shipbench, *sides, "--select", "validation")
    assert [pair["run_a"] for pair in content["pairs"]] == ["a-last"]
    assert content["unscored"] == 2
    assert len(compared(shipbench, *sides)["pairs"]) == 3
    superseded = [f"{folder}@lr=0.01" for folder in sides]
    outcome = shipbench("diff", *superseded, "--select", "validation")
    assert "1 pair of finished runs, but none has accuracies under the rule validation" in outcome.err


def test_two_checkpoints_under_one_name_can_be_told_apart(shipbench: Shipbench, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for folder in (a, b):
        for checkpoint, letter in (("mae.pth", "c"), ("dino.pth", "d")):
            write_run(folder, folder.name + letter, 300, checkpoint=checkpoint, backbone_sha256=64 * letter)
    outcome = shipbench("diff", a, b)
    assert outcome.code == 2
    assert "they differ in checkpoint and backbone_sha256" in outcome.err
    assert "DIR@checkpoint=VALUE" in outcome.err
    pairs = compared(shipbench, f"{a}@checkpoint=mae.pth", f"{b}@backbone_sha256=cccc")["pairs"]
    assert [(pair["run_a"], pair["run_b"]) for pair in pairs] == [("ac", "bc")]


@pytest.mark.parametrize("sides", ["ab", "ba"])
def test_a_run_that_failed_before_its_preparation_has_a_partner(
    sides: str, shipbench: Shipbench, tmp_path: Path
) -> None:
    large: dict[str, Any] = {"settings": {**SIZED, "image_size": 384}, "image_size": 384, "overrides": "image_size=384"}
    for folder in ("a", "b"):
        write_run(tmp_path / folder, f"{folder}-large", 300, **large)
    unknown: dict[str, Any] = {"settings": {**SIZED, "image_size": None, "mean": None, "std": None}, "image_size": 0}
    write_run(tmp_path / "a", "a-finished", 300, settings=SIZED)
    write_run(
        tmp_path / "b", "b-failed", None, **unknown, status="failed", error="no memory", final_test_acc=float("nan")
    )
    one, other = (tmp_path / side for side in sides)
    content = compared(shipbench, one, other)
    assert (content["only_a"], content["only_b"]) == ([], [])
    failed = [run["run_id"] for run in content["failed_in_b"]]
    assert failed == (["b-failed"] if sides == "ab" else [])
    assert shipbench("diff", one, other, "--fail-on", "regression").code == len(failed)


def test_a_side_of_early_failures_alone_has_partners(shipbench: Shipbench, tmp_path: Path) -> None:
    write_run(tmp_path / "a", "a-finished", 300, settings=SIZED)
    unknown: dict[str, Any] = {"settings": {**SIZED, "image_size": None, "mean": None, "std": None}, "image_size": 0}
    write_run(tmp_path / "b", "b-failed", None, **unknown, status="failed", final_test_acc=float("nan"))
    content = compared(shipbench, tmp_path / "a", tmp_path / "b")
    assert [run["run_id"] for run in content["failed_in_b"]] == ["b-failed"]
    assert shipbench("diff", tmp_path / "a", tmp_path / "b", "--fail-on", "regression").code == 1


def test_two_image_sizes_are_paired(shipbench: Shipbench, tmp_path: Path) -> None:
    write_run(tmp_path, "small", 300, settings=SIZED)
    write_run(tmp_path, "large", 300, settings={**SIZED, "image_size": 384}, image_size=384)
    (pair,) = compared(shipbench, f"{tmp_path}@image_size=224", f"{tmp_path}@image_size=384")["pairs"]
    assert (pair["run_a"], pair["run_b"], pair["label"]) == ("small", "large", "SHIP, 224 px → SHIP, 384 px")
