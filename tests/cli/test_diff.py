"""``shipbench diff``: tests, verdicts, files and the exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from shipbench.record import MEAN_PER_CLASS
from shipbench.results.store import RunTables, Store
from shipbench.tasks.catalogue import VTAB
from tests.cli.builders import compared, make_record, two_folders, write_run
from tests.conftest import Shipbench


def test_a_regression_beyond_chance(shipbench: Shipbench, tmp_path: Path) -> None:
    a, b = two_folders(tmp_path, 300, 260)
    outcome = shipbench("diff", a, b, "--fail-on", "regression")
    assert outcome.code == 1
    assert "worse: SHIP on dtd" in outcome.err
    (task,) = compared(shipbench, a, b)["tasks"]
    assert (task["a"], task["b"], task["difference"]) == (0.75, 0.65, -0.1)
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
    assert task["difference"] == pytest.approx(-0.0125)
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


def test_p_values_are_corrected_for_all_tasks(shipbench: Shipbench, tmp_path: Path) -> None:
    for folder, correct in (("a", 300), ("b", 294)):
        for task in ("dtd", "svhn"):
            write_run(tmp_path / folder, folder + task, correct, task=task)
    content = compared(shipbench, tmp_path / "a", tmp_path / "b")
    # Six images lost and none won: 2 / 2^6, which is below 0.05 for a single task alone.
    assert [(task["p_value"], task["adjusted"]) for task in content["tasks"]] == [pytest.approx((0.03125, 0.0625))] * 2
    assert ({task["verdict"] for task in content["tasks"]}, content["regression"]) == ({"not beyond chance"}, False)
    (alone,) = compared(shipbench, f"{tmp_path / 'a'}@task=dtd", f"{tmp_path / 'b'}@task=dtd")["tasks"]
    assert (alone["adjusted"], alone["verdict"]) == (pytest.approx(0.03125), "worse")


def write_two_methods(sides: tuple[Path, Path], task: str, drop: float) -> None:
    """Store a run of two methods on each side, which lose ``drop`` in the second."""
    for folder, accuracy in zip(sides, (0.6, 0.6 - drop), strict=True):
        for method in ("ship", "linear"):
            changes = {"task": task, "method": method, "final_test_acc": accuracy}
            write_run(folder, f"{folder.name}-{method}-{task}", None, **changes)


def test_methods_are_tested_from_as_many_tasks_on_as_reach_the_level(shipbench: Shipbench, tmp_path: Path) -> None:
    sides = tmp_path / "a", tmp_path / "b"
    for i, task in enumerate(VTAB.tasks[:6]):
        write_two_methods(sides, task.name, 0.01 + 0.001 * i)
    # Two tests over six tasks, 2 / 2^6 each, could never reach the 5 % level.
    methods = compared(shipbench, *sides)["methods"]
    assert [(m["p_value"], m["verdict"]) for m in methods] == [(None, "no test")] * 2
    outcome = shipbench("diff", *sides, "--output", tmp_path / "out")
    note = "No Wilcoxon test over 6 tasks: with Holm's correction for 2 methods, it could not reach the 5 % level."
    assert note in outcome.err
    assert note in (tmp_path / "out" / "methods.md").read_text(encoding="utf-8")
    write_two_methods(sides, VTAB.tasks[6].name, 0.02)
    methods = compared(shipbench, *sides)["methods"]
    assert [(m["p_value"], m["adjusted"], m["verdict"]) for m in methods] == [(1 / 64, 2 / 64, "worse")] * 2


def test_predictions_after_the_last_epoch_test_no_other_epoch(shipbench: Shipbench, tmp_path: Path) -> None:
    for folder, correct, best in (("a", 300, 0.8), ("b", 200, 0.79)):
        write_run(tmp_path / folder, folder, correct, best_test_acc=best)
    (task,) = compared(shipbench, tmp_path / "a", tmp_path / "b", "--select", "oracle")["tasks"]
    assert (task["difference"], task["test"], task["verdict"]) == (pytest.approx(-0.01), "", "no test")


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


def test_files(shipbench: Shipbench, tmp_path: Path) -> None:
    a, b = two_folders(tmp_path, 300, 260)
    shipbench("diff", a, b, "--output", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "diff.json").read_text())["tasks"][0]["difference"] == -0.1
    text = (tmp_path / "out" / "tasks.md").read_text(encoding="utf-8")
    assert "−10.0" in text  # noqa: RUF001
    assert "Tests are exact sign-flip tests of the mean accuracies over seeds on the test images" in text
    assert "classes" not in text
    drawn = tmp_path / "out" / "differences.svg"
    assert "<svg" in drawn.read_text(encoding="utf-8")
    # These records lack the accuracy of the best epoch.
    outcome = shipbench("diff", a, b, "--select", "oracle", "--output", tmp_path / "out")
    assert (outcome.code, "next:" in outcome.err, drawn.exists()) == (0, False, False)


def test_records_without_a_seal_are_named(shipbench: Shipbench, tmp_path: Path) -> None:
    a, b = two_folders(tmp_path, 300, 260)
    assert compared(shipbench, a, b)["warnings"] == []
    for folder in (a, b):
        write_run(folder, f"{folder.name}7", 300, task="svhn", data_fingerprint=folder.name)
        for path in (folder / "runs").glob("*.parquet"):
            pd.read_parquet(path).assign(git_commit="abc").to_parquet(path, index=False)
    line = ("diff", a, b, "--output", tmp_path / "out")
    content = json.loads(shipbench(*line, "--json").out)
    assert [row["label"] for row in (*content["tasks"], *content["methods"])] == ["SHIP, unsealed records"] * 2
    assert content["regressions"] == ["SHIP, unsealed records on dtd"]
    assert [run["label"] for run in (*content["only_a"], *content["only_b"])] == ["SHIP, unsealed records"] * 2
    words = "Unsealed records: 2 runs (SHIP) have lost the seal of shipbench"
    assert [warning[: 3 + len(words)] for warning in content["warnings"]] == [f"A: {words}", f"B: {words}"]
    for name in ("tasks.md", "methods.md"):
        assert f"A: {words}" in (tmp_path / "out" / name).read_text(encoding="utf-8")
    outcome = shipbench(*line)
    assert "SHIP, unsealed records" in outcome.out
    assert f"B: {words}" in outcome.err
    write_run(a, "a1", 300, seed=1)
    labels = {pair["seed"]: pair["label"] for pair in compared(shipbench, a, b)["pairs"]}
    assert labels == {0: "SHIP, unsealed records", 1: "SHIP → SHIP, unsealed records"}


@pytest.mark.parametrize(
    ("of_b", "message"),
    [
        ({"data_fingerprint": "e" * 64}, "no finished run of A has a partner in B; whatever a selection does not name"),
        (
            {"final_test_acc": float("nan")},
            "1 pair of finished runs, but none has accuracies under the rule final; runs of a tuning have none",
        ),
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
