"""``shipbench diff``: which runs are paired, and which are named instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from shipbench.record import MEAN_PER_CLASS
from shipbench.results.tunings import FORMAT, write_tuning
from tests.cli.builders import compared, two_folders, write_run
from tests.conftest import Shipbench

SIZED = {"lr": 0.001, "image_size": 224, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


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
        (0.5, 1, True),
        (0.75, 1, False),
    ]


def test_suites_are_never_averaged(shipbench: Shipbench, tmp_path: Path) -> None:
    a, b = two_folders(tmp_path, 300, 260)
    for folder, correct in ((a, 200), (b, 240)):
        write_run(folder, "digits", correct, task="digits", suite="demo", backbone="demo", image_size=70)
    methods = compared(shipbench, a, b)["methods"]
    assert sorted(method["interval"]["mean"] for method in methods) == [-0.1, 0.1]
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
        ("SHIP, evaluated, trained on DTD", "photos", 0.75),
        ("SHIP, evaluated, trained on SVHN", "photos", 0.5),
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
        ("SHIP, mean per class", 0.5, [3]),
        ("SHIP, over images", 0.75, [0, 1]),
    ]


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


OWN: dict[str, Any] = {"task": "bugs", "suite": "insects", "source": "folder", "draw": "train 8, test 2"}
SQUASHED = {**OWN, "resize": "squash", "augment": "none"}


@pytest.mark.parametrize("other", [{"resize": "crop"}, {"augment": "flip-crop"}, {"draw": "train 4, test 2"}])
def test_runs_on_images_with_another_treatment_are_not_paired(
    other: dict[str, Any], shipbench: Shipbench, tmp_path: Path
) -> None:
    write_run(tmp_path / "a", "a0", 300, **SQUASHED)
    write_run(tmp_path / "b", "b0", 300, **{**SQUASHED, **other})
    content = compared(shipbench, tmp_path / "a", tmp_path / "b")
    assert [len(content[name]) for name in ("pairs", "only_a", "only_b")] == [0, 1, 1]
    write_run(tmp_path / "a", "a1", 200, **{**SQUASHED, **other})
    write_run(tmp_path / "b", "b1", 200, **SQUASHED)
    tasks = compared(shipbench, tmp_path / "a", tmp_path / "b")["tasks"]
    (words,) = other.values()
    assert sorted((task["a"], task["b"], words in task["label"]) for task in tasks) == [
        (0.5, 0.75, True),
        (0.75, 0.5, False),
    ]


def test_a_selection_compares_by_the_treatment_of_the_images(shipbench: Shipbench, tmp_path: Path) -> None:
    write_run(tmp_path, "squashed", 300, **SQUASHED)
    write_run(tmp_path, "cropped", 200, **{**SQUASHED, "resize": "crop"})
    (pair,) = compared(shipbench, f"{tmp_path}@resize=squash", f"{tmp_path}@resize=crop")["pairs"]
    assert pair["label"] == "SHIP, resize squash → SHIP, resize crop"
    outcome = shipbench("diff", f"{tmp_path}@resize=squash", tmp_path)
    assert (outcome.code, "they differ in resize: name one of these, as in DIR@resize=VALUE" in outcome.err) == (
        2,
        True,
    )


def test_numbers_of_shots_are_compared_although_their_draws_differ(shipbench: Shipbench, tmp_path: Path) -> None:
    for shots in (4, 8):
        draw = f"train {2 * shots}, val 8 of train, test 2"
        write_run(tmp_path, f"s{shots}", 300, **{**SQUASHED, "shots": shots, "draw": draw})
    (pair,) = compared(shipbench, f"{tmp_path}@shots=4", f"{tmp_path}@shots=8")["pairs"]
    assert pair["label"] == "SHIP, 4 shots → SHIP, 8 shots"
    outcome = shipbench("diff", f"{tmp_path}@shots=4", tmp_path)
    assert (outcome.code, "they differ in shots: name one of these" in outcome.err) == (2, True)


@pytest.mark.parametrize(("column", "draws"), [("n_train", ("4", "8")), ("n_test", ("2", "3"))])
def test_numbers_of_images_are_compared_although_they_are_drawn(
    column: str, draws: tuple[str, str], shipbench: Shipbench, tmp_path: Path
) -> None:
    for number in draws:
        drawn: dict[str, Any] = {"draw": f"{column} {number}", column: int(number)}
        write_run(tmp_path, f"r{number}", 300, **{**SQUASHED, **drawn})
    sides = (f"{tmp_path}@{column}={number}" for number in draws)
    (pair,) = compared(shipbench, *sides)["pairs"]
    assert pair["label"] == f"SHIP, {column} {draws[0]} → SHIP, {column} {draws[1]}"


def test_runs_of_other_tasks_split_no_mean_of_evaluations(shipbench: Shipbench, tmp_path: Path) -> None:
    bees = {**SQUASHED, "task": "bees", "resize": "crop"}
    for folder in ("a", "b"):
        for number, (parent, images) in enumerate(((SQUASHED, SQUASHED), (bees, bees), (bees, SQUASHED))):
            treated = {**images, "resize": parent["resize"]}
            write_run(tmp_path / folder, f"{folder}{number}", 390, **parent, seed=number)
            evaluate(tmp_path / folder, f"{folder}{number}on", f"{folder}{number}", 300, **treated)
    tasks = compared(shipbench, *(f"{tmp_path / folder}@kind=evaluated" for folder in ("a", "b")))["tasks"]
    assert sorted((task["label"], task["task"]) for task in tasks) == [
        ("SHIP, evaluated", "bees"),
        ("SHIP, evaluated", "bugs"),
        ("SHIP, evaluated, trained on bees", "bugs"),
    ]


def test_a_treatment_that_is_not_recorded_agrees_with_the_only_one_that_is(
    shipbench: Shipbench, tmp_path: Path
) -> None:
    for seed in (0, 1):
        write_run(tmp_path / "a", f"a{seed}", 300, seed=seed, **(OWN if seed else SQUASHED))
        write_run(tmp_path / "b", f"b{seed}", 260, seed=seed, **SQUASHED)
        write_run(tmp_path / "c", f"c{seed}", 260, seed=seed, **OWN)
    for other in ("b", "c"):
        (task,) = compared(shipbench, tmp_path / "a", tmp_path / other)["tasks"]
        assert (task["label"], task["seeds"]) == ("SHIP", [0, 1])


def test_a_catalogued_task_has_one_treatment(shipbench: Shipbench, tmp_path: Path) -> None:
    a, b = two_folders(tmp_path, 300, 260)
    write_run(a, "a2", 300, seed=2, resize="squash", augment="none")
    write_run(b, "b2", 260, seed=2)
    (task,) = compared(shipbench, a, b)["tasks"]
    assert (task["label"], task["seeds"]) == ("SHIP", [0, 1, 2])
