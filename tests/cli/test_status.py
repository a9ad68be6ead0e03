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
from tests.results.test_progress import entry


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


def test_json(shipbench: Shipbench, tmp_path: Path) -> None:
    content = json.loads(shipbench("status", "--results", folder(tmp_path), "--json").out)
    assert [content[name] for name in ("done", "under_way", "failed", "to_do")] == [1, 1, 1, 2]
    assert content["runs_under_way"][0]["engine"] == "dask"
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


def test_wrong_use(shipbench: Shipbench, tmp_path: Path) -> None:
    assert shipbench("status", "--results", tmp_path / "absent").code == 2
    assert "exclude each other" in shipbench("status", "--results", folder(tmp_path), "--watch", "--json").err
