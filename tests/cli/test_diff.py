"""``shipbench diff``: pairing, tests, selections, files and the exit code."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shipbench.record import MEAN_PER_CLASS, RunRecord
from shipbench.results.store import RunTables, Store
from shipbench.tasks.catalogue import VTAB
from tests.cli.builders import make_record
from tests.conftest import Outcome

Shipbench = Callable[..., Outcome]
IMAGES = 400


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
    assert (task["test"], task["verdict"]) == ("images", "not beyond chance")
    assert shipbench("diff", tmp_path / "a", tmp_path / "b", "--fail-on", "regression").code == 0


def test_without_predictions_seeds_decide(shipbench: Shipbench, tmp_path: Path) -> None:
    for seed, drop in enumerate((0.050, 0.051, 0.049)):
        write_run(tmp_path / "a", f"a{seed}", None, seed=seed, final_test_acc=0.7)
        write_run(tmp_path / "b", f"b{seed}", None, seed=seed, final_test_acc=0.7 - drop)
    (task,) = compared(shipbench, tmp_path / "a", tmp_path / "b")["tasks"]
    assert (task["test"], task["verdict"]) == ("seeds", "worse")


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
    assert "−10.0" in (tmp_path / "out" / "tasks.md").read_text(encoding="utf-8")  # noqa: RUF001
    assert "<svg" in (tmp_path / "out" / "differences.svg").read_text(encoding="utf-8")
