"""``shipbench import``: records are written once, and everything that was read is listed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from shipbench.results.loading import load_results
from tests.conftest import Shipbench
from tests.results.foreign.trees import osu_result, vpt_log, write


def folder(root: Path) -> Path:
    osu_result(root / "osu", "dtd", "lora", 60.0, 61.0)
    osu_result(root / "osu", "svhn", "lora", 80.0, 82.5)
    write(root / "osu/tune_output/default_vtab/processed_vtab/kitti/lora/tune_summary.csv", "param_set,val_top1\n")
    return root / "osu"


def test_a_folder_is_imported_once(shipbench: Shipbench, tmp_path: Path) -> None:
    first = shipbench("import", "osu", folder(tmp_path), "--results", tmp_path / "r")
    assert first.code == 0
    assert re.search(r"80\.00 .* 82\.50 ", first.out)
    assert "val200" in first.out
    assert "2 imported, 0 already imported, 1 skipped" in first.err
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "r" / "runs").iterdir()}
    second = shipbench("import", "osu", tmp_path / "osu", "--results", tmp_path / "r")
    assert "0 imported, 2 already imported, 1 skipped" in second.err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "r" / "runs").iterdir()} == files
    rows = load_results(tmp_path / "r")
    assert set(rows["origin"]) == {"osu"}
    assert set(rows["kind"]) == {"imported"}
    assert rows["origin_file_sha256"].str.len().eq(64).all()


def test_a_dry_run_writes_nothing(shipbench: Shipbench, tmp_path: Path) -> None:
    outcome = shipbench("import", "osu", folder(tmp_path), "--results", tmp_path / "r", "--dry-run", "--json")
    content = json.loads(outcome.out)
    assert (content["imported"], content["skipped"]) == (2, 1)
    assert content["results"][0]["final_test_acc"] == 0.6
    assert not (tmp_path / "r").exists()


def test_a_changed_file_does_not_count_twice(shipbench: Shipbench, tmp_path: Path) -> None:
    path = tmp_path / "paper.csv"
    write(path, "method,task,accuracy\nA,dtd,50\n")
    first = shipbench("import", "csv", path, "--results", tmp_path / "r")
    assert "50.00 %, epoch rule not stated" in " ".join(first.out.split())
    write(path, "method,task,accuracy\nA,dtd,50\nA,svhn,60\n")
    outcome = shipbench("import", "csv", path, "--results", tmp_path / "r", "--json")
    assert [row["state"] for row in json.loads(outcome.out)["results"]] == ["skipped", "imported"]
    assert len(load_results(tmp_path / "r")) == 2


def test_files_of_one_name_in_two_folders_are_two_files(
    shipbench: Shipbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for paper, accuracy in (("a", 50), ("b", 60)):
        write(tmp_path / paper / "results.csv", f"method,task,accuracy\nA,dtd,{accuracy}\n")
        monkeypatch.chdir(tmp_path / paper)
        assert "1 imported" in shipbench("import", "csv", "results.csv", "--results", tmp_path / "r").err
    # Under another name of the same file, too.
    write(tmp_path / "b" / "results.csv", "method,task,accuracy\nA,dtd,60\nA,svhn,70\n")
    outcome = shipbench("import", "csv", tmp_path / "b" / "results.csv", "--results", tmp_path / "r")
    assert "1 imported, 0 already imported, 1 skipped" in outcome.err
    assert len(load_results(tmp_path / "r")) == 3


def test_a_single_file_without_a_result_is_an_error(shipbench: Shipbench, tmp_path: Path) -> None:
    path = write(tmp_path / "logs.txt", vpt_log([50], epochs=2))
    outcome = shipbench("import", "vpt", path, "--results", tmp_path / "r")
    assert outcome.code == 2
    assert "incomplete: 1 of 2 epochs" in outcome.err


def test_a_method_and_a_task_are_named_where_a_file_states_neither(shipbench: Shipbench, tmp_path: Path) -> None:
    path = write(tmp_path / "summary.csv", "epoch,train_loss,eval_top1\n0,1,50\n1,1,48.25\n")
    line = ("import", "timm", path, "--method", "SSF", "--task", "cifar", "--results", tmp_path / "r")
    planned = shipbench(*line, "--dry-run")
    assert planned.err.splitlines()[-1] == "next: the same command without --dry-run"
    outcome = shipbench(*line)
    assert outcome.code == 0, outcome.err
    (row,) = ([cell.strip() for cell in text.split("│")] for text in outcome.out.splitlines() if "summary.csv" in text)
    assert [cell.lower() for cell in row[1:8]] == ["imported", "ssf", "cifar100", "", "48.25", "50.00", "summary.csv"]
    assert outcome.err.splitlines()[-1].startswith(f"next: shipbench report --results {tmp_path / 'r'}")
    outcome = shipbench("list", "runs", "--results", tmp_path / "r", "--json")
    (stored,) = json.loads(outcome.out)
    assert (stored["method"].lower(), stored["task"]) == ("ssf", "cifar100")


def test_unknown_formats_and_units(shipbench: Shipbench, tmp_path: Path) -> None:
    assert "did you mean 'noah'" in shipbench("import", "noha", tmp_path).err
    assert "--unit: unknown unit" in shipbench("import", "csv", tmp_path, "--unit", "percents").err
    outcome = shipbench("import", "osu", folder(tmp_path), "--unit", "fraction", "--results", tmp_path / "r")
    assert outcome.code == 2
    assert "states accuracies as percent" in outcome.err
