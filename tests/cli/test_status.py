"""``shipbench status``: tables, JSON, and a watch that ends with Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shipbench.engine.executors import slurm_queue
from shipbench.results.plans import write_plan
from tests.cli.builders import as_terminal, make_record, results_folder
from tests.conftest import Shipbench
from tests.results.test_claims import claim_file
from tests.results.test_folder_status import checkpoint, entry
from tests.results.test_foreign_records import accuracy_99, rewrite


def folder(root: Path) -> Path:
    results_folder(root, [make_record("d1"), make_record("f1", status="failed", error="out of memory\nmore")])
    write_plan(root, "dask", [entry("a1"), entry("t1", "linear"), entry("t2", "linear", "svhn")])
    claim_file(root)
    return root


def test_the_tables(shipbench: Shipbench, tmp_path: Path) -> None:
    outcome = shipbench("status", "--results", folder(tmp_path))
    assert outcome.code == 0
    assert outcome.out.startswith("1 done, 1 under way, 1 failed, 2 to do\n")
    for text in ("ship on dtd, seed 0", f"process {os.getpid()}", "dask", "out of memory", "2 x linear", "dtd, svhn"):
        assert text in outcome.out
    assert "more" not in outcome.out
    assert "--watch" in outcome.err


def test_what_is_left_of_a_run_under_way_and_of_an_interrupted_one(
    shipbench: Shipbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHIPBENCH_CHECKPOINT_SECONDS", "0")
    path = checkpoint(folder(tmp_path), "a1", 3, 1003, seconds=60.0)
    os.utime(path, (2**31, 2**31))
    checkpoint(tmp_path, "t1", 4, 10)
    out = shipbench("status", "--results", tmp_path).out
    (row,) = (line for line in out.splitlines() if line.startswith("│ a1"))
    assert [cell.strip() for cell in row.split("│")[3:6]] == ["3/1003", "60 s/epoch", "16 h 40 min"]
    assert "linear on dtd, seed 0: interrupted after epoch 4/10" in out
    # The other one is still counted.
    assert "1 x linear" in out


def test_long_lists_of_failures_end_with_their_number(shipbench: Shipbench, tmp_path: Path) -> None:
    failures = (make_record(f"f{i:02}", seed=i, status="failed", error="lost") for i in range(23))
    outcome = shipbench("status", "--results", results_folder(tmp_path, failures))
    assert "│ f19 " in outcome.out
    assert "│ f20 " not in outcome.out
    assert "│ 3 more" in outcome.out
    assert "the errors in full" in outcome.err


def test_unsealed_records_are_named(shipbench: Shipbench, tmp_path: Path) -> None:
    results_folder(tmp_path, [make_record(f"d{i}", git_commit="abc") for i in (1, 2)])
    assert "unsealed" not in shipbench("status", "--results", tmp_path).out
    rewrite(tmp_path / "runs" / "d2.parquet", accuracy_99)
    outcome = shipbench("status", "--results", tmp_path)
    assert outcome.out.startswith("2 done, 0 under way, 0 failed, 0 to do\n")
    assert [line.split("│")[1].strip() for line in outcome.out.splitlines() if "ship on dtd" in line] == ["d2"]
    assert "unsealed" in outcome.out
    content = json.loads(shipbench("status", "--results", tmp_path, "--json").out)
    assert content["runs_unsealed"] == [{"run_id": "d2", "title": "ship on dtd, seed 0"}]


def test_the_next_command_follows_runs_to_their_end(shipbench: Shipbench, tmp_path: Path) -> None:
    results_folder(tmp_path, [make_record("d1")])
    assert "next: shipbench report" in shipbench("status", "--results", tmp_path).err
    write_plan(tmp_path, "local", [entry("a1")])
    claim_file(tmp_path)
    outcome = shipbench("status", "--results", tmp_path)
    assert outcome.out.startswith("1 done, 1 under way, 0 failed, 0 to do\n")
    assert "next: shipbench status --watch" in outcome.err


def test_json(shipbench: Shipbench, tmp_path: Path) -> None:
    content = json.loads(shipbench("status", "--results", folder(tmp_path), "--json").out)
    assert [content[name] for name in ("done", "under_way", "failed", "to_do")] == [1, 1, 1, 2]
    assert content["runs_under_way"][0]["engine"] == "dask"
    assert [run["run_id"] for run in content["runs_failed"]] == ["f1"]
    assert {run["run_id"] for run in content["runs_to_do"]} == {"t1", "t2"}


def test_the_engine_of_a_job_says_what_the_queue_says(
    shipbench: Shipbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = {"7_1": "running", "7_2": "pending: Resources"}
    monkeypatch.setattr(slurm_queue, "states", lambda jobs: {job: queue[job] for job in jobs})
    monkeypatch.setattr(slurm_queue, "in_reach", lambda: True)
    root = folder(tmp_path)
    slurm_queue.remember_jobs(root / "slurm", {"a1": "7_1", "t1": "7_2"})
    content = json.loads(shipbench("status", "--results", root, "--json").out)
    assert content["runs_under_way"][0]["engine"] == "slurm 7_1, running"
    engines = {run["run_id"]: run["engine"] for run in content["runs_to_do"]}
    assert engines == {"t1": "slurm 7_2, pending: Resources", "t2": "dask"}


def test_a_narrow_terminal(shipbench: Shipbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_terminal(monkeypatch, 50)
    monkeypatch.setenv("NO_COLOR", "1")
    lines = shipbench("status", "--results", folder(tmp_path)).out.splitlines()
    assert max(len(line) for line in lines) <= 50
    assert "a1" in "\n".join(lines)


def test_watching_ends_with_an_interrupt(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "shipbench", "status", "--watch", "--results", str(folder(tmp_path))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "1 done, 1 under way, 1 failed, 2 to do\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")


def test_watching_ends_with_the_exit_code_of_a_signal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "shipbench", "status", "--watch", "--results", str(folder(tmp_path))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143


def test_wrong_use(shipbench: Shipbench, tmp_path: Path) -> None:
    assert shipbench("status", "--results", tmp_path / "absent").code == 2
    assert "cannot be combined" in shipbench("status", "--results", folder(tmp_path), "--watch", "--json").err
